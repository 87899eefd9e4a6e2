//! The tunnel: plaintext on loopback to one member, byte for byte, with TLS where the cluster wants it.
//!
//! It serves where etcd's grpc-proxy cannot: client certificates with a common name, and passwords. It has no cache, so
//! no answer is stale. It uses one thread: more were not faster.

mod copy;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::admin;
use super::backend::{self, Backend};
use super::detect::Detection;
use super::listener::{Limit, accept, listen};
use super::members::{Member, Members};
use super::metrics::Metrics;
use super::names::Names;
use super::preflight::Tried;
use crate::net::{Deadline, Dialer, Protocol, Resolver, Stream, tune};
use crate::os::log::Throttle;
use crate::settings::{ListenAddr, Settings};

/// A client that sends nothing is disconnected after this time.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for one member: to resolve its name, connect, and complete the TLS handshake.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);

/// After this time, the next member is tried as well; the first connection wins.
const NEXT_MEMBER: Duration = Duration::from_millis(500);

/// The time to try members until one can be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How often to check whether a member is up.
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Threads that may block: they resolve names and read certificates.
const BLOCKING_THREADS: usize = 4;

/// Why the tunnel cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot listen on {addr}: {cause}: choose another address")]
    Listen { addr: ListenAddr, cause: io::Error },
    /// The setting and the problem.
    #[error("{0}")]
    Tls(String),
    #[error("the tunnel cannot run")]
    Io(#[from] io::Error),
}

/// A running tunnel. Dropping it ends it, with all its connections.
pub(crate) struct Tunnel {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What all connections share.
struct Shared {
    members: Arc<Members>,
    dialer: Arc<Dialer>,
    limit: Limit,
    /// Clients now, including those that have not sent anything.
    clients: AtomicUsize,
    metrics: Metrics,
    warnings: Throttle,
}

impl Tunnel {
    /// Starts a tunnel in a thread of its own. The log already says what is wrong with the members in `tried`.
    ///
    /// # Errors
    /// When it cannot listen, or the certificates cannot be used.
    pub(crate) fn start(settings: &Settings, tried: &[Tried]) -> Result<Self, Error> {
        let Settings { endpoints, discovery_srv, tls, listen_addr, metrics_addr, .. } = settings.clone();
        let limit = Limit::of_this_process();
        let ports = [(Some(&listen_addr), Port::Clients), (metrics_addr.as_ref(), Port::Metrics)];
        let bind = |addr: &ListenAddr| listen(addr).map_err(|cause| Error::Listen { addr: addr.clone(), cause });
        let listeners = ports.into_iter().filter_map(|(addr, port)| Some(bind(addr?).map(|socket| (socket, port))));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            members: Arc::new(Members::new(tried)),
            dialer: Arc::new(Dialer::new(settings).map_err(Error::Tls)?),
            limit,
            clients: AtomicUsize::new(0),
            metrics: Metrics::default(),
            warnings: Throttle::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(256 * 1024)
            .build()?;
        let (stop, mut stopped) = watch::channel(false);
        let tunnel = Arc::clone(&shared);
        let thread = thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            runtime.block_on(async {
                for (listener, port) in listeners {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => drop(tokio::spawn(Arc::clone(&tunnel).accept(listener, port))),
                        Err(err) => log::error!("cannot listen: {err}"),
                    }
                }
                let (members, dialer) = (Arc::clone(&tunnel.members), Arc::clone(&tunnel.dialer));
                let names = Arc::new(Names { members, dialer, resolver: Resolver::default() });
                tokio::spawn(names.follow(endpoints, discovery_srv, tls.is_configured()));
                let _ = stopped.changed().await;
            });
            runtime.shutdown_background();
        })?;
        log::info!("the tunnel (pid {}) listens on {listen_addr}", std::process::id());
        Ok(Self { shared, stop, thread: Some(thread) })
    }
}

impl Backend for Tunnel {
    fn tend(&mut self) -> Result<Duration, backend::Error> {
        Ok(if self.is_ready() { Duration::from_mins(1) } else { READY_INTERVAL })
    }

    fn is_ready(&self) -> bool {
        self.shared.members.health().is_ok()
    }

    fn clients(&self) -> Option<usize> {
        Some(self.shared.clients.load(Ordering::Relaxed))
    }

    fn reload(&mut self) -> bool {
        self.shared.dialer.reload();
        true
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Clients,
    /// It does not lead to the cluster, so it may be open to the collector of metrics.
    Metrics,
}

/// Counts one as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener, port: Port) {
        let serve = |client| {
            let shared = Arc::clone(&self);
            tokio::spawn(async move { shared.serve(client, port).await });
        };
        accept(listener, &self.warnings, serve).await;
    }

    async fn serve(&self, mut client: TcpStream, port: Port) {
        tune(&client);
        let over = self.clients.load(Ordering::Relaxed) >= self.limit.clients;
        let _counted = Counted::one(&self.clients);
        let detected = timeout(DETECTION_TIMEOUT, detect(&mut client)).await;
        let Ok(Some((detection, bytes))) = detected else { return };
        let protocol = match detection {
            Detection::Health => return admin::answer(client, &admin::health(&self.members)).await,
            Detection::Metrics => {
                return admin::answer(client, &admin::metrics(&self.metrics, &self.members)).await;
            }
            Detection::Http2 | Detection::Http1 if port == Port::Metrics => {
                return admin::answer(client, &admin::not_found()).await;
            }
            Detection::Http2 => Protocol::Http2,
            Detection::Http1 => Protocol::Http1,
            Detection::Garbage | Detection::NeedMore => {
                self.metrics.garbage.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        if over {
            self.metrics.over_limit.fetch_add(1, Ordering::Relaxed);
            self.warnings.warn(format_args!("a connection is refused: the tunnel serves {}", self.limit));
            return;
        }
        // Boxed, so that its 2.7 kB are free again while the connection lives.
        let connected = timeout(CONNECT_TIMEOUT, Box::pin(self.connect(protocol))).await;
        if let Ok(Some((member, stream))) = connected {
            relay(client, &bytes, &member, stream).await;
        }
    }

    /// Connects to the first member, in their order, that can be reached. The next one is tried when an attempt fails
    /// or takes long.
    async fn connect(&self, protocol: Protocol) -> Option<(Arc<Member>, Box<dyn Stream>)> {
        self.dialer.refresh().await;
        let mut changed = self.members.changed();
        let mut order = self.members.order().into_iter();
        let mut attempts = JoinSet::new();
        loop {
            match order.next() {
                Some(member) => {
                    let dialer = Arc::clone(&self.dialer);
                    attempts.spawn(async move {
                        let asked = Instant::now();
                        let connected = dialer.connect(&member.target, protocol, Deadline::after(MEMBER_TIMEOUT)).await;
                        (member, asked, connected)
                    });
                }
                // No name has been resolved yet.
                None if attempts.is_empty() && self.members.list().is_empty() => {
                    changed.changed().await.ok()?;
                    order = self.members.order().into_iter();
                    continue;
                }
                None if attempts.is_empty() => return None,
                None => {}
            }
            let wait = if order.len() == 0 { MEMBER_TIMEOUT * 2 } else { NEXT_MEMBER };
            let Ok(Some(Ok((member, asked, connected)))) = timeout(wait, attempts.join_next()).await else { continue };
            match connected {
                Ok(stream) => return Some((member, stream)),
                Err(err) => {
                    self.metrics.connect_failure(err.kind());
                    self.members.report_failed_connection(&member, asked, &err);
                }
            }
        }
    }
}

/// Forwards a connection until either side ends it, or it is cut in favour of another member.
async fn relay(mut client: TcpStream, first: &[u8], member: &Member, mut stream: Box<dyn Stream>) {
    let mut cut = member.cut();
    let _counted = Counted::one(&member.open);
    let counters = &member.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    if stream.write_all(first).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    counters.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_member, mut to_member) = tokio::io::split(stream);
    let both = async {
        tokio::try_join!(
            copy::copy(&mut from_client, &mut to_member, &counters.sent),
            copy::copy(&mut from_member, &mut to_client, &counters.received),
        )
    };
    tokio::select! {
        // An error here reaches both ends as a closed connection.
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// Reads until it is clear what the connection is; `None` when it ends before that.
async fn detect(client: &mut TcpStream) -> Option<(Detection, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        match Detection::of(&bytes) {
            Detection::NeedMore => {}
            detection => return Some((detection, bytes)),
        }
    }
}
