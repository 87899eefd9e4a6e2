//! HPACK (RFC 7541): reads the header fields of a peer that we told to use no dynamic table.

/// Names and values that have numbers, from 1 on (appendix A).
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

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

/// The block is not HPACK, or it uses the dynamic table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// Name and value of a header field.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// The fields of a complete header block.
pub(super) fn decode(mut block: &[u8]) -> Result<Vec<Field>, Invalid> {
    let mut fields = Vec::new();
    while let Some(&first) = block.first() {
        if first & 0x80 != 0 {
            let (name, value) = by_number(integer(&mut block, 7)?)?;
            fields.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        } else if first & 0xe0 == 0x20 {
            // The peer follows our limit of its dynamic table.
            integer(&mut block, 5)?;
        } else {
            let prefix = if first & 0x40 != 0 { 6 } else { 4 };
            let name = match integer(&mut block, prefix)? {
                0 => text(&mut block)?,
                number => by_number(number)?.0.as_bytes().to_vec(),
            };
            fields.push((name, text(&mut block)?));
        }
    }
    Ok(fields)
}

fn by_number(number: usize) -> Result<(&'static str, &'static str), Invalid> {
    number.checked_sub(1).and_then(|index| STATIC_TABLE.get(index)).copied().ok_or(Invalid)
}

/// An integer whose first byte has `prefix` bits for it (section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Invalid> {
    let mut next = || block.split_off_first().copied().ok_or(Invalid);
    let all = (1_usize << prefix) - 1;
    let mut value = usize::from(next()?) & all;
    if value < all {
        return Ok(value);
    }
    // Nothing here has a length of more than three bytes.
    for shift in [0, 7, 14] {
        let byte = next()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Invalid)
}

/// A string, plain or in Huffman code (section 5.2).
fn text(block: &mut &[u8]) -> Result<Vec<u8>, Invalid> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let bytes = block.split_off(..length).ok_or(Invalid)?;
    if is_coded { huffman(bytes) } else { Ok(bytes.to_vec()) }
}

fn huffman(bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(block: &[u8]) -> Result<Vec<(String, String)>, Invalid> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok(decode(block)?.into_iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    /// Appendices C.2, C.4 and C.6 of the RFC.
    #[test]
    fn the_examples_of_the_rfc() {
        for (block, expected) in [
            (&b"\x82"[..], (":method", "GET")),
            (b"\x04\x0c/sample/path", (":path", "/sample/path")),
            (b"\x10\x08password\x06secret", ("password", "secret")),
            (b"\x40\x0acustom-key\x0dcustom-header", ("custom-key", "custom-header")),
            (b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", (":authority", "www.example.com")),
            (b"\x58\x86\xa8\xeb\x10\x64\x9c\xbf", ("cache-control", "no-cache")),
            (b"\x48\x82\x64\x02", (":status", "302")),
            (
                b"\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ),
        ] {
            assert_eq!(fields(block).unwrap(), [(expected.0.to_owned(), expected.1.to_owned())]);
            assert_eq!(fields(&[b"\x20", block].concat()).unwrap().len(), 1, "after a change of the table's size");
            assert!(block.len() == 1 || fields(&block[..block.len() - 1]).is_err());
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for block in [
            &b"\x80"[..],            // number 0
            b"\xbe",                 // the first entry of the dynamic table
            b"\x7f\x80\x80\x80\x01", // a number that is too long
            b"\x00\x05ab",           // a string that is too short
            b"\x00\x82\xff\xff",     // padding of 16 bits
            b"\x00\x81\x00\x01a",    // padding that is not all ones
        ] {
            assert_eq!(decode(block), Err(Invalid), "{}", block.escape_ascii());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_block_causes_a_panic(block: Vec<u8>) {
            let _ = decode(&block);
        }
    }
}
