//! Messages as gRPC has them on the wire: a flag, the length, and the bytes.

use super::head::PREFIX;

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is compressed.
    Compressed,
    /// It has this many bytes, which are too many.
    TooLong(usize),
}

/// A message in two parts, as it is sent.
pub(super) fn with_prefix(head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + head.len() + tail.len());
    framed.push(0);
    framed.extend(u32::try_from(head.len() + tail.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(head);
    framed.extend_from_slice(tail);
    framed
}

/// Takes the messages that are complete with these bytes, one after the other; the beginning of the next one stays in
/// `rest`.
///
/// # Errors
/// That of `take`; and what `unreadable` makes of a message that is compressed, or longer than `longest` bytes.
pub(super) fn take_messages<E>(
    rest: &mut Vec<u8>,
    bytes: &[u8],
    longest: usize,
    unreadable: impl FnOnce(Unreadable) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    rest.extend_from_slice(bytes);
    let mut left = &rest[..];
    while let Some((&[flag, a, b, c, d], after)) = left.split_first_chunk::<PREFIX>() {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if flag != 0 {
            return Err(unreadable(Unreadable::Compressed));
        }
        if length > longest {
            return Err(unreadable(Unreadable::TooLong(length)));
        }
        let Some(message) = after.get(..length) else { break };
        left = &after[length..];
        take(message)?;
    }
    let used = rest.len() - left.len();
    rest.drain(..used);
    if rest.is_empty() {
        *rest = Vec::new();
    }
    Ok(())
}
