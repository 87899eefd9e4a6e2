//! HTTP/2 (RFC 9113) for a proxy, without I/O: bytes in, events out.
//!
//! - [`Connection`]: one end of a connection: streams, windows, limits
//! - [`hpack`]: header blocks
//! - `frame`: headers of frames
//!
//! It is made for many streams on few connections and for many connections that are idle. What it sends is gathered in
//! one buffer, so that one write can carry many frames. Both sides are told to use no dynamic table, so a header block
//! always means the same, and whoever uses this can remember what it means.

mod connection;
mod frame;
pub mod hpack;
mod stream;

pub use connection::{Connection, Event};
pub use frame::Code;

/// The first bytes of every client (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The peer broke a rule or a limit: the connection is over. The reason is for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({code:?})")]
pub struct Error {
    /// What the peer is told.
    pub code: Code,
    /// The rule.
    pub why: &'static str,
}

impl Error {
    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self { code: Code::PROTOCOL_ERROR, why }
    }

    pub(crate) const fn flood(why: &'static str) -> Self {
        Self { code: Code::ENHANCE_YOUR_CALM, why }
    }
}
