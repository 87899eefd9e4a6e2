//! The listening side: opens ports and sockets, accepts connections, and says how many fit.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::claim::ListenError;
use crate::net::{sockets, tune};
use crate::os::log::{Throttle, without_errno};
use crate::settings::{ListenAddr, TcpAddr};

/// This many connections always fit besides clients: those whose purpose is not known yet.
pub(super) const SPARE: usize = 32;

/// Connections to the port for metrics.
pub(super) const MAX_METRICS: usize = 32;

/// Connections that wait to be accepted. The system's own limit is 4096 too (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// The mode of a Unix socket: its user and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// The pause after a failed accept doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a port or socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    InUse(#[from] ListenError),
    #[error("cannot listen on {addr}: {cause}: choose another address")]
    Io { addr: ListenAddr, cause: io::Error },
    #[error("cannot listen on {0}: this file is not a socket: move it away, or choose another path")]
    Foreign(ListenAddr),
}

impl Error {
    fn new(addr: &ListenAddr, cause: &io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => ListenError::in_use(addr).into(),
            _ => Self::Io { addr: addr.clone(), cause: io::Error::other(without_errno(cause)) },
        }
    }
}

/// An open port or socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "dropping it removes the file")] SocketFile),
}

/// Opens the ports, one for each IP address of the name, or the socket. To be called in an event loop.
///
/// # Errors
/// When one of them is in use, or none can be opened.
pub(super) fn listen(addr: &ListenAddr) -> Result<Vec<Listener>, Error> {
    match addr {
        ListenAddr::Tcp(tcp) => {
            let ports = listen_tcp(tcp)?;
            Ok(ports.into_iter().map(Listener::Tcp).collect())
        }
        ListenAddr::Unix(path) => {
            let error = |cause: io::Error| Error::new(addr, &cause);
            remove_dead_socket(addr, path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(error)?;
            socket.bind(&SockAddr::unix(path).map_err(error)?).map_err(error)?;
            let file_to_remove = SocketFile::of(path).map_err(error)?;
            // Nobody can connect before the socket listens, so nobody sees the mode that the umask gave it.
            fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(error)?;
            let listener = open(&socket).and_then(|()| UnixListener::from_std(socket.into())).map_err(error)?;
            Ok(vec![Listener::Unix(listener, file_to_remove)])
        }
    }
}

/// The addresses in brackets, if they are several.
pub(super) fn describe(listeners: &[Listener]) -> String {
    let addr = |listener: &Listener| match listener {
        Listener::Tcp(listener) => listener.local_addr().ok().map(|addr| addr.to_string()),
        Listener::Unix(..) => None,
    };
    match listeners {
        [_] => String::new(),
        several => format!(" ({})", several.iter().filter_map(addr).collect::<Vec<_>>().join(", ")),
    }
}

/// Opens the ports, one for each IP address of the name.
pub(super) fn listen_tcp(addr: &TcpAddr) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = Vec::new();
    let mut absent = None;
    for one in addr.addrs() {
        let socket = Socket::new(Domain::for_address(one), Type::STREAM, None);
        match socket.and_then(|socket| bind(socket, one)) {
            Ok(listener) => listeners.push(listener),
            // A host may lack IPv6, and localhost has an address of each family.
            Err(err) if is_absent(&err) => absent = Some(err),
            Err(err) => return Err(Error::new(&TcpAddr::new(one.ip(), one.port()).into(), &err)),
        }
    }
    match absent {
        Some(err) if listeners.is_empty() => Err(Error::new(&addr.clone().into(), &err)),
        _ => Ok(listeners),
    }
}

fn is_absent(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::AddrNotAvailable || err.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

fn bind(socket: Socket, addr: SocketAddr) -> io::Result<TcpListener> {
    // Connections of the last listener may still be closing.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() && !addr.ip().is_unspecified() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    open(&socket)?;
    TcpListener::from_std(socket.into())
}

fn open(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)
}

/// Removes the file of a socket on which nobody listens any more. Leaves every other file alone.
fn remove_dead_socket(addr: &ListenAddr, path: &Path) -> Result<(), Error> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(Error::new(addr, &err)),
    };
    if !file.file_type().is_socket() {
        return Err(Error::Foreign(addr.clone()));
    }
    match StdUnixStream::connect(path) {
        Err(err) if sockets::is_refused(&err) => match fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(Error::new(addr, &err)),
            _ => Ok(()),
        },
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Err(Error::new(addr, &err)),
        _ => Err(ListenError::in_use(addr).into()),
    }
}

/// The file of a Unix socket. Dropping this removes the file, unless another program has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// A client's connection.
pub(super) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Accepts connections forever and passes each to `serve`.
    pub(super) async fn accept(&self, warnings: &Throttle, serve: impl Fn(Client)) {
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Client::Tcp(stream)),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Client::Unix(stream)),
            };
            match accepted {
                Ok(client) => {
                    pause = FIRST_PAUSE;
                    if let Client::Tcp(stream) = &client {
                        tune(stream);
                    }
                    serve(client);
                    // Whoever has to leave the lobby for it closes its connection first.
                    tokio::task::yield_now().await;
                }
                Err(err) => {
                    // Out of files or memory: open connections go on, and their ends give some back.
                    warnings.warn(format_args!("cannot accept a connection: {}", without_errno(&err)));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

impl Client {
    /// Whether it is a program of this host that uses loopback or the socket.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok_and(|addr| addr.ip().to_canonical().is_loopback()),
            Self::Unix(_) => true,
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A place for a limited number of connections. When it is full, the oldest makes room for a new one: whoever opens
/// connections and says nothing keeps nobody out.
#[derive(Default)]
pub(super) struct Lobby(Mutex<Guests>);

#[derive(Default)]
struct Guests {
    next: u64,
    /// By age. Dropping the sender tells the guest to leave.
    inside: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection in the lobby, until this is dropped.
pub(super) struct Guest<'a> {
    lobby: &'a Lobby,
    number: u64,
    must_leave: oneshot::Receiver<()>,
}

impl Lobby {
    /// Enters, if need be in place of the oldest. `size` is how many fit now. Also returns how many had to leave.
    pub(super) fn enter(&self, size: usize) -> (Guest<'_>, u64) {
        let (sender, must_leave) = oneshot::channel();
        let mut guests = self.guests();
        let number = guests.next;
        guests.next += 1;
        guests.inside.insert(number, sender);
        let mut left = 0;
        while guests.inside.len() > size.max(1) && guests.inside.pop_first().is_some() {
            left += 1;
        }
        (Guest { lobby: self, number, must_leave }, left)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest<'_> {
    /// The result of `work`; `None` if the guest has to leave before that.
    pub(super) async fn stay<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = &mut self.must_leave => None,
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.lobby.guests().inside.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_guest_leaves_when_the_lobby_is_full() {
        let lobby = Lobby::default();
        let (mut first, none) = lobby.enter(2);
        let (mut second, _) = lobby.enter(2);
        let (third, one) = lobby.enter(2);
        assert_eq!((none, one), (0, 1));
        let stay = |guest: &mut Guest<'_>| crate::net::block_on(guest.stay(tokio::task::yield_now())).unwrap();
        assert_eq!((stay(&mut first), stay(&mut second)), (None, Some(())));
        drop((second, third));
        let (_fourth, none) = lobby.enter(1);
        assert_eq!(none, 0, "those who have left need no room");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else_is_removed() {
        crate::net::block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("etcd.sock");
            let addr = ListenAddr::Unix(path.clone());
            let error = || listen(&addr).err().unwrap().to_string();

            fs::write(&path, "data").unwrap();
            assert!(error().ends_with("this file is not a socket: move it away, or choose another path"));
            assert_eq!(fs::read(&path).unwrap(), b"data");
            fs::remove_file(&path).unwrap();

            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let ours = listen(&addr).unwrap();
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, SOCKET_MODE);
            assert!(error().contains(" is in use by "), "{}", error());
            drop(ours);
            assert!(!path.exists());

            let ours = listen(&addr).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, "of another program").unwrap();
            drop(ours);
            assert!(path.exists());
        })
        .unwrap();
    }
}
