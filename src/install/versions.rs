//! Chooses among the installed versions.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use procfs::process::all_processes;

use super::error::Error;
use super::layout::Layout;
use super::receipt::{Receipt, Version};

/// The version whose name begins with `wanted`; without `wanted`, the version before the current one.
///
/// # Errors
/// If there is no such version, or more than one.
pub(super) fn to_roll_back_to<'a>(receipt: &'a Receipt, wanted: Option<&str>) -> Result<&'a Version, Error> {
    let names = |versions: &[&Version]| versions.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    let all: Vec<&Version> = receipt.versions.iter().collect();
    let Some(wanted) = wanted else {
        let is_current = |version: &&&Version| receipt.current.as_deref() == Some(&version.name);
        let previous = receipt.previous.as_deref().and_then(|name| receipt.version(name));
        let previous = previous.or_else(|| all.iter().rev().find(|version| !is_current(version)).copied());
        return previous.ok_or_else(|| Error::NoPrevious { installed: names(&all) });
    };
    if let Some(version) = receipt.version(wanted) {
        return Ok(version);
    }
    let matching: Vec<&Version> = all.iter().filter(|version| version.name.starts_with(wanted)).copied().collect();
    match matching[..] {
        [version] => Ok(version),
        [] => Err(Error::NoVersion { wanted: wanted.to_owned(), installed: names(&all) }),
        _ => Err(Error::Ambiguous { wanted: wanted.to_owned(), matching: names(&matching) }),
    }
}

/// The names of all versions except the newest `keep`, the current one, and those that a process is running. Also returns a
/// note about each version that is kept only because a process is running it.
pub(super) fn to_prune(
    receipt: &Receipt,
    keep: usize,
    running: impl Fn(&Version) -> Vec<i32>,
) -> (Vec<String>, Vec<String>) {
    let (mut removed, mut notes) = (Vec::new(), Vec::new());
    let is_current = |version: &&Version| receipt.current.as_deref() == Some(&version.name);
    let others = receipt.versions.iter().rev().filter(|version| !is_current(version));
    for version in others.skip(keep.saturating_sub(1)) {
        match running(version).first() {
            None => removed.push(version.name.clone()),
            Some(pid) => notes.push(format!("{} is kept: process {pid} is running it", version.name)),
        }
    }
    (removed, notes)
}

/// The ids of other processes that run a program of this version, as far as this user can see them.
pub(super) fn running(layout: &Layout, version: &Version) -> Vec<i32> {
    let dir = layout.real_target(&layout.programs(&version.name));
    // Compares the files' identities, because a process may see the file under another path.
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let files: Vec<_> =
        version.programs.iter().filter_map(|name| fs::metadata(dir.join(name)).ok()).map(identity).collect();
    let own = std::process::id();
    let is_other = |pid: &i32| u32::try_from(*pid) != Ok(own);
    let runs = |pid: &i32| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|meta| files.contains(&identity(meta)));
    all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| Some(process.ok()?.pid))
        .filter(is_other)
        .filter(runs)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::layout;
    use super::*;

    /// A receipt with versions in the order of their installation; `previous` and `current` name two of them.
    fn receipt(versions: &[&str], previous: Option<&str>, current: &str) -> Receipt {
        let version = |name: &&str| Version {
            name: (*name).to_owned(),
            etcd: "3.7.2".to_owned(),
            installed: "2026-11-23T16:38:50Z".to_owned(),
            programs: Vec::new(),
        };
        Receipt {
            versions: versions.iter().map(version).collect(),
            previous: previous.map(str::to_owned),
            current: Some(current.to_owned()),
            ..Receipt::new(&layout())
        }
    }

    #[test]
    fn rollback_goes_to_the_previous_version_or_the_one_that_is_named() {
        let versions = ["0.1.0-a", "0.1.0-b", "0.2.0-c"];
        let chosen = |receipt: &Receipt, wanted| match to_roll_back_to(receipt, wanted) {
            Ok(version) => version.name.clone(),
            Err(err) => err.to_string(),
        };
        let all = receipt(&versions, Some("0.1.0-a"), "0.2.0-c");
        for (wanted, expected) in [
            (None, "0.1.0-a"),
            (Some("0.2"), "0.2.0-c"),
            (Some("0.1.0-b"), "0.1.0-b"),
            (Some("0.1"), "0.1 matches several versions (0.1.0-a, 0.1.0-b): give more of the name"),
            (Some("9"), "version 9 is not installed: choose one of 0.1.0-a, 0.1.0-b, 0.2.0-c"),
        ] {
            assert_eq!(chosen(&all, wanted), expected, "{wanted:?}");
        }
        // The previous one may have been pruned.
        assert_eq!(chosen(&receipt(&versions, Some("gone"), "0.2.0-c"), None), "0.1.0-b");
        assert_eq!(chosen(&receipt(&versions, None, "0.1.0-a"), None), "0.2.0-c");
        let only = chosen(&receipt(&["a"], None, "a"), None);
        assert_eq!(only, "there is no version to roll back to: a is the only one");
        // A whole name counts, even if another begins with it.
        assert_eq!(chosen(&receipt(&["1", "1.1"], None, "1.1"), Some("1")), "1");
    }

    #[test]
    fn prune_spares_the_newest_the_current_one_and_those_that_run() {
        let versions = ["a", "b", "c", "d"];
        let runs_b = |version: &Version| if version.name == "b" { vec![7, 8] } else { Vec::new() };
        for (current, keep, removed) in [
            ("d", 1, &["c", "b", "a"][..]),
            ("d", 2, &["b", "a"]),
            ("d", 4, &[]),
            ("a", 1, &["d", "c", "b"]),
            ("a", 2, &["c", "b"]),
        ] {
            let receipt = receipt(&versions, None, current);
            assert_eq!(to_prune(&receipt, keep, |_| Vec::new()).0, removed, "{current} {keep}");
            let (spared, notes) = to_prune(&receipt, keep, runs_b);
            assert!(!spared.contains(&"b".to_owned()));
            let note = removed.contains(&"b").then(|| "b is kept: process 7 is running it".to_owned());
            assert_eq!(notes, Vec::from_iter(note));
        }
    }
}
