//! Writes files and links in one step: nobody ever sees half of one, and after an error the old one is still there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::dirs;
use super::error::WriteError;

/// Whether a new file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The kernel writes it to disk in its own time.
    Cached,
    /// The file and its name are on disk when the call returns (fsync).
    Synced,
}

/// Writes `path` with the permissions `mode`, whatever the umask. `fill` writes a temporary file in the same directory,
/// which then replaces whatever is at `path`.
pub(crate) fn write<E: From<io::Error>>(
    path: &Path,
    mode: u32,
    durability: Durability,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let dir = dirs::parent(path);
    let mut temp = tempfile::Builder::new().prefix(&temp_prefix(path)).tempfile_in(dir)?;
    let _ = temp.as_file().try_lock(); // tells `sweep` that the writer is still running
    fill(temp.as_file_mut())?;
    temp.as_file().set_permissions(Permissions::from_mode(mode))?;
    if durability == Durability::Synced {
        temp.as_file().sync_all()?;
    }
    temp.persist(path).map_err(|err| err.error)?;
    if durability == Durability::Synced {
        dirs::sync(dir)?;
    }
    Ok(())
}

/// Like [`write`], for a file that need not survive a power failure. The error names the file and ends with `remedy`.
pub(crate) fn replace(
    path: &Path,
    mode: u32,
    remedy: &'static str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    write(path, mode, Durability::Cached, fill).map_err(|err| WriteError::new(path, &err, remedy, None))
}

/// Makes `path` a symbolic link to `target`, and replaces whatever is there. The link is on disk when this returns.
pub(crate) fn link(path: &Path, target: &Path) -> io::Result<()> {
    let dir = dirs::parent(path);
    let temp = tempfile::Builder::new().prefix(&temp_prefix(path)).make_in(dir, |temp| symlink(target, temp))?;
    temp.persist(path).map_err(|err| err.error)?;
    dirs::sync(dir)
}

/// Removes the temporary files that killed writers of `path` left behind. A running writer holds a lock on its file.
/// Links cannot be locked, so the caller makes sure that nobody else writes `path` as a link.
pub(crate) fn sweep(path: &Path) {
    let Ok(entries) = fs::read_dir(dirs::parent(path)) else { return };
    for entry in entries.flatten() {
        if !is_temp_of(path, &entry.file_name()) {
            continue;
        }
        let is_abandoned = entry.file_type().is_ok_and(|kind| {
            kind.is_symlink() || kind.is_file() && File::open(entry.path()).is_ok_and(|file| has_no_writer(&file))
        });
        if is_abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file of this name, beside `path`, is a temporary file for it.
pub(crate) fn is_temp_of(path: &Path, name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(temp_prefix(path).as_encoded_bytes())
}

fn has_no_writer(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// How the names of temporary files for `path` begin.
fn temp_prefix(path: &Path) -> OsString {
    let name = path.file_name().unwrap_or_default();
    [OsStr::new("."), name, OsStr::new(".tmp-")].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        for durability in [Durability::Cached, Durability::Synced] {
            write(&path, 0o751, durability, |file| {
                file.write_all(b"new")?;
                assert_eq!(names(dir.path()).len(), 2, "written beside it");
                assert_ne!(fs::read(&path)?, b"new");
                Ok::<_, io::Error>(())
            })
            .unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o751);
            assert_eq!(names(dir.path()), ["file"]);
            fs::write(&path, "old").unwrap();
        }
    }

    #[test]
    fn an_error_leaves_only_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let err = replace(&path, 0o644, "choose another", |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let problem = format!("cannot write {}: no space left: ", path.display());
        assert!(err.unwrap_err().to_string().starts_with(&problem));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_link_replaces_a_file_or_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        fs::write(&path, "old").unwrap();
        for target in ["one", "two"] {
            link(&path, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
        }
        assert_eq!(names(dir.path()), ["link"]);
    }

    #[test]
    fn only_leftovers_of_killed_writers_of_that_file_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".file.tmp-dead", ".file.tmp-alive", ".other.tmp-x", "file"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        symlink("anywhere", dir.path().join(".file.tmp-link")).unwrap();
        let alive = File::open(dir.path().join(".file.tmp-alive")).unwrap();
        alive.lock().unwrap();
        sweep(&dir.path().join("file"));
        assert_eq!(names(dir.path()), [".file.tmp-alive", ".other.tmp-x", "file"]);
    }

    #[test]
    fn the_file_of_a_running_writer_is_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, 0o644, "choose another", |_| {
            sweep(&path);
            Ok(())
        })
        .unwrap();
        assert!(path.exists());
    }
}
