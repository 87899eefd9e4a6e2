//! etcd's proxy as a child process: started again when it ends, ended with its launcher.

use std::io::{self, Read};
use std::mem;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::launch::Launch;
use super::log_filter::Output;
use crate::net::etcd_health::{Occupant, occupant};
use crate::net::sockets;
use crate::os::log::{Format, format};
use crate::os::process::{self, ExecError, describe};
use crate::os::sys;
use crate::proxy::backend::{Backend, Error};
use crate::proxy::claim::ListenError;
use crate::release::Executable;
use crate::settings::ListenAddr;

/// The pause before a restart doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After a run of this length, the pause is the first one again.
const LONG_RUN: Duration = Duration::from_secs(10);

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
}

enum State {
    Running {
        etcd: Process,
        since: Instant,
        listening: bool,
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
    ) -> Result<Self, ExecError> {
        let state = State::start(&launch, etcd.path(), &output).map_err(|cause| ExecError::new(etcd.path(), cause))?;
        Ok(Self { launch, etcd, addr: addr.clone(), output, state, proven: false, pause: FIRST_PAUSE })
    }

    /// Decides what to do after etcd has ended. Returns the pause before the next call.
    fn ended(&mut self, status: ExitStatus, ran: Duration) -> Result<Duration, Error> {
        if ran >= LONG_RUN {
            self.pause = FIRST_PAUSE;
        }
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
        Ok(self.restart_later(&format!("etcd's proxy ended ({})", describe(status))))
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
        match &mut self.state {
            State::Running { etcd, since, listening } => {
                if let Some(status) = etcd.child.try_wait()? {
                    let ran = since.elapsed();
                    return self.ended(status, ran);
                }
                if !*listening && sockets::seems_to_listen(etcd.child.id(), &self.addr) {
                    *listening = true;
                    log::info!("etcd's proxy (pid {}) listens on {}", etcd.child.id(), self.addr);
                }
                self.proven |= *listening && since.elapsed() >= PROVEN;
                Ok(match (*listening, self.proven) {
                    (false, _) => LISTENING_INTERVAL,
                    (true, false) => PROVEN,
                    (true, true) => Duration::from_mins(1),
                })
            }
            State::Pausing(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Ok(left);
                }
                match State::start(&self.launch, self.etcd.path(), &self.output) {
                    Ok(state) => {
                        self.state = state;
                        Ok(LISTENING_INTERVAL)
                    }
                    // It could be executed before, so it can be again when the system has what it lacks now.
                    Err(cause) => Ok(self.restart_later(&format!("etcd's proxy cannot be started ({cause})"))),
                }
            }
            State::StandingBy => {
                if occupant(&self.addr) == Occupant::Nobody {
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
    fn start(launch: &Launch, path: &Path, output: &Output) -> io::Result<Self> {
        let mut command = launch.command(path);
        command.arg0("etcd").stdin(Stdio::null());
        // The launcher reports READY: a service manager ignores everybody else.
        command.env_remove("NOTIFY_SOCKET");
        if format() != Format::Raw {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        // A terminal's Ctrl-C goes to the launcher, which drains.
        command.process_group(0);
        sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        let read = |from| {
            let output = output.clone();
            thread::Builder::new().spawn(move || output.relay(from))
        };
        let readers: io::Result<_> = outputs.into_iter().flatten().map(read).collect();
        let readers = readers.inspect_err(|_| process::end(&mut child, STOP_TIMEOUT))?;
        Ok(Self::Running { etcd: Process { child, readers }, since: Instant::now(), listening: false })
    }

    /// The last words of an etcd that has ended.
    fn last_words(self) -> String {
        let Self::Running { etcd, .. } = self else { return String::new() };
        if etcd.readers.is_empty() {
            return "see its output above".to_owned();
        }
        let words = etcd.readers.into_iter().filter_map(|reader| reader.join().ok());
        words.filter(|words| !words.is_empty()).last().unwrap_or_else(|| "it wrote nothing".to_owned())
    }
}
