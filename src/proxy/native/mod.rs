//! The native mode: calls, not bytes. Many clients share one connection to one member.
//!
//! It serves where etcd's grpc-proxy cannot. It has no cache, so no answer is stale.
//!
//! - [`front`]: where clients arrive
//! - [`engine`]: carries the calls, in a thread of its own; [`handle`]: the way to it
//! - [`pilot`]: chooses the member, in the event loop that also probes; [`login`]: gets tokens
//! - [`relay`]: clients that speak HTTP/1.1, byte for byte
//! - [`stats`]: what is counted; [`metrics`]: the page that shows it; [`report`]: the state for people;
//!   [`pages`]: who answers with them

mod counted;
mod engine;
mod front;
mod handle;
mod identity;
mod lease;
mod login;
mod metrics;
mod pages;
mod pilot;
mod relay;
mod report;
mod stats;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backend::{self, Backend};
use super::limit::Limit;
use super::listener::{Listener, Lobby, listen, listen_tcp};
use super::members::Members;
use super::names::Names;
use super::preflight::Tried;
use super::status::{Facts, History};
use super::{admin, listener};
use crate::api::namespace::Namespace;
use crate::net::{Dialer, Resolver};
use crate::os::process::hide_memory;
use crate::settings::{ListenAddr, Settings};
use engine::Rules;
use front::{Front, Warnings};
use handle::Running;
use relay::Relay;
use stats::{BOUNDS, Stats};

/// How often to check whether a member is up.
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// A client that has not answered by then leaves all the same, and one that has come since hears of the drain too.
const DRAIN_AGAIN: Duration = Duration::from_secs(1);

/// Threads that may block: they read certificates.
const BLOCKING_THREADS: usize = 4;

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Listen(#[from] listener::Error),
    /// The setting and the problem.
    #[error("{0}")]
    Tls(String),
    #[error("the proxy cannot run")]
    Io(#[from] io::Error),
}

/// A running proxy. Dropping it ends it, with all its connections.
pub(crate) struct Native {
    front: Arc<Front>,
    dialer: Arc<Dialer>,
    engine: Option<Running>,
    /// When the clients were last told to leave.
    drained: Option<Instant>,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Native {
    /// Starts it in threads of its own. The log already says what is wrong with the members in `tried`.
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
        let members = Arc::new(Members::new(tried));
        let dialer = Arc::new(Dialer::new(settings).map_err(Error::Tls)?);
        let stats = Arc::new(Stats::default());
        let (engine, notices) = Running::start(rules(settings), settings.login.is_some(), Arc::clone(&stats))?;
        let relay = Relay {
            members: Arc::clone(&members),
            prefer: settings.prefer,
            dialer: Arc::clone(&dialer),
            has_namespace: settings.namespace.is_some(),
            tokens: settings.login.is_some().then(|| engine.handle.clone()),
        };
        let front = Arc::new(Front {
            facts: Facts::of(settings),
            addr: listen_addr.clone(),
            members: Arc::clone(&members),
            limit,
            lobby: Lobby::default(),
            clients: Arc::default(),
            engine: engine.handle.clone(),
            relay,
            stats,
            history: History::new(&BOUNDS),
            warnings: Warnings::default(),
        });
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        drop(in_runtime);
        // Before the threads have anything to say.
        log::info!("the proxy (pid {}) listens on {listen_addr}{all}", std::process::id());
        let (arrivals, dial, settings) = (Arc::clone(&front), Arc::clone(&dialer), settings.clone());
        let thread = thread::Builder::new().name("front".to_owned()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(Arc::clone(&arrivals).accept(listener));
                }
                for listener in metrics_listeners {
                    tokio::spawn(admin::serve_port(Listener::Tcp(listener), Arc::clone(&arrivals)));
                }
                let (handle, members) = (arrivals.engine.clone(), Arc::clone(&arrivals.members));
                let stats = Arc::clone(&arrivals.stats);
                tokio::spawn(report::sample(Arc::clone(&arrivals)));
                let names =
                    Names { members: Arc::clone(&members), dialer: Arc::clone(&dial), resolver: Resolver::default() };
                tokio::spawn(async move { pilot::run(members, dial, handle, notices, &settings, stats).await });
                tokio::spawn(Arc::new(names).follow(endpoints, discovery_srv, tls.is_configured()));
                let _ = stopped.changed().await;
            });
            runtime.shutdown_background();
        })?;
        hide_memory();
        Ok(Self { front, dialer, engine: Some(engine), drained: None, stop, thread: Some(thread) })
    }
}

/// What the engine changes in messages.
fn rules(settings: &Settings) -> Rules {
    Rules {
        namespace: settings.namespace.as_deref().map(Namespace::new),
        is_admin: settings.namespace_admin,
        member_url: (!settings.keeps_member_urls).then(|| client_url(&settings.listen_addr)),
    }
}

/// The proxy's own address, as a client URL of a member.
fn client_url(addr: &ListenAddr) -> String {
    match addr {
        ListenAddr::Tcp(addr) => format!("http://{addr}"),
        ListenAddr::Unix(path) => format!("unix://{}", path.display()),
    }
}

impl Backend for Native {
    fn tend(&mut self) -> Result<Duration, backend::Error> {
        if self.drained.is_some_and(|last| last.elapsed() >= DRAIN_AGAIN) {
            self.drain();
        }
        Ok(if self.is_ready() { Duration::from_mins(1) } else { READY_INTERVAL })
    }

    fn is_ready(&self) -> bool {
        self.front.members.health().is_ok()
    }

    fn clients(&self) -> Option<usize> {
        Some(self.front.clients.load(Ordering::Relaxed))
    }

    fn drain(&mut self) {
        self.drained = Some(Instant::now());
        self.front.engine.drain();
    }

    fn reload(&mut self) -> bool {
        self.dialer.reload();
        true
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        drop(self.engine.take());
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
