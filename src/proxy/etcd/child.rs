//! etcd's proxy as a child process: started again when it ends, ended with its launcher.

use std::io::{self, Read};
use std::mem;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::launch::Launch;
use super::log_filter::Output;
use super::status::Status;
use super::watchdog::Watchdog;
use crate::net::etcd_health::{Occupant, occupant};
use crate::net::sockets;
use crate::os::log::To;
use crate::os::process::{self, ExecError, describe};
use crate::os::sys;
use crate::proxy::admin::Port;
use crate::proxy::backend::{Backend, Error};
use crate::proxy::claim::ListenError;
use crate::release::Executable;
use crate::settings::{ListenAddr, Settings};

/// The pause before a restart doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After a run of this length, the pause is the first one again.
const LONG_RUN: Duration = Duration::from_secs(10);

/// After a start because etcd did not reconnect to its members, the time to the next such start doubles from the first
/// to the longest, until the cluster has answered.
const FIRST_REVIVAL_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_REVIVAL_PAUSE: Duration = Duration::from_mins(5);

/// How often to look whether etcd is stuck: rarely, and often once the cluster does not answer through it.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
const TROUBLE_INTERVAL: Duration = Duration::from_millis(250);

/// etcd opens its port before it has checked all its settings. A run of this length proves that it accepts them.
const PROVEN: Duration = Duration::from_secs(1);

/// How often to check whether etcd has opened its port, which takes it 10 to 50 ms.
const LISTENING_INTERVAL: Duration = Duration::from_millis(10);

/// After SIGTERM the proxy ends within 10 ms.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// etcd's proxy under supervision. Dropping it ends the process.
pub(crate) struct EtcdChild {
    launch: Launch,
    etcd: Executable,
    addr: ListenAddr,
    output: Output,
    state: State,
    /// etcd has accepted the settings: if it ends now, they are not the reason.
    proven: bool,
    /// The pause before the next restart.
    pause: Duration,
    /// `None`: nobody can say whether etcd reaches its members.
    watched: Option<Arc<Settings>>,
    revival: Revival,
    status: Arc<Status>,
    /// Serves the metrics as long as this lives.
    _metrics: Option<Port>,
}

/// When etcd may be started again because it did not reconnect to its members.
struct Revival {
    not_before: Instant,
    pause: Duration,
}

/// What [`EtcdChild`] does besides running etcd.
pub(in crate::proxy) struct Supervision {
    /// `None`: nobody can say whether etcd reaches its members.
    pub watched: Option<Settings>,
    pub status: Arc<Status>,
    pub metrics: Option<Port>,
}

enum State {
    Running {
        etcd: Process,
        since: Instant,
        listening: bool,
        /// From the moment at which it listens.
        watchdog: Option<Watchdog>,
    },
    /// Until then.
    Pausing(Instant),
    /// Another proxy has the port.
    StandingBy,
}

/// The process and the readers of its output.
struct Process {
    child: Child,
    readers: Vec<JoinHandle<String>>,
}

impl EtcdChild {
    /// Starts `etcd`, which is to listen on `addr`.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(in crate::proxy) fn start(
        launch: Launch,
        etcd: Executable,
        addr: &ListenAddr,
        output: Output,
        supervision: Supervision,
    ) -> Result<Self, ExecError> {
        let Supervision { watched, status, metrics } = supervision;
        let state = State::start(&launch, etcd.path(), &output, &status);
        let state = state.map_err(|cause| ExecError::new(etcd.shown(), cause))?;
        Ok(Self {
            launch,
            etcd,
            addr: addr.clone(),
            output,
            state,
            proven: false,
            pause: FIRST_PAUSE,
            watched: watched.map(Arc::new),
            revival: Revival { not_before: Instant::now(), pause: FIRST_REVIVAL_PAUSE },
            status,
            _metrics: metrics,
        })
    }

    /// Decides what to do after etcd has ended. Returns the pause before the next call.
    fn ended(&mut self, status: ExitStatus, ran: Duration) -> Result<Duration, Error> {
        if ran >= LONG_RUN {
            self.pause = FIRST_PAUSE;
        }
        self.status.set_ended();
        let last_words = mem::replace(&mut self.state, State::Pausing(Instant::now())).last_words();
        // etcd exits with 1 when it rejects a flag or cannot listen; a crash of Go has another code.
        if !self.proven && ran < PROVEN && status.code() == Some(1) {
            match occupant(&self.addr) {
                Occupant::Other => return Err(ListenError::in_use(&self.addr).into()),
                Occupant::Nobody => return Err(Error::Refused { how: describe(status), last_words }),
                // It took the port after we checked it, and before etcd opened it.
                Occupant::Proxy | Occupant::Silent => {
                    log::info!("another etcd proxy serves {}: standing by", self.addr);
                    self.state = State::StandingBy;
                    return Ok(FIRST_PAUSE);
                }
            }
        }
        self.status.ended.fetch_add(1, Ordering::Relaxed);
        Ok(self.restart_later(&format!("etcd's proxy ended ({})", describe(status))))
    }

    /// Starts etcd again if it does not reconnect to its members. No client loses anything, because none is served.
    fn revive(&mut self) {
        let State::Running { etcd, watchdog: Some(watchdog), .. } = &mut self.state else { return };
        if watchdog.has_worked() {
            self.revival.pause = FIRST_REVIVAL_PAUSE;
        }
        let now = Instant::now();
        if !watchdog.is_stuck() || now < self.revival.not_before {
            return;
        }
        self.revival.not_before = now + self.revival.pause;
        self.revival.pause = (self.revival.pause * 2).min(LONGEST_REVIVAL_PAUSE);
        log::warn!("a member serves again, and etcd's proxy has not noticed for 3 s: starting it again");
        process::end(&mut etcd.child, STOP_TIMEOUT);
        self.status.set_ended();
        self.status.stuck.fetch_add(1, Ordering::Relaxed);
        mem::replace(&mut self.state, State::Pausing(now)).last_words();
    }

    /// Returns the pause before the next start, longer each time.
    fn restart_later(&mut self, why: &str) -> Duration {
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.state = State::Pausing(Instant::now() + pause);
        log::warn!("{why}: starting it again in {}", humantime::format_duration(pause));
        pause
    }
}

impl Backend for EtcdChild {
    fn tend(&mut self) -> Result<Duration, Error> {
        self.revive();
        match &mut self.state {
            State::Running { etcd, since, listening, watchdog } => {
                if let Some(status) = etcd.child.try_wait()? {
                    let ran = since.elapsed();
                    return self.ended(status, ran);
                }
                if !*listening && sockets::seems_to_listen(etcd.child.id(), &self.addr) {
                    *listening = true;
                    process::hide_memory();
                    self.status.set_listening();
                    // Without a thread, etcd reconnects by itself, only later.
                    *watchdog = self.watched.as_ref().and_then(|it| Watchdog::start(it, &self.status).ok());
                    log::info!("etcd's proxy (pid {}) listens on {}", etcd.child.id(), self.addr);
                }
                self.proven |= *listening && since.elapsed() >= PROVEN;
                Ok(match (*listening, self.proven) {
                    (false, _) => LISTENING_INTERVAL,
                    (true, false) => PROVEN,
                    (true, true) => match watchdog {
                        Some(watchdog) if watchdog.is_in_trouble() => TROUBLE_INTERVAL,
                        Some(_) => WATCH_INTERVAL,
                        None => Duration::from_mins(1),
                    },
                })
            }
            State::Pausing(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Ok(left);
                }
                match State::start(&self.launch, self.etcd.path(), &self.output, &self.status) {
                    Ok(state) => {
                        self.state = state;
                        Ok(LISTENING_INTERVAL)
                    }
                    // It could be executed before, so it can be again when the system has what it lacks now.
                    Err(cause) => Ok(self.restart_later(&format!("etcd's proxy cannot be started ({cause})"))),
                }
            }
            State::StandingBy => {
                // Without a connection, which the other proxy would log.
                if sockets::is_free(&self.addr) {
                    self.state = State::Pausing(Instant::now());
                }
                Ok(FIRST_PAUSE)
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

    /// etcd reads its client certificate for each connection.
    fn reload(&mut self) -> bool {
        false
    }
}

impl Drop for EtcdChild {
    fn drop(&mut self) {
        if let State::Running { etcd, .. } = &mut self.state {
            process::end(&mut etcd.child, STOP_TIMEOUT);
        }
        mem::replace(&mut self.state, State::Pausing(Instant::now())).last_words();
    }
}

impl State {
    fn start(launch: &Launch, path: &Path, output: &Output, status: &Status) -> io::Result<Self> {
        let mut command = launch.command(path);
        command.arg0("etcd").stdin(Stdio::null());
        // The launcher reports READY: a service manager ignores everybody else.
        command.env_remove("NOTIFY_SOCKET");
        // Always through this process, which reads them even while nobody reads its own.
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A terminal's Ctrl-C goes to the launcher, which drains.
        command.process_group(0);
        sys::die_with_parent(&mut command);
        sys::without_core_dump(&mut command);
        let mut child = command.spawn()?;
        let outputs: [Option<(Box<dyn Read + Send>, To)>; 2] = [
            child.stdout.take().map(|output| (Box::new(output) as _, To::Stdout)),
            child.stderr.take().map(|output| (Box::new(output) as _, To::Stderr)),
        ];
        let read = |(from, stream)| {
            let output = output.clone();
            thread::Builder::new().spawn(move || output.relay(from, stream))
        };
        let readers: io::Result<_> = outputs.into_iter().flatten().map(read).collect();
        let readers = readers.inspect_err(|_| process::end(&mut child, STOP_TIMEOUT))?;
        status.set_running(child.id());
        Ok(Self::Running { etcd: Process { child, readers }, since: Instant::now(), listening: false, watchdog: None })
    }

    /// The last words of an etcd that has ended.
    fn last_words(self) -> String {
        let Self::Running { etcd, .. } = self else { return String::new() };
        let words = etcd.readers.into_iter().filter_map(|reader| reader.join().ok());
        words.filter(|words| !words.is_empty()).last().unwrap_or_else(|| "it wrote nothing".to_owned())
    }
}
