//! The tunnel: plaintext on loopback to one member, byte for byte, with TLS where the cluster wants it.
//!
//! It serves where etcd's grpc-proxy cannot: client certificates with a common name, passwords. It keeps no cache, so
//! nothing is stale. One thread: more were not faster.

mod copy;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::admin as answers;
use super::detect::Greeting;
use super::health_check as probe;
use super::members::{Change, Members, State};
use super::supervisor::Carrier;
use crate::net::dial::{self as upstream, Protocol, Stream, Upstream};
use crate::os::log::{Log, words_of};
use crate::settings::{Endpoint, ListenAddr, Settings};

/// A client that says nothing is not kept longer.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// For the whole way to a member, from member to member.
const CONNECT_PATIENCE: Duration = Duration::from_secs(6);

/// More than an application needs, and little enough for a small sidecar.
const MAX_CONNECTIONS: usize = 4096;

/// Files that are open besides connections.
const OTHER_FILES: u64 = 64;

/// How often it is looked whether a member is up.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// What is only worth a line now and then.
const REPEAT: Duration = Duration::from_secs(30);

/// Why there is no tunnel.
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

/// Everything that the connections share.
pub(crate) struct Tunnel {
    pub(crate) members: Members,
    pub(crate) upstream: Upstream,
    log: Log,
    /// Clients now, those that have not said anything included.
    clients: AtomicUsize,
    limit: Limit,
    pub(crate) over_limit: AtomicU64,
    pub(crate) garbage: AtomicU64,
    failures: Mutex<BTreeMap<&'static str, u64>>,
    trouble_said: Mutex<Option<Instant>>,
}

/// A running tunnel. Dropping it ends it, with all its connections.
pub(crate) struct Running {
    shared: Arc<Tunnel>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a tunnel, in a thread of its own. That the endpoints `failing` cannot be reached was said already.
///
/// # Errors
/// When it cannot listen, or the certificates cannot be used.
pub(crate) fn start(settings: &Settings, failing: &[Endpoint], log: Log) -> Result<Running, Error> {
    let limit = Limit::of_this_process();
    let addrs = [(Some(&settings.listen_addr), Port::Clients), (settings.metrics_addr.as_ref(), Port::Metrics)];
    let listeners = addrs.into_iter().filter_map(|(addr, port)| Some(listen(addr?).map(|listener| (listener, port))));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let shared = Arc::new(Tunnel {
        members: Members::new(&settings.endpoints, failing),
        upstream: Upstream::new(&settings.tls, &settings.endpoints, log).map_err(Error::Tls)?,
        log,
        clients: AtomicUsize::new(0),
        limit,
        over_limit: AtomicU64::new(0),
        garbage: AtomicU64::new(0),
        failures: Mutex::default(),
        trouble_said: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4) // they resolve names
        .thread_stack_size(256 * 1024)
        .build()?;
    let (stop, mut stopped) = watch::channel(false);
    let tunnel = Arc::clone(&shared);
    let thread = thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
        runtime.block_on(async {
            for (listener, port) in listeners {
                match TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(Arc::clone(&tunnel).accept(listener, port))),
                    Err(err) => log.error(format_args!("cannot listen: {err}")),
                }
            }
            for n in 0..tunnel.members.list.len() {
                tokio::spawn(probe::run(Arc::clone(&tunnel), n));
            }
            let _ = stopped.changed().await;
        });
        runtime.shutdown_background();
    })?;
    let addr = &settings.listen_addr;
    log.info(format_args!("the tunnel (pid {}) listens on {addr}", std::process::id()));
    Ok(Running { shared, stop, thread: Some(thread) })
}

impl Carrier for Running {
    fn tend(&mut self) -> Result<Duration, super::Error> {
        Ok(if self.is_ready() { Duration::from_mins(1) } else { READY_PAUSE })
    }

    fn is_ready(&self) -> bool {
        self.shared.members.health().is_ok()
    }

    fn clients(&self) -> Option<usize> {
        Some(self.shared.clients.load(Ordering::Relaxed))
    }

    fn reload(&mut self) -> bool {
        self.shared.upstream.reload_now();
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(addr: &ListenAddr) -> Result<StdTcpListener, Error> {
    let listener = StdTcpListener::bind(addr.to_string());
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|cause| Error::Listen { addr: addr.clone(), cause })
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Clients,
    /// Nobody reaches the cluster by it: it may be open to whoever collects metrics.
    Metrics,
}

/// How many clients are served at once.
struct Limit {
    clients: usize,
    /// `ulimit -n`, where that is what limits them.
    files: Option<u64>,
}

impl Limit {
    /// As many clients as there are files for, two to a connection. The soft limit of files is raised first.
    fn of_this_process() -> Self {
        let (mut soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let wanted = (2 * MAX_CONNECTIONS as u64 + OTHER_FILES).min(hard);
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            soft = wanted;
        }
        Self::with_files(soft)
    }

    fn with_files(files: u64) -> Self {
        let enough_for = usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(MAX_CONNECTIONS);
        let clients = enough_for.clamp(1, MAX_CONNECTIONS);
        Self { clients, files: (enough_for < MAX_CONNECTIONS).then_some(files) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients = self.clients;
        match self.files {
            Some(files) => write!(f, "at most {clients} at once, for ulimit -n is {files}: raise it, or open fewer"),
            None => write!(f, "at most {clients} at once: open fewer"),
        }
    }
}

/// Counts as long as it lives.
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

impl Tunnel {
    async fn accept(self: Arc<Self>, listener: TcpListener, port: Port) {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    let tunnel = Arc::clone(&self);
                    tokio::spawn(async move { tunnel.serve(client, port).await });
                }
                Err(err) => {
                    // Out of files or memory: what is open goes on, and gives back what is missing.
                    self.say_now_and_then(format_args!("cannot accept a connection: {}", words_of(&err)));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn serve(&self, mut client: TcpStream, port: Port) {
        upstream::tune(&client);
        let over = self.clients.load(Ordering::Relaxed) >= self.limit.clients;
        let _counted = Counted::one(&self.clients);
        let greeting = tokio::time::timeout(GREETING_PATIENCE, read_greeting(&mut client)).await;
        let Ok(Some((greeting, bytes))) = greeting else { return };
        let protocol = match greeting {
            Greeting::Health => return answer(client, &answers::health(self)).await,
            Greeting::Metrics => return answer(client, &answers::metrics(self)).await,
            Greeting::Http2 | Greeting::Http1 if port == Port::Metrics => {
                return answer(client, &answers::nothing_else()).await;
            }
            Greeting::Http2 => Protocol::Http2,
            Greeting::Http1 => Protocol::Http1,
            Greeting::Garbage | Greeting::More => {
                self.garbage.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        if over {
            self.refuse();
            return;
        }
        let connected = tokio::time::timeout(CONNECT_PATIENCE, self.connect(protocol)).await;
        if let Ok(Some((n, stream))) = connected {
            self.relay(client, &bytes, n, stream).await;
        }
    }

    /// The first member, in their order, that can be reached.
    async fn connect(&self, protocol: Protocol) -> Option<(usize, Box<dyn Stream>)> {
        for n in self.members.order() {
            let asked = Instant::now();
            match self.upstream.connect(&self.members.list[n].endpoint, protocol).await {
                Ok(stream) => return Some((n, stream)),
                Err(failure) => {
                    *self.failures().entry(failure.kind).or_default() += 1;
                    self.report(n, asked, Err(failure.words));
                }
            }
        }
        None
    }

    /// Carries a connection to its end, or to that of the member's time.
    async fn relay(&self, mut client: TcpStream, first: &[u8], n: usize, mut stream: Box<dyn Stream>) {
        let member = &self.members.list[n];
        let mut end = member.end();
        let _counted = Counted::one(&member.open);
        member.total.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(first).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        member.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
        let (mut from_client, mut to_client) = client.split();
        let (mut from_member, mut to_member) = tokio::io::split(stream);
        let both = async {
            tokio::try_join!(
                copy::copy(&mut from_client, &mut to_member, &member.sent),
                copy::copy(&mut from_member, &mut to_client, &member.received),
            )
        };
        tokio::select! {
            // An end in the middle of things is for the two at the ends to deal with.
            _ = both => {}
            _ = end.changed() => {}
        }
    }

    pub(crate) fn failures(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how a member is, and says what that changes.
    pub(crate) fn report(&self, n: usize, asked: Instant, answer: Result<(), String>) {
        for change in self.members.report(n, asked, answer) {
            match change {
                Change::CameUp(n) => {
                    self.log.info(format_args!("{} is up", self.members.list[n].endpoint));
                }
                Change::WentDown(n) => {
                    let State::Down { why, .. } = self.members.state(n) else { continue };
                    self.log.warn(format_args!("{} is down: {why}", self.members.list[n].endpoint));
                }
                Change::Left(_, 0) => {}
                Change::Left(n, connections) => self.log.warn(format_args!(
                    "{} is left: connections that are cut, for other members to take: {connections}",
                    self.members.list[n].endpoint
                )),
            }
        }
    }

    fn refuse(&self) {
        self.over_limit.fetch_add(1, Ordering::Relaxed);
        self.say_now_and_then(format_args!("a connection is refused: the tunnel carries {}", self.limit));
    }

    fn say_now_and_then(&self, words: impl Display) {
        let mut said = self.trouble_said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|when| when.elapsed() >= REPEAT) {
            *said = Some(Instant::now());
            self.log.warn(words);
        }
    }
}

/// Reads until it is clear what the connection is for.
async fn read_greeting(client: &mut TcpStream) -> Option<(Greeting, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        match Greeting::of(&bytes) {
            Greeting::More => {}
            greeting => return Some((greeting, bytes)),
        }
    }
}

async fn answer(mut client: TcpStream, response: &str) {
    if client.write_all(response.as_bytes()).await.is_err() || client.shutdown().await.is_err() {
        return;
    }
    // Closing with unread bytes would reset the connection, and the answer with it.
    let _ = tokio::time::timeout(Duration::from_secs(1), tokio::io::copy(&mut client, &mut tokio::io::sink())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_applies_is_the_one_that_is_said() {
        for (files, clients, words) in [
            (0, 1, "at most 1 at once, for ulimit -n is 0: raise it, or open fewer"),
            (64, 1, "at most 1 at once, for ulimit -n is 64: raise it, or open fewer"),
            (128, 32, "at most 32 at once, for ulimit -n is 128: raise it, or open fewer"),
            (8255, 4095, "at most 4095 at once, for ulimit -n is 8255: raise it, or open fewer"),
            (8256, 4096, "at most 4096 at once: open fewer"),
            (u64::MAX, 4096, "at most 4096 at once: open fewer"),
        ] {
            let limit = Limit::with_files(files);
            assert_eq!((limit.clients, limit.to_string().as_str()), (clients, words));
        }
    }
}
