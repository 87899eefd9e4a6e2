//! Why a file cannot be written.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::os::log::without_errno;

/// Why a file, link or directory cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {reason}: {remedy}")]
pub(crate) struct WriteError {
    path: PathBuf,
    reason: String,
    remedy: &'static str,
    kind: ErrorKind,
}

impl WriteError {
    /// Explains why writing `path` failed. `need` is the number of bytes that it needs, if known.
    pub(crate) fn new(path: &Path, err: &io::Error, remedy: &'static str, need: Option<u64>) -> Self {
        // The kind, not the number: tempfile's errors have no number.
        let reason = match err.kind() {
            ErrorKind::PermissionDenied => "permission denied".to_owned(),
            ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_space(path, need),
            ErrorKind::NotFound => missing(path),
            ErrorKind::NotADirectory => "a file is where its directory should be".to_owned(),
            _ => without_errno(err),
        };
        Self { path: path.to_owned(), reason, remedy, kind: err.kind() }
    }

    /// Whether the disk, or the user's quota, is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// Whether a permission is missing.
    pub(crate) fn is_permission_denied(&self) -> bool {
        self.kind == ErrorKind::PermissionDenied
    }
}

/// The kernel says "no such file" for a file in a missing directory, and for every new one in a directory such as `/proc`.
fn missing(path: &Path) -> String {
    match path.parent() {
        Some(dir) if dir.is_dir() => nothing_can_be_created_in(dir),
        _ => "its directory does not exist".to_owned(),
    }
}

/// Why neither files nor directories can be created in an existing directory such as `/proc`.
pub(super) fn nothing_can_be_created_in(dir: &Path) -> String {
    format!("nothing can be created in {}", dir.display())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_happened_where_and_what_to_do() {
        let message = |kind: ErrorKind, need| {
            WriteError::new(Path::new("/no/x"), &kind.into(), "choose another directory", need).to_string()
        };
        for (kind, reason) in [
            (ErrorKind::PermissionDenied, "permission denied"),
            (ErrorKind::ReadOnlyFilesystem, "the file system is read-only"),
            (ErrorKind::NotFound, "its directory does not exist"),
            (ErrorKind::StorageFull, "no space left"),
        ] {
            assert_eq!(message(kind, None), format!("cannot write /no/x: {reason}: choose another directory"));
        }
        let in_proc =
            |kind: ErrorKind, need| WriteError::new(Path::new("/proc/x"), &kind.into(), "R", need).to_string();
        assert_eq!(in_proc(ErrorKind::NotFound, None), "cannot write /proc/x: nothing can be created in /proc: R");
        // /proc never has free space.
        let full = in_proc(ErrorKind::StorageFull, Some(1_000_001));
        assert_eq!(full, "cannot write /proc/x: no space left: 2 MB needed, 0 MB free: R");
    }

    #[test]
    fn a_missing_permission_can_be_told_from_other_errors() {
        let is_permission = |kind: ErrorKind| WriteError::new(Path::new("/x"), &kind.into(), "", None);
        assert!(is_permission(ErrorKind::PermissionDenied).is_permission_denied());
        assert!(!is_permission(ErrorKind::StorageFull).is_permission_denied());
    }
}
