//! From what is wanted (`Goal`) and what is there (`Found`) to the steps between them. Only `Found::look` touches the
//! disk, and nothing here changes it.

mod found;
pub(super) mod install;
mod planner;
pub(super) mod prune;
pub(super) mod rollback;
#[cfg(test)]
mod simulation;
pub(super) mod uninstall;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file_state::{FileState, Mode};
use super::layout::Layout;
use super::receipt::{Entry, Receipt};
use crate::release::Program;

/// What is wanted of an installation. Whatever else is in its receipt is removed.
#[derive(Debug)]
struct Goal<'a> {
    layout: &'a Layout,
    receipt: &'a Receipt,
    /// Entries of the receipt that stay as they are.
    kept: Vec<&'a Entry>,
    /// Paths as they must be, in the order of the work.
    items: Vec<Item>,
    /// Directories that exist only for this installation, though its receipt does not list them yet.
    created: &'a [PathBuf],
    /// Move the user's own files out of the way.
    force: bool,
    /// Remove also files that were changed after they were installed.
    purge: bool,
    notes: Vec<String>,
}

impl<'a> Goal<'a> {
    /// Nothing.
    fn new(layout: &'a Layout, receipt: &'a Receipt) -> Self {
        let (kept, items, notes) = Default::default();
        Self { layout, receipt, kept, items, created: &[], force: false, purge: false, notes }
    }

    fn wants(&self, path: &Path) -> bool {
        self.items.iter().any(|item| item.path == path) || self.kept.iter().any(|entry| entry.path == path)
    }

    /// The links that make a version the current one. The link to the version comes first, because the links to its
    /// programs lead through it.
    fn link(&mut self, version: &str, programs: &[String]) {
        self.items.push(Item::link(self.layout.current(), Path::new("versions").join(version)));
        let layout = self.layout;
        self.items
            .extend(programs.iter().map(|name| Item::link(layout.bin_dir.join(name), layout.current_program(name))));
    }
}

/// A path as it must be.
#[derive(Debug, Clone)]
struct Item {
    path: PathBuf,
    state: FileState,
    source: Source,
    rule: Rule,
}

impl Item {
    fn link(path: PathBuf, target: PathBuf) -> Self {
        Self { path, state: FileState::Link { target }, source: Source::None, rule: Rule::Refuse }
    }

    fn text(path: PathBuf, text: String, rule: Rule) -> Self {
        Self { path, state: FileState::text(&text), source: Source::Text(text), rule }
    }

    fn program(path: PathBuf, sha256: &str, source: Source) -> Self {
        let state = FileState::File { sha256: sha256.to_owned(), mode: Mode(0o755) };
        Self { path, state, source, rule: Rule::Replace }
    }
}

/// Where the content of a file comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// It is a link.
    None,
    Text(String),
    ThisBinary,
    Program(&'static Program),
}

/// What to do with a file that is in the way, because it is the user's own or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Replace it: it is in a version's own directory.
    Replace,
    /// Stop with an error; with force, keep it under another name.
    Refuse,
    /// Leave it, and write the new one beside it.
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
    /// The path that it changes.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory { path }
            | Self::Save { path, .. }
            | Self::Write { path, .. }
            | Self::Link { path, .. }
            | Self::Remove { path }
            | Self::Restore { path, .. }
            | Self::RemoveDirectory { path } => path,
        }
    }

    /// The step with paths as they are for this process. A link's target is not one of them.
    pub(super) fn real(&self, layout: &Layout) -> Self {
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

/// Everything there is to do, and the receipts that go with it.
#[derive(Debug)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
    pub before: Receipt,
    /// For as long as the work goes on: with everything that may be there.
    pub during: Receipt,
    /// For when all is done; `None` if nothing is left.
    pub after: Option<Receipt>,
    /// Whether the receipt on disk says all of this already.
    pub is_recorded: bool,
}

impl Plan {
    /// Whether the service is gone after it.
    pub(super) fn removes_service(&self, layout: &Layout) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Remove { path } if *path == layout.unit()))
    }
}

/// Where the user's own file goes.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    with_suffix(path, ".etcdproxy-saved")
}

/// Where our file goes if the user's own stays.
fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
