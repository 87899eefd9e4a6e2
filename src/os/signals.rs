//! Signals that reach this process, as events of one queue.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::Process;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// These signals end a launcher that supervises others.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// What such a launcher receives. It ignores the last two: many programs reload or report on them, so people try them,
/// and by default they would end it without a drain.
pub(crate) const FOR_LAUNCHERS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// These signals are passed on to a wrapped command; servers use them for reloading and the like.
pub(crate) const FOR_COMMANDS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Why a waiting supervisor wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child has ended, or the time is over.
    Wake,
    Signal {
        signal: Signal,
        /// A terminal has sent it to the whole foreground process group, children included.
        to_all: bool,
    },
}

impl Event {
    /// The signal, if it ends a launcher.
    pub(crate) fn ending(self) -> Option<Signal> {
        match self {
            Self::Signal { signal, .. } if ENDING.contains(&signal) => Some(signal),
            _ => None,
        }
    }
}

/// Receives the signals that reach this process.
#[derive(Debug)]
pub(crate) struct Events(Receiver<Event>);

impl Events {
    /// Receives the ends of children and the `wanted` signals, except those that this process inherited as ignored
    /// (from `nohup`, for example).
    pub(crate) fn new(wanted: &[Signal]) -> io::Result<Self> {
        let ignored = Process::myself().and_then(|process| process.stat()).map_or(0, |stat| stat.sigignore);
        let caught = wanted.iter().map(|signal| *signal as i32).filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(caught.chain([Signal::SIGCHLD as i32]))?;
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

    /// The next event; [`Event::Wake`] when none comes within `timeout`.
    pub(crate) fn next(&self, timeout: Duration) -> Event {
        match self.0.recv_timeout(timeout) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Wake,
            Err(RecvTimeoutError::Disconnected) => Event::Signal { signal: Signal::SIGTERM, to_all: false },
        }
    }

    /// The first ending signal that has already arrived. Drops the events before it.
    pub(crate) fn ending(&self) -> Option<Signal> {
        self.0.try_iter().find_map(Event::ending)
    }
}

/// Waits. Returns the ending signal that comes meanwhile; `None` also where nobody receives signals.
pub(crate) fn pause(events: Option<&Events>, time: Duration) -> Option<Signal> {
    let Some(events) = events else {
        thread::sleep(time);
        return None;
    };
    events.next(time).ending()
}

fn event(origin: &Origin) -> Option<Event> {
    let signal = Signal::try_from(origin.signal).ok()?;
    let to_all = origin.cause == Cause::Kernel;
    Some(if signal == Signal::SIGCHLD { Event::Wake } else { Event::Signal { signal, to_all } })
}
