//! The build information in a Go program: the Go it was built with, and its modules with versions and `go.sum` hashes.
//!
//! The format is that of Go's own reader, <https://pkg.go.dev/debug/buildinfo>.

use anyhow::{Context as _, Result, ensure};
use object::{File, Object as _, ObjectSection as _, ObjectSegment as _};

/// The Go build information of a program.
pub(super) struct BuildInfo {
    /// The version of Go, such as `1.26.8`.
    pub(super) go: String,
    /// The main module first.
    pub(super) modules: Vec<Module>,
}

/// A Go module.
pub(super) struct Module {
    pub(super) path: String,
    /// `None` if it was built from the same source tree as the program.
    pub(super) version: Option<String>,
    /// Its hash in `go.sum`, `h1:…`; a source tree has none.
    pub(super) sum: Option<String>,
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The strings follow the header (Go 1.18 and later). Without this flag, the header has their addresses.
const INLINE: u8 = 2;
/// The number of bytes before and after the list of modules, which only mark it.
const MARK: usize = 16;

pub(super) fn build_info(elf: &[u8]) -> Result<BuildInfo> {
    let elf = File::parse(elf)?;
    let info = elf.section_by_name(".go.buildinfo").context("it has no section .go.buildinfo")?.data()?;
    let flags = *info.get(MAGIC.len() + 1).context("its Go build information is cut short")?;
    ensure!(info.starts_with(MAGIC), "its Go build information does not begin with Go's magic bytes");
    let (go, modules) = if flags & INLINE != 0 { inline(info) } else { pointed_to(info, &elf) }
        .context("its Go build information is cut short")?;
    let go = go.trim_start_matches("go").split(' ').next().unwrap_or_default().to_owned();
    let modules = modules.get(MARK..modules.len().saturating_sub(MARK)).context("it lists no modules")?;
    Ok(BuildInfo { go, modules: parse(std::str::from_utf8(modules)?) })
}

/// Reads two strings, each of which follows its length.
fn inline(info: &[u8]) -> Option<(&str, &[u8])> {
    let (go, rest) = counted(info.get(32..)?)?;
    Some((std::str::from_utf8(go).ok()?, counted(rest)?.0))
}

/// Reads a length, seven bits to a byte, and that many bytes. Also returns the rest.
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

/// Follows the addresses of two Go strings, each of which is an address and a length. Our targets are 64-bit and
/// little-endian.
fn pointed_to<'a>(info: &[u8], elf: &File<'a>) -> Option<(&'a str, &'a [u8])> {
    let memory = |address, size| elf.segments().find_map(|segment| segment.data_range(address, size).ok()?);
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let string = |at| {
        let header = memory(number(info, at)?, 16)?;
        memory(number(header, 0)?, number(header, 8)?)
    };
    Some((std::str::from_utf8(string(16)?).ok()?, string(24)?))
}

/// Each line has the kind, path, version and sum of a module. A module of the kind `=>` replaces the one before.
fn parse(lines: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let mut field = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
        let (path, version, sum) = (field(), field().filter(|version| version != "(devel)"), field());
        match (kind, path, modules.last_mut()) {
            ("mod" | "dep", Some(path), _) => modules.push(Module { path, version, sum }),
            // Without a version, the replacement is a directory of the same source tree, so the module keeps its name.
            ("=>", Some(path), Some(replaced)) if version.is_some() => *replaced = Module { path, version, sum },
            _ => {}
        }
    }
    modules
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MODULES: &str = "path\tgo.etcd.io/etcd/server/v3\nmod\tgo.etcd.io/etcd/server/v3\t(devel)\t\n\
        dep\tgo.uber.org/zap\tv1.27.0\th1:zap=\n\
        dep\texample.com/old\tv1.0.0\th1:old=\n=>\texample.com/new\tv0.1.0\th1:new=\n\
        dep\tgo.etcd.io/etcd/api/v3\tv3.0.0\n=>\t../api\t\t\nbuild\t-trimpath=true\n";

    /// The address of a test's program in memory, and the offset of its build information in the file.
    const ADDRESS: u64 = 0x40_0000;
    const OFFSET: u64 = 64 + 56;

    /// An etcd, as far as its build information goes.
    pub(in crate::pack) fn etcd() -> Vec<u8> {
        elf(&inline_info("go1.26.8 X:nocoverageredesign", &modules()))
    }

    fn header(flags: u8) -> Vec<u8> {
        [MAGIC, &[8, flags], &[0; 16]].concat()
    }

    fn inline_info(go: &str, modules: &[u8]) -> Vec<u8> {
        let string = |bytes: &[u8]| {
            let (low, high) = (u8::try_from(bytes.len() % 128).unwrap(), u8::try_from(bytes.len() / 128).unwrap());
            [&[low | 0x80, high], bytes].concat()
        };
        [header(INLINE), string(go.as_bytes()), string(modules)].concat()
    }

    fn pointed_info(go: &str, modules: &[u8]) -> Vec<u8> {
        let address = |at: usize| (ADDRESS + OFFSET + at as u64).to_le_bytes();
        let mut info = header(0);
        info[16..24].copy_from_slice(&address(32));
        info[24..32].copy_from_slice(&address(48));
        for (at, bytes) in [(64, go.as_bytes()), (64 + go.len(), modules)] {
            info.extend(address(at));
            info.extend((bytes.len() as u64).to_le_bytes());
        }
        [&info, go.as_bytes(), modules].concat()
    }

    fn modules() -> Vec<u8> {
        [&[b'<'; MARK], MODULES.as_bytes(), &[b'>'; MARK]].concat()
    }

    /// A program of one segment, the whole file, and of the section `.go.buildinfo`.
    fn elf(info: &[u8]) -> Vec<u8> {
        const NAMES: &[u8] = b"\0.go.buildinfo\0.shstrtab\0";
        let mut info = info.to_vec();
        let info_size = info.len() as u64;
        info.resize(info.len().next_multiple_of(8), 0);
        let names = OFFSET + info.len() as u64;
        let sections = names + NAMES.len().next_multiple_of(8) as u64;
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let half =
            |elf: &mut Vec<u8>, numbers: &[u16]| elf.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let word =
            |elf: &mut Vec<u8>, numbers: &[u32]| elf.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let long =
            |elf: &mut Vec<u8>, numbers: &[u64]| elf.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        half(&mut elf, &[2, 62]); // an executable for x86-64
        word(&mut elf, &[1]);
        long(&mut elf, &[ADDRESS, 64, sections]);
        word(&mut elf, &[0]);
        half(&mut elf, &[64, 56, 1, 64, 3, 2]);
        word(&mut elf, &[1, 4]); // PT_LOAD
        long(&mut elf, &[0, ADDRESS, ADDRESS, sections, sections, 4096]);
        elf.extend(info);
        elf.extend(NAMES);
        elf.resize(elf.len().next_multiple_of(8), 0);
        for (name, kind, offset, size) in [(0, 0, 0, 0), (1, 1, OFFSET, info_size), (15, 3, names, NAMES.len() as u64)]
        {
            word(&mut elf, &[name, kind]);
            long(&mut elf, &[0, ADDRESS + offset, offset, size, 0, 1, 0]);
        }
        elf
    }

    fn error(elf: &[u8]) -> String {
        format!("{:#}", build_info(elf).err().unwrap())
    }

    #[test]
    fn modules_are_found_in_a_program_of_any_go() {
        for info in [inline_info("go1.26.8", &modules()), pointed_info("go1.26.8", &modules())] {
            let BuildInfo { go, modules } = build_info(&elf(&info)).unwrap();
            assert_eq!(go, "1.26.8");
            let modules: Vec<_> = modules
                .iter()
                .map(|module| (&*module.path, module.version.as_deref(), module.sum.as_deref()))
                .collect();
            let expected = [
                ("go.etcd.io/etcd/server/v3", None, None),
                ("go.uber.org/zap", Some("v1.27.0"), Some("h1:zap=")),
                ("example.com/new", Some("v0.1.0"), Some("h1:new=")),
                ("go.etcd.io/etcd/api/v3", Some("v3.0.0"), None),
            ];
            assert_eq!(modules, expected);
        }
    }

    #[test]
    fn experiments_are_not_part_of_the_version() {
        assert_eq!(build_info(&etcd()).unwrap().go, "1.26.8");
    }

    #[test]
    fn programs_without_build_information_are_refused() {
        assert!(build_info(b"#!/bin/sh\n").is_err());
        let info = inline_info("go1.26.8", &modules());
        let mut other = elf(&info);
        let name = other.windows(3).position(|bytes| bytes == b".go").unwrap();
        other[name + 1] = b'n';
        assert_eq!(error(&other), "it has no section .go.buildinfo");
        assert_eq!(error(&elf(&[b'x'; 64])), "its Go build information does not begin with Go's magic bytes");
        assert_eq!(error(&elf(&inline_info("go1.26.8", b"no marks"))), "it lists no modules");
    }

    #[test]
    fn truncated_build_information_is_refused() {
        let (inline, pointed) = (inline_info("go1.26.8", &modules()), pointed_info("go1.26.8", &modules()));
        let inline = (0..inline.len()).map(|length| elf(&inline[..length]));
        let pointed = (0..=32).map(|length| elf(&pointed[..length]));
        for elf in inline.chain(pointed) {
            assert!(build_info(&elf).is_err());
        }
        let endless = [header(INLINE), vec![0xff; 20]].concat();
        assert_eq!(error(&elf(&endless)), "its Go build information is cut short");
    }
}
