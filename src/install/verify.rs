//! Whether everything is as it was installed.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout::Layout;
use super::receipt::{Entry, Mode, Receipt, What};
use super::{Error, disk, guard};
use crate::release::{self, RELEASE};

/// One path that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub path: PathBuf,
    /// How it differs; `None` when it does not, or may.
    pub problem: Option<String>,
    /// The user has changed it, as is their right.
    pub yours: bool,
}

impl Finding {
    pub(crate) fn new(path: PathBuf, problem: Option<String>) -> Self {
        Self { path, problem, yours: false }
    }
}

/// Compares every path of the receipt with what is there; files by their hash, and programs of this binary's release
/// with that, too.
pub(crate) fn verify(layout: &Layout, receipt: &Receipt) -> Vec<Finding> {
    let finding = |entry: &Entry| {
        let mut finding = Finding::new(layout.real(&entry.path), problem(layout, receipt, entry));
        if entry.path.starts_with(&layout.config_dir) && finding.problem.is_some() && is_only_edited(&finding.path) {
            finding.yours = true;
            finding.problem = None;
        }
        finding
    };
    receipt.entries.iter().map(finding).collect()
}

/// A regular file that nobody else can write to; or one for the user to look at, who has done so and removed it.
fn is_only_edited(path: &Path) -> bool {
    let was_offered = path.extension().is_some_and(|extension| extension == "new");
    was_offered && matches!(disk::look(path), Ok(None))
        || matches!(disk::look(path), Ok(Some(What::File { mode: Mode(mode), .. })) if mode & 0o022 == 0)
}

/// # Errors
/// When a file of that version is not as it was installed.
pub(super) fn refuse_damaged(layout: &Layout, receipt: &Receipt, version: &str) -> Result<(), Error> {
    for entry in receipt.entries.iter().filter(|entry| layout.version_of(&entry.path) == Some(version)) {
        if let Some(why) = problem(layout, receipt, entry) {
            return Err(Error::Damaged { path: layout.real(&entry.path), why });
        }
    }
    Ok(())
}

fn problem(layout: &Layout, receipt: &Receipt, entry: &Entry) -> Option<String> {
    let real = layout.real(&entry.path);
    let dir = entry.path.parent().unwrap_or(&entry.path);
    let found = match guard::check(layout, dir).and_then(|_| disk::look(&real)) {
        Ok(found) => found,
        Err(err) => return Some(err.to_string()),
    };
    match (&entry.what, found) {
        (_, None) => Some("it is missing".to_owned()),
        (wanted, Some(found)) if *wanted == found => differs_from_release(layout, receipt, entry),
        (What::File { sha256, mode }, Some(What::File { sha256: found, mode: found_mode })) => {
            Some(if *sha256 == found {
                format!("its mode is {}, not {}", String::from(found_mode), String::from(*mode))
            } else {
                format!("its sha256 is {found}, not {sha256}")
            })
        }
        (What::Link { target }, Some(What::Link { target: found })) => {
            Some(format!("it is a link to {}, not to {}", found.display(), target.display()))
        }
        (What::File { .. }, Some(_)) => Some("it is not a regular file".to_owned()),
        (What::Link { .. }, Some(_)) => Some("it is not a link".to_owned()),
        (What::Directory, Some(_)) => Some("it is not a directory".to_owned()),
    }
}

/// A receipt that was changed together with a program is found out by the release in this binary.
fn differs_from_release(layout: &Layout, receipt: &Receipt, entry: &Entry) -> Option<String> {
    let version = receipt.version(layout.version_of(&entry.path)?)?;
    let name = entry.path.file_name()?.to_str()?;
    if !matches!(entry.what, What::File { mode: Mode(_), .. }) || version.etcd != RELEASE.version {
        return None;
    }
    let program = release::program(name).ok()?;
    release::difference(program, &layout.real(&entry.path)).unwrap_or_else(|err| Some(err.to_string()))
}
