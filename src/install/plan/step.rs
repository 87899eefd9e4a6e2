//! What is to be done.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::goal::Source;
use crate::install::file_state::Mode;
use crate::install::layout::Layout;
use crate::install::receipt::Receipt;

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

    /// The step with paths as they are for this process. A link's target is not one of them.
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

/// Everything there is to do, and the receipts that go with it.
#[derive(Debug)]
pub(in crate::install) struct Plan {
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
    pub(in crate::install) fn removes_service(&self, layout: &Layout) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Remove { path } if *path == layout.unit()))
    }
}
