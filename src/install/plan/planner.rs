//! Compares the wanted state with the one that was found. Pure: it does not look at the disk.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::goal::{Goal, Item, Rule, backup_of, beside};
use super::snapshot::Snapshot;
use super::step::{Plan, Step};
use crate::fs::atomic;
use crate::install::error::Error;
use crate::install::file_state::FileState;
use crate::install::receipt::{Entry, Receipt};

/// Says that a directory of ours stays, because what is in it is not ours.
pub(in crate::install) fn kept_not_empty(dir: &Path, names: &[OsString]) -> String {
    let shown: Vec<_> = names.iter().take(3).map(|name| name.to_string_lossy()).collect();
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    format!("kept, because it is not empty: {} ({}{more})", dir.display(), shown.join(", "))
}

/// Collects the steps from the state that was found to a goal.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    goal: &'a Goal<'a>,
    snapshot: Snapshot,
    steps: Vec<Step>,
    notes: Vec<String>,
    /// The paths that are ours at the end.
    entries: Vec<Entry>,
    /// The paths that are not ours at the end, but may still exist until then.
    leaving: Vec<Entry>,
}

impl<'a> Planner<'a> {
    /// Finds the steps.
    ///
    /// # Errors
    /// If something is in the way that is not ours to replace.
    pub(super) fn compare(goal: &'a Goal<'a>, snapshot: Snapshot) -> Result<Self, Error> {
        let notes = goal.notes.clone();
        let mut planner = Self { goal, snapshot, steps: Vec::new(), notes, entries: Vec::new(), leaving: Vec::new() };
        for entry in &goal.kept {
            planner.keep(entry)?;
        }
        for item in &goal.items {
            planner.want(item.clone())?;
        }
        planner.remove_rest()?;
        Ok(planner)
    }

    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// The path as this process and its user see it.
    pub(super) fn shown(&self, path: &Path) -> String {
        self.goal.layout.real(path).display().to_string()
    }

    /// What was found at the path.
    pub(super) fn state(&mut self, path: &Path) -> Result<Option<FileState>, Error> {
        self.snapshot.state(path)
    }

    /// Whether any file stays. Directories stay only because of files.
    pub(super) fn leaves_something(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Makes the plan. `after` is the receipt at the end, still without its entries; `None` if nothing is left.
    pub(super) fn finish(self, after: Option<Receipt>) -> Plan {
        let before = self.goal.receipt;
        let mut during = after.clone().unwrap_or_else(|| before.clone());
        // Until the end, the old versions are still installed, and the old current version may still be in use.
        during.versions.clone_from(&before.versions);
        let new = after.iter().flat_map(|after| &after.versions);
        during.versions.extend(new.filter(|new| before.version(&new.name).is_none()).cloned());
        during.current.clone_from(&before.current);
        during.previous.clone_from(&before.previous);
        during.old_bin_dirs.clone_from(&before.old_bin_dirs);
        during.old_bin_dirs.push(before.bin_dir.clone());
        during.entries = self.entries.iter().chain(&self.leaving).cloned().collect();
        let settled = |entry: Entry| Entry { previous: Vec::new(), ..entry };
        let mut entries: Vec<Entry> = self.entries.into_iter().map(settled).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let after = after.map(|after| {
            let mut old_bin_dirs = during.old_bin_dirs.clone();
            old_bin_dirs.retain(|dir| *dir != after.bin_dir && entries.iter().any(|entry| entry.path.starts_with(dir)));
            old_bin_dirs.dedup();
            Receipt { old_bin_dirs, entries, ..after }
        });
        let is_recorded = after.as_ref() == Some(before);
        Plan { steps: self.steps, notes: self.notes, before: before.clone(), during, after, is_recorded }
    }

    /// Keeps the entry unchanged; after an interrupted run it may still hold the old content.
    fn keep(&mut self, entry: &Entry) -> Result<(), Error> {
        let mut entry = entry.clone();
        if !entry.previous.is_empty()
            && let Some(found) = self.state(&entry.path)?
            && entry.is(&found)
        {
            entry.state = found;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Brings the path into its wanted state.
    fn want(&mut self, item: Item) -> Result<(), Error> {
        let entry = self.goal.receipt.entry(&item.path).cloned();
        let found = self.state(&item.path)?;
        let mut new = entry.clone().unwrap_or_else(|| Entry::new(item.path.clone(), item.state.clone()));
        if found.as_ref() == Some(&item.state) {
            new.state = item.state;
            self.entries.push(new);
            return Ok(());
        }
        let is_ours = |found: &FileState| entry.as_ref().is_some_and(|entry| entry.is(found));
        let path = self.goal.layout.real(&item.path);
        match &found {
            None => {}
            Some(FileState::Directory) => return Err(Error::IsDirectory { path }),
            Some(found) if item.rule == Rule::Replace || is_ours(found) => {}
            Some(_) if item.rule == Rule::Keep => return self.want_beside(item, entry),
            Some(_) if self.goal.force => {
                let backup = backup_of(&item.path);
                if self.state(&backup)?.is_some() {
                    return Err(Error::BackupExists { path, backup: self.goal.layout.real(&backup) });
                }
                self.steps.push(Step::Save { path: item.path.clone(), to: backup.clone() });
                self.note(format!("{} is kept as {}", path.display(), self.shown(&backup)));
                new.backup = Some(backup);
            }
            Some(_) if entry.is_some() => return Err(Error::Changed { backup: backup_of(&path), path }),
            Some(FileState::Link { target }) => {
                let what = format!("a link to {}", target.display());
                return Err(Error::Foreign { backup: backup_of(&path), path, what });
            }
            Some(FileState::File { .. }) => {
                return Err(Error::Foreign { backup: backup_of(&path), path, what: "a file".to_owned() });
            }
        }
        if new.state != item.state {
            let previous = std::mem::replace(&mut new.state, item.state.clone());
            new.previous.push(previous);
        }
        self.want_directories(&item.path)?;
        self.put(item);
        self.entries.push(new);
        Ok(())
    }

    fn put(&mut self, item: Item) {
        let path = item.path;
        self.steps.push(match item.state {
            FileState::Directory => Step::Directory { path },
            FileState::Link { target } => Step::Link { path, target },
            FileState::File { sha256, mode } => Step::Write { path, sha256, mode, source: item.source },
        });
    }

    /// Keeps the user's own file and writes ours beside it, unless an earlier run did so.
    fn want_beside(&mut self, item: Item, entry: Option<Entry>) -> Result<(), Error> {
        let receipt = self.goal.receipt;
        let beside = beside(&item.path);
        let is_known = |path: &Path| receipt.entry(path).is_some_and(|entry| entry.state == item.state);
        let was_offered = is_known(&item.path) || is_known(&beside);
        self.entries.extend(entry);
        if was_offered {
            self.entries.extend(receipt.entry(&beside).cloned());
            return Ok(());
        }
        let (theirs, ours) = (self.shown(&item.path), self.shown(&beside));
        let is_ours = |found: &FileState| receipt.entry(&beside).is_some_and(|entry| entry.is(found));
        if self.state(&beside)?.is_some_and(|found| found != item.state && !is_ours(&found)) {
            self.note(format!("{theirs} and {ours} are yours and stay"));
            return Ok(());
        }
        self.note(format!("{theirs} is yours and stays: the current defaults are in {ours}"));
        self.want(Item { path: beside, rule: Rule::Replace, ..item })
    }

    /// Creates the missing directories of the path, which makes them ours.
    fn want_directories(&mut self, path: &Path) -> Result<(), Error> {
        let dirs: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for dir in dirs.into_iter().rev() {
            let is_known = |entries: &[Entry]| entries.iter().any(|entry| entry.path == dir);
            if is_known(&self.entries) {
                continue;
            }
            let was_ours = is_known(&self.goal.receipt.entries) || self.goal.created.contains(&dir);
            let exists = self.snapshot.has_directory(&dir)?;
            if !exists {
                self.steps.push(Step::Directory { path: dir.clone() });
            }
            if was_ours || !exists {
                self.entries.push(Entry::new(dir, FileState::Directory));
            }
        }
        Ok(())
    }

    /// Removes what is ours and not wanted. Files that were changed after the installation stay, except in a purge.
    fn remove_rest(&mut self) -> Result<(), Error> {
        let receipt = self.goal.receipt;
        let is_wanted = |planner: &Self, path: &Path| planner.entries.iter().any(|entry| entry.path == path);
        let (mut directories, mut files): (Vec<&Entry>, Vec<&Entry>) =
            receipt.entries.iter().partition(|entry| entry.state == FileState::Directory);
        // Whatever leads to a file goes before it: links and the unit lead through the link to the current version, and that
        // one to the version's files.
        let prefix = &self.goal.layout.prefix;
        let is_link = |entry: &Entry| matches!(entry.state, FileState::Link { .. });
        files.sort_by_key(|entry| (entry.path.starts_with(prefix), !is_link(entry)));
        for entry in files {
            if !is_wanted(self, &entry.path) {
                self.remove(entry)?;
            }
        }
        directories.sort_by(|a, b| b.path.cmp(&a.path));
        let own = (!self.entries.is_empty()).then(|| self.goal.layout.receipt());
        for entry in directories {
            if is_wanted(self, &entry.path) {
                continue;
            }
            let mut staying = self.entries.iter().map(|entry| &entry.path).chain(&own);
            if staying.any(|path| path.starts_with(&entry.path)) {
                self.entries.push(entry.clone());
                continue;
            }
            if self.snapshot.has_directory(&entry.path)? {
                let left = self.left_in(&entry.path)?;
                if left.is_empty() {
                    self.steps.push(Step::RemoveDirectory { path: entry.path.clone() });
                } else {
                    self.note(kept_not_empty(&self.goal.layout.real(&entry.path), &left));
                }
            }
            self.leaving.push(entry.clone());
        }
        Ok(())
    }

    /// What is in the directory after all steps, besides the receipt and the lock: files that are not ours.
    fn left_in(&mut self, dir: &Path) -> Result<Vec<OsString>, Error> {
        let (layout, receipt) = (self.goal.layout, self.goal.receipt);
        let own = [layout.receipt(), layout.lock()];
        let ours: Vec<&Path> =
            receipt.entries.iter().map(|entry| entry.path.as_path()).chain([own[0].as_path()]).collect();
        let is_swept = |path: &Path, name: &OsStr| {
            ours.iter().any(|ours| ours.parent() == path.parent() && atomic::is_temp_of(ours, name))
        };
        let mut left = self.snapshot.names(dir)?;
        left.retain(|name| {
            let path = dir.join(name);
            let is_removed = |step: &Step| match step {
                Step::Remove { path: removed } | Step::RemoveDirectory { path: removed } => *removed == path,
                Step::Restore { from, .. } => *from == path,
                _ => false,
            };
            !own.contains(&path) && !self.steps.iter().any(is_removed) && !is_swept(&path, name)
        });
        let restored = self.steps.iter().filter_map(|step| match step {
            Step::Restore { path, .. } if path.parent() == Some(dir) => path.file_name().map(OsStr::to_owned),
            _ => None,
        });
        left.extend(restored);
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }

    fn remove(&mut self, entry: &Entry) -> Result<(), Error> {
        let found = self.state(&entry.path)?;
        let backup = match &entry.backup {
            Some(backup) => self.state(backup)?.map(|_| backup.clone()),
            None => None,
        };
        let path = self.shown(&entry.path);
        match &found {
            None => {}
            Some(FileState::Directory) => self.note(format!("kept: {path} is now a directory")),
            // Where the user's own file was kept and is gone, it is the user's own file again.
            Some(found) if entry.is(found) || (self.goal.purge && entry.backup.is_some() == backup.is_some()) => {
                self.steps.push(Step::Remove { path: entry.path.clone() });
            }
            // The user's own file, restored by a run that was interrupted.
            Some(_) if entry.backup.is_some() && backup.is_none() => {}
            Some(_) => {
                self.note(format!("kept, because it was changed after it was installed: {path}"));
                if let Some(backup) = backup {
                    self.note(format!("kept: {}", self.shown(&backup)));
                }
                // It remains ours, for a later purge and for another install.
                self.entries.push(entry.clone());
                return Ok(());
            }
        }
        if let Some(from) = backup {
            self.steps.push(Step::Restore { path: entry.path.clone(), from });
        }
        self.leaving.push(entry.clone());
        Ok(())
    }
}
