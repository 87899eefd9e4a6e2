//! Checks that everything is as it was installed, and the same as in this binary.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::Error;
use super::file_state::{FileState, Mode};
use super::guard;
use super::layout::Layout;
use super::locate::{Location, locate};
use super::receipt::{Entry, Receipt};
use crate::fs::dirs;
use crate::os::env::{Env, is_own_exe};
use crate::release::{self, Difference, Program, RELEASE, Store};

/// What was checked, and what is wrong. It is the JSON of `verify --json`, whose names stay.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// The programs inside this binary.
    #[serde(rename = "carried")]
    pub embedded: Vec<Embedded>,
    /// The files on disk.
    pub files: Vec<Finding>,
}

/// One program inside this binary.
#[derive(Debug, Serialize)]
pub(crate) struct Embedded {
    pub name: &'static str,
    pub version: &'static str,
    /// In lower-case hex.
    pub sha256: &'static str,
    /// What is wrong; `None` if nothing is.
    pub problem: Option<Difference>,
}

/// One file, link or directory.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub path: PathBuf,
    /// How it differs; `None` if it does not, or if it may differ.
    pub problem: Option<Difference>,
    /// Whether the user has changed it, as users may change settings.
    pub yours: bool,
}

/// Checks every byte of the programs in this binary and in `dir`. Without `dir`, it checks all programs that were unpacked
/// and all files of the installation.
///
/// # Errors
/// If a file cannot be read, if the installation that the user names does not exist, or if there is nothing to check.
pub(crate) fn verify(dir: Option<&Path>, location: &Location, env: &Env) -> Result<Report, Error> {
    if let Some(dir) = dir
        && !dir.is_dir()
    {
        return Err(Error::NoDirectory { path: dir.to_owned(), exists: dir.exists() });
    }
    let store = Store::new(env);
    let (mut embedded, mut files) = (Vec::new(), Vec::new());
    for program in RELEASE.programs {
        if release::has_payload() {
            let problem = release::check(program).err().map(|err| Difference::Mismatch(err.to_string()));
            embedded.push(Embedded { name: program.name, version: RELEASE.version, sha256: program.sha256, problem });
        }
        for path in unpacked(program, dir, location, &store) {
            let problem = if dir.is_some() {
                difference_behind_links(program, &path)?
            } else if is_own_exe(&path) {
                None
            } else {
                release::difference(program, &path)?
            };
            files.push(Finding { path, problem, yours: false });
        }
    }
    if dir.is_none() {
        let installed = installed(location, env)?;
        files.retain(|file| installed.iter().all(|other| other.path != file.path));
        files.extend(installed);
    }
    if embedded.is_empty() && files.is_empty() {
        let candidates = RELEASE.programs.iter().flat_map(|program| store.candidates(program));
        let candidates: Vec<String> = candidates.map(|path| path.display().to_string()).collect();
        return Err(Error::NothingToVerify { candidates: candidates.join(", ") });
    }
    let mut problems = embedded.iter().map(|one| &one.problem).chain(files.iter().map(|one| &one.problem));
    Ok(Report { sound: problems.all(Option::is_none), embedded, files })
}

/// The file in the directory that the user names, whether it exists or not; otherwise the files that exist where `run` looks
/// for the program. Those are on this host, so an image has none.
fn unpacked(program: &Program, dir: Option<&Path>, location: &Location, store: &Store) -> Vec<PathBuf> {
    match dir {
        Some(dir) => vec![dir.join(program.name)],
        None if location.root.is_some() => Vec::new(),
        None => {
            // A link to this binary is a program as long as this binary contains it.
            let counts =
                |path: &PathBuf| path.symlink_metadata().is_ok() && (release::has_payload() || !is_own_exe(path));
            store.candidates(program).into_iter().filter(counts).collect()
        }
    }
}

/// How what the user names differs from `program`. Links count as what they lead to, because they run as that.
fn difference_behind_links(program: &Program, path: &Path) -> Result<Option<Difference>, Error> {
    if is_own_exe(path) {
        let lacks_it = || Difference::Mismatch("it leads to this small launcher, which has no etcd inside".to_owned());
        return Ok((!release::has_payload()).then(lacks_it));
    }
    match path.read_link() {
        Ok(target) if !path.exists() => {
            Ok(Some(Difference::Mismatch(format!("it is a link to {}, which leads to no file", target.display()))))
        }
        Ok(_) => Ok(release::difference(program, &path.canonicalize().unwrap_or_else(|_| path.to_owned()))?),
        Err(_) => Ok(release::difference(program, path)?),
    }
}

fn installed(location: &Location, env: &Env) -> Result<Vec<Finding>, Error> {
    let layout = locate(location, env)?;
    match Receipt::load_installed(&layout)? {
        Some(receipt) => Ok(receipt.entries.iter().map(|entry| finding(&layout, &receipt, entry)).collect()),
        None if location.is_explicit() => Err(Error::NotInstalled { path: layout.real(&layout.prefix) }),
        None => Ok(Vec::new()),
    }
}

fn finding(layout: &Layout, receipt: &Receipt, entry: &Entry) -> Finding {
    let path = layout.real(&entry.path);
    let problem = problem(layout, receipt, entry);
    let yours = entry.path.starts_with(&layout.config_dir) && problem.is_some() && is_only_edited(&path, layout.uid);
    Finding { path, problem: problem.filter(|_| !yours), yours }
}

/// Whether the difference may be the user's own change: a regular file to which nobody else can write, or a removed file
/// that was only offered (`….new`).
fn is_only_edited(path: &Path, uid: u32) -> bool {
    let was_offered = path.extension().is_some_and(|extension| extension == "new");
    match FileState::read(path, uid) {
        Ok(None) => was_offered,
        Ok(Some(FileState::File { mode: Mode(mode), .. })) => mode & 0o022 == 0,
        _ => false,
    }
}

/// # Errors
/// If a file of that version is not as it was installed.
pub(super) fn refuse_damaged(layout: &Layout, receipt: &Receipt, version: &str) -> Result<(), Error> {
    for entry in receipt.entries.iter().filter(|entry| layout.version_of(&entry.path) == Some(version)) {
        if let Some(difference) = problem(layout, receipt, entry) {
            return Err(Error::Damaged { path: layout.real(&entry.path), difference });
        }
    }
    Ok(())
}

fn problem(layout: &Layout, receipt: &Receipt, entry: &Entry) -> Option<Difference> {
    let found = guard::check(layout, dirs::parent(&entry.path))
        .and_then(|_| FileState::read(&layout.real(&entry.path), layout.uid));
    match found {
        Err(err) => Some(Difference::Mismatch(err.to_string())),
        Ok(None) => Some(Difference::Missing),
        Ok(Some(found)) if found == entry.state => differs_from_release(layout, receipt, entry),
        Ok(Some(found)) => Some(Difference::Mismatch(mismatch(&entry.state, &found))),
    }
}

/// Describes how the path differs from what was installed.
fn mismatch(installed: &FileState, found: &FileState) -> String {
    match (installed, found) {
        (FileState::File { sha256, mode }, FileState::File { sha256: found, mode: found_mode }) => {
            if sha256 == found {
                format!("its mode is {}, not {}", String::from(*found_mode), String::from(*mode))
            } else {
                format!("its sha256 is {found}, not {sha256}")
            }
        }
        (FileState::Link { target }, FileState::Link { target: found }) => {
            format!("it is a link to {}, not to {}", found.display(), target.display())
        }
        (FileState::File { .. }, _) => "it is not a regular file".to_owned(),
        (FileState::Link { .. }, _) => "it is not a link".to_owned(),
        (FileState::Directory, _) => "it is not a directory".to_owned(),
    }
}

/// Finds a program that was changed together with the receipt, if this binary contains the same etcd.
fn differs_from_release(layout: &Layout, receipt: &Receipt, entry: &Entry) -> Option<Difference> {
    let version = receipt.version(layout.version_of(&entry.path)?)?;
    let name = entry.path.file_name()?.to_str()?;
    if !matches!(entry.state, FileState::File { .. }) || version.etcd != RELEASE.version {
        return None;
    }
    let program = release::program(name).ok()?;
    let difference = release::difference(program, &layout.real(&entry.path));
    difference.unwrap_or_else(|err| Some(Difference::Mismatch(err.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_says_what_was_found_and_what_was_installed() {
        let file = |sha256: &str, mode| FileState::File { sha256: sha256.to_owned(), mode: Mode(mode) };
        let link = |target: &str| FileState::Link { target: target.into() };
        for (installed, found, words) in [
            (file("aa", 0o755), file("aa", 0o4755), "its mode is 4755, not 0755"),
            (file("aa", 0o755), file("bb", 0o600), "its sha256 is bb, not aa"),
            (file("aa", 0o755), link("a"), "it is not a regular file"),
            (link("a"), link("b"), "it is a link to b, not to a"),
            (link("a"), FileState::Directory, "it is not a link"),
            (FileState::Directory, link("a"), "it is not a directory"),
        ] {
            assert_eq!(mismatch(&installed, &found), words);
        }
    }
}
