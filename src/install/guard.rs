//! Directories that nobody else can have a hand in: so what stands in them was not planted, and cannot be exchanged
//! between a look at it and its use.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::layout::Layout;
use super::{Error, REMEDY};
use crate::fs as file;

/// Makes the directory where it is missing, with all above it, 0755 whatever the umask. Gives what was made.
///
/// # Errors
/// When others can write on the way to it, or a link on the way is another user's or leads out of the root.
pub(super) fn make(layout: &Layout, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut made = Vec::new();
    let mut next = PathBuf::from("/");
    for part in dir.strip_prefix("/").unwrap_or(dir) {
        next.push(part);
        if !check_entry(layout, &next)? {
            let real = layout.real(&next);
            let made_now = DirBuilder::new().mode(0o755).create(&real);
            let made_now = made_now.and_then(|()| fs::set_permissions(&real, Permissions::from_mode(0o755)));
            match made_now {
                Ok(()) => made.push(next.clone()),
                // By another run, at the same time.
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(file::Error::new(&real, &err, REMEDY, None).into()),
            }
            check_entry(layout, &next)?;
        }
    }
    refuse_shared(layout, dir)?;
    Ok(made)
}

/// Whether the directory is there; and if so, that nobody else has a hand in it.
///
/// # Errors
/// As [`make`].
pub(super) fn check(layout: &Layout, dir: &Path) -> Result<bool, Error> {
    let is_there = check_way(layout, dir)?;
    refuse_shared(layout, dir)?;
    Ok(is_there)
}

/// As [`check`], for a directory that nothing but directories of our own is put into.
pub(super) fn check_way(layout: &Layout, dir: &Path) -> Result<bool, Error> {
    let mut next = PathBuf::from("/");
    for part in dir.strip_prefix("/").unwrap_or(dir) {
        next.push(part);
        if !check_entry(layout, &next)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directory itself is no place where everybody may put files, sticky bit or not.
fn refuse_shared(layout: &Layout, dir: &Path) -> Result<(), Error> {
    let real = layout.real(dir);
    match fs::metadata(&real) {
        Ok(meta) if meta.mode() & 0o002 != 0 => Err(Error::Shared { path: real }),
        _ => Ok(()),
    }
}

/// Checks one step of the way. Gives whether it is there.
fn check_entry(layout: &Layout, path: &Path) -> Result<bool, Error> {
    let real = layout.real(path);
    let meta = match fs::symlink_metadata(&real) {
        Ok(meta) => meta,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(file::Error::new(&real, &err, REMEDY, None).into()),
    };
    refuse_others(&real, &meta)?;
    if !meta.is_symlink() {
        if !meta.is_dir() {
            return Err(Error::NoDirectory { path: real });
        }
        return Ok(true);
    }
    // A canonical path has no links: this ends.
    check_way(layout, &within_root(layout, &real)?)
}

/// Where links lead from there, as the root's own system has it.
///
/// # Errors
/// When that is not within the root.
pub(super) fn within_root(layout: &Layout, real: &Path) -> Result<PathBuf, Error> {
    let canonical =
        |path: &Path| path.canonicalize().map_err(|cause| Error::CannotRead { path: path.to_owned(), cause });
    let (target, root) = (canonical(real)?, canonical(&layout.root)?);
    match target.strip_prefix(&root) {
        Ok(inside) => Ok(Path::new("/").join(inside)),
        Err(_) => Err(Error::LeavesRoot { path: real.to_owned(), target }),
    }
}

fn refuse_others(real: &Path, meta: &Metadata) -> Result<(), Error> {
    if !is_trusted(meta.uid()) {
        return Err(Error::NotOurs { path: real.to_owned(), owner: meta.uid() });
    }
    let (anybody, only_the_owner_removes) = (0o002, 0o1000);
    if meta.is_dir() && meta.mode() & anybody != 0 && meta.mode() & only_the_owner_removes == 0 {
        return Err(Error::Shared { path: real.to_owned() });
    }
    Ok(())
}

/// Root, and whoever runs this.
pub(super) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == Uid::effective().as_raw()
}
