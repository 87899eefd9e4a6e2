//! Tar archives whose bytes depend on nothing but the entries: no owner, one time, one order.

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::entry::{Content, Entry};

/// When everything was made: 1980-01-01T00:00:01Z, in seconds. Buildpacks use this moment, and no format is confused by it,
/// as some are by 1970.
const TIME: u64 = 315_532_801;
/// The same moment in RFC 3339.
pub(super) const TIME_RFC3339: &str = "1980-01-01T00:00:01Z";

const BLOCK: [u8; 512] = [0; 512];

/// A tar with these entries, sorted by name, and the directories that they need. All names begin with `prefix`, which
/// ends with a slash if it is not empty; it begins with one if the names are to be absolute.
pub(super) fn write(prefix: &str, entries: &[Entry<'_>], out: &mut dyn Write) -> Result<()> {
    let mut tar = Tar::new(out);
    for entry in entries {
        let name = format!("{prefix}{}", entry.name);
        tar.add(&name, entry.mode, &entry.content)?;
    }
    tar.finish()
}

/// The same, compressed.
pub(super) fn write_gz<W: Write>(prefix: &str, entries: &[Entry<'_>], effort: Effort, out: W) -> Result<W> {
    let mut gz = compressor(effort, out);
    write(prefix, entries, &mut gz)?;
    Ok(gz.finish()?)
}

/// What compression may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// For what is compressed already, for the most part: `gzip -6`.
    Fast,
    /// `gzip -9`.
    Small,
}

/// gzip without a time or a file name in its header.
pub(super) fn compressor<W: Write>(effort: Effort, out: W) -> GzEncoder<W> {
    let level = if effort == Effort::Fast { Compression::default() } else { Compression::best() };
    GzEncoder::new(out, level)
}

/// A tar that is being written.
pub(super) struct Tar<'a> {
    out: &'a mut dyn Write,
    /// Those that it contains.
    directories: BTreeSet<String>,
}

impl<'a> Tar<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, directories: BTreeSet::new() }
    }

    fn add(&mut self, name: &str, mode: u32, content: &Content<'_>) -> Result<()> {
        if matches!(content, Content::Directory) {
            return Ok(self.directory(name, mode)?);
        }
        self.file(name, mode, content.size()?, |out| Ok(content.write(out)?))
    }

    fn directory(&mut self, name: &str, mode: u32) -> io::Result<()> {
        if !self.directories.insert(name.to_owned()) {
            return Ok(());
        }
        self.parents(name)?;
        self.header(&format!("{name}/"), mode, 0, EntryType::Directory)
    }

    /// Adds a file of `size` bytes, which `fill` writes.
    pub(super) fn file(
        &mut self,
        name: &str,
        mode: u32,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        self.parents(name)?;
        self.header(name, mode, size, EntryType::Regular)?;
        let mut exactly = Exactly { out: &mut *self.out, left: size };
        fill(&mut exactly)?;
        if exactly.left > 0 {
            return Err(other_size().into());
        }
        let padding = size.next_multiple_of(BLOCK.len() as u64) - size;
        self.out.write_all(&BLOCK[..usize::try_from(padding)?])?;
        Ok(())
    }

    /// Adds the directories above, if they are not there yet.
    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            None | Some(("", _)) => Ok(()),
            Some((parent, _)) => self.directory(parent, 0o755),
        }
    }

    fn header(&mut self, name: &str, mode: u32, size: u64, kind: EntryType) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path_absolute(name)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// Ends it.
    pub(super) fn finish(self) -> Result<()> {
        // Two blocks of zeros.
        self.out.write_all(&BLOCK)?;
        self.out.write_all(&BLOCK)?;
        Ok(())
    }
}

/// Takes a number of bytes that was announced.
struct Exactly<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Exactly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.left = self.left.checked_sub(written as u64).ok_or_else(other_size)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn other_size() -> io::Error {
    io::Error::other("a file changed while it was read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tar: &[u8]) -> Vec<String> {
        let name =
            |entry: io::Result<tar::Entry<'_, _>>| String::from_utf8(entry.unwrap().path_bytes().into()).unwrap();
        tar::Archive::new(tar).entries().unwrap().map(name).collect()
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let file = |name: &str| Entry::file(name, Content::text("x"));
        let entries = [file("a/b/c"), file("a/b/d"), Entry::directory("a/e", 0o755), file("f")];
        for (prefix, expected) in [
            ("", &["a/", "a/b/", "a/b/c", "a/b/d", "a/e/", "f"][..]),
            ("/p/q/", &["/p/", "/p/q/", "/p/q/a/", "/p/q/a/b/", "/p/q/a/b/c", "/p/q/a/b/d", "/p/q/a/e/", "/p/q/f"]),
        ] {
            let mut out = Vec::new();
            write(prefix, &entries, &mut out).unwrap();
            assert_eq!(names(&out), expected);
            assert_eq!(out.len() % BLOCK.len(), 0);
        }
    }

    #[test]
    fn a_file_that_changes_its_size_is_an_error() {
        for content in ["", "12", "1234"] {
            let mut out = Vec::new();
            let added = Tar::new(&mut out).file("x", 0o644, 3, |out| Ok(out.write_all(content.as_bytes())?));
            assert!(added.unwrap_err().to_string().contains("changed while it was read"), "{content}");
        }
    }
}
