//! One compressed piece of the payload.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// Where a compressed piece is in the payload, and what it unpacks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The range of its compressed bytes in the payload.
    pub packed: Range<usize>,
    /// The number of unpacked bytes.
    pub size: usize,
    /// The hash of the unpacked bytes.
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
}

/// Unpacks frames one at a time, and reuses its memory.
pub struct Unpacker {
    zstd: DCtx<'static>,
    plain: Vec<u8>,
}

/// Compresses the bytes of one frame. Unpacking them takes the same `prefix`. `level` is zstd's, from 1 (fast) to 22
/// (strong).
///
/// # Errors
/// The message of zstd.
pub fn compress(plain: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>, &'static str> {
    let mut zstd = CCtx::create();
    zstd.set_parameter(CParameter::CompressionLevel(level)).map_err(get_error_name)?;
    // The table has the size and a sha256, and only the table is trusted.
    zstd.set_parameter(CParameter::ContentSizeFlag(false)).map_err(get_error_name)?;
    if !prefix.is_empty() {
        let reach = (usize::BITS - (prefix.len() + plain.len()).leading_zeros()).max(10);
        zstd.set_parameter(CParameter::WindowLog(reach)).map_err(get_error_name)?;
        zstd.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(get_error_name)?;
        zstd.ref_prefix(prefix).map_err(get_error_name)?;
    }
    let mut packed = Vec::with_capacity(compress_bound(plain.len()));
    zstd.compress2(&mut packed, plain).map_err(get_error_name)?;
    Ok(packed)
}

impl Frame {
    /// The frame of the bytes `plain`, whose compressed form is at `packed` in the payload.
    #[must_use]
    pub fn new(packed: Range<usize>, plain: &[u8]) -> Self {
        Self { packed, size: plain.len(), sha256: Sha256::digest(plain).into() }
    }
}

impl Unpacker {
    /// Allocates nothing for the unpacked bytes yet.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "there is no use for a default")]
    pub fn new() -> Self {
        Self { zstd: DCtx::create(), plain: Vec::new() }
    }

    /// Unpacks a frame and checks its size and sha256. `packed` is its part of the payload.
    ///
    /// # Errors
    /// How the bytes are damaged.
    pub fn unpack(&mut self, frame: &Frame, packed: &[u8], prefix: &[u8]) -> Result<&[u8], &'static str> {
        self.plain.clear();
        self.plain.reserve_exact(frame.size);
        self.zstd.decompress_using_dict(&mut self.plain, packed, prefix).map_err(get_error_name)?;
        if self.plain.len() != frame.size || Sha256::digest(&self.plain)[..] != frame.sha256 {
            return Err("wrong sha256");
        }
        Ok(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are hard to compress. The same seed gives the same bytes.
    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn pack(plain: &[u8], prefix: &[u8]) -> (Frame, Vec<u8>) {
        let packed = compress(plain, prefix, 3).unwrap();
        (Frame::new(0..packed.len(), plain), packed)
    }

    #[test]
    fn packed_bytes_are_unpacked_unchanged() {
        let mut unpacker = Unpacker::new();
        for plain in [noise(1, 100_000), vec![7; 300_000], Vec::new()] {
            let (frame, packed) = pack(&plain, &[]);
            assert_eq!(unpacker.unpack(&frame, &packed, &[]), Ok(&*plain));
        }
    }

    #[test]
    fn a_prefix_shrinks_similar_bytes_and_is_needed_to_unpack_them() {
        let prefix = noise(1, 200_000);
        let plain = [&prefix[100_000..], b"and a little more"].concat();
        let (frame, packed) = pack(&plain, &prefix);
        assert!(packed.len() < 1000, "{}", packed.len());

        let mut unpacker = Unpacker::new();
        assert_eq!(unpacker.unpack(&frame, &packed, &prefix), Ok(&*plain));
        assert!(unpacker.unpack(&frame, &packed, &[]).is_err());
        assert!(unpacker.unpack(&frame, &packed, &noise(2, 200_000)).is_err());
        assert_eq!(unpacker.unpack(&frame, &packed, &prefix), Ok(&*plain), "an error leaves nothing behind");
    }

    #[test]
    fn damage_is_found() {
        let plain = noise(1, 1000);
        let (frame, packed) = pack(&plain, &[]);
        let mut unpacker = Unpacker::new();
        assert!(unpacker.unpack(&frame, &packed[..packed.len() - 1], &[]).is_err(), "cut short");

        let mut flipped = packed.clone();
        flipped[500] ^= 1;
        assert_eq!(unpacker.unpack(&frame, &flipped, &[]), Err("wrong sha256"));

        let other = Frame { size: frame.size + 1, ..frame.clone() };
        assert_eq!(unpacker.unpack(&other, &packed, &[]), Err("wrong sha256"));
        let other = Frame { size: frame.size - 1, ..frame };
        assert!(unpacker.unpack(&other, &packed, &[]).is_err(), "more bytes than the table says are not even unpacked");
    }

    #[test]
    fn the_same_bytes_give_the_same_frame() {
        let (prefix, plain) = (noise(1, 50_000), noise(2, 50_000));
        assert_eq!(pack(&plain, &prefix), pack(&plain, &prefix));
    }
}
