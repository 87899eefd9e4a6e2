//! Signals, the ends of child processes, and a command of the user's that is run to its end.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// On these, a launcher that looks after others ends.
pub(crate) const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// These are for the command that is run; servers are steered with them.
pub(crate) const FOR_COMMANDS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// What there is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child has ended, or the time is over.
    Look,
    Signal {
        signal: Signal,
        /// A terminal has sent it to all processes in front, children included.
        to_all: bool,
    },
}

impl Event {
    /// The signal, if it is one of those that end a launcher.
    pub(crate) fn ending(self) -> Option<Signal> {
        match self {
            Self::Signal { signal, .. } if ENDING.contains(&signal) => Some(signal),
            _ => None,
        }
    }
}

/// The signals that reach this process from now on.
#[derive(Debug)]
pub(crate) struct Events(Receiver<Event>);

impl Events {
    /// Of the `wanted` signals, those that this process was not started to ignore (as by `nohup`); and ends of children.
    pub(crate) fn new(wanted: &[Signal]) -> io::Result<Self> {
        let ignored = Process::myself().and_then(|process| process.stat()).map_or(0, |stat| stat.sigignore);
        let heard = wanted.iter().map(|signal| *signal as i32).filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(heard.chain([Signal::SIGCHLD as i32]))?;
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new().spawn(move || {
            for event in signals.forever().filter_map(|origin| event(&origin)) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next event, within `patience`.
    pub(crate) fn next(&self, patience: Duration) -> Event {
        match self.0.recv_timeout(patience) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Look,
            Err(RecvTimeoutError::Disconnected) => Event::Signal { signal: Signal::SIGTERM, to_all: false },
        }
    }

    /// The first signal that came already and ends a launcher.
    pub(crate) fn ending(&self) -> Option<Signal> {
        self.0.try_iter().find_map(Event::ending)
    }
}

fn event(origin: &Origin) -> Option<Event> {
    let signal = Signal::try_from(origin.signal).ok()?;
    let to_all = origin.cause == Cause::Kernel;
    Some(if signal == Signal::SIGCHLD { Event::Look } else { Event::Signal { signal, to_all } })
}

/// Waits for the end of `command` and hands on the signals that come; calls `tend` in between, which says how long it
/// can do without.
pub(crate) fn run_to_end(
    mut command: Child,
    events: &Events,
    mut tend: impl FnMut() -> Duration,
) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = command.try_wait()? {
            return Ok(status);
        }
        if let Event::Signal { signal, to_all: false } = events.next(tend()) {
            send(&command, signal);
        }
    }
}

/// Sends a signal to a child that was not waited for yet, so the pid is still its own.
pub(crate) fn send(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Ends a child: asks it, and kills it when it has not ended in time.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    if matches!(child.try_wait(), Ok(None)) {
        send(child, Signal::SIGTERM);
    }
    let deadline = Instant::now() + patience;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The command's own code; as a shell has it, 128 and the signal's number when one ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The exit code of a program that ends because of `signal`.
pub(crate) fn signal_code(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1))
}

/// As in `exit code 1` and `SIGKILL`.
pub(crate) fn describe(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit code {code}");
    }
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    signal.map_or_else(|| status.to_string(), |signal| signal.to_string())
}
