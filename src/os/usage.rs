//! What this process uses of the system.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use procfs::process::{Process, Stat};

use super::clock::since_epoch;

/// What this process uses of the system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// In user mode and in the kernel, in seconds.
    pub cpu_seconds: f64,
    /// In bytes.
    pub resident_memory: u64,
    /// In bytes.
    pub virtual_memory: u64,
    pub open_files: u64,
    pub max_files: u64,
    /// In seconds since 1970.
    pub started: f64,
}

impl Usage {
    /// Now. `None` if the system does not show it. A process may always look at itself, even when it hides its memory.
    pub(crate) fn now() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        Some(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_memory: stat.rss * procfs::page_size(),
            virtual_memory: stat.vsize,
            open_files: process.fd_count().ok()? as u64,
            max_files: getrlimit(Resource::RLIMIT_NOFILE).ok()?.0,
            started: started(&stat)?,
        })
    }
}

/// When this process started, in seconds since 1970. Always the same, although clocks are set.
fn started(stat: &Stat) -> Option<f64> {
    static STARTED: OnceLock<f64> = OnceLock::new();
    if let Some(started) = STARTED.get() {
        return Some(*started);
    }
    // The time of boot is in /proc/stat, which a sandbox may hide.
    let up = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let age = up.as_secs_f64() - seconds(stat.starttime);
    Some(*STARTED.get_or_init(|| since_epoch(SystemTime::now()).as_secs_f64() - age))
}

fn seconds(ticks: u64) -> f64 {
    Duration::from_millis(ticks * 1000 / procfs::ticks_per_second().max(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let first = Usage::now().unwrap();
        let second = Usage::now().unwrap();
        assert!(first.resident_memory > 1 << 20 && first.virtual_memory >= first.resident_memory, "{first:?}");
        assert!((3..=first.max_files).contains(&first.open_files), "{first:?}");
        assert!(second.cpu_seconds >= first.cpu_seconds);
        assert!((first.started - second.started).abs() < 1e-9);
        let age = since_epoch(SystemTime::now()).as_secs_f64() - first.started;
        assert!((-1.0..3600.0).contains(&age), "{age}");
    }
}
