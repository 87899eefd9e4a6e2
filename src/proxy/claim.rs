//! The claim to a port: one proxy serves it, a second one stands by.
//!
//! An application's manifest may declare a sidecar that the buildpack declares too. Both start at once, and on Cloud
//! Foundry the exit of either ends the instance. So the launchers agree on one by the name of an abstract socket. The
//! name lives in the same network namespace as the port, needs no file, survives exec, and disappears with its process.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use crate::net::etcd_health::{Occupant, occupant};
use crate::net::sockets::{self, Listener};
use crate::os::sys;
use crate::settings::ListenAddr;

/// A proxy that ends while we ask it looks like another program for this long.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the proxy cannot listen on an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "{addr} is in use by {holder}, which is not etcd's proxy: end it, or choose another address with --listen-addr"
    )]
    InUse { addr: ListenAddr, holder: Holder },
    #[error("{addr} is in use by {holder}, an etcd proxy: end it, or choose another address with --listen-addr")]
    Served { addr: ListenAddr, holder: Holder },
    #[error("{0} is not an address of this host: choose another with --listen-addr")]
    NotLocal(ListenAddr),
}

/// The program that holds the port, where the system shows it.
#[derive(Debug)]
pub(crate) struct Holder(Option<Listener>);

impl Holder {
    fn of(addr: &ListenAddr) -> Self {
        Self(sockets::listener(addr))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(Listener { pid, name, .. }) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("a program that is not visible from here"),
        }
    }
}

impl ListenError {
    pub(crate) fn in_use(addr: &ListenAddr) -> Self {
        Self::InUse { addr: addr.clone(), holder: Holder::of(addr) }
    }
}

/// The right to serve an address, as long as this lives. Without a socket (not every system has abstract ones) the port
/// itself decides.
#[derive(Debug)]
pub(crate) struct Claim(Option<UnixDatagram>);

impl Claim {
    /// Passes it on to the program that `command` executes.
    pub(crate) fn pass_on(&self, command: &mut Command) {
        if let Some(socket) = &self.0 {
            sys::keep_open(command, socket);
        }
    }
}

/// Claims `addr` for a caller that can neither stand by nor use another proxy.
///
/// # Errors
/// When something already listens on it, or it is not an address of this host.
pub(crate) fn claim(addr: &ListenAddr) -> Result<Claim, ListenError> {
    match try_claim(addr)? {
        Attempt::Ours(claim) => Ok(claim),
        Attempt::Served => Err(ListenError::Served { addr: addr.clone(), holder: Holder::of(addr) }),
    }
}

/// The result of [`try_claim`].
#[derive(Debug)]
pub(crate) enum Attempt {
    Ours(Claim),
    /// Another proxy serves the address, or is about to.
    Served,
}

/// Claims `addr` if no other proxy serves it.
///
/// # Errors
/// When another program listens on it, or it is not an address of this host.
pub(crate) fn try_claim(addr: &ListenAddr) -> Result<Attempt, ListenError> {
    if !is_local(addr) {
        return Err(ListenError::NotLocal(addr.clone()));
    }
    let claim = match hold_name(addr) {
        Ok(socket) => Claim(Some(socket)),
        Err(err) if err.kind() == io::ErrorKind::AddrInUse => return Ok(Attempt::Served),
        Err(_) => Claim(None),
    };
    for _ in 0..3 {
        match occupant(addr) {
            Occupant::Nobody => return Ok(Attempt::Ours(claim)),
            Occupant::Proxy => return Ok(Attempt::Served),
            Occupant::Silent if sockets::listener(addr).is_none_or(|listener| listener.is_etcd) => {
                return Ok(Attempt::Served);
            }
            Occupant::Silent => break,
            Occupant::Other => std::thread::sleep(PAUSE),
        }
    }
    Err(ListenError::in_use(addr))
}

/// Whether the IP address is one of this host's.
fn is_local(addr: &ListenAddr) -> bool {
    let bound = TcpListener::bind((addr.target().0, 0));
    !matches!(bound, Err(err) if err.kind() == io::ErrorKind::AddrNotAvailable)
}

fn hold_name(addr: &ListenAddr) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("etcdproxy/{addr}"))?)
}
