//! The port: one proxy serves it, a second one stands by.
//!
//! An application's manifest may declare a sidecar that the buildpack declares too. Both are started at once, and on
//! Cloud Foundry the exit of either ends the instance. So the launchers agree on one, by the name of an abstract
//! socket: it lives in the same network namespace as the port, needs no file, is held across exec, and is gone with
//! the process that holds it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::health::{self, Occupant};
use crate::settings::ListenAddr;

const PAUSE: Duration = Duration::from_millis(200);

/// The port belongs to another program.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is in use by a program that is not etcd's proxy: end that program, or choose another address with --listen-addr"
)]
pub(crate) struct Taken(ListenAddr);

/// The right to serve an address, kept until the process ends, whatever it executes meanwhile.
#[derive(Debug)]
pub(crate) struct Claim {
    _socket: Option<UnixDatagram>,
}

/// Waits until no other proxy serves `addr`; `standing_by` is told once if there is one.
///
/// # Errors
/// When something else listens there.
pub(crate) fn claim(addr: &ListenAddr, standing_by: impl FnOnce()) -> Result<Claim, Taken> {
    let mut standing_by = Some(standing_by);
    let mut stand_by = || {
        if let Some(tell) = standing_by.take() {
            tell();
        }
        std::thread::sleep(PAUSE);
    };
    let socket = loop {
        match hold_name(addr) {
            Ok(socket) => break Some(socket),
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => stand_by(),
            Err(_) => break None, // no such sockets here: the port itself decides
        }
    };
    let mut others = 0;
    loop {
        match health::occupant(addr) {
            Occupant::Nobody => return Ok(Claim { _socket: socket }),
            Occupant::Proxy => {
                others = 0;
                stand_by();
            }
            // A proxy that dies while it is asked looks the same, once.
            Occupant::Other if others < 2 => {
                others += 1;
                std::thread::sleep(PAUSE);
            }
            Occupant::Other => return Err(Taken(addr.clone())),
        }
    }
}

fn hold_name(addr: &ListenAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("etcdproxy/{addr}"))?)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?; // stays open in etcd
    Ok(socket)
}
