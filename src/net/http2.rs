//! As much of HTTP/2 (RFC 9113) as it takes to see that a server lives, and that it speaks gRPC.

use std::io;

use crate::settings::{Endpoint, Scheme};

/// What a client begins with: its preface and an empty SETTINGS frame (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
pub(crate) const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0etcdpxy\0";

/// Length of a frame's header.
pub(crate) const HEADER: usize = 9;
/// A client that says nothing else gets no longer frames.
const MAX_PAYLOAD: usize = 16 * 1024;

/// A method that no etcd has: gRPC says so at once, to anybody, and nothing is logged, counted or read for it.
const PATH: &str = "/etcdserverpb.KV/AreYouThere";
const CONTENT_TYPE: &str = "application/grpc";
/// The same in HPACK's Huffman code: 88 bits, so that whatever follows does not change them.
const CONTENT_TYPE_CODED: &[u8] = b"\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64";

/// The preface, and a call that any gRPC server answers.
pub(crate) fn question(endpoint: &Endpoint) -> Vec<u8> {
    let (scheme, authority) = match endpoint.scheme {
        Scheme::Https => (0x87, endpoint.address()),
        Scheme::Http => (0x86, endpoint.address()),
        Scheme::Unix => (0x86, "localhost".to_owned()),
    };
    // HPACK (RFC 7541): names, and some values, by their numbers in its table; nothing is compressed.
    let fields = [
        &[0x83, scheme, 0x04][..], // POST
        &literal(PATH),
        &[0x01],
        &literal(&authority),
        &[0x0f, 0x10],
        &literal(CONTENT_TYPE),
        b"\0\x02te\x08trailers",
    ]
    .concat();
    let [.., high, low] = fields.len().to_be_bytes();
    let headers = [0, high, low, 1, 4, 0, 0, 0, 1];
    let empty_message = b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0";
    [PREFACE, &headers, &fields, empty_message].concat()
}

/// Length and text. No host name is longer than 253.
fn literal(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(254)];
    let length = u8::try_from(text.len()).unwrap_or(254);
    let length = if length < 127 { vec![length] } else { vec![127, length - 127] };
    [&length, text].concat()
}

/// What comes from a server.
#[derive(Debug)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub ack: bool,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Headers,
    Settings,
    Ping,
    /// The end of a call.
    Reset,
    /// The end of the connection.
    GoAway,
    Other,
}

impl Frame {
    /// Whose payload is still to be read.
    ///
    /// # Errors
    /// When this is no HTTP/2.
    pub(crate) fn new(header: [u8; HEADER]) -> io::Result<Self> {
        let [a, b, c, kind, flags, ..] = header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let kind = match kind {
            1 => Kind::Headers,
            3 => Kind::Reset,
            4 => Kind::Settings,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            _ => Kind::Other,
        };
        Ok(Self { kind, ack: flags & 1 != 0, payload: vec![0; length] })
    }

    /// Whether the answer to the question is one of gRPC; nothing when this is not the answer.
    pub(crate) fn is_grpc(&self) -> Option<bool> {
        let has = |bytes: &[u8]| self.payload.windows(bytes.len()).any(|window| window == bytes);
        match self.kind {
            // The first field of its kind on a connection: no table knows it yet, so it is there as it is.
            Kind::Headers => Some(has(CONTENT_TYPE.as_bytes()) || has(CONTENT_TYPE_CODED)),
            Kind::Reset | Kind::GoAway => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let frame = |kind, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            let mut frame = Frame::new([0, 0, length, kind, 0, 0, 0, 0, 1]).unwrap();
            frame.payload.copy_from_slice(payload);
            frame.is_grpc()
        };
        let coded = [b"\x88\x5f\x8b", CONTENT_TYPE_CODED, b"\x40"].concat();
        assert_eq!(frame(1, &coded), Some(true));
        assert_eq!(frame(1, b"\x88\x0f\x10\x16application/grpc+proto"), Some(true));
        assert_eq!(frame(1, b"\x8d\x0f\x10\x09text/html"), Some(false));
        assert_eq!(frame(3, b"\0\0\0\x01"), Some(false));
        assert_eq!(frame(7, &coded), Some(false));
        assert_eq!(frame(4, &coded), None);
        assert!(Frame::new(*b"HTTP/1.1 ").is_err());
    }

    #[test]
    fn lengths() {
        for (length, bytes) in [(0, &[0][..]), (126, &[126]), (127, &[127, 0]), (253, &[127, 126]), (300, &[127, 127])]
        {
            let text = "x".repeat(length);
            assert_eq!(literal(&text), [bytes, &text.as_bytes()[..length.min(254)]].concat());
        }
    }
}
