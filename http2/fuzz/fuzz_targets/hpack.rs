//! Header blocks of one connection. The first byte of each is its length in steps of 4 bytes; a 0 is the moment from
//! which no table is allowed.
#![no_main]

use etcdproxy_http2::hpack::{Decoder, encode};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::default();
    let mut rest = input;
    while let Some((&length, bytes)) = rest.split_first() {
        if length == 0 {
            decoder.forbid_table();
            rest = bytes;
            continue;
        }
        let (block, after) = bytes.split_at(bytes.len().min(usize::from(length) * 4));
        rest = after;
        let Ok(fields) = decoder.decode(block, MAX) else { return };
        assert!(fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum::<usize>() <= MAX);
        if decoder.is_stateless() {
            assert_eq!(decoder.decode(block, MAX), Ok(fields.clone()), "a block always means the same");
        }
        // What we write means what we have read.
        let mut written = Vec::new();
        fields.iter().for_each(|field| encode(&mut written, &field.name, &field.value));
        let mut reader = Decoder::default();
        reader.forbid_table();
        assert_eq!(reader.decode(&written, MAX), Ok(fields));
    }
});
