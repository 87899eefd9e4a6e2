//! Makes sure that only root and this user can change a directory: nobody else can plant a file in it, or replace one
//! between a check and its use.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{Error, REMEDY};
use super::layout::Layout;
use crate::fs::trust::{self, STICKY, Writers};
use crate::fs::within::{self, End, LastLink};
use crate::fs::{WriteError, dirs};

/// Creates the directory and its missing parents, 0755 whatever the umask. Returns the new ones.
///
/// # Errors
/// If another user can write to a directory on the path, or if a link on it belongs to another user or leads to nothing.
pub(super) fn create(layout: &Layout, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut new = Vec::new();
    let mut next = PathBuf::from("/");
    for part in dir.strip_prefix("/").unwrap_or(dir) {
        next.push(part);
        if !check_path(layout, &next)? {
            let real = layout.real(&next);
            if real.is_symlink() {
                return Err(Error::LeadsNowhere { path: real });
            }
            match dirs::create(&real) {
                Ok(true) => new.push(next.clone()),
                Ok(false) => {}
                Err(err) => return Err(WriteError::new(&real, &err, REMEDY, None).into()),
            }
            check_path(layout, &next)?;
        }
    }
    refuse_shared(layout, dir)?;
    Ok(new)
}

/// Whether the directory exists. If it does, only root and this user can change it and the directories above it.
///
/// # Errors
/// The same as [`create`].
pub(super) fn check(layout: &Layout, dir: &Path) -> Result<bool, Error> {
    let exists = check_path(layout, dir)?;
    refuse_shared(layout, dir)?;
    Ok(exists)
}

/// Like [`check`], but the directory itself may be like `/tmp`, where everybody can create files: only our own
/// directories go into it.
pub(super) fn check_path(layout: &Layout, dir: &Path) -> Result<bool, Error> {
    let visit = &mut |real: &Path, found: &io::Result<Metadata>| match found {
        Ok(meta) => {
            refuse_others(layout, real, meta)?;
            let leads_on = meta.is_dir() || meta.is_symlink();
            if leads_on { Ok(true) } else { Err(Error::NotADirectory { path: real.to_owned() }) }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(WriteError::new(real, err, REMEDY, None).into()),
    };
    match within::walk(&layout.root, dir, LastLink::Follow, visit)? {
        (_, End::Exists) => Ok(true),
        (_, End::Missing) => Ok(false),
        (path, End::Broken) => Err(Error::LeadsNowhere { path }),
    }
}

/// Refuses a directory where everybody can create files, sticky or not.
fn refuse_shared(layout: &Layout, dir: &Path) -> Result<(), Error> {
    let real = layout.real_target(dir);
    match fs::metadata(&real) {
        Ok(meta) => refuse_other_writers(layout, &real, &meta),
        Err(_) => Ok(()),
    }
}

/// Refuses a file or directory that anybody but root and this user can write to.
pub(super) fn refuse_other_writers(layout: &Layout, real: &Path, meta: &Metadata) -> Result<(), Error> {
    match trust::other_writers(meta, layout.uid, layout.gid) {
        None => Ok(()),
        Some(Writers::Everybody) => Err(Error::Shared { path: real.to_owned() }),
        Some(Writers::Group(gid)) => Err(Error::SharedWithGroup { path: real.to_owned(), gid }),
    }
}

pub(super) fn refuse_others(layout: &Layout, real: &Path, meta: &Metadata) -> Result<(), Error> {
    if !trust::is_trusted(meta.uid(), layout.uid) {
        return Err(Error::WrongOwner { path: real.to_owned(), owner: meta.uid() });
    }
    // The permissions of a link mean nothing.
    if meta.is_dir() && meta.mode() & STICKY == 0 { refuse_other_writers(layout, real, meta) } else { Ok(()) }
}
