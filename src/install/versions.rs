//! Which of the installed versions.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use procfs::process::all_processes;

use super::Error;
use super::layout::Layout;
use super::receipt::{Receipt, Version};

/// The version whose name begins with `wanted`; without that, the one before the current one.
pub(super) fn to_go_back_to<'a>(receipt: &'a Receipt, wanted: Option<&str>) -> Result<&'a Version, Error> {
    let names = |versions: &[&Version]| versions.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    let all: Vec<&Version> = receipt.versions.iter().collect();
    let Some(wanted) = wanted else {
        let is_current = |version: &&&Version| receipt.current.as_deref() == Some(&version.name);
        let before = receipt.previous.as_deref().and_then(|name| receipt.version(name));
        let before = before.or_else(|| all.iter().rev().find(|version| !is_current(version)).copied());
        return before.ok_or_else(|| Error::NoPrevious { has: names(&all) });
    };
    if let Some(version) = receipt.version(wanted) {
        return Ok(version);
    }
    let found: Vec<&Version> = all.iter().filter(|version| version.name.starts_with(wanted)).copied().collect();
    match found[..] {
        [version] => Ok(version),
        [] => Err(Error::NoVersion { wanted: wanted.to_owned(), has: names(&all) }),
        _ => Err(Error::Ambiguous { wanted: wanted.to_owned(), has: names(&found) }),
    }
}

/// All but the newest `keep`; never the current one, nor one that runs. And a line on each that is spared.
pub(super) fn to_prune(layout: &Layout, receipt: &Receipt, keep: usize) -> (Vec<String>, Vec<String>) {
    let (mut gone, mut notes) = (Vec::new(), Vec::new());
    let is_current = |version: &&Version| receipt.current.as_deref() == Some(&version.name);
    let others = receipt.versions.iter().rev().filter(|version| !is_current(version));
    for version in others.skip(keep.saturating_sub(1)) {
        match running(layout, version).first() {
            None => gone.push(version.name.clone()),
            Some(pid) => notes.push(format!("{} is kept: process {pid} runs it", version.name)),
        }
    }
    (gone, notes)
}

/// The other processes that run a program of this version, as far as they can be seen.
pub(crate) fn running(layout: &Layout, version: &Version) -> Vec<i32> {
    let dir = layout.real(&layout.programs(&version.name));
    // By what the file is: a process may see it under another path.
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
