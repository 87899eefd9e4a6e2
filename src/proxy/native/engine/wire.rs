//! A connection of the engine: a client's, or one to a member.

use std::io::{self, Read, Write};
use std::net;
use std::os::unix::net as unix;

use etcdproxy_http2::Connection;
use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;

/// An output buffer that is larger than this is not kept for the next turn, in bytes.
const KEPT: usize = 16 * 1024;

/// A socket that does not block.
pub(in crate::proxy::native) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl From<net::TcpStream> for Socket {
    fn from(stream: net::TcpStream) -> Self {
        Self::Tcp(mio::net::TcpStream::from_std(stream))
    }
}

impl From<unix::UnixStream> for Socket {
    fn from(stream: unix::UnixStream) -> Self {
        Self::Unix(mio::net::UnixStream::from_std(stream))
    }
}

impl Socket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// This many bytes; `more` may be there already.
    Bytes { count: usize, more: bool },
    /// Nothing more now.
    Nothing,
    /// The peer has closed the connection, or it is broken.
    End,
}

/// A connection and its bytes.
pub(super) struct Wire {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    pub http2: Connection,
    /// The beginning of a frame.
    pub rest: Vec<u8>,
}

impl Wire {
    pub(super) fn new(socket: Socket, tls: Option<ClientConnection>, http2: Connection) -> Self {
        let tls = tls.map(|mut tls| {
            // HTTP/2 limits what waits.
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Self { socket, tls, http2, rest: Vec::new() }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        let _ = self.socket.source().deregister(registry);
    }

    /// Reads into `buffer`, which is at least as long as `cipher`. What is encrypted goes through `cipher`.
    pub(super) fn receive(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> Received {
        match &mut self.tls {
            None => read(&mut self.socket, buffer),
            Some(tls) => receive_tls(tls, &mut self.socket, buffer, cipher),
        }
    }

    /// Writes as much of the output as the socket takes. Returns whether it took everything.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send(&mut self) -> io::Result<bool> {
        let out = self.http2.output();
        match &mut self.tls {
            None => write_all(&mut self.socket, out)?,
            Some(tls) => send_tls(tls, &mut self.socket, out)?,
        }
        if out.is_empty() && out.capacity() > KEPT {
            *out = Vec::new();
        }
        Ok(out.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write()))
    }

    /// Says that nothing follows. The peer may still send.
    pub(super) fn shut_down(&self) {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(net::Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(net::Shutdown::Write),
        };
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        let out = self.http2.output();
        if out.is_empty() {
            *out = Vec::new();
        }
    }
}

fn read(socket: &mut Socket, buffer: &mut [u8]) -> Received {
    match retry(|| socket.read(buffer)) {
        Ok(0) => Received::End,
        // A read that does not fill the buffer has emptied the socket (epoll(7)).
        Ok(count) => Received::Bytes { count, more: count == buffer.len() },
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
        Err(_) => Received::End,
    }
}

/// One read of the socket for many records: rustls itself reads 4 kB at once.
fn receive_tls(tls: &mut ClientConnection, socket: &mut Socket, buffer: &mut [u8], cipher: &mut [u8]) -> Received {
    // The handshake may have brought some already.
    match decrypted(tls, buffer) {
        Ok(0) => {}
        Ok(count) => return Received::Bytes { count, more: true },
        Err(_) => return Received::End,
    }
    let (encrypted, more) = match read(socket, cipher) {
        Received::Bytes { count, more } => (&cipher[..count], more),
        other => return other,
    };
    let (mut left, mut count) = (encrypted, 0);
    while !left.is_empty() {
        if tls.read_tls(&mut left).is_err() || tls.process_new_packets().is_err() {
            // The alert tells the peer why.
            let _ = tls.write_tls(socket);
            return Received::End;
        }
        match decrypted(tls, &mut buffer[count..]) {
            Ok(more) => count += more,
            Err(_) if count == 0 => return Received::End,
            Err(_) => break,
        }
    }
    Received::Bytes { count, more }
}

/// Takes what TLS has decrypted; 0 when there is nothing now.
///
/// # Errors
/// At the end of the connection.
fn decrypted(tls: &mut ClientConnection, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match tls.reader().read(&mut buffer[count..]) {
            Ok(0) if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(more) => count += more,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
            Err(err) => return Err(err),
        }
    }
    Ok(count)
}

/// Writes until the socket takes no more; what was written goes out of `bytes`.
fn write_all(socket: &mut Socket, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        match bytes.get(written..) {
            None | Some([]) => break Ok(()),
            Some(left) => match retry(|| socket.write(left)) {
                Ok(count) => written += count,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(err) => break Err(err),
            },
        }
    };
    bytes.drain(..written);
    result
}

fn send_tls(tls: &mut ClientConnection, socket: &mut Socket, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        // What is encrypted already goes first, so that little waits there.
        while tls.wants_write() {
            match retry(|| tls.write_tls(socket)) {
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err),
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        tls.writer().write_all(bytes)?;
        bytes.clear();
    }
}

fn retry<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match action() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
