//! Connections: to members, with TLS where the endpoint asks for it, and to proxies on this host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error as TlsError};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::deadline::Deadline;
use super::error::{DialError, Step};
use super::probe::MemberConnection;
use super::reload::ReloadingTls;
use super::resolve::Target;
use super::stream::Stream;
use super::tls::{self, Certificate, Ends};
use crate::os::log::without_errno;
use crate::settings::{ListenAddr, Scheme, Settings, Tls};

/// How long one of several addresses is tried alone (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// A client that vanishes silently is noticed after 10 s + 3 times 3 s.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);

/// A connection to a member ends when data gets no answer from the member's host for this long. Without data, the host
/// is asked for one after [`MEMBER_KEEPALIVE`].
const MEMBER_SILENCE: Duration = Duration::from_secs(5);
const MEMBER_KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));

/// How long to wait for a TLS server's SETTINGS before we send anything.
const SETTINGS_TIMEOUT: Duration = Duration::from_millis(100);

/// The protocol to agree on in the TLS handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A new connection to a member.
pub(crate) enum Connected {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Connected {
    /// When the member's certificate ends, in seconds since 1970; `None` without TLS.
    pub(crate) fn certificate_end(&self) -> Option<i64> {
        let Self::Tls(stream) = self else { return None };
        tls::end_of(stream.get_ref().1.peer_certificates()?.first()?)
    }

    /// The member's certificate; `None` without TLS.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        let Self::Tls(stream) = self else { return None };
        Certificate::of(stream.get_ref().1.peer_certificates()?.first()?)
    }

    /// For whoever need not know what is below it.
    pub(crate) fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Tls(stream) => stream,
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

/// Connects to members.
pub(crate) struct Dialer {
    settings: Tls,
    /// `None` when no endpoint uses TLS.
    tls: Option<Arc<ReloadingTls>>,
    /// The proxy's own address, which is no member's.
    own: ListenAddr,
}

impl Dialer {
    /// For the members that the settings name, as the mode that they choose asks them.
    ///
    /// # Errors
    /// When the certificates cannot be used: the setting and the problem, in words.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let Settings { tls, listen_addr: own, .. } = settings;
        // The system's authorities are read only where TLS may be spoken.
        let needs_tls = settings.endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https)
            || settings.discovery_srv.is_some();
        let reloading = needs_tls.then(|| ReloadingTls::new(tls)).transpose()?.map(Arc::new);
        Ok(Self { settings: tls.clone(), tls: reloading, own: own.clone() })
    }

    /// Connects and probes. Returns the connection, if it can be used again, and whether the member serves.
    pub(crate) async fn probe(
        &self,
        target: &Target,
        deadline: Deadline,
    ) -> (Option<MemberConnection>, Result<(), DialError>) {
        let connected = async {
            let connected = self.connect_as(target, Protocol::Http2, deadline).await?;
            self.first_probe(connected, target, deadline).await
        };
        // If the answer makes no sense, an attempt with TLS instead of without, or without instead of with, often
        // shows why.
        let scheme = target.endpoint.scheme;
        match (connected.await, scheme) {
            (Ok((connection, probed)), _) => (Some(connection), probed),
            (Err(DialError::NotHttp2 | DialError::Closed), Scheme::Http) if self.speaks_tls(target, deadline).await => {
                (None, Err(DialError::OnlyTls))
            }
            (Err(DialError::NotTls | DialError::Tls(_) | DialError::Closed), Scheme::Https)
                if self.speaks_plain(target, deadline).await =>
            {
                (None, Err(DialError::NotTls))
            }
            (Err(err), _) => (None, Err(err)),
        }
    }

    /// Reads certificate files that have changed, so that the next connection uses them.
    pub(crate) async fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh().await;
        }
    }

    /// Reads the certificates again, even if their files look unchanged. Does not wait for that.
    pub(crate) fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// When our own certificates end; `None` without TLS.
    pub(crate) fn certificate_ends(&self) -> Option<Ends> {
        self.tls.as_ref().map(|tls| tls.current().ends)
    }

    /// How many times certificates have been read.
    pub(crate) fn generation(&self) -> u32 {
        self.tls.as_ref().map_or(0, |tls| tls.current().generation)
    }

    /// Connects; over TLS, completes the handshake.
    pub(crate) async fn connect_as(
        &self,
        target: &Target,
        protocol: Protocol,
        deadline: Deadline,
    ) -> Result<Connected, DialError> {
        let endpoint = &target.endpoint;
        let Some((host, _)) = endpoint.host_port() else {
            let connected = deadline.step(Step::Connect, UnixStream::connect(endpoint.socket_path())).await?;
            return Ok(Connected::Unix(connected.map_err(|err| DialError::from_io(&err))?));
        };
        let stream = self.connect_tcp(target, deadline).await?;
        let Some(tls) = self.tls.as_ref().filter(|_| endpoint.scheme == Scheme::Https) else {
            return Ok(Connected::Tcp(stream));
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
        Ok(Connected::Tls(Box::new(stream)))
    }

    /// The name that the certificate of this host must have.
    fn server_name<'a>(&'a self, host: &'a str) -> &'a str {
        self.settings.server_name.as_deref().unwrap_or(host)
    }

    async fn connect_tcp(&self, target: &Target, deadline: Deadline) -> Result<TcpStream, DialError> {
        let addr = target.addr.ok_or_else(|| DialError::Unresolved("no address is known".to_owned()))?;
        if self.own.is_reached_at(addr) {
            return Err(DialError::OwnAddress);
        }
        let stream = deadline.step(Step::Connect, connect(addr)).await?.map_err(|err| DialError::from_io(&err))?;
        tune_member(&stream);
        Ok(stream)
    }

    async fn first_probe(
        &self,
        connected: Connected,
        target: &Target,
        deadline: Deadline,
    ) -> Result<(MemberConnection, Result<(), DialError>), DialError> {
        let scheme = target.endpoint.scheme;
        let error = |err: io::Error| self.error(&err, scheme);
        let certificate_end = connected.certificate_end();
        let mut connection = MemberConnection::new(connected.into_stream(), scheme, target.authority());
        connection.certificate_end = certificate_end;
        let mut has_settings = false;
        // With TLS 1.3 a server judges the client's certificate only now. Data on its way to the server could make the
        // system discard that verdict.
        if scheme == Scheme::Https
            && let Ok(read) = timeout(SETTINGS_TIMEOUT, connection.read_settings()).await
        {
            read.map_err(error)?;
            has_settings = true;
        }
        connection.ask().await.map_err(error)?;
        if !has_settings {
            deadline.step(Step::Answer, connection.read_settings()).await?.map_err(error)?;
        }
        let probed = connection.answer(deadline).await.map_err(|err| match error(err) {
            DialError::NotHttp2 => DialError::NotGrpc,
            other => other,
        })?;
        match probed {
            Err(DialError::NotGrpc) => Err(DialError::NotGrpc),
            probed => Ok((connection, probed)),
        }
    }

    /// Why a handshake or the first answer failed.
    fn error(&self, err: &io::Error, scheme: Scheme) -> DialError {
        if let Some(err) = err.get_ref().and_then(|err| err.downcast_ref::<TlsError>()) {
            let authority = self.settings.ca.as_ref().map(|ca| ca.name.as_str());
            return DialError::from_tls(err, authority, self.settings.identity.is_some());
        }
        match (err.kind(), scheme) {
            (io::ErrorKind::InvalidData, _) => DialError::NotHttp2,
            (_, Scheme::Http | Scheme::Unix) => DialError::Closed,
            (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _) => {
                DialError::Closed
            }
            (_, Scheme::Https) => DialError::Tls(without_errno(err)),
        }
    }

    /// Whether it speaks HTTP/2 without TLS.
    async fn speaks_plain(&self, target: &Target, deadline: Deadline) -> bool {
        let Ok(stream) = self.connect_tcp(target, deadline).await else { return false };
        let mut connection = MemberConnection::new(Box::new(stream), Scheme::Http, target.endpoint.address());
        let ask = async {
            connection.ask().await?;
            connection.read_settings().await
        };
        matches!(deadline.step(Step::Answer, ask).await, Ok(Ok(())))
    }

    /// Whether a TLS handshake gets an answer that is TLS; the certificate does not matter.
    async fn speaks_tls(&self, target: &Target, deadline: Deadline) -> bool {
        let (Ok(config), Some((host, _))) = (tls::config_without_trust(), target.endpoint.host_port()) else {
            return false;
        };
        let Ok(stream) = self.connect_tcp(target, deadline).await else { return false };
        let Ok(handshake) = handshake(Arc::new(config), self.server_name(host), stream) else { return false };
        match deadline.step(Step::Handshake, handshake).await {
            Ok(Ok(_)) => true,
            Ok(Err(err)) => {
                !matches!(self.error(&err, Scheme::Https), DialError::NotTls | DialError::Tls(_) | DialError::Closed)
            }
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

/// Tries the addresses in turn: the next one when an attempt fails or takes long (RFC 8305). The first connection wins.
pub(super) async fn race(addrs: &[SocketAddr]) -> io::Result<TcpStream> {
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
    Ok(stream)
}

fn tune_member(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&MEMBER_KEEPALIVE);
    let _ = socket.set_tcp_user_timeout(Some(MEMBER_SILENCE));
}

/// Sends small messages to a client at once, and notices a client that vanishes. Best effort.
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
