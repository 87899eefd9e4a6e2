//! Writing files so that nobody sees half of one, and saying in words why it cannot be done; and what else is asked of
//! files everywhere.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};
use sha2::{Digest as _, Sha256};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write {path}: {reason}: {remedy}")]
    CannotWrite { path: PathBuf, reason: String, remedy: &'static str },

    #[error("no permission to write {path}: {reason}: {remedy}")]
    NotPermitted { path: PathBuf, reason: String, remedy: &'static str },
}

impl Error {
    /// For a failed write to `path`, which needs `need` bytes where that is known.
    pub(crate) fn new(path: &Path, err: &io::Error, remedy: &'static str, need: Option<u64>) -> Self {
        let path = path.to_owned();
        // By kind: tempfile hides the system's error number behind words of its own.
        let reason = match err.kind() {
            ErrorKind::PermissionDenied => {
                return Self::NotPermitted { path, reason: "permission denied".to_owned(), remedy };
            }
            ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_space(&path, need),
            ErrorKind::NotFound => "its directory is not there".to_owned(),
            ErrorKind::NotADirectory => "what should be its directory is a file".to_owned(),
            _ => err.to_string(),
        };
        Self::CannotWrite { path, reason, remedy }
    }
}

fn no_space(path: &Path, need: Option<u64>) -> String {
    let Some(need) = need else { return "no space left".to_owned() };
    let need = need.div_ceil(1_000_000);
    let existing = path.ancestors().skip(1).find(|dir| dir.exists());
    match existing.map(statvfs) {
        Some(Ok(stat)) => {
            let free = stat.blocks_available() * stat.fragment_size() / 1_000_000;
            format!("no space left: {need} MB needed, {free} MB free")
        }
        _ => format!("no space left: {need} MB needed"),
    }
}

const REMEDY: &str = "make room or give permission, then try again";

/// Puts a file at `path` in one go: `fill` writes a temporary one, which then takes the place of what is there.
///
/// # Errors
/// When it cannot be written; what was there is then there still.
pub(crate) fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let put = || -> io::Result<()> {
        let mut temp = tempfile::Builder::new().prefix(".etcdproxy.tmp-").tempfile_in(dir)?;
        fill(temp.as_file_mut())?;
        // After the creation, for the umask has no say here.
        temp.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        temp.persist(path).map_err(|err| err.error)?;
        Ok(())
    };
    put().map_err(|err| Error::new(path, &err, REMEDY, None))
}

/// Makes a directory and what is missing above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|err| Error::new(path, &err, REMEDY, None))
}

/// Of all there is to read, in lower-case hex.
pub(crate) fn sha256(mut from: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Whether nothing can be run from the directory, which need not be there yet, because of how it is mounted.
pub(crate) fn is_noexec(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|dir| statvfs(dir).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC)))
}
