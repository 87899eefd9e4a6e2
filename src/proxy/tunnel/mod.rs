//! The tunnel: plaintext on loopback to one member, byte for byte, with TLS where the cluster wants it.
//!
//! It serves where etcd's grpc-proxy cannot: client certificates with a common name, and passwords. It has no cache, so
//! no answer is stale. It uses one thread: more were not faster.

mod copy;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::admin::Subject as _;
use super::backend::{self, Backend};
use super::detect::Detection;
use super::limit::Limit;
use super::listener::{Client, Listener, Lobby, SPARE, listen, listen_tcp};
use super::members::{Counters, Member, Members};
use super::metrics::Metrics;
use super::names::Names;
use super::native::gateway::{self, Head, with_token};
use super::native::{self, Native};
use super::preflight::Tried;
use super::{admin, listener, reach};
use crate::net::{Dialer, Protocol, Resolver, Stream};
use crate::os::log::Throttle;
use crate::os::process::hide_memory;
use crate::settings::{ListenAddr, Run, Settings};

/// The time to try members until one can be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How often to check whether a member is up.
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Threads that may block: they read certificates.
const BLOCKING_THREADS: usize = 4;

/// Why the tunnel cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Listen(#[from] listener::Error),
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
    native: Option<Native>,
}

/// What all connections share.
struct Shared {
    addr: ListenAddr,
    members: Arc<Members>,
    dialer: Arc<Dialer>,
    limit: Limit,
    /// Connections that have not sent enough to tell what they are.
    lobby: Lobby,
    /// Clients of the cluster now.
    clients: Arc<AtomicUsize>,
    /// What carries calls; `None` when connections are forwarded byte for byte.
    engine: Option<native::Handle>,
    has_namespace: bool,
    /// Calls without a token get one.
    logs_in: bool,
    metrics: Metrics,
    warnings: Warnings,
}

/// One for each kind of warning, so that none hides another.
#[derive(Default)]
struct Warnings {
    accept: Throttle,
    limit: Throttle,
    tls: Throttle,
}

impl Tunnel {
    /// Starts a tunnel in a thread of its own. The log already says what is wrong with the members in `tried`.
    ///
    /// # Errors
    /// When it cannot listen, or the certificates cannot be used.
    pub(crate) fn start(settings: &Settings, tried: &[Tried]) -> Result<Self, Error> {
        let Settings { endpoints, discovery_srv, tls, listen_addr, metrics_addr, .. } = settings.clone();
        let limit = Limit::of_this_process(settings.memory);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(256 * 1024)
            .build()?;
        let in_runtime = runtime.enter();
        let listeners = listen(&listen_addr)?;
        let all = listener::describe(&listeners);
        let metrics_listeners = metrics_addr.as_ref().map(listen_tcp).transpose()?.unwrap_or_default();
        let engine = matches!(settings.run, Run::Native { .. }).then(|| Native::start(settings)).transpose()?;
        let shared = Arc::new(Shared {
            addr: listen_addr.clone(),
            members: Arc::new(Members::new(tried)),
            dialer: Arc::new(Dialer::new(settings).map_err(Error::Tls)?),
            limit,
            lobby: Lobby::default(),
            clients: Arc::default(),
            has_namespace: settings.namespace.is_some(),
            logs_in: settings.login.is_some(),
            engine: engine.as_ref().map(|(native, _)| native.handle.clone()),
            metrics: Metrics::default(),
            warnings: Warnings::default(),
        });
        let (native, notices) = engine.unzip();
        let (stop, mut stopped) = watch::channel(false);
        let (tunnel, settings) = (Arc::clone(&shared), settings.clone());
        drop(in_runtime);
        let thread = thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(Arc::clone(&tunnel).accept(listener));
                }
                for listener in metrics_listeners {
                    tokio::spawn(admin::serve_port(Listener::Tcp(listener), Arc::clone(&tunnel)));
                }
                let (members, dialer) = (Arc::clone(&tunnel.members), Arc::clone(&tunnel.dialer));
                let names = Arc::new(Names { members, dialer, resolver: Resolver::default() });
                if let (Some(engine), Some(notices)) = (&tunnel.engine, notices) {
                    let (members, dialer) = (Arc::clone(&tunnel.members), Arc::clone(&tunnel.dialer));
                    tokio::spawn(native::steer(members, dialer, engine.clone(), notices, settings));
                }
                tokio::spawn(names.follow(endpoints, discovery_srv, tls.is_configured()));
                let _ = stopped.changed().await;
            });
            runtime.shutdown_background();
        })?;
        hide_memory();
        let what = if native.is_some() { "the proxy" } else { "the tunnel" };
        log::info!("{what} (pid {}) listens on {listen_addr}{all}", std::process::id());
        Ok(Self { shared, stop, thread: Some(thread), native })
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

    fn drain(&mut self) {
        if let Some(native) = &self.native {
            native.handle.drain();
        }
    }

    fn reload(&mut self) -> bool {
        self.shared.dialer.reload();
        true
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.native.take());
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts one as long as it lives.
struct Counted<C: Deref<Target = AtomicUsize>>(C);

impl<C: Deref<Target = AtomicUsize>> Counted<C> {
    fn one(counter: C) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl<C: Deref<Target = AtomicUsize>> Drop for Counted<C> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: Listener) {
        let serve = |client| {
            let shared = Arc::clone(&self);
            tokio::spawn(async move { shared.serve(client).await });
        };
        listener.accept(&self.warnings.accept, serve).await;
    }

    async fn serve(&self, mut client: Client) {
        let Some((protocol, bytes)) = self.receive(&mut client).await else { return };
        let before = self.clients.load(Ordering::Relaxed);
        let counted = Counted::one(Arc::clone(&self.clients));
        if before >= self.limit.clients {
            self.metrics.over_limit.fetch_add(1, Ordering::Relaxed);
            self.warnings.limit.warn(format_args!("a connection is refused: the tunnel serves {}", self.limit));
            return;
        }
        if let (Protocol::Http2, Some(engine)) = (protocol, &self.engine) {
            return engine.serve(client, bytes, Box::new(counted));
        }
        if let (Protocol::Http1, Some(engine)) = (protocol, &self.engine) {
            if self.has_namespace {
                let why = "etcd's JSON gateway would reach beyond the namespace: use gRPC\n";
                return admin::refuse(client, "403 Forbidden", why).await;
            }
            if self.logs_in {
                let _ = Box::pin(self.serve_logged_in(client, bytes, engine)).await;
                return;
            }
        }
        // Boxed, so that its 2.7 kB are free again while the connection lives.
        let connected = timeout(CONNECT_TIMEOUT, Box::pin(self.connect(protocol))).await;
        if let Ok(Some((member, stream))) = connected {
            relay(client, &bytes, &member, stream).await;
        }
    }

    /// Finds out what a connection is, and answers it unless it is for the cluster.
    async fn receive(&self, client: &mut Client) -> Option<(Protocol, Vec<u8>)> {
        let clients = self.clients.load(Ordering::Relaxed);
        let (mut guest, evicted) = self.lobby.enter(self.limit.clients.saturating_sub(clients) + SPARE);
        self.count_evicted(evicted);
        let work = async {
            let detected = timeout(admin::DETECTION_TIMEOUT, admin::detect(client)).await;
            let (detection, bytes) = detected.ok()??;
            match detection {
                Detection::Http2 => return Some((Protocol::Http2, bytes)),
                Detection::Http1 => return Some((Protocol::Http1, bytes)),
                Detection::Own(page) => admin::answer(client, page, admin::is_head(&bytes), self).await,
                Detection::Tls => {
                    self.metrics.tls.fetch_add(1, Ordering::Relaxed);
                    let addr = &self.addr;
                    let text = format_args!("a client spoke TLS to {addr}, which is plain text: use http://");
                    self.warnings.tls.warn(text);
                }
                Detection::Garbage | Detection::NeedMore => {
                    self.metrics.garbage.fetch_add(1, Ordering::Relaxed);
                }
            }
            None
        };
        guest.stay(work).await?
    }

    /// Forwards a request of HTTP/1.1 with our token, if it brings none. If the member refuses an old token, the request is
    /// sent again with a new one.
    async fn serve_logged_in(&self, mut client: Client, mut bytes: Vec<u8>, engine: &native::Handle) -> Option<()> {
        let mut refused: Option<String> = None;
        loop {
            let token = timeout(CONNECT_TIMEOUT, engine.token(refused.as_deref())).await.ok()??;
            let (request, can_repeat) = loop {
                match with_token(&bytes, &token) {
                    _ if token.is_empty() => break (bytes.clone(), false),
                    Head::Changed { bytes, is_complete } => break (bytes, is_complete && refused.is_none()),
                    Head::Unchanged => break (bytes.clone(), false),
                    Head::Incomplete if client.read_buf(&mut bytes).await.ok()? == 0 => return None,
                    Head::Incomplete => {}
                }
            };
            let (member, mut stream) = timeout(CONNECT_TIMEOUT, self.connect(Protocol::Http1)).await.ok()??;
            if !can_repeat {
                relay(client, &request, &member, stream).await;
                return None;
            }
            stream.write_all(&request).await.ok()?;
            stream.flush().await.ok()?;
            let (mut cut, mut answer) = (member.cut(), Vec::new());
            while answer.len() < gateway::STATUS_LINE {
                tokio::select! {
                    read = stream.read_buf(&mut answer) => if read.ok()? == 0 { break },
                    _ = cut.changed() => return None,
                }
            }
            if gateway::refuses_token(&answer) {
                refused = Some(token);
                continue;
            }
            client.write_all(&answer).await.ok()?;
            relay(client, b"", &member, stream).await;
            return None;
        }
    }

    /// Connects to the first member, in their order, that can be reached.
    async fn connect(&self, protocol: Protocol) -> Option<(Arc<Member>, Box<dyn Stream>)> {
        self.dialer.refresh().await;
        let mut changed = self.members.changed();
        // No name has been resolved yet.
        while self.members.list().is_empty() {
            changed.changed().await.ok()?;
        }
        let reached = reach::first_of(self.members.order(), protocol, &self.members, &self.dialer).await;
        reached.map(|(member, connected)| (member, connected.into_stream()))
    }
}

impl admin::Subject for Shared {
    fn health(&self) -> Result<String, String> {
        // With an alarm, reads work, so the application must not be ended for it.
        let alarm = |alarm: String| format!("alarm {alarm}");
        self.members.health().map(|()| self.members.alarms().into_iter().map(alarm).collect::<Vec<_>>().join(", "))
    }

    async fn metrics(&self) -> String {
        self.metrics.render(&self.members, self.clients.load(Ordering::Relaxed))
    }

    fn count_evicted(&self, count: u64) {
        self.metrics.evicted.fetch_add(count, Ordering::Relaxed);
    }
}

/// Forwards a connection until either side ends it, or it is cut in favour of another member.
async fn relay(client: Client, first: &[u8], member: &Member, mut stream: Box<dyn Stream>) {
    let mut cut = member.cut();
    let _counted = Counted::one(&member.open);
    let counters = &member.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    if stream.write_all(first).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    counters.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
    // The halves of a socket need no lock.
    let both = async {
        match client {
            Client::Tcp(mut client) => forward(client.split(), stream, counters).await,
            Client::Unix(mut client) => forward(client.split(), stream, counters).await,
        }
    };
    tokio::select! {
        // An error here reaches both ends as a closed connection.
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// Forwards in both directions, until both have ended or one has failed, or one has ended and the other is silent.
async fn forward(
    (mut from_client, mut to_client): (impl copy::Source, impl AsyncWrite + Unpin),
    stream: Box<dyn Stream>,
    counters: &Counters,
) -> io::Result<()> {
    let (mut from_member, mut to_member) = tokio::io::split(stream);
    let (client, member) = ((&mut from_client, &mut to_client), (&mut from_member, &mut to_member));
    copy::copy_both(client, member, [&counters.sent, &counters.received]).await
}
