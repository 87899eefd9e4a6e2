//! A control group that limits memory, as a container has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::command;

/// A control group of this test's own.
pub(crate) struct Group(PathBuf);

impl Group {
    /// `None` if this system lets nobody limit memory.
    pub(crate) fn new(megabytes: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("etcdproxy-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Version 1 of control groups, then version 2.
        for (root, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(PathBuf::from(root).join(&name));
            if fs::create_dir(&group.0).is_ok() {
                let limit = (megabytes << 20).to_string();
                if group.0.join("cgroup.procs").exists() && fs::write(group.0.join(file), limit).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }

    /// A program that runs in it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut shell = command("sh".as_ref(), ["-c", &format!("{} && exec \"$@\"", self.join()), "sh"]);
        shell.arg(program);
        shell
    }

    /// A command of the shell that puts the shell into it.
    pub(crate) fn join(&self) -> String {
        format!("echo 0 >{}/cgroup.procs", self.0.display())
    }

    /// How often the limit was reached so that a process had to be killed.
    pub(crate) fn kills(&self) -> Option<u64> {
        let files = ["memory.oom_control", "memory.events"];
        let text = files.into_iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok())?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }

    /// The most memory that was in use, in bytes.
    pub(crate) fn peak(&self) -> Option<u64> {
        let files = ["memory.max_usage_in_bytes", "memory.peak"];
        files.into_iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes take a moment to leave.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
