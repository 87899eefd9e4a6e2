//! Reads everything that a plan depends on.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::goal::{Goal, Rule, backup_of, beside};
use crate::fs::dirs;
use crate::install::error::Error;
use crate::install::file_state::FileState;
use crate::install::guard;

/// The state of all paths that a plan for a goal may depend on. An error counts only if the plan does depend on that path.
#[derive(Debug)]
pub(super) struct Snapshot {
    states: Looked<Option<FileState>>,
    directories: Looked<bool>,
    /// The names in the directories that may be removed.
    names: Looked<Vec<OsString>>,
}

/// Paths with what a look at each gave. There are some dozens, so a search through all of them is quick.
type Looked<T> = Vec<(PathBuf, Result<T, Error>)>;

impl Snapshot {
    /// Reads the disk.
    pub(super) fn take(goal: &Goal<'_>) -> Self {
        let layout = goal.layout;
        let look = |path: &Path| {
            let exists = guard::check(layout, dirs::parent(path))?;
            if exists { FileState::read(&layout.real(path), layout.uid) } else { Ok(None) }
        };
        // What cannot be listed cannot be removed either, and that error says more.
        let names = |dir: &Path| dirs::names(&layout.real(dir)).unwrap_or_default();
        Self::with(goal, look, |dir| guard::check_path(layout, dir), names)
    }

    /// Asks `look` about every path that the plan may depend on, `has_directory` about every directory, and `names` about
    /// those that may be removed.
    pub(super) fn with(
        goal: &Goal<'_>,
        look: impl Fn(&Path) -> Result<Option<FileState>, Error>,
        has_directory: impl Fn(&Path) -> Result<bool, Error>,
        names: impl Fn(&Path) -> Vec<OsString>,
    ) -> Self {
        let states = goal.paths().into_iter().map(|path| (path.clone(), look(&path))).collect();
        let directories = goal.directories().into_iter().map(|dir| (dir.clone(), has_directory(&dir))).collect();
        let removable = goal.receipt.entries.iter().filter(|entry| entry.state == FileState::Directory);
        let names = removable.map(|entry| (entry.path.clone(), Ok(names(&entry.path)))).collect();
        Self { states, directories, names }
    }

    /// What is at the path.
    pub(super) fn state(&mut self, path: &Path) -> Result<Option<FileState>, Error> {
        get(&mut self.states, path)
    }

    /// Whether the directory exists.
    pub(super) fn has_directory(&mut self, dir: &Path) -> Result<bool, Error> {
        get(&mut self.directories, dir)
    }

    /// The names in a directory of the receipt.
    pub(super) fn names(&mut self, dir: &Path) -> Result<Vec<OsString>, Error> {
        get(&mut self.names, dir)
    }
}

/// A copy of the result, or the error itself, which ends the planning.
fn get<T: Clone>(found: &mut Looked<T>, path: &Path) -> Result<T, Error> {
    let position = found.iter().position(|(looked_at, _)| looked_at == path);
    if let Some((_, Ok(value))) = position.map(|at| &found[at]) {
        return Ok(value.clone());
    }
    let never_looked_at = || Err(Error::CannotRead { path: path.to_owned(), cause: io::ErrorKind::Other.into() });
    position.map_or_else(never_looked_at, |at| found.swap_remove(at).1)
}

impl Goal<'_> {
    /// The files and links that a plan for this goal may depend on.
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.layout.config()];
        for item in &self.items {
            paths.push(item.path.clone());
            if item.rule == Rule::Keep {
                paths.push(beside(&item.path));
            }
            if self.force {
                paths.push(backup_of(&item.path));
            }
        }
        // The files of kept versions are left out, because reading them all would take long.
        paths.extend(self.kept.iter().filter(|entry| !entry.previous.is_empty()).map(|entry| entry.path.clone()));
        let files = self.receipt.entries.iter().filter(|entry| entry.state != FileState::Directory);
        for entry in files.filter(|entry| !self.wants(&entry.path)) {
            paths.push(entry.path.clone());
            paths.extend(entry.backup.clone());
        }
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// The directories that a plan for this goal may depend on.
    fn directories(&self) -> Vec<PathBuf> {
        let above = self.items.iter().flat_map(|item| item.path.ancestors().skip(1)).map(Path::to_owned);
        let entries = self.receipt.entries.iter().filter(|entry| entry.state == FileState::Directory);
        let mut directories: Vec<PathBuf> = above.chain(entries.map(|entry| entry.path.clone())).collect();
        directories.sort_unstable();
        directories.dedup();
        directories
    }
}
