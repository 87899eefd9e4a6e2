//! Opens regular files only: opening a FIFO waits for a writer, and reading a device may never end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// What to do with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    /// A link is an error.
    Refuse,
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is something else.
pub(crate) fn open(path: &Path, links: Links) -> io::Result<File> {
    let flags = if links == Links::Refuse { OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW } else { OFlag::O_NONBLOCK };
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = match opened {
        // What O_NOFOLLOW says about a link (open(2)).
        Err(_) if links == Links::Refuse && path.is_symlink() => return Err(not_regular()),
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// The most that [`read`] reads, in bytes. No certificates or settings are longer.
const LARGEST: u64 = 1_000_000;

/// Reads a regular file of 1 MB at most. Follows links.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is something else, [`io::ErrorKind::FileTooLarge`] if it is longer.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    open(path, Links::Follow)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MB"));
    }
    Ok(bytes)
}

/// The error for what is not a regular file.
pub(super) fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn no_more_than_a_megabyte_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1_000_000);
        fs::write(&path, vec![b'x'; 1_000_001]).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "it is larger than 1 MB");
        assert_eq!(read("/dev/zero".as_ref()).unwrap_err().to_string(), "it is not a regular file");
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        for name in ["file", "fifo"] {
            symlink(name, path(&format!("to-{name}"))).unwrap();
        }
        for (name, follow, refuse) in [
            ("file", None, None),
            ("fifo", Some(io::ErrorKind::InvalidInput), Some(io::ErrorKind::InvalidInput)),
            ("to-file", None, Some(io::ErrorKind::InvalidInput)),
            ("to-fifo", Some(io::ErrorKind::InvalidInput), Some(io::ErrorKind::InvalidInput)),
            (".", Some(io::ErrorKind::InvalidInput), Some(io::ErrorKind::InvalidInput)),
            ("missing", Some(io::ErrorKind::NotFound), Some(io::ErrorKind::NotFound)),
        ] {
            for (links, expected) in [(Links::Follow, follow), (Links::Refuse, refuse)] {
                let found = open(&path(name), links).err().map(|err| err.kind());
                assert_eq!(found, expected, "{name} {links:?}");
            }
        }
    }
}
