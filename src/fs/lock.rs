//! Locks between processes. The kernel releases them when their holder ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::regular::not_regular;

/// How long to wait for a lock. A holder needs a second or two, and one that hangs must not block others for ever.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Waits for the lock on `file`, which lasts until `file` is closed. Returns whether it got it before the deadline.
///
/// # Errors
/// When the file system has no locks.
pub(crate) fn acquire(file: &File, deadline: Instant) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(err)) => return Err(err),
        }
    }
}

/// A lock that is a file of its own. Whoever holds it may remove the file.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Creates the file if it is missing, and waits for its lock. Returns `None` if the deadline passes first.
    pub(crate) fn acquire(path: &Path, deadline: Instant) -> io::Result<Option<Self>> {
        loop {
            // 0600: other users cannot open the file, so they cannot lock it and block everybody.
            let mut options = File::options();
            options.create(true).truncate(false).write(true).mode(0o600);
            // Opening a FIFO would wait for its reader.
            options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
            let file = match options.open(path) {
                Err(err) if err.raw_os_error() == Some(Errno::ENXIO as i32) => return Err(not_regular()),
                opened => opened?,
            };
            if !file.metadata()?.is_file() {
                return Err(not_regular());
            }
            let lock = Self { path: path.to_owned(), file };
            if !acquire(&lock.file, deadline)? {
                return Ok(None);
            }
            // Otherwise the previous holder has removed the file in the meantime.
            if lock.is_current() {
                return Ok(Some(lock));
            }
        }
    }

    /// Removes the file, unless another process has replaced it.
    pub(crate) fn remove(&self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn only_one_process_can_hold_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockFile::acquire(&path, soon()).unwrap().unwrap();
        assert!(LockFile::acquire(&path, soon()).unwrap().is_none());
        drop(first);
        let second = LockFile::acquire(&path, soon()).unwrap().unwrap();
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_replaced_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let old = LockFile::acquire(&path, soon()).unwrap().unwrap();
        old.remove();
        let new = LockFile::acquire(&path, soon()).unwrap();
        assert!(new.is_some(), "the old file is locked, the new one is not");
        old.remove();
        assert!(path.exists());
    }

    #[test]
    fn a_lock_on_a_removed_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockFile::acquire(&path, soon()).unwrap().unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| LockFile::acquire(&path, Instant::now() + TIMEOUT).unwrap().unwrap());
            thread::sleep(Duration::from_millis(30));
            first.remove();
            drop(first);
            let second = second.join().unwrap();
            assert!(path.exists(), "the second has created a file of its own");
            second.remove();
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("target"), &path).unwrap();
        assert!(LockFile::acquire(&path, soon()).is_err());
        assert!(!dir.path().join("target").exists());
    }
}
