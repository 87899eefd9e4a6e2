//! The small launcher: this binary without its payload.
//!
//! The payload's pages are cut out of the file, and the program header that maps them is split in two around the
//! gap, so that every address in the program stays the same. The second header takes the place of the build id's.
//! <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::Error;
use super::payload::{self, LAUNCHER_MARK};
use crate::fs::{atomic, dirs};
use crate::os::env::open_own_exe;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Writes the launcher to `dir/name`, 0755, and replaces a file of that name.
///
/// # Errors
/// If this binary is a launcher itself or is not laid out as expected, or if the file cannot be written.
pub(crate) fn write_launcher(dir: &Path, name: &str) -> Result<(), Error> {
    let failed = |detail: String| Error::NoLauncher { binary: "this binary".to_owned(), detail };
    if !payload::has_payload() {
        return Err(failed("it is a launcher already".to_owned()));
    }
    let exe = open_own_exe().map_err(|err| failed(format!("cannot read it: {err}")))?;
    let payload =
        payload_in_file().ok_or_else(|| failed("its payload is not where it should be in memory".to_owned()))?;
    let launcher = cut(&exe, &payload).map_err(failed)?;
    atomic::replace(&dir.join(name), 0o755, dirs::REMEDY, |file| file.write_all(&launcher))?;
    Ok(())
}

/// The launcher, cut out of the file of an etcdproxy, whose `payload` is at this range.
///
/// # Errors
/// Why the file does not give one.
pub(super) fn cut(exe: &File, payload: &Range<u64>) -> Result<Vec<u8>, String> {
    let cannot_read = |err: io::Error| format!("cannot read it: {err}");
    let mut head = vec![0; 4096];
    exe.read_exact_at(&mut head, 0).map_err(cannot_read)?;
    let cut = Cut::plan(&head, payload).ok_or("its ELF header is not as expected")?;
    cut.apply(&mut head);

    let length = |bytes: u64| usize::try_from(bytes).map_err(|_| "it is too large");
    let (before, after) = (length(cut.gap.start)?, length(cut.end - cut.gap.end)?);
    let mark = length(payload.start)?;
    let mut launcher = vec![0; before + after];
    exe.read_exact_at(&mut launcher[..before], 0).map_err(cannot_read)?;
    exe.read_exact_at(&mut launcher[before..], cut.gap.end).map_err(cannot_read)?;
    launcher[..cut.headers_end].copy_from_slice(&head[..cut.headers_end]);
    launcher[mark..mark + LAUNCHER_MARK.len()].copy_from_slice(&LAUNCHER_MARK);
    Ok(launcher)
}

/// Where the payload is in the file of this process, according to the kernel.
pub(super) fn payload_in_file() -> Option<Range<u64>> {
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

/// Which part of the file is cut out, and the new program headers.
#[derive(Debug)]
struct Cut {
    gap: Range<u64>,
    /// Where the last segment ends. Only section headers follow, which a program does not need to run.
    end: u64,
    segments: Vec<Segment>,
    /// Where the program headers begin and end in the file.
    table: usize,
    headers_end: usize,
}

/// A 64-bit program header.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Plans the cut. `head` is the beginning of the file with all program headers, and `payload` is a range of the file.
    /// Returns `None` if the file is not laid out as expected.
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

    /// The part before the gap, and the part after it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x20_0000;
    const PAGE: u64 = 4096;

    fn segment(kind: u32, offset: u64, vaddr: u64, file_size: u64) -> Segment {
        Segment { kind, flags: 4, offset, vaddr, paddr: vaddr, file_size, mem_size: file_size, align: PAGE }
    }

    /// As the linker lays it out: the payload is in the middle of the read-only data; code and other data follow.
    fn segments() -> Vec<Segment> {
        vec![
            segment(PT_LOAD, 0, BASE, 100 * PAGE),
            segment(PT_LOAD, 100 * PAGE, BASE + 101 * PAGE, 10 * PAGE),
            Segment { mem_size: 3 * PAGE, ..segment(PT_LOAD, 110 * PAGE + 16, BASE + 112 * PAGE + 16, PAGE) },
            segment(PT_NOTE, 600, BASE + 600, 36),
        ]
    }

    const PAYLOAD: Range<u64> = 10 * PAGE + 100..90 * PAGE + 7;

    fn head(segments: &[Segment]) -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[32] = 64; // where the program headers begin
        head[40] = 0xaa; // section headers: their offset,
        head[54] = 56;
        head[56] = u8::try_from(segments.len()).unwrap();
        head[60] = 0xbb; // their number,
        head[62] = 0xcc; // and the index of their names
        for (segment, bytes) in segments.iter().zip(head[64..].chunks_mut(SEGMENT_SIZE)) {
            bytes.copy_from_slice(&segment.bytes());
        }
        head
    }

    /// Where the byte of the file at `offset` is in memory.
    fn address(segments: &[Segment], offset: u64) -> Option<u64> {
        let holds = |segment: &&Segment| (segment.offset..segment.offset + segment.file_size).contains(&offset);
        let segment = segments.iter().filter(|segment| segment.kind == PT_LOAD).find(holds)?;
        Some(segment.vaddr + offset - segment.offset)
    }

    #[test]
    fn whole_pages_of_the_payload_are_cut_out_but_its_first_bytes_stay() {
        let cut = Cut::plan(&head(&segments()), &PAYLOAD).unwrap();
        assert_eq!(cut.gap, 11 * PAGE..90 * PAGE);
        assert_eq!(cut.end, 111 * PAGE + 16);

        // The mark does not fit into the page that the payload begins in.
        let cut = Cut::plan(&head(&segments()), &(11 * PAGE - 2..90 * PAGE)).unwrap();
        assert_eq!(cut.gap, 12 * PAGE..90 * PAGE);

        let mut segments = segments();
        segments[0].align = 4 * PAGE;
        assert_eq!(Cut::plan(&head(&segments), &PAYLOAD).unwrap().gap, 12 * PAGE..88 * PAGE);
    }

    #[test]
    fn every_other_byte_keeps_its_address() {
        let before = segments();
        let cut = Cut::plan(&head(&before), &PAYLOAD).unwrap();
        let length = cut.gap.end - cut.gap.start;
        for offset in (0..cut.end).step_by(64).filter(|offset| !cut.gap.contains(offset)) {
            let moved = if offset < cut.gap.start { offset } else { offset - length };
            assert_eq!(address(&cut.segments, moved), address(&before, offset), "{offset:#x}");
        }
        assert_eq!(cut.segments[3].mem_size, 3 * PAGE, "memory without bytes in the file");
        // The kernel requires this of every segment that it maps.
        assert!(cut.segments.iter().all(|segment| segment.offset % PAGE == segment.vaddr % PAGE));
    }

    #[test]
    fn the_second_half_takes_the_place_of_the_note_and_section_headers_go() {
        let mut head = head(&segments());
        let cut = Cut::plan(&head, &PAYLOAD).unwrap();
        cut.apply(&mut head);
        let written: Vec<Segment> = head[64..].chunks(SEGMENT_SIZE).take(4).map_while(Segment::parse).collect();
        assert_eq!(written, cut.segments);
        assert!(written.iter().all(|segment| segment.kind == PT_LOAD));
        assert_eq!((head[40], head[60], head[62]), (0, 0, 0));
        assert_eq!((head[54], head[56]), (56, 4));
    }

    #[test]
    fn files_that_are_not_laid_out_as_expected_are_refused() {
        let refused = |head: &[u8], payload| Cut::plan(head, payload).is_none();
        assert!(refused(&head(&segments())[..100], &PAYLOAD), "the program headers are not all there");
        assert!(refused(&head(&segments()[..3]), &PAYLOAD), "no header can be replaced");
        assert!(refused(&head(&segments()), &(90 * PAGE..101 * PAGE)), "two segments hold the payload");
        assert!(refused(&head(&segments()), &(10 * PAGE + 1..12 * PAGE - 1)), "the payload fills no page");
        let mut shifted = segments();
        shifted[0].vaddr += 8;
        assert!(refused(&head(&shifted), &PAYLOAD), "offset and address differ within a page");
        for (at, byte) in [(0, 0), (4, 1), (5, 2), (54, 32)] {
            let mut head = head(&segments());
            head[at] = byte; // not an ELF file, 32-bit, big-endian, headers of another size
            assert!(refused(&head, &PAYLOAD), "{at}");
        }
    }
}
