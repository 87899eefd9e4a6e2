//! Child processes: their signals, their ends, and a command of the user's that is run to its end.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;

/// Signals that reach this process from now on, those of `ending` and SIGCHLD.
pub(crate) fn signals(ending: &[Signal]) -> io::Result<Receiver<Signal>> {
    let wanted = ending.iter().chain([&Signal::SIGCHLD]).map(|signal| *signal as i32);
    let mut signals = Signals::new(wanted)?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for signal in signals.forever().filter_map(|signal| Signal::try_from(signal).ok()) {
            if sender.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The next signal, or SIGCHLD when the time is over: there is something to look at.
pub(crate) fn next_signal(signals: &Receiver<Signal>, patience: Duration) -> Signal {
    match signals.recv_timeout(patience) {
        Ok(signal) => signal,
        Err(RecvTimeoutError::Timeout) => Signal::SIGCHLD,
        Err(RecvTimeoutError::Disconnected) => Signal::SIGTERM,
    }
}

/// Waits for the end of `command` and hands on the signals that come; calls `tend` in between, which says how long it
/// can do without. A terminal has told its foreground processes of SIGINT itself.
pub(crate) fn run_to_end<E: From<io::Error>>(
    mut command: Child,
    signals: &Receiver<Signal>,
    mut tend: impl FnMut() -> Result<Duration, E>,
) -> Result<ExitStatus, E> {
    loop {
        if let Some(status) = command.try_wait()? {
            return Ok(status);
        }
        match next_signal(signals, tend()?) {
            Signal::SIGCHLD => {}
            Signal::SIGINT if io::stdin().is_terminal() => {}
            signal => send(&command, signal),
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

/// As in `exit code 1` and `SIGKILL`.
pub(crate) fn describe(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit code {code}");
    }
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    signal.map_or_else(|| status.to_string(), |signal| signal.to_string())
}
