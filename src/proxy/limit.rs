//! How many clients fit: into the files that this process may open, and into its memory.

use std::fmt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::os::cgroup;

/// More than an application needs, and little enough for a small sidecar.
const MAX_CLIENTS: usize = 4096;

/// Files that are open besides clients: connections that are not clients yet, and 32 others.
const OTHER_FILES: u64 = 96;

const MB: u64 = 1 << 20;

/// Memory that the proxy uses without clients, in bytes.
const OTHER_MEMORY: u64 = 4 * MB;

/// Memory for one client, in bytes: its two sockets in the kernel included, it takes 13 kB, with TLS twice that, and
/// more while it transfers much.
const MEMORY_PER_CLIENT: u64 = 32 * 1024;

/// How many clients are served at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub clients: usize,
    /// What limits the clients; `None` if it is our own maximum.
    bound: Option<Bound>,
}

/// What a client needs and may run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// `ulimit -n`.
    Files(u64),
    /// The setting, in MB.
    Memory(u64),
    /// The limit of the control group, in MB.
    Cgroup(u64),
}

impl Bound {
    /// How many clients fit.
    fn clients(self) -> usize {
        let clients = match self {
            Self::Files(files) => files.saturating_sub(OTHER_FILES) / 2,
            Self::Memory(mb) | Self::Cgroup(mb) => {
                mb.saturating_mul(MB).saturating_sub(OTHER_MEMORY) / MEMORY_PER_CLIENT
            }
        };
        usize::try_from(clients).unwrap_or(usize::MAX)
    }
}

impl Limit {
    /// As many clients as there are files for, two per client, and memory: what the setting allows (in MB), and the
    /// control group. Raises the soft limit of files first.
    pub(super) fn of_this_process(memory: Option<u32>) -> Self {
        let (mut soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let wanted = (2 * MAX_CLIENTS as u64 + OTHER_FILES).min(hard);
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            soft = wanted;
        }
        Self::new(soft, memory, cgroup::memory_limit())
    }

    fn new(files: u64, memory: Option<u32>, cgroup: Option<u64>) -> Self {
        let memory = memory.map(|mb| Bound::Memory(mb.into()));
        let cgroup = cgroup.map(|bytes| Bound::Cgroup(bytes / MB));
        let bounds = [Some(Bound::Files(files)), memory, cgroup].into_iter().flatten();
        let lowest = bounds.min_by_key(|bound| bound.clients()).filter(|bound| bound.clients() < MAX_CLIENTS);
        Self { clients: lowest.map_or(MAX_CLIENTS, Bound::clients).max(1), bound: lowest }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} at once", self.clients)?;
        match self.bound {
            Some(Bound::Files(files)) => write!(f, ", because ulimit -n is {files}: raise it, or open fewer"),
            Some(Bound::Memory(mb)) => write!(f, ", because --memory is {mb} MB: raise it, or open fewer"),
            Some(Bound::Cgroup(mb)) => {
                write!(f, ", because the control group's memory limit is {mb} MB: raise it, or open fewer")
            }
            None => f.write_str(": open fewer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit_that_applies() {
        for (files, clients, words) in [
            (0, 1, "at most 1 at once, because ulimit -n is 0: raise it, or open fewer"),
            (96, 1, "at most 1 at once, because ulimit -n is 96: raise it, or open fewer"),
            (160, 32, "at most 32 at once, because ulimit -n is 160: raise it, or open fewer"),
            (8287, 4095, "at most 4095 at once, because ulimit -n is 8287: raise it, or open fewer"),
            (8288, 4096, "at most 4096 at once: open fewer"),
            (u64::MAX, 4096, "at most 4096 at once: open fewer"),
        ] {
            let limit = Limit::new(files, None, None);
            assert_eq!((limit.clients, limit.to_string().as_str()), (clients, words));
        }
    }

    #[test]
    fn the_scarcest_of_files_and_memory_limits_the_clients() {
        let limit = |files, memory, cgroup: Option<u64>| Limit::new(files, memory, cgroup.map(|mb| mb * MB));
        let by_memory = limit(8288, Some(32), Some(512));
        assert_eq!(by_memory.clients, 896);
        assert!(by_memory.to_string().ends_with(", because --memory is 32 MB: raise it, or open fewer"));
        let by_cgroup = limit(8288, Some(64), Some(8));
        assert_eq!(by_cgroup.clients, 128);
        assert!(by_cgroup.to_string().contains("because the control group's memory limit is 8 MB: raise it"));
        assert_eq!(limit(160, Some(32), Some(32)).bound, Some(Bound::Files(160)));
        assert_eq!(limit(8288, Some(4096), Some(4096)), Limit { clients: MAX_CLIENTS, bound: None });
        // What version 1 says if there is no limit.
        assert_eq!(Limit::new(8288, None, Some(9_223_372_036_854_771_712)).bound, None);
        assert_eq!(limit(8288, None, Some(1)).clients, 1);
    }
}
