//! Writes a program to its file, so that nobody ever sees half of one.
//!
//! Correctness comes from [`atomic::write`]. The lock on the directory only keeps many first starts from doing the same
//! work at once, so a file system without locks is fine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

use super::contents::Program;
use super::error::{Difference, Error};
use super::payload::{self, DecodeError};
use crate::fs::atomic::{self, Durability};
use crate::fs::{WriteError, dirs, hash, lock};

/// Whether the file at this path can stay.
///
/// # Errors
/// If it can neither stay nor be replaced.
pub(super) type Accept<'a> = dyn Fn(&Path) -> Result<bool, Error> + 'a;

/// Writes `program` into `dir`, which is created if missing, unless `accept` keeps the file that is there. Returns the
/// path, and whether the file was written now.
pub(super) fn publish(
    program: &Program,
    dir: &Path,
    remedy: &'static str,
    accept: &Accept<'_>,
) -> Result<(PathBuf, bool), Error> {
    let path = dir.join(program.name);
    if accept(&path)? {
        return Ok((path, false));
    }
    // Otherwise the only sign would be a "permission denied" when the program is executed.
    if dirs::is_noexec(dir) {
        return Err(Error::NoExec { path: dir.to_owned(), remedy });
    }
    let failed = |err: &io::Error| WriteError::new(&path, err, remedy, Some(program.size)).into();
    let new_dirs = dirs::create_all(dir).map_err(|err| failed(&err))?;
    match write_locked(program, dir, accept, &failed) {
        Ok(written) => {
            // The directory may be new, so its own name must reach the disk as well.
            if let Some(parent) = dir.parent() {
                let _ = dirs::sync(parent);
            }
            Ok((path, written))
        }
        Err(err) => {
            dirs::remove_empty(&new_dirs);
            Err(err)
        }
    }
}

/// Writes `program` into an existing directory, unless `accept` keeps the file that is there once nobody else writes it.
/// Returns whether the file was written now. `failed` explains an error of writing.
pub(super) fn write_locked(
    program: &Program,
    dir: &Path,
    accept: &Accept<'_>,
    failed: &dyn Fn(&io::Error) -> Error,
) -> Result<bool, Error> {
    let path = &dir.join(program.name);
    let locked = File::open(dir).map_err(|err| failed(&err))?;
    if lock::acquire(&locked, Instant::now() + lock::TIMEOUT).unwrap_or(false) {
        if accept(path)? {
            return Ok(false);
        }
        atomic::sweep(path);
    }
    atomic::write(path, 0o755, Durability::Synced, |file| fill(program, file))
        .map_err(|err| Error::of_decode(program, err, |err| failed(&err)))?;
    Ok(true)
}

fn fill(program: &Program, file: &File) -> Result<(), DecodeError> {
    let size = i64::try_from(program.size).unwrap_or(i64::MAX);
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
        Err(err) => return Err(io::Error::from(err).into()),
    }
    payload::decode(program, |offset, bytes| write_out(file, offset, bytes))
}

/// Writes the bytes and makes the kernel start the write-back, so that the fsync at the end has little left to do.
fn write_out(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    if let (Ok(offset), Ok(length)) = (offset.try_into(), bytes.len().try_into()) {
        // Pages that are still dirty stay in the cache.
        let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    Ok(())
}

impl From<io::Error> for DecodeError {
    fn from(err: io::Error) -> Self {
        Self::Sink(err)
    }
}

/// How the file differs from `program`. `None`: it is the same, byte for byte, and executable.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn difference(program: &Program, path: &Path) -> Result<Option<Difference>, Error> {
    let cannot_read = |cause| Error::CannotRead { path: path.to_owned(), cause };
    let mismatch = |what: String| Ok(Some(Difference::Mismatch(what)));
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Some(Difference::Missing)),
        Err(err) => return Err(cannot_read(err)),
    };
    if !meta.is_file() {
        return mismatch("it is not a regular file".to_owned());
    }
    if meta.len() != program.size {
        return mismatch(format!("it has {} bytes, not {}", meta.len(), program.size));
    }
    let actual = File::open(path).and_then(hash::sha256).map_err(cannot_read)?;
    if actual != program.sha256 {
        return mismatch(format!("its sha256 is {actual}, not {}", program.sha256));
    }
    if meta.mode() & 0o111 == 0 {
        return mismatch("it is not executable".to_owned());
    }
    Ok(None)
}
