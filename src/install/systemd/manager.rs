//! The service manager: `systemctl`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::install::error::Error;
use crate::install::layout::{Layout, UNIT};

/// How long to wait for a start. The cluster may start late, and the service is ready only after it.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the system has systemd. For the running system, this is the test of `sd_booted(3)`.
pub(in crate::install) fn has_systemd(layout: &Layout) -> bool {
    if layout.is_live() {
        return Path::new("/run/systemd/system").is_dir();
    }
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| layout.real(Path::new(path)).exists())
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
    let mut child = child
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| failed(crate::os::log::without_errno(&err)))?;
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(|err| failed(crate::os::log::without_errno(&err)))? {
            Some(status) if status.success() => return Ok(true),
            Some(_) => {
                let mut why = String::new();
                let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut why));
                return Err(failed(why.trim().replace('\n', " ")));
            }
            None if start.elapsed() > START_TIMEOUT => {
                // This ends only systemctl. The manager goes on starting the service.
                let _ = child.kill();
                let _ = child.wait();
                return Ok(false);
            }
            None => thread::sleep(POLL_INTERVAL),
        }
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
    fn an_image_has_no_running_manager() {
        let image = Layout { root: "/mnt/image".into(), ..layout() };
        assert!(!is_running(&image));
    }
}
