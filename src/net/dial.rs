//! Connections: to members, with TLS where the endpoint asks for it, and to proxies on this host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error as TlsError};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::error::{DialError, Step};
use super::http2::GrpcConnection;
use super::reload::ReloadingTls;
use super::resolve::resolve;
use super::tls;
use crate::os::log::without_errno;
use crate::settings::{Endpoint, ListenAddr, Scheme, Tls};

/// How long one of several addresses is tried alone (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// A peer that vanishes silently is noticed after 10 s + 3 times 3 s.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);

/// How long to wait for a TLS server's SETTINGS before we send anything.
const SETTINGS_TIMEOUT: Duration = Duration::from_millis(100);

/// A connection to a member.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// The protocol to agree on in the TLS handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Connects to members.
pub(crate) struct Dialer {
    settings: Tls,
    /// `None` when no endpoint uses TLS.
    tls: Option<Arc<ReloadingTls>>,
    /// The proxy's own address, which is no member's.
    own: ListenAddr,
}

/// The time limit of one attempt to use a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    timeout: Duration,
    at: Instant,
}

impl Deadline {
    /// Starts now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { timeout, at: Instant::now() + timeout }
    }

    /// Waits for `future`, which is this step of the attempt.
    ///
    /// # Errors
    /// When the time is over first.
    pub(crate) async fn step<T>(self, step: Step, future: impl Future<Output = T>) -> Result<T, DialError> {
        timeout_at(self.at, future).await.map_err(|_| DialError::TimedOut(step, self.timeout))
    }
}

impl Dialer {
    /// # Errors
    /// When the certificates cannot be used: the setting and the problem, in words.
    pub(crate) fn new(settings: &Tls, endpoints: &[Endpoint], own: &ListenAddr) -> Result<Self, String> {
        // The system's authorities are read only where TLS is spoken.
        let needs_tls = endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https);
        let tls = needs_tls.then(|| ReloadingTls::new(settings)).transpose()?.map(Arc::new);
        Ok(Self { settings: settings.clone(), tls, own: own.clone() })
    }

    /// Connects, and makes sure that the endpoint answers gRPC.
    pub(crate) async fn connect_grpc(
        &self,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<GrpcConnection<Box<dyn Stream>>, DialError> {
        let connected = async {
            let stream = self.connect(endpoint, Protocol::Http2, deadline).await?;
            self.ask_for_grpc(stream, endpoint, deadline).await
        };
        // If the answer makes no sense, an attempt with TLS instead of without, or without instead of with, often
        // shows why.
        match (connected.await, endpoint.scheme) {
            (Err(DialError::NotHttp2), Scheme::Http) if self.speaks_tls(endpoint, deadline).await => {
                Err(DialError::OnlyTls)
            }
            (Err(DialError::NotTls | DialError::Tls(_)), Scheme::Https)
                if self.speaks_plain(endpoint, deadline).await =>
            {
                Err(DialError::NotTls)
            }
            (connected, _) => connected,
        }
    }

    /// Reads certificate files that have changed, so that the next connection uses them.
    pub(crate) async fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh().await;
        }
    }

    /// Reads the certificates again, even if their files look unchanged. Blocks while it reads.
    pub(crate) fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// How many times certificates have been read.
    pub(crate) fn generation(&self) -> u32 {
        self.tls.as_ref().map_or(0, |tls| tls.current().generation)
    }

    /// Connects; over TLS, completes the handshake.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        deadline: Deadline,
    ) -> Result<Box<dyn Stream>, DialError> {
        let Some((host, _)) = endpoint.host_port() else {
            let connected = deadline.step(Step::Connect, UnixStream::connect(endpoint.socket_path())).await?;
            return Ok(Box::new(connected.map_err(|err| DialError::from_io(&err))?));
        };
        let stream = self.connect_tcp(endpoint, deadline).await?;
        let Some(tls) = self.tls.as_ref().filter(|_| endpoint.scheme == Scheme::Https) else {
            return Ok(Box::new(stream));
        };
        let config = match protocol {
            Protocol::Http1 => tls.current().http1,
            Protocol::Http2 => tls.current().http2,
        };
        let connected = deadline.step(Step::Handshake, handshake(config, self.server_name(host), stream)?).await?;
        let stream = connected.map_err(|err| self.error(&err, Scheme::Https))?;
        if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(DialError::NotHttp2);
        }
        Ok(Box::new(stream))
    }

    /// The name that the certificate of this host must have.
    fn server_name<'a>(&'a self, host: &'a str) -> &'a str {
        self.settings.server_name.as_deref().unwrap_or(host)
    }

    async fn connect_tcp(&self, endpoint: &Endpoint, deadline: Deadline) -> Result<TcpStream, DialError> {
        let Some((host, port)) = endpoint.host_port() else { return Err(DialError::Refused) };
        let addrs = deadline.step(Step::Resolve, resolve(host, port)).await??;
        if addrs.iter().any(|addr| self.own.is_reached_at(*addr)) {
            return Err(DialError::OwnAddress);
        }
        deadline.step(Step::Connect, race(&addrs)).await?.map_err(|err| DialError::from_io(&err))
    }

    async fn ask_for_grpc<S: Stream>(
        &self,
        stream: S,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<GrpcConnection<S>, DialError> {
        let error = |err: io::Error| self.error(&err, endpoint.scheme);
        let mut connection = GrpcConnection::new(stream);
        let mut has_settings = false;
        // With TLS 1.3 a server judges the client's certificate only now. Data on its way to the server could make the
        // system discard that verdict.
        if endpoint.scheme == Scheme::Https
            && let Ok(read) = timeout(SETTINGS_TIMEOUT, connection.read_settings()).await
        {
            read.map_err(error)?;
            has_settings = true;
        }
        let ask = async {
            connection.send_probe(endpoint).await.map_err(error)?;
            if !has_settings {
                connection.read_settings().await.map_err(error)?;
            }
            connection.answers_grpc().await.map_err(|err| match error(err) {
                DialError::NotHttp2 => DialError::NotGrpc,
                other => other,
            })
        };
        let is_grpc = deadline.step(Step::Answer, ask).await??;
        if is_grpc { Ok(connection) } else { Err(DialError::NotGrpc) }
    }

    /// Why a handshake or the first answer failed.
    fn error(&self, err: &io::Error, scheme: Scheme) -> DialError {
        if let Some(err) = err.get_ref().and_then(|err| err.downcast_ref::<TlsError>()) {
            let authority = self.settings.ca.as_ref().map(|ca| ca.name.as_str());
            return DialError::from_tls(err, authority, self.settings.identity.is_some());
        }
        match (err.kind(), scheme) {
            (io::ErrorKind::InvalidData, _) | (_, Scheme::Http | Scheme::Unix) => DialError::NotHttp2,
            (_, Scheme::Https) => DialError::Tls(format!("the connection is closed ({})", without_errno(err))),
        }
    }

    /// Whether it speaks HTTP/2 without TLS.
    async fn speaks_plain(&self, endpoint: &Endpoint, deadline: Deadline) -> bool {
        let Ok(stream) = self.connect_tcp(endpoint, deadline).await else { return false };
        let mut connection = GrpcConnection::new(stream);
        let ask = async {
            connection.send_probe(endpoint).await?;
            connection.read_settings().await
        };
        matches!(deadline.step(Step::Answer, ask).await, Ok(Ok(())))
    }

    /// Whether a TLS handshake gets an answer that is TLS; the certificate does not matter.
    async fn speaks_tls(&self, endpoint: &Endpoint, deadline: Deadline) -> bool {
        let (Ok(config), Some((host, _))) = (tls::config_without_trust(), endpoint.host_port()) else { return false };
        let Ok(stream) = self.connect_tcp(endpoint, deadline).await else { return false };
        let Ok(handshake) = handshake(Arc::new(config), self.server_name(host), stream) else { return false };
        match deadline.step(Step::Handshake, handshake).await {
            Ok(Ok(_)) => true,
            Ok(Err(err)) => !matches!(self.error(&err, Scheme::Https), DialError::NotTls | DialError::Tls(_)),
            Err(_) => false,
        }
    }
}

fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::Connect<TcpStream>, DialError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| DialError::Tls(format!("a certificate cannot name {host:?}")))?;
    Ok(TlsConnector::from(config).connect(name, stream))
}

/// Connects to a port of this host.
pub(super) async fn connect_local(addr: &ListenAddr) -> io::Result<TcpStream> {
    let addrs: Vec<_> = tokio::net::lookup_host(addr.target()).await?.collect();
    race(&addrs).await
}

/// Tries the addresses in turn: the next one when an attempt fails or takes long (RFC 8305). The first connection wins.
async fn race(addrs: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut addrs = addrs.iter().copied();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::other("the name has no address");
    loop {
        match addrs.next() {
            Some(addr) => drop(attempts.spawn(connect(addr))),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let wait = if addrs.len() == 0 { Duration::MAX } else { STAGGER };
        match timeout(wait, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(err)))) => failure = err,
            _ => {}
        }
    }
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    // The system may give a free port to this very connection, which then talks to itself.
    if stream.local_addr().ok() == Some(addr) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tune(&stream);
    Ok(stream)
}

/// Sends small messages at once, and notices a peer that vanishes. Best effort.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_address_costs_no_time_and_the_next_one_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addrs = [closed, closed, listener.local_addr().unwrap()];
        let connected = crate::net::block_on(race(&addrs)).unwrap().unwrap();
        assert_eq!(connected.peer_addr().unwrap(), addrs[2]);
        let err = crate::net::block_on(race(&addrs[..2])).unwrap().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused);
        assert!(crate::net::block_on(race(&[])).unwrap().is_err());
    }
}
