//! The small launcher: this binary without its payload.
//!
//! The payload's pages are cut out of the file, and the program header that maps them is split in two around the
//! gap, so that every address in the program stays what it was. The room for the second header is that of the build
//! id's. <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::Error;
use super::payload::{self, LAUNCHER_MARK};
use crate::fs::atomic;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Writes the launcher as `dir/name`, 0755, replacing what is there.
///
/// # Errors
/// When this binary is a launcher itself, is not laid out as expected, or the file cannot be written.
pub(crate) fn write_launcher(dir: &Path, name: &str) -> Result<(), Error> {
    let odd = |detail: &str| Error::NoLauncher { detail: detail.to_owned() };
    if !payload::is_carried() {
        return Err(odd("it is a launcher already"));
    }
    let mut exe = File::open("/proc/self/exe").map_err(|err| odd(&format!("cannot read it: {err}")))?;
    let payload = payload_in_file().ok_or_else(|| odd("its payload is not where it should be in memory"))?;
    let mut head = vec![0; 4096];
    exe.read_exact_at(&mut head, 0).map_err(|err| odd(&format!("cannot read it: {err}")))?;
    let cut = Cut::plan(&head, &payload).ok_or_else(|| odd("its ELF header is not as expected"))?;
    cut.apply(&mut head);

    atomic::replace(&dir.join(name), 0o755, |file| {
        copy(&mut exe, 0..cut.gap.start, file)?;
        copy(&mut exe, cut.gap.end..cut.end, file)?;
        file.write_all_at(&head[..cut.headers_end], 0)?;
        file.write_all_at(&LAUNCHER_MARK, payload.start)
    })?;
    Ok(())
}

fn copy(from: &mut File, range: Range<u64>, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(range.start))?;
    let length = range.end - range.start;
    if io::copy(&mut from.take(length), to)? != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.flush()
}

/// The payload's place in the file of this process, by the kernel's own word.
fn payload_in_file() -> Option<Range<u64>> {
    let bytes = payload::payload();
    let address = bytes.as_ptr() as u64;
    fs::read_to_string("/proc/self/maps").ok()?.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let mapped = u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        let start = address - mapped.start.min(address) + offset;
        mapped.contains(&address).then(|| start..start + bytes.len() as u64)
    })
}

/// What is taken out of the file, and what becomes of its headers.
struct Cut {
    gap: Range<u64>,
    /// Where the last segment ends; section headers, which nothing needs to run, stand behind it.
    end: u64,
    segments: Vec<Segment>,
    table: usize,
    headers_end: usize,
}

/// A 64-bit program header.
#[derive(Clone)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    mem_size: u64,
    align: u64,
}

const SEGMENT_SIZE: usize = 56;

impl Cut {
    fn plan(head: &[u8], payload: &Range<u64>) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(usize::from(u16::from_le_bytes(*head.get(at..)?.first_chunk()?)));
        let table = usize::try_from(number(32)?).ok()?;
        let count = half(56)?;
        let headers_end = table + count * SEGMENT_SIZE;
        // 64-bit, little-endian
        if !head.starts_with(b"\x7fELF\x02\x01") || half(54)? != SEGMENT_SIZE || headers_end > head.len() {
            return None;
        }
        let mut segments: Vec<Segment> =
            head[table..headers_end].chunks(SEGMENT_SIZE).map(Segment::parse).collect::<Option<_>>()?;
        let end = segments.iter().map(|segment| segment.offset + segment.file_size).max()?;

        let index = segments.iter().position(|segment| {
            segment.kind == PT_LOAD
                && segment.offset <= payload.start
                && payload.end <= segment.offset + segment.file_size
        })?;
        let align = segments[index].align.max(4096);
        // The mark at the payload's start must stay.
        let gap = (payload.start + LAUNCHER_MARK.len() as u64).next_multiple_of(align)..payload.end / align * align;
        if gap.is_empty() || segments[index].offset % align != segments[index].vaddr % align {
            return None;
        }
        let length = gap.end - gap.start;
        let (before, after) = segments[index].split(&gap);
        segments.splice(index..=index, [before, after]);
        segments.remove(segments.iter().position(|segment| segment.kind == PT_NOTE)?);
        for segment in segments.iter_mut().filter(|segment| segment.offset >= gap.end) {
            segment.offset -= length;
        }
        Some(Self { gap, end, segments, table, headers_end })
    }

    fn apply(&self, head: &mut [u8]) {
        for (segment, bytes) in self.segments.iter().zip(head[self.table..].chunks_mut(SEGMENT_SIZE)) {
            bytes.copy_from_slice(&segment.bytes());
        }
        head[40..48].fill(0); // no section headers: their offset,
        head[60..64].fill(0); // their number, and the index of their names
    }
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            kind: word(0)?,
            flags: word(4)?,
            offset: number(8)?,
            vaddr: number(16)?,
            paddr: number(24)?,
            file_size: number(32)?,
            mem_size: number(40)?,
            align: number(48)?,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let words = [self.kind, self.flags].into_iter().flat_map(u32::to_le_bytes);
        let numbers = [self.offset, self.vaddr, self.paddr, self.file_size, self.mem_size, self.align];
        words.chain(numbers.into_iter().flat_map(u64::to_le_bytes)).collect()
    }

    /// What is before the gap and what is behind it.
    fn split(&self, gap: &Range<u64>) -> (Self, Self) {
        let before = gap.start - self.offset;
        let skipped = gap.end - self.offset;
        (
            Self { file_size: before, mem_size: before, ..self.clone() },
            Self {
                offset: gap.end,
                vaddr: self.vaddr + skipped,
                paddr: self.paddr + skipped,
                file_size: self.file_size - skipped,
                mem_size: self.mem_size - skipped,
                ..self.clone()
            },
        )
    }
}
