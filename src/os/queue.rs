//! Lines on their way to stdout or stderr. In a program that serves others, a thread writes them, so that a reader who
//! does not read stops nothing else.

use std::io::{self, stderr, stdout};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::write;

/// Bytes that may wait. The writer holds as many again.
const LIMIT: usize = 128 * 1024;

/// The pause when another program has made the pipe non-blocking, and it is full.
const PAUSE: Duration = Duration::from_millis(10);

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Stdout,
    Stderr,
}

/// The lines for one place.
pub(super) struct Queue {
    to: To,
    /// The line that says how many lines were dropped.
    report: fn(u64) -> String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: Vec<u8>,
    /// Lines that did not fit since the writer came last.
    dropped: u64,
    has_writer: bool,
    is_writing: bool,
}

impl Queue {
    pub(super) const fn new(to: To, report: fn(u64) -> String) -> Self {
        let state = State { waiting: Vec::new(), dropped: 0, has_writer: false, is_writing: false };
        Self { to, report, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Writes the line, in one piece. If there is a writer, the line is left to it, and dropped if too many wait.
    pub(super) fn push(&self, line: &str) {
        let mut state = self.state();
        if !state.has_writer {
            // With the lock, so that lines of several threads do not mix.
            self.write(format!("{line}\n").as_bytes());
        // A short line must not overtake those that were dropped before it.
        } else if state.dropped > 0 || state.waiting.len() + line.len() >= LIMIT {
            state.dropped += 1;
        } else {
            state.waiting.extend_from_slice(line.as_bytes());
            state.waiting.push(b'\n');
            self.changed.notify_all();
        }
    }

    /// From now on, a thread writes. Without a thread, everything stays as it is.
    pub(super) fn start_writer(&'static self) {
        let mut state = self.state();
        if !state.has_writer {
            let thread = thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024);
            state.has_writer = thread.spawn(|| self.write_forever()).is_ok();
        }
    }

    fn write_forever(&self) {
        let mut state = self.state();
        loop {
            state = self.changed.wait_while(state, |state| state.is_empty()).unwrap_or_else(PoisonError::into_inner);
            let mut text = mem::take(&mut state.waiting);
            let dropped = mem::take(&mut state.dropped);
            state.is_writing = true;
            drop(state);
            if dropped > 0 {
                text.extend_from_slice(format!("{}\n", (self.report)(dropped)).as_bytes());
            }
            self.write(&text);
            state = self.state();
            state.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, but not beyond `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let is_busy = |state: &mut State| state.is_writing || !state.is_empty();
        drop(self.changed.wait_timeout_while(self.state(), timeout, is_busy));
    }

    /// Bypasses the standard library's locks: others may hold them for long. A closed stdout or stderr does not end the
    /// program.
    fn write(&self, text: &[u8]) {
        let (stdout, stderr): (io::Stdout, io::Stderr) = (stdout(), stderr());
        let to = match self.to {
            To::Stdout => stdout.as_fd(),
            To::Stderr => stderr.as_fd(),
        };
        write_all(to, text);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

fn write_all(to: BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        match write(to, text) {
            Ok(written) => text = &text[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}
