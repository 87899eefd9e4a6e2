//! Writing files so that nobody sees half of one, and saying in words why it cannot be done.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

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
        let errno = err.raw_os_error().map(Errno::from_raw);
        let reason = match errno {
            Some(Errno::EACCES | Errno::EPERM) => {
                return Self::NotPermitted { path, reason: "permission denied".to_owned(), remedy };
            }
            Some(Errno::EROFS) => "the file system is read-only".to_owned(),
            Some(Errno::ENOSPC | Errno::EDQUOT) => no_space(&path, need),
            Some(errno) => errno.desc().to_lowercase(),
            None => err.to_string(),
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
