//! The steps of a plan.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::goal::Source;
use crate::install::file_state::Mode;
use crate::install::layout::Layout;
use crate::install::receipt::Receipt;

/// One change. It is the JSON of `--dry-run=json`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub(crate) enum Step {
    Directory {
        path: PathBuf,
    },
    /// Keeps the user's own file under another name.
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
    /// Moves the user's own file back.
    Restore {
        path: PathBuf,
        from: PathBuf,
    },
    /// Removes the directory if it is empty.
    RemoveDirectory {
        path: PathBuf,
    },
}

impl Step {
    /// The path that the step changes.
    pub(in crate::install) fn path(&self) -> &Path {
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

    /// The step with its paths as this process sees them. The target of a link stays as it is.
    pub(in crate::install) fn real(&self, layout: &Layout) -> Self {
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

/// All steps, and the receipts that go with them.
#[derive(Debug)]
pub(in crate::install) struct Plan {
    pub steps: Vec<Step>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
    /// The receipt before the work.
    pub before: Receipt,
    /// The receipt until the work is done, with every path that may exist.
    pub during: Receipt,
    /// The receipt after the work; `None` if nothing is left.
    pub after: Option<Receipt>,
    /// Whether `after` is the receipt on disk already.
    pub is_recorded: bool,
}

impl Plan {
    /// Whether the steps only remove and move files and links, and change links, which fit even on a full disk.
    pub(in crate::install) fn needs_no_room(&self) -> bool {
        self.steps.iter().all(|step| !matches!(step, Step::Directory { .. } | Step::Save { .. } | Step::Write { .. }))
    }

    /// Whether the plan removes the service.
    pub(in crate::install) fn removes_service(&self, layout: &Layout) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Remove { path } if *path == layout.unit()))
    }
}
