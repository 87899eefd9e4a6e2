//! Publishes a program as a file: nobody ever sees half of one.
//!
//! Correctness comes from a unique temporary file, fsync and rename. The lock on the directory only
//! keeps many first starts from doing the same work at once, so a file system without locks is no fault.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

use super::{Error, Program, payload};
use crate::fs as file;

/// A holder that is stopped must not stop everybody else for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Whether the file that is there will do.
///
/// # Errors
/// When it must not be replaced either.
pub(super) type Accept<'a> = dyn Fn(&Path) -> Result<bool, Error> + 'a;

/// Leaves `program` in `dir` (made when missing), unless what is there is accepted. Gives its path, and
/// whether it was written now.
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
    let job = Job { program, dir, path: &path, remedy };
    job.refuse_noexec()?;
    let made = job.make_dir()?;
    match job.write_locked(accept) {
        Ok(written) => Ok((path, written)),
        Err(err) => {
            for dir in made.iter().rev() {
                let _ = fs::remove_dir(dir); // only when empty: another process may use it by now
            }
            Err(err)
        }
    }
}

/// How the file differs from `program`, in words; `None` when it is the same, byte for byte, and executable.
///
/// # Errors
/// When the file cannot be read. A file that is not there is a difference, not an error.
pub(crate) fn difference(program: &Program, path: &Path) -> Result<Option<String>, Error> {
    let cannot_read = |cause| Error::CannotRead { path: path.to_owned(), cause };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Some("it is missing".to_owned())),
        Err(err) => return Err(cannot_read(err)),
    };
    if !meta.is_file() {
        return Ok(Some("it is not a regular file".to_owned()));
    }
    if meta.len() != program.size {
        return Ok(Some(format!("it has {} bytes, not {}", meta.len(), program.size)));
    }
    let actual = File::open(path).and_then(file::sha256).map_err(cannot_read)?;
    if actual != program.sha256 {
        return Ok(Some(format!("its sha256 is {actual}, not {}", program.sha256)));
    }
    if meta.mode() & 0o111 == 0 {
        return Ok(Some("it is not executable".to_owned()));
    }
    Ok(None)
}

/// One program on its way into one directory.
struct Job<'a> {
    program: &'a Program,
    dir: &'a Path,
    path: &'a Path,
    remedy: &'static str,
}

impl Job<'_> {
    /// Said before anything is written; a bare "permission denied" at exec would be all there is later.
    fn refuse_noexec(&self) -> Result<(), Error> {
        if file::is_noexec(self.dir) {
            return Err(Error::NoExec { path: self.dir.to_owned(), remedy: self.remedy });
        }
        Ok(())
    }

    /// Makes the directory 0755 whatever the umask. Gives what was made, outermost first.
    fn make_dir(&self) -> Result<Vec<&Path>, Error> {
        let missing: Vec<&Path> =
            self.dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        let mut made = Vec::new();
        for dir in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o755).create(dir) {
                Ok(()) => {
                    made.push(dir);
                    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
                }
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => {
                    for dir in made.iter().rev() {
                        let _ = fs::remove_dir(dir);
                    }
                    return Err(self.write_error(&err));
                }
            }
        }
        Ok(made)
    }

    fn write_locked(&self, accept: &Accept<'_>) -> Result<bool, Error> {
        let dir = File::open(self.dir).map_err(|err| self.write_error(&err))?;
        if lock(&dir) {
            if accept(self.path)? {
                return Ok(false);
            }
            self.sweep();
        }
        self.write()?;
        // The name is as durable as the bytes only when the directory is on disk too.
        let parent = self.dir.parent().and_then(|parent| File::open(parent).ok());
        dir.sync_all().map_err(|err| self.write_error(&err))?;
        if let Some(parent) = parent {
            let _ = parent.sync_all();
        }
        Ok(true)
    }

    fn write(&self) -> Result<(), Error> {
        let failed = |err: io::Error| self.write_error(&err);
        let temp = tempfile::Builder::new().prefix(&self.temp_prefix()).tempfile_in(self.dir).map_err(failed)?;
        let file = temp.as_file();
        let _ = file.try_lock(); // tells `sweep` that its writer lives
        let size = i64::try_from(self.program.size).unwrap_or(i64::MAX);
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
            Err(err) => return Err(failed(err.into())),
        }
        payload::decode(self.program, |offset, bytes| write_out(file, offset, bytes))
            .map_err(|err| Error::of_decode(self.program, err, |err| self.write_error(&err)))?;
        file.set_permissions(fs::Permissions::from_mode(0o755)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        temp.persist(self.path).map_err(|err| self.write_error(&err.error))?;
        Ok(())
    }

    fn temp_prefix(&self) -> String {
        format!(".{}.tmp-", self.program.name)
    }

    /// Removes what a killed process left: a temporary file whose lock nobody holds.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.temp_prefix())
                && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn write_error(&self, err: &io::Error) -> Error {
        file::Error::new(self.path, err, self.remedy, Some(self.program.size)).into()
    }
}

/// Writes, and lets the disk begin at once, so that the fsync at the end finds little left to do.
fn write_out(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    if let (Ok(offset), Ok(length)) = (offset.try_into(), bytes.len().try_into()) {
        // Starts the write-back; pages that are still dirty stay in the cache.
        let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    Ok(())
}

/// Whether the lock on `dir` was taken; it ends when `dir` is closed.
fn lock(dir: &File) -> bool {
    let start = Instant::now();
    loop {
        match dir.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return false,
        }
    }
}
