//! Requests of `Range` that ask for next to nothing.

use super::wire::{put, put_number};

/// The path of `Range`.
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";

const KEY: u32 = 1;
const RANGE_END: u32 = 2;
const LIMIT: u32 = 3;
const KEYS_ONLY: u32 = 8;
const COUNT_ONLY: u32 = 9;

/// How often a key is there: 0 or 1.
pub(crate) fn count(key: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put(KEY, [key, b""], &mut message);
    put_number(COUNT_ONLY, 1, &mut message);
    message
}

/// The first key of a range, without its value.
pub(crate) fn first_key(key: &[u8], range_end: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put(KEY, [key, b""], &mut message);
    put(RANGE_END, [range_end, b""], &mut message);
    put_number(LIMIT, 1, &mut message);
    put_number(KEYS_ONLY, 1, &mut message);
    message
}
