//! What a Go program says of itself: the Go it was built with, and its modules with versions and `go.sum` hashes.
//!
//! The format is that of Go's own reader, <https://pkg.go.dev/debug/buildinfo>.

use anyhow::{Context as _, Result, ensure};
use object::{File, Object as _, ObjectSection as _, ObjectSegment as _};

/// The Go build information of a program.
pub(crate) struct BuildInfo {
    /// As in `1.26.8`.
    pub(crate) go: String,
    /// The main module first.
    pub(crate) modules: Vec<Module>,
}

pub(crate) struct Module {
    pub(crate) path: String,
    /// None when it was built from the source tree that the program itself is from.
    pub(crate) version: Option<String>,
    /// The line of `go.sum`, `h1:…`; a source tree has none.
    pub(crate) sum: Option<String>,
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The strings stand behind the header (Go 1.18 and later), and not elsewhere in memory.
const INLINE: u8 = 2;
/// The list of modules stands between two marks of this length.
const MARK: usize = 16;

pub(crate) fn build_info(elf: &[u8]) -> Result<BuildInfo> {
    let elf = File::parse(elf)?;
    let info = elf.section_by_name(".go.buildinfo").context("it has no section .go.buildinfo")?.data()?;
    let flags = *info.get(MAGIC.len() + 1).context("its Go build information is cut short")?;
    ensure!(info.starts_with(MAGIC), "its Go build information begins with other bytes than Go's");
    let (go, modules) = if flags & INLINE != 0 { inline(info) } else { pointed_to(info, &elf) }
        .context("its Go build information is cut short")?;
    let go = go.trim_start_matches("go").split(' ').next().unwrap_or_default().to_owned();
    let modules = modules.get(MARK..modules.len().saturating_sub(MARK)).context("it lists no modules")?;
    Ok(BuildInfo { go, modules: parse(std::str::from_utf8(modules)?) })
}

/// Two strings, each behind its length.
fn inline(info: &[u8]) -> Option<(&str, &[u8])> {
    let (go, rest) = counted(info.get(32..)?)?;
    Some((std::str::from_utf8(go).ok()?, counted(rest)?.0))
}

/// Takes a length, seven bits to a byte, and as many bytes.
fn counted(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return bytes.split_at_checked(length);
        }
    }
    None
}

/// Two addresses of Go strings, which are an address and a length. Our targets have 64 bits, little end first.
fn pointed_to<'a>(info: &[u8], elf: &File<'a>) -> Option<(&'a str, &'a [u8])> {
    let memory = |address, size| elf.segments().find_map(|segment| segment.data_range(address, size).ok()?);
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let string = |at| {
        let header = memory(number(info, at)?, 16)?;
        memory(number(header, 0)?, number(header, 8)?)
    };
    Some((std::str::from_utf8(string(16)?).ok()?, string(24)?))
}

/// One line for each module: what it is, path, version, sum. A line `=>` says what stands in for the one before.
fn parse(lines: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let mut field = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
        let (path, version, sum) = (field(), field().filter(|version| version != "(devel)"), field());
        match (kind, path, modules.last_mut()) {
            ("mod" | "dep", Some(path), _) => modules.push(Module { path, version, sum }),
            // Another module; a directory of the same source tree has no version, and leaves what was asked for.
            ("=>", Some(path), Some(replaced)) if version.is_some() => *replaced = Module { path, version, sum },
            _ => {}
        }
    }
    modules
}
