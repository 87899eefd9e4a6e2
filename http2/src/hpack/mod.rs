//! HPACK (RFC 7541).
//!
//! What we write uses neither Huffman codes nor the dynamic table, so it can be read without knowing what came before.

mod huffman;
mod static_table;

use std::collections::VecDeque;

use static_table::STATIC_TABLE;

/// The size of the dynamic table that a peer may use before it knows that we want none, in bytes (section 6.5.2 of
/// RFC 9113).
const INITIAL_CAPACITY: usize = 4096;

/// What an entry of the dynamic table counts beside its name and value, in bytes (section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The block is not HPACK, or it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case, as HTTP/2 demands.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// Reads header blocks in the order in which they come.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
    /// The size of the entries, and the largest that it may have.
    size: usize,
    capacity: usize,
    /// The largest capacity that the peer may choose.
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, capacity: INITIAL_CAPACITY, limit: INITIAL_CAPACITY }
    }
}

impl Decoder {
    /// The peer knows from now on that it must use no dynamic table.
    pub fn forbid_table(&mut self) {
        self.limit = 0;
        self.resize(0);
        self.table = VecDeque::new();
    }

    /// Whether a block means the same wherever it comes.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.limit == 0
    }

    /// The fields of a complete block. Their size is at most `max`, where each counts 32 bytes beside its name and value,
    /// as in `SETTINGS_MAX_HEADER_LIST_SIZE`: a field can be one byte long, and costs us much more.
    ///
    /// # Errors
    /// [`Invalid`]; what comes later on the connection cannot be read then.
    pub fn decode(&mut self, mut block: &[u8], max: usize) -> Result<Vec<Field>, Invalid> {
        let mut fields = Vec::new();
        let mut left = max;
        while let Some(&first) = block.first() {
            let field = if first & 0x80 != 0 {
                self.by_number(integer(&mut block, 7)?)?
            } else if first & 0xe0 == 0x20 {
                let capacity = integer(&mut block, 5)?;
                if capacity > self.limit || !fields.is_empty() {
                    return Err(Invalid);
                }
                self.resize(capacity);
                continue;
            } else {
                let is_indexed = first & 0x40 != 0;
                let name = match integer(&mut block, if is_indexed { 6 } else { 4 })? {
                    0 => text(&mut block)?,
                    number => self.by_number(number)?.name,
                };
                let field = Field { name, value: text(&mut block)? };
                if is_indexed {
                    self.insert(&field);
                }
                field
            };
            left = left.checked_sub(size(&field)).ok_or(Invalid)?;
            fields.push(field);
        }
        Ok(fields)
    }

    fn by_number(&self, number: usize) -> Result<Field, Invalid> {
        let index = number.checked_sub(1).ok_or(Invalid)?;
        match STATIC_TABLE.get(index) {
            Some((name, value)) => Ok(Field { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() }),
            None => self.table.get(index - STATIC_TABLE.len()).cloned().ok_or(Invalid),
        }
    }

    fn insert(&mut self, field: &Field) {
        let size = size(field);
        self.evict(self.capacity.saturating_sub(size));
        if size <= self.capacity {
            self.size += size;
            self.table.push_front(field.clone());
        }
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.evict(capacity);
    }

    /// Drops the oldest entries until the others have this size at most.
    fn evict(&mut self, to: usize) {
        while self.size > to
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= size(&oldest);
        }
    }
}

fn size(field: &Field) -> usize {
    field.name.len() + field.value.len() + ENTRY_OVERHEAD
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
    if is_coded { huffman::decode(bytes) } else { Ok(bytes.to_vec()) }
}

/// Appends a field that no table remembers.
pub fn encode(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let number = |(known, text): &(&str, &str)| known.as_bytes() == name && text.as_bytes() == value;
    if !value.is_empty()
        && let Some(index) = STATIC_TABLE.iter().position(number)
    {
        return encode_integer(block, 0x80, 7, index + 1);
    }
    if let Some(index) = STATIC_TABLE.iter().position(|(known, _)| known.as_bytes() == name) {
        encode_integer(block, 0, 4, index + 1);
    } else {
        block.push(0);
        encode_text(block, name);
    }
    encode_text(block, value);
}

fn encode_text(block: &mut Vec<u8>, text: &[u8]) {
    encode_integer(block, 0, 7, text.len());
    block.extend_from_slice(text);
}

fn encode_integer(block: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let all = (1_usize << prefix) - 1;
    let byte = |value: usize| u8::try_from(value & 0xff).unwrap_or_default();
    if value < all {
        return block.push(first | byte(value));
    }
    block.push(first | byte(all));
    let mut rest = value - all;
    while rest >= 0x80 {
        block.push(byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    block.push(byte(rest));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64 * 1024;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Invalid> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok(decoder.decode(block, MAX)?.into_iter().map(|field| (text(field.name), text(field.value))).collect())
    }

    fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Appendices C.2, C.4 and C.6 of the RFC.
    #[test]
    fn the_single_examples_of_the_rfc() {
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
            let decode = |block: &[u8]| fields(&mut Decoder::default(), block);
            assert_eq!(decode(block).unwrap(), owned(&[expected]));
            assert_eq!(decode(&[b"\x20", block].concat()).unwrap().len(), 1, "after a change of the table's size");
            assert!(block.len() == 1 || decode(&block[..block.len() - 1]).is_err());
        }
    }

    /// Appendix C.5: three responses on one connection, with a table of 256 bytes.
    #[test]
    fn the_dynamic_table_remembers_and_forgets() {
        let mut decoder = Decoder::default();
        let first = b"\x3f\xe1\x01\x48\x03302\x58\x07private\x61\x1dMon, 21 Oct 2013 20:13:21 GMT\x6e\x17https://www.example.com";
        let expected = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        assert_eq!(fields(&mut decoder, first).unwrap(), owned(&expected));
        assert_eq!(decoder.size, 222);
        let mut second = expected;
        second[0].1 = "307";
        assert_eq!(fields(&mut decoder, b"\x48\x03307\xc1\xc0\xbf").unwrap(), owned(&second));
        assert_eq!(decoder.size, 222);
        let third = b"\x88\xc1\x61\x1dMon, 21 Oct 2013 20:13:22 GMT\xc0\x5a\x04gzip\x77\x38foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let third = fields(&mut decoder, third).unwrap();
        assert_eq!(third[3..5], owned(&[("location", "https://www.example.com"), ("content-encoding", "gzip")]));
        assert_eq!((decoder.size, decoder.table.len()), (215, 3));
        decoder.forbid_table();
        assert_eq!(fields(&mut decoder, b"\xbe"), Err(Invalid));
        assert_eq!(fields(&mut decoder, b"\x20\x40\x01a\x01b").unwrap(), owned(&[("a", "b")]));
        assert_eq!((decoder.size, decoder.is_stateless()), (0, true));
        assert_eq!(fields(&mut decoder, b"\x21"), Err(Invalid), "no table any more");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for block in [
            &b"\x80"[..],            // number 0
            b"\xbe",                 // an entry that the dynamic table does not have
            b"\x7f\x80\x80\x80\x01", // a number that is too long
            b"\x00\x05ab",           // a string that is too short
            b"\x00\x82\xff\xff",     // padding of 16 bits
            b"\x00\x81\x00\x01a",    // padding that is not all ones
            b"\x3f\xff\x7f",         // a larger table than allowed
        ] {
            assert_eq!(Decoder::default().decode(block, MAX), Err(Invalid), "{}", block.escape_ascii());
        }
        let mut decoder = Decoder::default();
        let long = [&b"\x40\x01a\x7f\x81\x1f"[..], &[b'x'; 4096]].concat();
        assert_eq!(decoder.decode(&long, 4097 + 31), Err(Invalid), "a bomb");
        assert_eq!(decoder.decode(&long, 4097 + 32).unwrap().len(), 1);
        assert_eq!(decoder.size, 0, "it is larger than the table");
        assert_eq!(decoder.decode(&[&b"\x40\x01a\x7f\x81\x1e"[..], &[b'x'; 3968]].concat(), MAX).unwrap().len(), 1);
        assert_eq!(decoder.decode(&[0xbe; 100], MAX), Err(Invalid), "a bomb of numbers");
    }

    #[test]
    fn what_we_write() {
        for (name, value, bytes) in [
            (":status", "200", &b"\x88"[..]),
            (":path", "/a", b"\x04\x02/a"),
            ("content-type", "application/grpc", b"\x0f\x10\x10application/grpc"),
            ("te", "trailers", b"\x00\x02te\x08trailers"),
            (":authority", "", b"\x01\x00"),
        ] {
            let mut block = Vec::new();
            encode(&mut block, name.as_bytes(), value.as_bytes());
            assert_eq!(block, bytes, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_block_causes_a_panic(blocks: Vec<Vec<u8>>) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = decoder.decode(&block, MAX);
                prop_assert!(decoder.size <= INITIAL_CAPACITY);
            }
        }

        #[test]
        fn what_was_written_can_be_read(name: Vec<u8>, value: Vec<u8>, length in 0..70_000usize) {
            let value = if length > 60_000 { vec![b'v'; length] } else { value };
            let mut block = Vec::new();
            encode(&mut block, &name, &value);
            let mut decoder = Decoder::default();
            decoder.forbid_table();
            prop_assert_eq!(decoder.decode(&block, 1 << 20), Ok(vec![Field { name, value }]));
        }
    }
}
