//! Two runs on the same installation would each undo what the other does, so there is one at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::error::{Error, REMEDY};
use super::guard;
use super::layout::Layout;
use crate::fs::lock::{self, LockFile};
use crate::fs::{WriteError, dirs};

/// An installation that nobody else works on until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// The directories that exist only for this installation. Those that stay empty go with the lock.
    pub created: Vec<PathBuf>,
    /// Those of them that are new.
    pub new: Vec<PathBuf>,
    layout: Layout,
    file: LockFile,
}

impl Lock {
    /// Waits until nobody else works on the installation; creates the prefix if it is missing.
    ///
    /// # Errors
    /// When somebody else works on it for 10 s, or the prefix cannot be created.
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

    /// As [`acquire`](Self::acquire), but does not create the prefix.
    ///
    /// # Errors
    /// Also when the prefix does not exist.
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

/// Whether nothing else is in the directory: an earlier run was killed before it wrote its receipt, or the user made the
/// directory for this one.
fn is_alone(path: &Path) -> bool {
    path.parent().and_then(|dir| fs::read_dir(dir).ok()).is_some_and(|entries| entries.count() == 1)
}
