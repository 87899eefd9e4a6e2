//! The way to a member: names resolved anew each time, TLS where it is asked for, certificates followed when their
//! files change.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::tls as trust;
use crate::os::log::Log;
use crate::proxy::preflight::Problem;
use crate::settings::{Endpoint, Scheme, Tls};

/// For all of it: name, connection, handshake.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an address of several is tried alone (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// A peer that is gone without a word is found out after 10 s + 3 times 3 s.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);

/// A connection to a member.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// What is spoken on it, for TLS to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Why there is no connection. `kind` is for the metrics.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: &'static str,
    pub words: String,
}

impl Failure {
    fn new(kind: &'static str, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }

    fn of_io(err: &io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::ConnectionRefused => {
                Self::new("refused", "the connection is refused: nothing listens there")
            }
            _ => Self::new("unreachable", crate::os::log::words_of(err)),
        }
    }
}

/// Makes connections to members.
pub(crate) struct Upstream {
    tls: Tls,
    log: Log,
    /// `None` when no endpoint speaks TLS.
    loaded: Option<Mutex<Loaded>>,
}

/// The configuration for each protocol, and the state of the files it was made from.
struct Loaded {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    stamp: Stamp,
    readings: u32,
}

/// Of each file: when it was changed, its size, its inode.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl Upstream {
    /// # Errors
    /// When the certificates cannot be used with TLS.
    pub(crate) fn new(tls: &Tls, endpoints: &[Endpoint], log: Log) -> Result<Self, String> {
        let needed = endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https);
        let loaded = needed.then(|| load(tls)).transpose()?.map(Mutex::new);
        Ok(Self { tls: tls.clone(), log, loaded })
    }

    /// Connects to a member within [`PATIENCE`].
    pub(crate) async fn connect(&self, endpoint: &Endpoint, protocol: Protocol) -> Result<Box<dyn Stream>, Failure> {
        let silent = || Failure::new("timeout", format!("no connection within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, self.connect_patiently(endpoint, protocol)).await.map_err(|_| silent())?
    }

    async fn connect_patiently(&self, endpoint: &Endpoint, protocol: Protocol) -> Result<Box<dyn Stream>, Failure> {
        let Some((host, port)) = endpoint.host_port() else {
            let stream = UnixStream::connect(endpoint.socket_path()).await;
            return Ok(Box::new(stream.map_err(|err| Failure::of_io(&err))?));
        };
        let stream = connect_any(host, port).await?;
        let Some(config) = (endpoint.scheme == Scheme::Https).then(|| self.config(protocol)).flatten() else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::new("tls", format!("{host:?} cannot stand in a certificate")))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|err| self.failure(&err))?))
    }

    /// What is wrong with a handshake, in the preflight's words. With TLS 1.3, a member says what it thinks of the
    /// client's certificate only after it.
    pub(crate) fn failure(&self, err: &io::Error) -> Failure {
        let Some(err) = err.get_ref().and_then(|err| err.downcast_ref()) else { return Failure::of_io(err) };
        let authority = self.tls.ca.as_ref().map(|ca| ca.name.as_str());
        match Problem::of_tls(err, authority, self.tls.identity.is_some()) {
            Problem::CannotTry(why) => Failure::new("tls", why),
            problem => Failure::new("tls", problem.to_string()),
        }
    }

    fn config(&self, protocol: Protocol) -> Option<Arc<ClientConfig>> {
        let loaded = self.current()?;
        Some(Arc::clone(match protocol {
            Protocol::Http1 => &loaded.http1,
            Protocol::Http2 => &loaded.http2,
        }))
    }

    /// How often the certificates were read so far; they are, when their files have changed.
    pub(crate) fn readings(&self) -> u32 {
        self.current().map_or(0, |loaded| loaded.readings)
    }

    fn current(&self) -> Option<MutexGuard<'_, Loaded>> {
        let mut loaded = self.loaded.as_ref().map(lock)?;
        if loaded.stamp != stamp(&self.tls) {
            self.reload(&mut loaded);
        }
        Some(loaded)
    }

    /// Reads the certificates again, whether their files seem changed or not.
    pub(crate) fn reload_now(&self) {
        if let Some(loaded) = &self.loaded {
            self.reload(&mut lock(loaded));
        }
    }

    /// What cannot be used, as in the middle of a renewal, leaves things as they are.
    fn reload(&self, loaded: &mut Loaded) {
        loaded.stamp = stamp(&self.tls);
        let read = self.tls.read_again().map_err(|err| err.to_string());
        match read.and_then(|tls| load(&tls)) {
            Ok(new) => {
                *loaded = Loaded { stamp: std::mem::take(&mut loaded.stamp), readings: loaded.readings + 1, ..new };
                self.log.info("the certificates were read again: new connections use them");
            }
            Err(why) => self.log.warn(format_args!("the certificates are used as they were before: {why}")),
        }
    }
}

fn lock(loaded: &Mutex<Loaded>) -> MutexGuard<'_, Loaded> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(tls: &Tls) -> Result<Loaded, String> {
    let http2 = trust::client_config(tls)?;
    let mut http1 = http2.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { http1: Arc::new(http1), http2: Arc::new(http2), stamp: stamp(tls), readings: 1 })
}

fn stamp(tls: &Tls) -> Stamp {
    let state = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    tls.files().map(state).collect()
}

/// Tries all addresses of the host, each a little later than the one before it.
async fn connect_any(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let unresolved = |why: String| Failure::new("dns", format!("its name does not resolve ({why})"));
    let addrs = lookup_host((host, port)).await.map_err(|err| unresolved(crate::os::log::words_of(&err)))?;
    let mut tries = JoinSet::new();
    for (n, addr) in addrs.enumerate() {
        let delay = STAGGER * u32::try_from(n).unwrap_or(u32::MAX);
        tries.spawn(async move {
            tokio::time::sleep(delay).await;
            TcpStream::connect(addr).await
        });
    }
    let mut failure = unresolved("no address".to_owned());
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(err)) => failure = Failure::of_io(&err),
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Small messages go at once, and a peer that is gone is noticed. Best effort.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}
