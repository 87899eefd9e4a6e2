//! SHA-256.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// The SHA-256 of everything that `from` yields, in lower-case hex.
pub(crate) fn sha256(mut from: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The SHA-256 of a text, in lower-case hex.
pub(crate) fn sha256_of(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}
