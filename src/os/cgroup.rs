//! The memory that the system lets this process use: the limit of its control group.

use std::fs;
use std::path::Path;

use procfs::ProcessCGroups;
use procfs::process::{MountInfo, Process};

/// The lowest limit, in bytes, of the control group of this process and those above it. `None` if the system shows none.
pub(crate) fn memory_limit() -> Option<u64> {
    let process = Process::myself().ok()?;
    let groups = process.cgroups().ok()?;
    let limits = process.mountinfo().ok()?.into_iter().filter_map(|mount| limit_in(&mount, &groups));
    // Version 1 writes "no limit" as the largest number of pages.
    limits.min().filter(|limit| *limit < 1 << 60)
}

/// The limit in one hierarchy: version 2 (<https://docs.kernel.org/admin-guide/cgroup-v2.html>), or that of memory in
/// version 1 (<https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>).
fn limit_in(mount: &MountInfo, groups: &ProcessCGroups) -> Option<u64> {
    let (file, controller) = match mount.fs_type.as_str() {
        "cgroup2" => ("memory.max", None),
        "cgroup" if mount.super_options.contains_key("memory") => ("memory.limit_in_bytes", Some("memory")),
        _ => return None,
    };
    let group = groups.0.iter().find(|group| match controller {
        None => group.hierarchy == 0,
        Some(controller) => group.controllers.iter().any(|it| it == controller),
    })?;
    // In a container, the mount begins at the container's group, or the path of the group is not visible.
    let path = Path::new(&group.pathname).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let dir = mount.mount_point.join(path.strip_prefix("/").unwrap_or(path));
    let dirs = dir.ancestors().take_while(|dir| dir.starts_with(&mount.mount_point));
    dirs.filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, root: &str, at: &Path, options: &str) -> MountInfo {
        let at = at.display();
        MountInfo::from_line(&format!("1 1 0:1 {root} {at} rw - {fs_type} {fs_type} rw{options}")).unwrap()
    }

    #[test]
    fn the_lowest_limit_above_a_process_counts() {
        use procfs::FromRead as _;
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let groups = |text: &str| ProcessCGroups::from_read(text.as_bytes()).unwrap();
        write("app/one/memory.max", "max\n");
        let v2 = mount("cgroup2", "/", dir.path(), "");
        assert_eq!(limit_in(&v2, &groups("0::/app/one\n")), None);
        write("app/memory.max", "33554432\n");
        assert_eq!(limit_in(&v2, &groups("0::/app/one\n")), Some(32 << 20));
        write("app/one/memory.max", "16777216\n");
        assert_eq!(limit_in(&v2, &groups("0::/app/one\n")), Some(16 << 20));
        let inside = mount("cgroup2", "/app", &dir.path().join("app"), "");
        assert_eq!(limit_in(&inside, &groups("0::/app/one\n")), Some(16 << 20));
        assert_eq!(limit_in(&inside, &groups("0::/hidden\n")), Some(32 << 20), "only the mount is visible");

        write("job/memory.limit_in_bytes", "1048576\n");
        let v1 = mount("cgroup", "/", dir.path(), ",memory");
        assert_eq!(limit_in(&v1, &groups("4:memory:/job\n0::/\n")), Some(1 << 20));
        assert_eq!(limit_in(&mount("cgroup", "/", dir.path(), ",cpu"), &groups("4:memory:/job\n")), None);
    }
}
