//! The state of a path: nothing, a file, a link or a directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::fs::{hash, trust};

/// What is at a path. Later versions must be able to read the form that it has in the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum FileState {
    Directory,
    File { sha256: String, mode: Mode },
    Link { target: PathBuf },
}

/// Permissions, written like `0755`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Mode(pub u32);

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

impl TryFrom<String> for Mode {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u32::from_str_radix(&text, 8).map(Self)
    }
}

impl FileState {
    /// Looks at a path; `None` if nothing is there.
    ///
    /// # Errors
    /// If it cannot be read, if it belongs to anybody but root and `uid`, or if it is not a file, a link or a directory.
    pub(super) fn read(path: &Path, uid: u32) -> Result<Option<Self>, Error> {
        let cannot_read = |cause| Error::CannotRead { path: path.to_owned(), cause };
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(err) => return Err(cannot_read(err)),
        };
        if !trust::is_trusted(meta.uid(), uid) {
            return Err(Error::WrongOwner { path: path.to_owned(), owner: meta.uid() });
        }
        if meta.is_symlink() {
            return Ok(Some(Self::Link { target: fs::read_link(path).map_err(cannot_read)? }));
        }
        if meta.is_dir() {
            return Ok(Some(Self::Directory));
        }
        if !meta.is_file() {
            return Err(Error::Special { path: path.to_owned() });
        }
        let file = File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).map_err(cannot_read)?;
        let sha256 = hash::sha256(file).map_err(cannot_read)?;
        Ok(Some(Self::File { sha256, mode: Mode(meta.mode() & 0o7777) }))
    }

    /// A file with this text, which everybody can read (0644).
    pub(super) fn text(text: &str) -> Self {
        Self::File { sha256: hash::sha256_of(text), mode: Mode(0o644) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn each_kind_of_path_has_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let uid = dir.path().metadata().unwrap().uid();
        let path = dir.path().join("x");
        let read = || FileState::read(&path, uid).unwrap();
        assert_eq!(read(), None);
        assert_eq!(FileState::read(&path.join("y"), uid).unwrap(), None);
        symlink("nowhere", &path).unwrap();
        assert_eq!(read(), Some(FileState::Link { target: "nowhere".into() }));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(), Some(FileState::text("text")));
        assert_ne!(read(), Some(FileState::text("other")));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_ne!(read(), Some(FileState::text("text")));
        assert_eq!(FileState::read(&path.join("y"), uid).unwrap(), None, "a file has nothing below it");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(), Some(FileState::Directory));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(FileState::read(&socket, uid), Err(Error::Special { .. })));
    }

    #[test]
    fn another_users_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let owner = || file.path().metadata().unwrap().uid();
        if owner() == 0 {
            assert!(FileState::read(file.path(), 1000).is_ok(), "root's files are trusted");
            std::os::unix::fs::chown(file.path(), Some(1000), None).unwrap();
        }
        assert!(FileState::read(file.path(), owner()).is_ok());
        assert!(matches!(FileState::read(file.path(), owner() + 1), Err(Error::WrongOwner { .. })));
    }
}
