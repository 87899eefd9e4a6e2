//! What the running system has to be told: its service manager, and `SELinux`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::layout::Layout;
use super::receipt::Receipt;
use super::{Error, UNIT};

/// The cluster may come late, and with it the service.
const START_PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);

/// Whether systemd is there: on the running system, if that is meant, as `sd_booted(3)` finds it out.
pub(crate) fn has_systemd(layout: &Layout) -> bool {
    if layout.is_live() {
        return Path::new("/run/systemd/system").is_dir();
    }
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| layout.real(Path::new(path)).exists())
}

/// Whether there is a service manager to be told of changes. A user has one who is logged in, or whom loginctl lets
/// linger.
pub(crate) fn is_managed(layout: &Layout) -> bool {
    layout.is_live() && has_systemd(layout) && (!layout.user || runtime_dir().join("systemd").exists())
}

/// The user's own, as `pam_systemd(8)` makes it.
fn runtime_dir() -> PathBuf {
    Path::new("/run/user").join(Uid::effective().to_string())
}

/// `systemctl` as a person would call it.
pub(crate) fn systemctl(layout: &Layout, args: &[&str]) -> String {
    let user: &[&str] = if layout.user { &["--user"] } else { &[] };
    ["systemctl"].iter().chain(user).chain(args).copied().collect::<Vec<_>>().join(" ")
}

/// Has it read the units again.
pub(crate) fn reload(layout: &Layout) -> Result<(), Error> {
    run(layout, &["daemon-reload"]).map(drop)
}

/// Whether the service runs.
pub(crate) fn is_active(layout: &Layout) -> bool {
    matches!(run(layout, &["is-active", "--quiet", UNIT]), Ok(true))
}

/// Starts the service, or starts it again. Gives whether it is ready.
///
/// # Errors
/// When it does not start.
pub(crate) fn restart(layout: &Layout) -> Result<bool, Error> {
    run(layout, &["restart", UNIT])
}

/// Ends the service, for good.
pub(crate) fn disable(layout: &Layout) -> Result<(), Error> {
    run(layout, &["disable", "--quiet", "--now", UNIT]).map(drop)
}

/// Gives whether it came to its end in time.
fn run(layout: &Layout, args: &[&str]) -> Result<bool, Error> {
    let command = systemctl(layout, args);
    let failed = |why: String| Error::Service { command: command.clone(), why };
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().unwrap_or_default());
    if layout.user {
        // Not all ways to become a user set it.
        child.env("XDG_RUNTIME_DIR", runtime_dir());
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
            None if start.elapsed() > START_PATIENCE => {
                // Only who asks is ended; what was asked for goes on.
                let _ = child.kill();
                let _ = child.wait();
                return Ok(false);
            }
            None => thread::sleep(LOOK),
        }
    }
}

/// Gives the files the labels that they would have from the system's own packages, where it has labels.
pub(crate) fn restore_labels(layout: &Layout, receipt: &Receipt) {
    let tools = ["/usr/sbin/restorecon", "/sbin/restorecon"];
    if let Some(tool) = tools.iter().find(|tool| layout.is_live() && Path::new(tool).exists()) {
        let paths = receipt.entries.iter().map(|entry| &entry.path);
        let _ = Command::new(tool).args(paths).arg(layout.receipt()).stdin(Stdio::null()).status();
    }
}
