//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).

use super::Invalid;

/// Length of each byte's Huffman code, in bits (appendix B). The code is canonical: shorter codes come first, and codes
/// of one length are in the order of their bytes. So the lengths determine it.
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LONGEST_CODE: u8 = 30;

/// The codes of one length: the first of them, how many there are, and where their bytes stand in [`SYMBOLS`].
#[derive(Clone, Copy)]
struct Codes {
    first: u32,
    count: u32,
    place: usize,
}

const CODES: [Codes; LONGEST_CODE as usize + 1] = codes();

/// All bytes in the order of their codes.
const SYMBOLS: [u8; 256] = symbols();

const fn codes() -> [Codes; LONGEST_CODE as usize + 1] {
    let mut all = [Codes { first: 0, count: 0, place: 0 }; LONGEST_CODE as usize + 1];
    let mut length = 1;
    while length < all.len() {
        let shorter = all[length - 1];
        let (mut count, mut byte) = (0, 0);
        while byte < CODE_LENGTHS.len() {
            count += (CODE_LENGTHS[byte] as usize == length) as u32;
            byte += 1;
        }
        let first = (shorter.first + shorter.count) << 1;
        all[length] = Codes { first, count, place: shorter.place + shorter.count as usize };
        length += 1;
    }
    all
}

const fn symbols() -> [u8; 256] {
    let mut all = [0; 256];
    let (mut place, mut length) = (0, 1);
    while length <= LONGEST_CODE {
        let mut byte = 0;
        while byte < CODE_LENGTHS.len() {
            if CODE_LENGTHS[byte] == length {
                all[place] = byte.to_le_bytes()[0];
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    all
}

/// The text that these bytes stand for.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0_u8);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Some(byte) = symbol(code, length) {
            text.push(byte);
            (code, length) = (0, 0);
        } else if length >= LONGEST_CODE {
            return Err(Invalid);
        }
    }
    // The rest of the last byte is filled with ones.
    if length < 8 && code == (1 << length) - 1 { Ok(text) } else { Err(Invalid) }
}

/// The byte with this code.
fn symbol(code: u32, length: u8) -> Option<u8> {
    let Codes { first, count, place } = CODES[usize::from(length)];
    let index = code.checked_sub(first).filter(|index| *index < count)?;
    Some(SYMBOLS[place + index as usize])
}
