//! The lock of an installation: two runs at the same time would undo each other's changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::error::{Error, REMEDY};
use super::guard;
use super::layout::Layout;
use crate::fs::lock::{self, LockFile};
use crate::fs::{WriteError, dirs};

/// Nobody else works on the installation until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// The directories that exist only for this installation. The empty ones are removed with the lock.
    pub created: Vec<PathBuf>,
    /// Those of them that this run created.
    pub new: Vec<PathBuf>,
    layout: Layout,
    file: LockFile,
}

impl Lock {
    /// Waits until nobody else works on the installation, at most 10 s. Creates the prefix if it is missing.
    ///
    /// # Errors
    /// If somebody else still works on it after that, or if the prefix cannot be created.
    pub(super) fn acquire(layout: &Layout) -> Result<Self, Error> {
        let deadline = Instant::now() + lock::TIMEOUT;
        let path = layout.real(&layout.lock());
        let mut new = Vec::new();
        let file = loop {
            new.extend(guard::create(layout, &layout.prefix)?);
            match LockFile::acquire(&path, deadline) {
                Ok(Some(file)) => break file,
                Ok(None) => return Err(Error::Busy { path: layout.real(&layout.prefix) }),
                // Another run has just removed the directory.
                Err(err) if err.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {}
                Err(err) => return Err(WriteError::new(&path, &err, REMEDY, None).into()),
            }
        };
        let mut created = new.clone();
        if created.is_empty() && is_alone(&path) {
            created.push(layout.prefix.clone());
        }
        Ok(Self { created, new, layout: layout.clone(), file })
    }

    /// Like [`acquire`](Self::acquire), but a missing prefix is an error, too.
    pub(super) fn acquire_existing(layout: &Layout) -> Result<Self, Error> {
        if !guard::check(layout, &layout.prefix)? {
            return Err(Error::NotInstalled { path: layout.real(&layout.prefix) });
        }
        Self::acquire(layout)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.file.remove();
        let dirs: Vec<PathBuf> = self.created.iter().map(|dir| self.layout.real(dir)).collect();
        dirs::remove_empty(&dirs);
    }
}

/// Whether the lock file is alone in its directory. Then an earlier run was killed before it wrote its receipt, or the user
/// created the directory for this installation.
fn is_alone(path: &Path) -> bool {
    path.parent().and_then(|dir| fs::read_dir(dir).ok()).is_some_and(|entries| entries.count() == 1)
}
