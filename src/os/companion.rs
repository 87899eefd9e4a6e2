//! A process beside which this one runs, although it is no child of ours: when it ends, we end.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, getppid, pidfd_open};

use super::sys;

/// How often to look whether it still runs, where the system does not tell.
const INTERVAL: Duration = Duration::from_millis(500);

/// How to recognise its end.
#[derive(Debug)]
pub(crate) enum Companion {
    /// By a descriptor that becomes readable then (`pidfd_open(2)`, since Linux 5.3).
    Descriptor(OwnedFd),
    /// By its number, and the time of its start, since the number may be used again. For older systems, and sandboxes
    /// without pidfds.
    Number { pid: i32, start: u64 },
}

impl Companion {
    /// The parent of this process. It stays the same process if it executes another program.
    ///
    /// # Errors
    /// If there is none that can be seen.
    pub(crate) fn parent() -> io::Result<Self> {
        let pid = getppid().ok_or(io::ErrorKind::NotFound)?;
        if let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) {
            return Ok(Self::Descriptor(descriptor));
        }
        let pid = pid.as_raw_nonzero().get();
        Ok(Self::Number { pid, start: start_of(pid).ok_or(io::ErrorKind::NotFound)? })
    }

    /// Hands it on to the etcdproxy that `command` executes, which gets this text to [`parse`](Self::parse).
    pub(crate) fn pass_on(&self, command: &mut Command) -> String {
        match self {
            Self::Descriptor(descriptor) => {
                sys::keep_open(command, descriptor);
                format!("fd:{}", descriptor.as_raw_fd())
            }
            Self::Number { pid, start } => format!("pid:{pid}:{start}"),
        }
    }

    /// What [`pass_on`](Self::pass_on) has handed on. To be called before this process opens anything.
    pub(crate) fn parse(text: &str) -> io::Result<Self> {
        let number = |text: &str| text.parse().ok();
        let mut parts = text.split(':');
        match (parts.next(), parts.next().and_then(number), parts.next().map(str::parse)) {
            (Some("fd"), Some(descriptor), None) => sys::inherited(descriptor).map(Self::Descriptor),
            (Some("pid"), Some(pid), Some(Ok(start))) => Ok(Self::Number { pid, start }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends SIGTERM to this process when it has ended, from a thread that waits for that.
    pub(crate) fn end_with_it(self) -> io::Result<()> {
        let wait = move || {
            self.wait();
            log::info!("the application has ended");
            let _ = kill(getpid(), Signal::SIGTERM);
        };
        thread::Builder::new().name("companion".to_owned()).spawn(wait).map(drop)
    }

    fn wait(&self) {
        match self {
            Self::Descriptor(descriptor) => {
                // Its only other errors are those of memory.
                while poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
            }
            Self::Number { pid, start } => {
                while start_of(*pid) == Some(*start) {
                    thread::sleep(INTERVAL);
                }
            }
        }
    }
}

/// When the process was started, in clock ticks since the host's start; `None` if there is no such process, or only its
/// remains.
fn start_of(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    (!['Z', 'X'].contains(&stat.state)).then_some(stat.starttime)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_number_alone_does_not_make_it_the_same_process() {
        let mut child = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_of(pid).unwrap();
        // Returns at once: it is another process, which had this number before.
        Companion::Number { pid, start: start - 1 }.wait();
        child.kill().unwrap();
        // A process that nobody has waited for yet has ended, too.
        Companion::Number { pid, start }.wait();
        child.wait().unwrap();
        assert_eq!(start_of(pid), None);
    }

    #[test]
    fn what_is_handed_on_is_understood() {
        let number = Companion::Number { pid: 7, start: 123 };
        let text = number.pass_on(&mut Command::new("true"));
        assert!(matches!(Companion::parse(&text), Ok(Companion::Number { pid: 7, start: 123 })), "{text}");
        for text in ["", "fd", "fd:", "fd:x", "fd:999999", "fd:3:4", "pid:7", "pid:x:1", "pid:7:y", "7"] {
            assert!(Companion::parse(text).is_err(), "{text}");
        }
    }
}
