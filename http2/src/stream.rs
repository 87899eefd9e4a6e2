//! One stream, and the map of all.

use rustc_hash::FxHashMap;

/// What the user of the connection has not named yet.
pub(crate) const UNTAGGED: u64 = u64::MAX;

/// A stream that both sides know.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What the user of the connection calls it.
    pub tag: u64,
    /// How many bytes we may send. A change of the peer's settings can make it negative.
    pub send_window: i64,
    /// How many bytes the peer may send.
    pub receive_window: i64,
    /// Bytes that were received and used up, and that the peer does not know of yet.
    pub released: u32,
    /// The peer has sent its first header block.
    pub has_headers: bool,
    /// The peer has sent its end.
    pub receive_closed: bool,
    /// We have sent our end, or it waits behind what is pending.
    pub send_closed: bool,
    /// What the windows, or the output, do not take yet.
    pub pending: Option<Box<Pending>>,
}

/// Data that waits for a window.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub bytes: Vec<u8>,
    /// How many of them have been sent.
    pub sent: usize,
    /// The header block that ends the stream after the data.
    pub trailers: Option<Vec<u8>>,
    /// It stands in the connection's queue.
    pub is_queued: bool,
}

impl Pending {
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Adds data. What has been sent goes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.sent > 0 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// Streams by their ids, which are no secret: a hash against attacks would cost more than it gives.
pub(crate) type Streams = FxHashMap<u32, Stream>;
