//! The service manager: `systemctl`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::install::error::Error;
use crate::install::layout::{Layout, UNIT};

/// How long to wait for a start. The cluster may start late, and the service is ready only after it.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where a running systemd has its files: the test of `sd_booted(3)`.
const RUNNING: &str = "/run/systemd/system";

/// Whether the system has systemd. For the running system, it must run.
pub(in crate::install) fn has_systemd(layout: &Layout) -> bool {
    if layout.is_live() {
        return Path::new(RUNNING).is_dir();
    }
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| layout.real_target(Path::new(path)).exists())
}

/// Whether a service manager is running, which must learn of changes. A user has one while logged in, or all the time with
/// `loginctl enable-linger`.
pub(in crate::install) fn is_running(layout: &Layout) -> bool {
    layout.is_live() && has_systemd(layout) && (!layout.user || runtime_dir(layout).join("systemd").exists())
}

/// The user's `XDG_RUNTIME_DIR`, as `pam_systemd(8)` sets it.
fn runtime_dir(layout: &Layout) -> PathBuf {
    Path::new("/run/user").join(layout.uid.to_string())
}

/// The command line of `systemctl`, as a user would type it.
pub(in crate::install) fn systemctl(layout: &Layout, args: &[&str]) -> String {
    format!("systemctl {}{}", layout.user_option(), args.join(" "))
}

/// What the manager says about the installed service of the system, in its own words (`systemctl show`).
#[derive(Debug)]
pub(crate) struct ServiceState {
    /// As in `active` or `failed`.
    pub active: String,
    /// As in `running`.
    pub sub: String,
    /// How it ended last, as in `exit-code`.
    pub result: String,
    /// How often it was restarted.
    pub restarts: String,
}

impl ServiceState {
    /// `None` without systemd, and where the service is not installed.
    pub(crate) fn of_system() -> Option<Self> {
        if !Path::new(RUNNING).is_dir() {
            return None;
        }
        let show = ["show", UNIT, "--property=LoadState,ActiveState,SubState,Result,NRestarts"];
        let shown = Command::new("systemctl").args(show).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&shown.stdout);
        let property = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        (property("LoadState") == "loaded").then(|| Self {
            active: property("ActiveState"),
            sub: property("SubState"),
            result: property("Result"),
            restarts: property("NRestarts"),
        })
    }
}

/// Makes the manager read the units again.
pub(in crate::install) fn reload(layout: &Layout) -> Result<(), Error> {
    run(layout, &["daemon-reload"]).map(drop)
}

/// Whether the service is running.
pub(in crate::install) fn is_active(layout: &Layout) -> bool {
    matches!(run(layout, &["is-active", "--quiet", UNIT]), Ok(true))
}

/// Starts or restarts the service. Returns whether it was ready within a minute.
///
/// # Errors
/// If it does not start.
pub(in crate::install) fn restart(layout: &Layout) -> Result<bool, Error> {
    run(layout, &["restart", UNIT])
}

/// Stops the service, and keeps it from starting at boot.
pub(in crate::install) fn disable(layout: &Layout) -> Result<(), Error> {
    run(layout, &["disable", "--quiet", "--now", UNIT]).map(drop)
}

/// Runs `systemctl`. Returns whether it finished within a minute.
///
/// # Errors
/// If it cannot be run, or fails.
fn run(layout: &Layout, args: &[&str]) -> Result<bool, Error> {
    let command = systemctl(layout, args);
    let failed = |why: String| Error::Service { command: command.clone(), why };
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().unwrap_or_default());
    if layout.user {
        // su and sudo, for example, do not set it.
        child.env("XDG_RUNTIME_DIR", runtime_dir(layout));
    }
    match finish(child.args(words), START_TIMEOUT).map_err(|err| failed(crate::os::log::without_errno(&err)))? {
        Finished::Success => Ok(true),
        Finished::Failure(why) => Err(failed(why)),
        // Only systemctl has ended. The manager goes on starting the service.
        Finished::TimedOut => Ok(false),
    }
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
enum Finished {
    Success,
    /// With what it wrote to stderr, as one line.
    Failure(String),
    /// It took too long and was killed.
    TimedOut,
}

/// Runs the program to its end, for `timeout` at most.
fn finish(command: &mut Command, timeout: Duration) -> io::Result<Finished> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut written = Stderr::read(child.stderr.take());
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(Finished::Success),
            Some(_) => return Ok(Finished::Failure(written.line())),
            None if start.elapsed() > timeout => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Finished::TimedOut);
            }
            None => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// What a program writes to stderr. A thread reads it, because a program whose pipe is full does not end.
struct Stderr {
    begin: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stderr {
    /// The rest of what is written is read, but not kept.
    const KEPT: usize = 4096;

    fn read(from: Option<ChildStderr>) -> Self {
        let begin = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&begin);
        let reader = from.map(|mut from| {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut bytes) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = Self::KEPT - kept.len();
                    kept.extend_from_slice(&bytes[..length.min(room)]);
                }
            })
        });
        Self { begin, reader }
    }

    /// All that was written, as one line. A child of the program may still hold the pipe, so this waits only a moment.
    fn line(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&begin).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::tests::layout;
    use super::*;

    #[test]
    fn the_command_line_is_what_a_user_would_type() {
        assert_eq!(systemctl(&layout(), &["restart", UNIT]), "systemctl restart etcdproxy.service");
        let user = Layout { user: true, ..layout() };
        assert_eq!(systemctl(&user, &["restart", UNIT]), "systemctl --user restart etcdproxy.service");
    }

    #[test]
    fn a_program_that_writes_much_ends_and_its_first_words_are_kept() {
        let run = |script: &str, seconds| {
            finish(Command::new("sh").args(["-c", script]), Duration::from_secs(seconds)).unwrap()
        };
        assert_eq!(run("echo bad >&2; echo unit >&2; exit 1", 10), Finished::Failure("bad unit".to_owned()));
        let much = run("echo bad >&2; head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", 30);
        let Finished::Failure(why) = much else { panic!("{much:?}") };
        assert!(why.starts_with("bad xxx") && why.len() <= Stderr::KEPT, "{}", why.len());
        assert_eq!(run("exit 0", 10), Finished::Success);
        assert_eq!(run("exec sleep 60", 0), Finished::TimedOut);
    }

    #[test]
    fn an_image_has_no_running_manager() {
        let image = Layout { root: "/mnt/image".into(), ..layout() };
        assert!(!is_running(&image));
    }
}
