//! Who uses a port, from `/proc`. `None` means that `/proc` does not show it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6, unix};
use procfs::process::{FDTarget, Process, all_processes};
use socket2::{Domain, Socket, Type};

use super::etcd_health::check_listening;
use crate::settings::ListenAddr;

/// How long an attempt to connect may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The process that listens on `addr`.
pub(crate) fn listener(addr: &ListenAddr) -> Option<Listener> {
    let listening = listening(addr)?;
    let process = all_processes().ok()?.flatten().find(|process| holds(process, &listening) == Some(true))?;
    let name = process.stat().ok()?.comm;
    // The name of an etcd that runs from memory is a number.
    let exe = process.exe().ok().and_then(|exe| Some(exe.file_name()?.to_string_lossy().into_owned()));
    let is_etcd =
        name.starts_with("etcd") || exe.is_some_and(|exe| exe.trim_start_matches("memfd:").starts_with("etcd"));
    Some(Listener { pid: process.pid(), name, is_etcd })
}

/// A process that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    pub pid: i32,
    pub name: String,
    /// etcd or this program, by its name.
    pub is_etcd: bool,
}

/// The user whose process holds the abstract socket `name`.
pub(crate) fn holder_of_name(name: &str) -> Option<u32> {
    let path = format!("@{name}");
    let held = unix().ok()?.into_iter().filter(|entry| entry.path.as_deref().is_some_and(|it| it == Path::new(&path)));
    let inodes = held.map(|entry| entry.inode).collect();
    all_processes().ok()?.flatten().find(|process| holds(process, &inodes) == Some(true))?.uid().ok()
}

/// Whether the process `pid` listens on `addr`.
fn listens(pid: u32, addr: &ListenAddr) -> Option<bool> {
    holds(&Process::new(pid.try_into().ok()?).ok()?, &listening(addr)?)
}

/// Whether the process `pid` listens on `addr`; where `/proc` is hidden, whether any process does.
pub(crate) fn seems_to_listen(pid: u32, addr: &ListenAddr) -> bool {
    listens(pid, addr).unwrap_or_else(|| check_listening(addr, TIMEOUT).listening)
}

/// Whether nobody listens on `addr`.
///
/// It binds the port for a moment and does not connect: etcd logs a line for each connection that asks for nothing.
pub(crate) fn is_free(addr: &ListenAddr) -> bool {
    match addr {
        ListenAddr::Tcp(addr) => addr.addrs().all(|addr| !is_in_use(addr)),
        ListenAddr::Unix(path) => UnixStream::connect(path).is_err_and(|err| is_refused(&err)),
    }
}

/// Whether an attempt to connect to a Unix socket shows that nobody listens there.
pub(crate) fn is_refused(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_in_use(addr: SocketAddr) -> bool {
    let bound = Socket::new(Domain::for_address(addr), Type::STREAM, None).and_then(|socket| {
        // Connections of the last listener may still be closing.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())
    });
    // Whoever may not bind the port cannot take it over either.
    bound.is_err_and(|err| matches!(err.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied))
}

/// Inodes of the sockets that listen on `addr`.
fn listening(addr: &ListenAddr) -> Option<HashSet<u64>> {
    if let Some(path) = addr.socket_path() {
        let bound = unix().ok()?.into_iter().filter(|entry| entry.path.as_deref() == Some(path));
        return Some(bound.map(|entry| entry.inode).collect());
    }
    let ours = |entry: &TcpNetEntry| entry.state == TcpState::Listen && addr.accepts(entry.local_address);
    Some(all_entries()?.into_iter().filter(ours).map(|entry| entry.inode).collect())
}

fn holds(process: &Process, sockets: &HashSet<u64>) -> Option<bool> {
    Some(!sockets_of(process)?.is_disjoint(sockets))
}

/// Inodes of all sockets of a process.
fn sockets_of(process: &Process) -> Option<HashSet<u64>> {
    let inode = |target: FDTarget| if let FDTarget::Socket(inode) = target { Some(inode) } else { None };
    Some(process.fd().ok()?.flatten().filter_map(|file| inode(file.target)).collect())
}

/// The number of clients connected to the process `pid`, which listens on `addr`. Its connections to itself do not
/// count: etcd's proxy opens one, and keeps it, when it is asked for `/proxy/health`. Nor do those of this process, which
/// asks for its health.
pub(crate) fn clients(addr: &ListenAddr, pid: u32) -> Option<usize> {
    let mut own = sockets_of(&Process::new(pid.try_into().ok()?).ok()?)?;
    own.extend(sockets_of(&Process::myself().ok()?)?);
    let established: Vec<TcpNetEntry> =
        all_entries()?.into_iter().filter(|entry| entry.state == TcpState::Established).collect();
    let own_ends: HashSet<SocketAddr> = established
        .iter()
        .filter(|entry| own.contains(&entry.inode) && addr.accepts(entry.remote_address))
        .map(|entry| entry.local_address)
        .collect();
    let client = |entry: &&TcpNetEntry| addr.accepts(entry.local_address) && !own_ends.contains(&entry.remote_address);
    Some(established.iter().filter(client).count())
}

fn all_entries() -> Option<Vec<TcpNetEntry>> {
    let mut all = tcp().ok()?;
    all.extend(tcp6().unwrap_or_default());
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_and_its_clients() {
        let listener_socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener_socket.local_addr().unwrap().port();
        let addr = ListenAddr::loopback(port);
        let own = std::process::id();
        let found = listener(&addr).unwrap();
        assert_eq!((found.pid, found.is_etcd), (i32::try_from(own).unwrap(), found.name.starts_with("etcd")));
        assert_eq!((listens(own, &addr), listens(own, &ListenAddr::loopback(1))), (Some(true), Some(false)));

        let mut client = std::process::Command::new("/bin/bash")
            .args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo; read")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(clients(&addr, own), Some(1));
        let of_its_own = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(clients(&addr, own), Some(1), "a process is not its own client");
        drop((of_its_own, client.stdin.take()));
        client.wait().unwrap();
        drop([listener_socket.accept().unwrap(), listener_socket.accept().unwrap()]);
        assert_eq!(clients(&addr, own), Some(0));
        assert!(!is_free(&addr), "it listens");
        drop(listener_socket);
        assert!(listener(&addr).is_none());
        assert!(is_free(&addr));
    }

    #[test]
    fn the_listener_of_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let addr = ListenAddr::Unix(path.clone());
        assert!(is_free(&addr));
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(listener(&addr).unwrap().pid.cast_unsigned(), std::process::id());
        assert!(!is_free(&addr));
        drop(socket);
        assert!(is_free(&addr) && path.exists(), "the file alone serves nobody");
    }
}
