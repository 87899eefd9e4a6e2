//! Who uses a port, from `/proc`. Where that is hidden, nothing is known.

use std::collections::HashSet;

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};

use crate::settings::ListenAddr;

/// Pid and name of the process that listens on `addr`.
pub(super) fn listener(addr: &ListenAddr) -> Option<(i32, String)> {
    let listening = listening(addr)?;
    let holder = all_processes().ok()?.flatten().find(|process| holds(process, &listening) == Some(true))?;
    Some((holder.pid(), holder.stat().ok()?.comm))
}

/// Whether it is the process `pid` that listens on `addr`.
pub(super) fn listens(pid: u32, addr: &ListenAddr) -> Option<bool> {
    holds(&Process::new(pid.try_into().ok()?).ok()?, &listening(addr)?)
}

/// Inodes of the sockets that listen on `addr`.
fn listening(addr: &ListenAddr) -> Option<HashSet<u64>> {
    let sockets = entries(addr)?.into_iter().filter(|entry| entry.state == TcpState::Listen);
    Some(sockets.map(|entry| entry.inode).collect())
}

fn holds(process: &Process, sockets: &HashSet<u64>) -> Option<bool> {
    let is_one = |target: FDTarget| matches!(target, FDTarget::Socket(inode) if sockets.contains(&inode));
    Some(process.fd().ok()?.flatten().any(|file| is_one(file.target)))
}

/// How many clients are connected to what listens on `addr`.
pub(super) fn clients(addr: &ListenAddr) -> Option<usize> {
    Some(entries(addr)?.iter().filter(|entry| entry.state == TcpState::Established).count())
}

/// The sockets at this end of `addr`.
fn entries(addr: &ListenAddr) -> Option<Vec<TcpNetEntry>> {
    let mut all = tcp().ok()?;
    all.extend(tcp6().unwrap_or_default());
    all.retain(|entry| addr.accepts(entry.local_address));
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_and_its_clients() {
        let listener_socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener_socket.local_addr().unwrap().port();
        let addr = ListenAddr::loopback(port);
        assert_eq!(listener(&addr).unwrap().0, i32::try_from(std::process::id()).unwrap());
        assert_eq!(
            (listens(std::process::id(), &addr), listens(std::process::id(), &ListenAddr::loopback(1))),
            (Some(true), Some(false))
        );
        assert_eq!(clients(&addr), Some(0));
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = listener_socket.accept().unwrap();
        assert_eq!(clients(&addr), Some(1));
        drop((client, accepted));
        assert_eq!(clients(&addr), Some(0));
        drop(listener_socket);
        assert_eq!(listener(&addr), None);
    }
}
