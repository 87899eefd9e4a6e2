//! Directories: creates, removes and syncs them, and tells whether programs in them can run.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::error::{WriteError, nothing_can_be_created_in};

/// What to do when a file or directory cannot be written whose place the user does not choose.
pub(crate) const REMEDY: &str = "make room or give permission, then try again";

/// Creates one directory, 0755 whatever the umask. Returns whether it is new.
pub(crate) fn create(dir: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => {
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
            Ok(true)
        }
        // Another process may have created it just now.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // What mkdir(2) says in a directory such as /proc.
        Err(err) if err.kind() == io::ErrorKind::NotFound && parent(dir).is_dir() => {
            Err(io::Error::new(io::ErrorKind::Unsupported, nothing_can_be_created_in(parent(dir))))
        }
        Err(err) => Err(err),
    }
}

/// Creates a directory and its missing parents. Returns the new ones, outermost first. After an error, none of them is
/// left.
pub(crate) fn create_all(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    let mut new = Vec::new();
    for dir in missing.into_iter().rev() {
        match create(dir) {
            Ok(true) => new.push(dir.to_owned()),
            Ok(false) => {}
            Err(err) => {
                remove_empty(&new);
                return Err(err);
            }
        }
    }
    Ok(new)
}

/// Like [`create_all`], with an error that names the directory and ends with `remedy`.
pub(crate) fn ensure(dir: &Path, remedy: &'static str) -> Result<(), WriteError> {
    create_all(dir).map(drop).map_err(|err| WriteError::new(dir, &err, remedy, None))
}

/// Removes a directory if it is empty. Returns whether it was removed; a missing directory is not an error.
pub(crate) fn remove_if_empty(dir: &Path) -> io::Result<bool> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(err) => match err.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY) => Ok(false),
            _ => Err(err),
        },
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Removes the directories that are empty, innermost first. The others stay: another process may use them by now.
pub(crate) fn remove_empty(outermost_first: &[PathBuf]) {
    for dir in outermost_first.iter().rev() {
        let _ = fs::remove_dir(dir);
    }
}

/// Writes the names in a directory to disk: a file's name is only as durable as its directory.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Whether the directory, which need not exist yet, is on a file system mounted noexec.
pub(crate) fn is_noexec(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|dir| statvfs(dir).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_created_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("a/b"));
        assert_eq!(create_all(&b).unwrap(), [a.clone(), b.clone()]);
        assert_eq!(b.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(create_all(&b).unwrap(), [] as [PathBuf; 0]);
        remove_empty(&[a.clone(), b]);
        assert!(!a.exists());
    }

    #[test]
    fn only_an_empty_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert!(!remove_if_empty(dir.path()).unwrap());
        assert!(remove_if_empty(&inner).unwrap());
        assert!(!remove_if_empty(&inner).unwrap(), "a missing directory is not an error");
        fs::write(&inner, "").unwrap();
        assert!(remove_if_empty(&inner).is_err());
    }

    #[test]
    fn the_parent_of_a_bare_name_is_the_current_directory() {
        for (path, dir) in [("/a/b", "/a"), ("a/b", "a"), ("a", "."), ("/", "/")] {
            assert_eq!(parent(Path::new(path)), Path::new(dir), "{path}");
        }
    }
}
