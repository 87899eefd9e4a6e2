//! Unpacks the compressed bytes in this binary, and checks them.

use std::hint::black_box;
use std::io;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use etcdproxy_payload::{Frame, Unpacker};

use super::contents::{Program, RELEASE};

/// The first bytes of a launcher's payload. A whole binary has zstd's magic number there.
pub(super) const LAUNCHER_MARK: [u8; 4] = [0; 4];

static PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/release.zst"));

/// More threads would only raise peak memory: each holds a frame, and the disk limits two threads already.
const THREADS: usize = 2;

/// All frames. In a launcher, only the first bytes can be read.
pub(super) fn payload() -> &'static [u8] {
    // A launcher is this program with other bytes here, so the optimiser must not assume the bytes that it sees now.
    black_box(PAYLOAD)
}

/// Whether this binary still has its payload.
pub(crate) fn has_payload() -> bool {
    payload().first_chunk() != Some(&LAUNCHER_MARK)
}

/// Why bytes of the payload cannot be unpacked.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// This binary is a launcher.
    Absent,
    /// The bytes are not those that the build wrote; says how.
    Damaged(String),
    /// The sink could not take the bytes.
    Sink(io::Error),
}

/// Unpacks `program` and hands each checked piece to `sink`, with its offset. The pieces come in any order, from several
/// threads.
///
/// Peak memory is one frame for each thread and, for a program after the first, all programs before it.
pub(super) fn decode(program: &Program, sink: impl Fn(u64, &[u8]) -> io::Result<()> + Sync) -> Result<(), DecodeError> {
    let mut prefix = Vec::new();
    for earlier in RELEASE.programs.iter().take_while(|earlier| earlier.name != program.name) {
        let bytes = decode_to_memory(earlier, &prefix)?;
        prefix.extend_from_slice(&bytes);
    }
    decode_with(program, &prefix, sink)
}

fn decode_with(
    program: &Program,
    prefix: &[u8],
    sink: impl Fn(u64, &[u8]) -> io::Result<()> + Sync,
) -> Result<(), DecodeError> {
    let pieces = pieces(program.frames)?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), DecodeError> {
        let mut unpacker = Unpacker::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = piece
                .decode(&mut unpacker, prefix)
                .and_then(|plain| sink(piece.offset, plain).map_err(DecodeError::Sink));
            if let Err(err) = done {
                next.store(pieces.len(), Ordering::Relaxed); // the other thread need not go on
                return Err(err);
            }
        }
        Ok(())
    };

    let helpers = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS) - 1;
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let mine = work();
        helpers
            .into_iter()
            .fold(mine, |all, helper| all.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    })
}

/// Unpacks a frame that stands alone.
pub(super) fn decode_frame(frame: &'static Frame) -> Result<Vec<u8>, DecodeError> {
    let mut unpacker = Unpacker::new();
    let pieces = pieces(slice::from_ref(frame))?;
    Ok(pieces[0].decode(&mut unpacker, &[])?.to_owned())
}

fn decode_to_memory(program: &Program, prefix: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let whole = Mutex::new(vec![0; program.frames.iter().map(|frame| frame.size).sum()]);
    decode_with(program, prefix, |offset, bytes| {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    })?;
    Ok(whole.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A frame, its compressed bytes, and its offset in the unpacked program.
struct Piece {
    frame: &'static Frame,
    packed: &'static [u8],
    offset: u64,
}

fn pieces(frames: &'static [Frame]) -> Result<Vec<Piece>, DecodeError> {
    if !has_payload() {
        return Err(DecodeError::Absent);
    }
    let mut offset = 0;
    frames
        .iter()
        .map(|frame| {
            let packed = payload().get(frame.packed.clone());
            let packed = packed.ok_or_else(|| DecodeError::Damaged("it ends too early".to_owned()))?;
            let piece = Piece { frame, packed, offset };
            offset += frame.size as u64;
            Ok(piece)
        })
        .collect()
}

impl Piece {
    fn decode<'a>(&self, unpacker: &'a mut Unpacker, prefix: &[u8]) -> Result<&'a [u8], DecodeError> {
        unpacker
            .unpack(self.frame, self.packed, prefix)
            .map_err(|detail| DecodeError::Damaged(format!("{detail} at byte {}", self.offset)))
    }
}
