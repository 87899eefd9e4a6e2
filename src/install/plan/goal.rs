//! The state that is wanted.

use std::path::{Path, PathBuf};

use crate::install::file_state::{FileState, Mode};
use crate::install::layout::Layout;
use crate::install::receipt::{Entry, Receipt};
use crate::release::Program;

/// The wanted state of an installation. Everything else in its receipt is removed.
#[derive(Debug)]
pub(super) struct Goal<'a> {
    pub layout: &'a Layout,
    pub receipt: &'a Receipt,
    /// Entries of the receipt that stay as they are.
    pub kept: Vec<&'a Entry>,
    /// The wanted paths, in the order of the work.
    pub items: Vec<Item>,
    /// Directories that exist only for this installation, although its receipt does not list them yet.
    pub created: &'a [PathBuf],
    /// Move the user's own files out of the way.
    pub force: bool,
    /// Also remove files that were changed after they were installed.
    pub purge: bool,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

impl<'a> Goal<'a> {
    /// A goal without any path: nothing stays.
    pub(super) fn new(layout: &'a Layout, receipt: &'a Receipt) -> Self {
        let (kept, items, notes) = Default::default();
        Self { layout, receipt, kept, items, created: &[], force: false, purge: false, notes }
    }

    /// Whether the path is part of the wanted state.
    pub(super) fn wants(&self, path: &Path) -> bool {
        self.items.iter().any(|item| item.path == path) || self.kept.iter().any(|entry| entry.path == path)
    }

    /// Adds the links that make a version the current one. The link to the version comes first, because the links to its
    /// programs lead through it.
    pub(super) fn link(&mut self, version: &str, programs: &[String]) {
        self.items.push(Item::link(self.layout.current(), Path::new("versions").join(version)));
        let layout = self.layout;
        self.items
            .extend(programs.iter().map(|name| Item::link(layout.bin_dir.join(name), layout.current_program(name))));
    }
}

/// A path and its wanted state.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub path: PathBuf,
    pub state: FileState,
    pub source: Source,
    pub rule: Rule,
}

impl Item {
    pub(super) fn link(path: PathBuf, target: PathBuf) -> Self {
        Self { path, state: FileState::Link { target }, source: Source::None, rule: Rule::Refuse }
    }

    pub(super) fn text(path: PathBuf, text: String, rule: Rule) -> Self {
        Self { path, state: FileState::text(&text), source: Source::Text(text), rule }
    }

    pub(super) fn program(path: PathBuf, sha256: &str, source: Source) -> Self {
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

/// What to do if a file is in the way: the user's own, or one that was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Replace it. For files in a version's own directory.
    Replace,
    /// Stop with an error or, with force, keep it under another name.
    Refuse,
    /// Keep it, and write the new one beside it.
    Keep,
}

/// Where the user's own file goes with `--force`.
pub(in crate::install) fn backup_of(path: &Path) -> PathBuf {
    with_suffix(path, ".etcdproxy-saved")
}

/// Where our file goes if the user's own file stays.
pub(super) fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
