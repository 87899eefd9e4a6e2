//! From what is wanted and what is there to the steps between them. Nothing is changed here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout::Layout;
use super::receipt::{Entry, Mode, Receipt, What};
use super::{Error, disk, guard, is_of_service};
use crate::release::Program;

/// A path as it is to be.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub path: PathBuf,
    pub what: What,
    pub source: Source,
    pub rule: Rule,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// It is a link.
    None,
    Text(String),
    /// This binary.
    Own,
    Program(&'static Program),
}

/// What happens to a file that is there and is not ours, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It stands in a version's own directory, and is replaced.
    Replace,
    /// An error; with force it is kept under another name.
    Refuse,
    /// It stays, and the new one is written beside it.
    Keep,
}

/// One change.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub(crate) enum Step {
    Directory {
        path: PathBuf,
    },
    /// The user's own file is kept under another name.
    Save {
        path: PathBuf,
        to: PathBuf,
    },
    Write {
        path: PathBuf,
        sha256: String,
        mode: Mode,
        #[serde(skip)]
        source: Source,
    },
    Link {
        path: PathBuf,
        target: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// The user's own file comes back.
    Restore {
        path: PathBuf,
        from: PathBuf,
    },
    /// If it is empty.
    RemoveDirectory {
        path: PathBuf,
    },
}

impl Step {
    /// With the paths as they are for this process. A link's target is not one of them.
    pub(crate) fn real(&self, layout: &Layout) -> Self {
        let mut step = self.clone();
        let (path, other) = match &mut step {
            Self::Save { path, to: other } | Self::Restore { path, from: other } => (path, Some(other)),
            Self::Directory { path }
            | Self::Write { path, .. }
            | Self::Link { path, .. }
            | Self::Remove { path }
            | Self::RemoveDirectory { path } => (path, None),
        };
        for path in std::iter::once(path).chain(other) {
            *path = layout.real(path);
        }
        step
    }
}

/// All there is to do, and what the receipt says of it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
    pub before: Receipt,
    /// For as long as the work goes on: with all that may be there.
    pub during: Receipt,
    /// For when all is done; `None` when nothing is left.
    pub after: Option<Receipt>,
    /// The receipt says so already.
    pub is_known: bool,
}

impl Plan {
    /// Whether the service is no more after it.
    pub(crate) fn removes_service(&self, layout: &Layout) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Remove { path } if *path == layout.unit()))
    }
}

/// Brings what is there to what is wanted.
pub(super) struct Planner<'a> {
    layout: &'a Layout,
    receipt: &'a Receipt,
    /// Directories that were made for this.
    made: &'a [PathBuf],
    force: bool,
    steps: Vec<Step>,
    notes: Vec<String>,
    /// What is ours at the end.
    entries: Vec<Entry>,
    /// What is ours no more, but may be there until the end.
    leaving: Vec<Entry>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(layout: &'a Layout, receipt: &'a Receipt, made: &'a [PathBuf], force: bool) -> Self {
        let (steps, notes, entries, leaving) = Default::default();
        Self { layout, receipt, made, force, steps, notes, entries, leaving }
    }

    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// As people are told it.
    fn real(&self, path: &Path) -> String {
        self.layout.real(path).display().to_string()
    }

    /// What is there.
    pub(super) fn look(&self, path: &Path) -> Result<Option<What>, Error> {
        if !guard::check(self.layout, path.parent().unwrap_or(Path::new("/")))? {
            return Ok(None);
        }
        disk::look(&self.layout.real(path))
    }

    /// What it is of stays as it is, which after an interrupted run may be as it was.
    pub(super) fn keep(&mut self, entry: &Entry) -> Result<(), Error> {
        let mut entry = entry.clone();
        if !entry.was.is_empty()
            && let Some(found) = self.look(&entry.path)?
            && entry.is(&found)
        {
            entry.what = found;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// All of that version stays as it is.
    pub(super) fn keep_version(&mut self, version: &str) {
        let entries = self.receipt.entries.iter();
        let kept = entries.filter(|entry| self.layout.version_of(&entry.path) == Some(version));
        self.entries.extend(kept.cloned());
    }

    /// Sees to it that this is there.
    pub(super) fn want(&mut self, item: Item) -> Result<(), Error> {
        let entry = self.receipt.entry(&item.path).cloned();
        let found = self.look(&item.path)?;
        let mut new = entry.clone().unwrap_or_else(|| Entry::new(item.path.clone(), item.what.clone()));
        if found.as_ref() == Some(&item.what) {
            new.what = item.what;
            self.entries.push(new);
            return Ok(());
        }
        let ours = |found: &What| entry.as_ref().is_some_and(|entry| entry.is(found));
        match &found {
            None => {}
            Some(What::Directory) => return Err(self.foreign(&item.path, "a directory")),
            Some(found) if item.rule == Rule::Replace || ours(found) => {}
            Some(_) if item.rule == Rule::Keep => return self.want_beside(item, entry),
            Some(_) if self.force => {
                let to = disk::saved(&item.path);
                if self.look(&to)?.is_some() {
                    return Err(Error::SavedTwice { path: item.path, saved: to });
                }
                self.steps.push(Step::Save { path: item.path.clone(), to: to.clone() });
                self.note(format!("{} is kept as {}", self.real(&item.path), self.real(&to)));
                new.saved = Some(to);
            }
            Some(_) if entry.is_some() => return Err(Error::Changed { path: self.layout.real(&item.path) }),
            Some(What::Link { target }) => {
                return Err(self.foreign(&item.path, &format!("a link to {}", target.display())));
            }
            Some(What::File { .. }) => return Err(self.foreign(&item.path, "a file")),
        }
        if new.what != item.what {
            let before = std::mem::replace(&mut new.what, item.what.clone());
            new.was.push(before);
        }
        self.want_directories(&item.path)?;
        self.put(item);
        self.entries.push(new);
        Ok(())
    }

    fn put(&mut self, item: Item) {
        let path = item.path;
        self.steps.push(match item.what {
            What::Directory => Step::Directory { path },
            What::Link { target } => Step::Link { path, target },
            What::File { sha256, mode } => Step::Write { path, sha256, mode, source: item.source },
        });
    }

    /// A file of the user's stays; ours is written beside it, unless that was done.
    fn want_beside(&mut self, item: Item, entry: Option<Entry>) -> Result<(), Error> {
        let beside = disk::with_suffix(&item.path, ".new");
        let is_known = |path: &Path| self.receipt.entry(path).is_some_and(|entry| entry.what == item.what);
        let offered = is_known(&item.path) || is_known(&beside);
        self.entries.extend(entry);
        if offered {
            self.entries.extend(self.receipt.entry(&beside).cloned());
            return Ok(());
        }
        let is_ours = |found: &What| self.receipt.entry(&beside).is_some_and(|entry| entry.is(found));
        if self.look(&beside)?.is_some_and(|found| found != item.what && !is_ours(&found)) {
            self.note(format!("{} and {} are yours and stay", self.real(&item.path), self.real(&beside)));
            return Ok(());
        }
        self.note(format!("{} is yours and stays: see {}", self.real(&item.path), self.real(&beside)));
        self.want(Item { path: beside, rule: Rule::Replace, ..item })
    }

    /// The directories of the path that are not there are made, and are ours.
    fn want_directories(&mut self, path: &Path) -> Result<(), Error> {
        let dirs: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for dir in dirs.into_iter().rev() {
            let known = |entries: &[Entry]| entries.iter().any(|entry| entry.path == dir);
            if known(&self.entries) {
                continue;
            }
            let was_ours = known(&self.receipt.entries) || self.made.contains(&dir);
            let is_there = guard::check_way(self.layout, &dir)?;
            if !is_there {
                self.steps.push(Step::Directory { path: dir.clone() });
            }
            if was_ours || !is_there {
                self.entries.push(Entry::new(dir, What::Directory));
            }
        }
        Ok(())
    }

    fn foreign(&self, path: &Path, what: &str) -> Error {
        Error::Foreign { path: self.layout.real(path), what: what.to_owned() }
    }

    /// Whatever was ours and was not wanted goes; what was changed since stays, unless `purge`.
    pub(super) fn remove_rest(&mut self, purge: bool) -> Result<(), Error> {
        let receipt = self.receipt;
        let is_wanted = |planner: &Self, path: &Path| planner.entries.iter().any(|entry| entry.path == path);
        // Links before what they lead to.
        let (mut directories, files): (Vec<&Entry>, Vec<&Entry>) =
            receipt.entries.iter().rev().partition(|entry| entry.what == What::Directory);
        for entry in files {
            if !is_wanted(self, &entry.path) {
                self.remove(entry, purge)?;
            }
        }
        directories.sort_by(|a, b| b.path.cmp(&a.path));
        let own = (!self.entries.is_empty()).then(|| self.layout.receipt());
        for entry in directories {
            if is_wanted(self, &entry.path) {
                continue;
            }
            let entry = entry.clone();
            if self.entries.iter().map(|entry| &entry.path).chain(&own).any(|path| path.starts_with(&entry.path)) {
                self.entries.push(entry);
                continue;
            }
            if guard::check_way(self.layout, &entry.path)? {
                self.steps.push(Step::RemoveDirectory { path: entry.path.clone() });
            }
            self.leaving.push(entry);
        }
        Ok(())
    }

    fn remove(&mut self, entry: &Entry, purge: bool) -> Result<(), Error> {
        let found = self.look(&entry.path)?;
        let saved = match &entry.saved {
            Some(saved) => self.look(saved)?.map(|_| saved.clone()),
            None => None,
        };
        match &found {
            Some(What::Directory) => self.note(format!("kept: {} is now a directory", self.real(&entry.path))),
            Some(found) if entry.is(found) || (purge && saved.is_none() && entry.saved.is_none()) => {
                self.steps.push(Step::Remove { path: entry.path.clone() });
            }
            // Restored already, by a run that was interrupted.
            Some(_) if entry.saved.is_some() && saved.is_none() => {}
            Some(_) => {
                self.note(format!("kept, for it was changed since it was installed: {}", self.real(&entry.path)));
                if let Some(saved) = saved {
                    self.note(format!("kept: {}", self.real(&saved)));
                }
                // It is ours all the same: for a purge that comes later, and for another install.
                let stays = is_of_service(self.layout, &entry.path);
                let entries = if stays { &mut self.entries } else { &mut self.leaving };
                entries.push(entry.clone());
                return Ok(());
            }
            None => {}
        }
        if let Some(from) = saved {
            self.steps.push(Step::Restore { path: entry.path.clone(), from });
        }
        self.leaving.push(entry.clone());
        Ok(())
    }

    /// Whether anything of it stays. That is files: directories stay for them.
    pub(super) fn leaves_something(&self) -> bool {
        !self.entries.is_empty()
    }

    /// `after` has all but the entries.
    pub(super) fn finish(self, after: Option<Receipt>) -> Plan {
        let mut during = after.clone().unwrap_or_else(|| self.receipt.clone());
        // Until the end, what was installed is installed, and what was current can be.
        during.versions.clone_from(&self.receipt.versions);
        let new = after.iter().flat_map(|after| &after.versions);
        let new: Vec<_> = new.filter(|new| self.receipt.version(&new.name).is_none()).cloned().collect();
        during.versions.extend(new);
        during.current.clone_from(&self.receipt.current);
        during.previous.clone_from(&self.receipt.previous);
        during.old_bin_dirs.clone_from(&self.receipt.old_bin_dirs);
        during.old_bin_dirs.push(self.receipt.bin_dir.clone());
        during.entries = self.entries.iter().chain(&self.leaving).cloned().collect();
        let settled = |entry: Entry| Entry { was: Vec::new(), ..entry };
        let mut entries: Vec<Entry> = self.entries.into_iter().map(settled).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let after = after.map(|after| Receipt { entries, old_bin_dirs: Vec::new(), ..after });
        let is_known = after.as_ref() == Some(self.receipt);
        Plan { steps: self.steps, notes: self.notes, before: self.receipt.clone(), during, after, is_known }
    }
}
