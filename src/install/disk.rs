//! What is on the disk, and how it is changed: a file or link is there as it was or as it will be, and at no time
//! half.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::os::unix::fs::OpenOptionsExt as _;

use super::guard::is_trusted;
use super::receipt::{Mode, What};
use super::{Error, REMEDY};
use crate::fs as file;
use crate::release::PROGRAM_NAMES;

/// Names of files that are not finished begin so.
const TEMP: &str = ".etcdproxy.tmp-";

/// What is at the path; `None` when nothing is.
///
/// # Errors
/// When that cannot be said, or it is neither file, link nor directory.
pub(super) fn look(path: &Path) -> Result<Option<What>, Error> {
    let cannot_read = |cause| Error::CannotRead { path: path.to_owned(), cause };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(err) => return Err(cannot_read(err)),
    };
    if !is_trusted(meta.uid()) {
        return Err(Error::NotOurs { path: path.to_owned(), owner: meta.uid() });
    }
    if meta.is_symlink() {
        return Ok(Some(What::Link { target: fs::read_link(path).map_err(cannot_read)? }));
    }
    if meta.is_dir() {
        return Ok(Some(What::Directory));
    }
    if !meta.is_file() {
        return Err(Error::Special { path: path.to_owned() });
    }
    let file = File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).map_err(cannot_read)?;
    let sha256 = file::sha256(file).map_err(cannot_read)?;
    Ok(Some(What::File { sha256, mode: Mode(meta.mode() & 0o7777) }))
}

/// Puts a file at the path, in the place of what is there. It is on the disk when this returns.
pub(super) fn write(path: &Path, mode: u32, from: &mut impl Read) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut put = || -> io::Result<()> {
        let mut temp = tempfile::Builder::new().prefix(TEMP).tempfile_in(dir)?;
        io::copy(from, temp.as_file_mut())?;
        temp.as_file().set_permissions(Permissions::from_mode(mode))?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|err| err.error)?;
        sync(dir)
    };
    put().map_err(|err| failed(path, &err))
}

/// Puts a link at the path, in the place of what is there.
pub(super) fn link(path: &Path, target: &Path) -> Result<(), Error> {
    let (dir, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let temp = dir.join(format!("{TEMP}{}", name.display()));
    let put = || -> io::Result<()> {
        symlink(target, &temp)?;
        fs::rename(&temp, path)?;
        sync(dir)
    };
    put().map_err(|err| {
        let _ = fs::remove_file(&temp);
        failed(path, &err)
    })
}

/// Moves what is at the path; nothing is there at `to`.
pub(super) fn rename(path: &Path, to: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::SavedTwice { path: path.to_owned(), saved: to.to_owned() });
    }
    let moved = fs::rename(path, to).and_then(|()| sync(to.parent().unwrap_or(Path::new("/"))));
    moved.map_err(|err| failed(to, &err))
}

/// Removes a file or a link; that it is not there is well.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed(path, &err)),
        _ => Ok(()),
    }
}

/// Removes a directory if it is empty; gives whether it was.
pub(super) fn remove_dir(path: &Path) -> Result<bool, Error> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(err) => match err.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY) => Ok(false),
            _ => Err(failed(path, &err)),
        },
    }
}

/// Removes what an interrupted run left unfinished in the directory.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_unfinished =
            name.starts_with(TEMP) || PROGRAM_NAMES.iter().any(|program| name.starts_with(&format!(".{program}.tmp-")));
        let is_ours = entry.metadata().is_ok_and(|meta| is_trusted(meta.uid()));
        if is_unfinished && is_ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A name is as durable as the directory it stands in.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(path: &Path, err: &io::Error) -> Error {
    file::Error::new(path, err, REMEDY, None).into()
}

/// Where a user's own file goes.
pub(super) fn saved(path: &Path) -> PathBuf {
    with_suffix(path, ".etcdproxy-saved")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
