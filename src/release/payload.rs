//! From the compressed bytes in this binary to checked, plain ones.

use std::io;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{DCtx, get_error_name};

use super::{Frame, Program, RELEASE};

/// What a launcher has in the place of the payload's first bytes.
pub(super) const LAUNCHER_MARK: [u8; 4] = [0; 4];

static PAYLOAD: Dir<'_> = include_dir!("$OUT_DIR/payload");

/// More threads would only raise peak memory: each holds a frame, and the disk is the limit by then.
const THREADS: usize = 2;

/// All frames of all programs. In a launcher, only the first bytes of it can be read.
pub(super) fn payload() -> &'static [u8] {
    PAYLOAD.get_file("release.zst").map_or(&[], include_dir::File::contents)
}

/// Whether this binary still has its payload: a launcher's begins with zeros in the place of zstd's magic number.
pub(crate) fn is_carried() -> bool {
    payload().first_chunk() != Some(&LAUNCHER_MARK)
}

/// What [`decode`] could not do.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// This binary is a launcher.
    Absent,
    Damaged(String),
    /// The sink refused the bytes.
    Sink(io::Error),
}

/// Unpacks `program`, handing each checked piece with its offset to `sink`; pieces come in any order,
/// from several threads.
///
/// Peak memory is a frame per thread; for a program after the first, also all programs before it.
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
        let mut zstd = DCtx::create();
        let mut plain = Vec::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = piece
                .decode(&mut zstd, prefix, &mut plain)
                .and_then(|()| sink(piece.offset, &plain).map_err(DecodeError::Sink));
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
    let mut plain = Vec::new();
    for piece in pieces(slice::from_ref(frame))? {
        piece.decode(&mut DCtx::create(), &[], &mut plain)?;
    }
    Ok(plain)
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

/// A frame with its bytes and its place in the program.
struct Piece {
    frame: &'static Frame,
    packed: &'static [u8],
    offset: u64,
}

fn pieces(frames: &'static [Frame]) -> Result<Vec<Piece>, DecodeError> {
    if !is_carried() {
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
    /// Leaves the plain bytes in `plain`, whose capacity is used again from call to call.
    fn decode(&self, zstd: &mut DCtx<'static>, prefix: &[u8], plain: &mut Vec<u8>) -> Result<(), DecodeError> {
        let damaged = |detail: &str| DecodeError::Damaged(format!("{detail} at byte {}", self.offset));
        plain.clear();
        plain.reserve_exact(self.frame.size);
        zstd.decompress_using_dict(plain, self.packed, prefix).map_err(|code| damaged(get_error_name(code)))?;
        if plain.len() != self.frame.size || Sha256::digest(&plain)[..] != self.frame.sha256 {
            return Err(damaged("wrong sha256"));
        }
        Ok(())
    }
}
