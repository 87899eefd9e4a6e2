//! Looking after etcd's proxy: started again when it ends, ended with its launcher.

use std::fmt::Display;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use nix::sys::signal::Signal;
use sd_notify::NotifyState;

use super::claim::Unusable;
use super::etcd::Launch;
use super::etcd::log_filter::{self as etcd_log, Thinner};
use super::tunnel;
use crate::net::etcd_health::{self as health, Occupant};
use crate::net::sockets;
use crate::os::child::{self, Events, describe};
use crate::os::exec;
use crate::os::log::{Format, Log};
use crate::os::sys;
use crate::release::Executable;
use crate::settings::{Endpoint, ListenAddr};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A proxy that ran so long was well: the next start after it is not delayed.
const RAN_WELL: Duration = Duration::from_secs(10);

/// etcd opens its port before it has looked at all its settings. One that lasted so long likes them.
const PROVEN: Duration = Duration::from_secs(1);

/// From start to open port: 10 to 50 ms.
const LISTENING_PAUSE: Duration = Duration::from_millis(10);

/// After SIGTERM the proxy is gone within 10 ms.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How often a draining proxy's clients are counted.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no use in starting the proxy again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("etcd does not start ({how}): {last_words}: change the setting, or what follows --")]
    Refused { how: String, last_words: String },
    #[error(transparent)]
    Port(#[from] Unusable),
    #[error(transparent)]
    Spawn(#[from] exec::Error),
    #[error(transparent)]
    Tunnel(#[from] tunnel::Error),
    #[error("cannot wait for etcd: {0}")]
    Wait(#[from] io::Error),
}

/// Where what etcd says goes.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    log: Log,
    /// The same from start to start.
    thinner: Arc<Mutex<Thinner>>,
}

impl Output {
    /// To `log`, where it was said already that the endpoints `failing` cannot be reached.
    pub(crate) fn new(log: Log, failing: &[Endpoint]) -> Self {
        let mut thinner = Thinner::default();
        for endpoint in failing {
            thinner.knows(endpoint.address());
        }
        Self { log, thinner: Arc::new(Mutex::new(thinner)) }
    }

    /// Says why an endpoint cannot be reached.
    pub(crate) fn cannot_reach(&self, endpoint: &Endpoint, why: &impl Display) {
        self.thinner.lock().unwrap_or_else(PoisonError::into_inner).knows(endpoint.address());
        self.log.warn(format_args!("{endpoint}: {why}"));
    }
}

/// A proxy under supervision. Dropping it ends it.
pub(crate) struct Proxy {
    launch: Launch,
    etcd: Executable,
    addr: ListenAddr,
    output: Output,
    state: State,
    /// The settings are good: whatever ends it is not their fault.
    proven: bool,
    backoff: Duration,
}

enum State {
    Running {
        etcd: Etcd,
        since: Instant,
        listening: bool,
    },
    /// Until then.
    Pausing(Instant),
    /// Another proxy has the port.
    StandingBy,
}

/// The process and those who read what it says.
struct Etcd {
    child: Child,
    readers: Vec<JoinHandle<String>>,
}

impl Proxy {
    /// Starts that `etcd`, which is to listen on `addr`.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(crate) fn start(launch: Launch, etcd: Executable, addr: &ListenAddr, output: Output) -> Result<Self, Error> {
        let state =
            State::start(&launch, &etcd.path(), &output).map_err(|cause| exec::Error::new(etcd.path(), cause))?;
        Ok(Self { launch, etcd, addr: addr.clone(), output, state, proven: false, backoff: FIRST_BACKOFF })
    }

    fn ended(&mut self, status: ExitStatus, ran: Duration) -> Result<Duration, Error> {
        if ran >= RAN_WELL {
            self.backoff = FIRST_BACKOFF;
        }
        let last_words = mem::replace(&mut self.state, State::Pausing(Instant::now())).last_words();
        // With 1 it says that it does not like its flags, or cannot listen; a crash of Go's has another code.
        if !self.proven && ran < PROVEN && status.code() == Some(1) {
            match health::occupant(&self.addr) {
                Occupant::Other => return Err(Unusable::taken(&self.addr).into()),
                Occupant::Nobody => return Err(Error::Refused { how: describe(status), last_words }),
                // It came between our look at the port and etcd's.
                Occupant::Proxy | Occupant::Silent => {
                    self.output.log.info(format_args!("{} is served by another etcd proxy: standing by", self.addr));
                    self.state = State::StandingBy;
                    return Ok(FIRST_BACKOFF);
                }
            }
        }
        Ok(self.pause(&format!("etcd's proxy ended ({})", describe(status))))
    }

    /// Waits before the next start, each time longer.
    fn pause(&mut self, why: &str) -> Duration {
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
        self.state = State::Pausing(Instant::now() + pause);
        let words = humantime::format_duration(pause);
        self.output.log.warn(format_args!("{why}: starting it again in {words}"));
        pause
    }
}

impl Carrier for Proxy {
    fn tend(&mut self) -> Result<Duration, Error> {
        match &mut self.state {
            State::Running { etcd, since, listening } => {
                if let Some(status) = etcd.child.try_wait()? {
                    let ran = since.elapsed();
                    return self.ended(status, ran);
                }
                if !*listening && sockets::seems_to_listen(etcd.child.id(), &self.addr) {
                    *listening = true;
                    let pid = etcd.child.id();
                    self.output.log.info(format_args!("etcd's proxy (pid {pid}) listens on {}", self.addr));
                }
                self.proven |= *listening && since.elapsed() >= PROVEN;
                Ok(match (*listening, self.proven) {
                    (false, _) => LISTENING_PAUSE,
                    (true, false) => PROVEN,
                    (true, true) => Duration::from_mins(1),
                })
            }
            State::Pausing(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Ok(left);
                }
                match State::start(&self.launch, &self.etcd.path(), &self.output) {
                    Ok(state) => {
                        self.state = state;
                        Ok(LISTENING_PAUSE)
                    }
                    // What could be executed before can be again, when the system has what it lacks now.
                    Err(cause) => Ok(self.pause(&format!("etcd's proxy cannot be started ({cause})"))),
                }
            }
            State::StandingBy => {
                if health::occupant(&self.addr) == Occupant::Nobody {
                    self.state = State::Pausing(Instant::now());
                }
                Ok(FIRST_BACKOFF)
            }
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { listening: true, .. })
    }

    fn clients(&self) -> Option<usize> {
        match &self.state {
            State::Running { etcd, .. } => sockets::clients(&self.addr, etcd.child.id()),
            _ => Some(0),
        }
    }

    /// etcd reads its client certificate at each connection.
    fn reload(&mut self) -> bool {
        false
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let State::Running { etcd, .. } = &mut self.state {
            child::end(&mut etcd.child, STOP_PATIENCE);
        }
        mem::replace(&mut self.state, State::Pausing(Instant::now())).last_words();
    }
}

impl State {
    fn start(launch: &Launch, path: &Path, output: &Output) -> io::Result<Self> {
        let mut command = launch.command(path);
        command.arg0("etcd").stdin(Stdio::null());
        // READY is for the launcher to say: a service manager believes nobody else.
        command.env_remove("NOTIFY_SOCKET");
        if output.log.format != Format::Raw {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        // A terminal's Ctrl-C is for the launcher, which drains.
        command.process_group(0);
        sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        let read = |from| {
            let Output { log, thinner } = output.clone();
            thread::Builder::new().spawn(move || etcd_log::relay(from, log, &thinner))
        };
        let readers: io::Result<_> = outputs.into_iter().flatten().map(read).collect();
        let readers = readers.inspect_err(|_| child::end(&mut child, STOP_PATIENCE))?;
        Ok(Self::Running { etcd: Etcd { child, readers }, since: Instant::now(), listening: false })
    }

    /// What etcd said last, once it has ended.
    fn last_words(self) -> String {
        let Self::Running { etcd, .. } = self else { return String::new() };
        if etcd.readers.is_empty() {
            return "its own words are above".to_owned();
        }
        let words = etcd.readers.into_iter().filter_map(|reader| reader.join().ok());
        words.filter(|words| !words.is_empty()).last().unwrap_or_else(|| "it said nothing".to_owned())
    }
}

/// Counts the time and the clients of a drain.
struct Drain {
    until: Instant,
    without_clients: u32,
}

impl Drain {
    fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, without_clients: 0 }
    }

    /// Whether the proxy may end; else how long to wait before the next question.
    fn ask(&mut self, proxy: &dyn Carrier) -> Option<Duration> {
        // Twice: a client may be about to connect anew.
        self.without_clients = if proxy.clients() == Some(0) { self.without_clients + 1 } else { 0 };
        let left = self.until.saturating_duration_since(Instant::now());
        (self.without_clients < 2 && !left.is_zero()).then(|| left.min(DRAIN_PAUSE))
    }
}

/// What carries the application's connections, and wants to be looked after. Dropping it ends it.
pub(crate) trait Carrier {
    /// Sees to it that it runs. To be called again when a child has ended, or after the time that is returned.
    ///
    /// # Errors
    /// When it ends because of a setting, so that another start would be the same.
    fn tend(&mut self) -> Result<Duration, Error>;

    /// Whether the service manager may be told that it is there.
    fn is_ready(&self) -> bool;

    /// How many clients are connected, where the system shows it.
    fn clients(&self) -> Option<usize>;

    /// What SIGHUP is for, if it is not for the end.
    fn reload(&mut self) -> bool;
}

/// Looks after a carrier until a signal ends it, `drain` later at most. A second signal ends it at once.
///
/// # Errors
/// When there is no use in starting it again.
pub(crate) fn supervise(proxy: &mut dyn Carrier, drain: Duration, events: &Events, log: Log) -> Result<(), Error> {
    let mut ready = false;
    loop {
        let patience = proxy.tend()?;
        if !ready && proxy.is_ready() {
            ready = true;
            notify(NotifyState::Ready);
        }
        match events.next(patience).ending() {
            None => {}
            Some(Signal::SIGHUP) if proxy.reload() => {}
            Some(_) => break,
        }
    }
    notify(NotifyState::Stopping);
    if let Some(clients @ 1..) = proxy.clients() {
        let drain = humantime::format_duration(drain);
        log.info(format_args!("serving on for {drain} at most, until no client is connected; now: {clients}"));
    }
    let mut draining = Drain::new(drain);
    while let Some(pause) = draining.ask(proxy) {
        let patience = proxy.tend()?.min(pause);
        if events.next(patience).ending().is_some() {
            break;
        }
    }
    if let Some(clients @ 1..) = proxy.clients() {
        log.warn(format_args!("ending, though clients are still connected: {clients}"));
    }
    Ok(())
}

/// Tells the service manager, if there is one.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
