//! The claim to a port: one proxy serves it, a second one stands by.
//!
//! An application's manifest may declare a sidecar that the buildpack declares too. Both start at once, and on Cloud
//! Foundry the exit of either ends the instance. So the launchers agree on one by the name of an abstract socket. The
//! name lives in the same network namespace as the port, needs no file, survives exec, and disappears with its process.

use std::fmt;
use std::io;
use std::net::{SocketAddr as InetAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::net::etcd_health::{Occupant, occupant};
use crate::net::local::look_up;
use crate::net::sockets::{self, Listener};
use crate::os::sys;
use crate::settings::{ListenAddr, TcpAddr};

/// A proxy that ends while we ask it looks like another program for this long.
const PAUSE: Duration = Duration::from_millis(200);

/// A proxy listens within a few seconds after it has claimed its address. Another user's program that does not, or one
/// whose user the system does not show, is ignored after this.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(10);
const PATIENCE_WITH_UNKNOWN: Duration = Duration::from_mins(1);

/// Why the proxy cannot listen on an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "{addr} is in use by {holder}, which is not etcd's proxy: end it, or choose another address with --listen-addr or \
         ETCDPROXY_LISTEN_ADDR"
    )]
    InUse { addr: ListenAddr, holder: Holder },
    #[error(
        "{addr} is in use by {holder}, an etcd proxy: end it, or choose another address with --listen-addr or \
         ETCDPROXY_LISTEN_ADDR"
    )]
    Served { addr: ListenAddr, holder: Holder },
    #[error("{0} is not an address of this host: choose another with --listen-addr or ETCDPROXY_LISTEN_ADDR")]
    NotLocal(ListenAddr),
    /// A name, and why it has no address now.
    #[error("cannot listen on {addr}: {why}")]
    Unresolved { addr: ListenAddr, why: String },
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

/// The right to serve an address, as long as this lives: one socket for each IP address. Without a socket (not every
/// system has abstract ones) the port itself decides.
#[derive(Debug)]
pub(crate) struct Claim(Vec<UnixDatagram>);

impl Claim {
    /// Passes it on to the program that `command` executes.
    pub(crate) fn pass_on(&self, command: &mut Command) {
        for socket in &self.0 {
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
    let mut claim = Claim(Vec::new());
    for addr in each_local(addr)? {
        match hold_name(&addr) {
            Ok(socket) => claim.0.push(socket),
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => return Ok(Attempt::Served),
            Err(_) => {}
        }
        if is_served(&addr)? {
            return Ok(Attempt::Served);
        }
    }
    Ok(Attempt::Ours(claim))
}

/// Whether an etcd proxy listens there, or seems to.
///
/// # Errors
/// When another program listens there.
fn is_served(addr: &ListenAddr) -> Result<bool, ListenError> {
    for _ in 0..3 {
        match occupant(addr) {
            Occupant::Nobody => return Ok(false),
            Occupant::Proxy => return Ok(true),
            Occupant::Silent if sockets::listener(addr).is_none_or(|listener| listener.is_etcd) => return Ok(true),
            Occupant::Silent => break,
            Occupant::Other => std::thread::sleep(PAUSE),
        }
    }
    Err(ListenError::in_use(addr))
}

/// Whether [`try_claim`] may have another result than [`Attempt::Served`]. Connects to no port: the proxy there would log
/// it.
pub(crate) fn may_be_free(addr: &ListenAddr) -> bool {
    let is_held = |addr: &ListenAddr| hold_name(addr).is_err_and(|err| err.kind() == io::ErrorKind::AddrInUse);
    each_local(addr).map_or(true, |addrs| addrs.iter().all(|addr| sockets::is_free(addr) && !is_held(addr)))
}

/// Waits for an address that another proxy serves, or is about to.
pub(crate) struct StandBy<'a> {
    addr: &'a ListenAddr,
    /// Since when somebody has held the name without listening.
    unserved: Option<Instant>,
    patience: Patience,
}

impl<'a> StandBy<'a> {
    pub(crate) fn new(addr: &'a ListenAddr) -> Self {
        Self { addr, unserved: None, patience: Patience::default() }
    }

    /// Claims the address as soon as nobody serves it.
    ///
    /// # Errors
    /// As [`try_claim`].
    pub(crate) fn try_claim(&mut self) -> Result<Attempt, ListenError> {
        if may_be_free(self.addr) {
            return try_claim(self.addr);
        }
        let addrs = each_local(self.addr)?;
        if !addrs.iter().all(sockets::is_free) {
            self.unserved = None;
            return Ok(Attempt::Served);
        }
        let waited = self.unserved.get_or_insert_with(Instant::now).elapsed();
        let ask = || addrs.iter().map(patience).max().unwrap_or_default();
        if waited < PATIENCE_WITH_OTHERS || waited < self.patience.get(Instant::now(), ask) {
            return Ok(Attempt::Served);
        }
        log::warn!(
            "another user's program reserves {}, but nothing has listened there for {} s: it is ignored",
            self.addr,
            waited.as_secs()
        );
        Ok(Attempt::Ours(Claim(Vec::new())))
    }
}

/// How long to wait for whoever holds the names, and when that was found out. The answer takes a look at all processes.
#[derive(Default)]
struct Patience(Option<(Instant, Duration)>);

impl Patience {
    const INTERVAL: Duration = Duration::from_secs(10);

    fn get(&mut self, now: Instant, ask: impl FnOnce() -> Duration) -> Duration {
        match self.0 {
            Some((asked, patience)) if now.duration_since(asked) < Self::INTERVAL => patience,
            _ => self.0.insert((now, ask())).1,
        }
    }
}

/// How long to wait for whoever holds the name to listen: a proxy of this user or of root may have a reason to be late. To
/// others the name gives no right.
fn patience(addr: &ListenAddr) -> Duration {
    match sockets::holder_of_name(&name(addr)) {
        Some(uid) if uid == 0 || uid == Uid::effective().as_raw() => Duration::MAX,
        Some(_) => PATIENCE_WITH_OTHERS,
        None => PATIENCE_WITH_UNKNOWN,
    }
}

/// The addresses of this host that `addr` stands for, one by one. Those of a name that this host does not have (IPv6 may
/// be off) are left out, as long as it has one.
///
/// # Errors
/// When it has none.
fn each_local(addr: &ListenAddr) -> Result<Vec<ListenAddr>, ListenError> {
    let unresolved = |why| ListenError::Unresolved { addr: addr.clone(), why };
    let ListenAddr::Tcp(tcp) = look_up(addr).map_err(unresolved)? else { return Ok(vec![addr.clone()]) };
    let local = tcp.addrs().filter(|addr| is_local(*addr)).map(|addr| TcpAddr::new(addr.ip(), addr.port()).into());
    let local: Vec<ListenAddr> = local.collect();
    if local.is_empty() { Err(ListenError::NotLocal(addr.clone())) } else { Ok(local) }
}

/// Whether the IP address is one of this host's.
fn is_local(addr: InetAddr) -> bool {
    let bound = TcpListener::bind((addr.ip(), 0));
    // Without IPv6, the system knows no such addresses at all.
    !bound.is_err_and(|err| {
        err.kind() == io::ErrorKind::AddrNotAvailable || err.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
    })
}

fn hold_name(addr: &ListenAddr) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name(addr))?)
}

fn name(addr: &ListenAddr) -> String {
    format!("etcdproxy/{addr}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_names_is_asked_once_per_10_s() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        let mut asked = Vec::new();
        for tenths in 0..250 {
            patience.get(start + Duration::from_millis(tenths * 100), || {
                asked.push(tenths);
                Duration::MAX
            });
        }
        assert_eq!(asked, [0, 100, 200]);
    }
}
