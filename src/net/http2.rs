//! As much of HTTP/2 (RFC 9113) as it takes to see that a server lives, and that it speaks gRPC.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::settings::{Endpoint, Scheme};

/// The client's preface and an empty SETTINGS frame (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0etcdpxy\0";

/// Length of a frame's header, in bytes.
const HEADER: usize = 9;
/// A client whose SETTINGS are empty gets no longer payloads (section 4.2), in bytes.
const MAX_PAYLOAD: usize = 16 * 1024;

/// No etcd has this method. A gRPC server answers that at once, to anybody, and neither logs nor counts it.
const PATH: &str = "/etcdserverpb.KV/AreYouThere";
const CONTENT_TYPE: &str = "application/grpc";
/// The same in HPACK's Huffman code: 88 bits, so that whatever follows does not change them.
const CONTENT_TYPE_CODED: &[u8] = b"\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64";

/// An HTTP/2 connection to a server, to check the server itself.
pub(crate) struct GrpcConnection<S> {
    stream: S,
    /// Bytes that were read and not used yet. They survive a read that times out.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> GrpcConnection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Waits for SETTINGS, which every server sends first.
    ///
    /// # Errors
    /// `InvalidData` when something else comes.
    pub(super) async fn read_settings(&mut self) -> io::Result<()> {
        let is_settings = self.next_frame().await?.kind == Kind::Settings;
        is_settings.then_some(()).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Sends the preface and a call that any gRPC server answers.
    pub(super) async fn send_probe(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        self.write(&probe_request(endpoint)).await
    }

    /// Acknowledges the SETTINGS; returns whether the answer to the probe is gRPC.
    pub(super) async fn answers_grpc(&mut self) -> io::Result<bool> {
        self.write(SETTINGS_ACK).await?;
        loop {
            let frame = self.next_frame().await?;
            if let Some(is_grpc) = frame.is_grpc() {
                return Ok(is_grpc);
            }
            self.acknowledge(&frame).await?;
        }
    }

    /// Waits for the answer to a PING.
    ///
    /// # Errors
    /// When the connection ends, or the server announces its end.
    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        self.write(PING).await?;
        loop {
            match self.next_frame().await? {
                Frame { kind: Kind::Ping, ack: true, .. } => return Ok(()),
                Frame { kind: Kind::GoAway, .. } => return Err(io::ErrorKind::ConnectionReset.into()),
                frame => self.acknowledge(&frame).await?,
            }
        }
    }

    async fn acknowledge(&mut self, frame: &Frame) -> io::Result<()> {
        if frame.kind == Kind::Settings && !frame.ack { self.write(SETTINGS_ACK).await } else { Ok(()) }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn next_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, length)) = Frame::parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The preface, and a call that any gRPC server answers.
fn probe_request(endpoint: &Endpoint) -> Vec<u8> {
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

/// A frame from a server.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    ack: bool,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    /// The first frame and its length in bytes; `None` when it has not come completely.
    ///
    /// # Errors
    /// `InvalidData` when this is not HTTP/2.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let Some(&[a, b, c, kind, flags, ..]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
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
        let Some(payload) = bytes[HEADER..].get(..length) else { return Ok(None) };
        Ok(Some((Self { kind, ack: flags & 1 != 0, payload: payload.to_vec() }, HEADER + length)))
    }

    /// Whether the answer to the probe is gRPC; `None` when this frame is not the answer.
    fn is_grpc(&self) -> Option<bool> {
        let has = |bytes: &[u8]| self.payload.windows(bytes.len()).any(|window| window == bytes);
        match self.kind {
            // The first field of its kind on a connection: it cannot be a reference to HPACK's table.
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
            let bytes = [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat();
            assert!(Frame::parse(&bytes[..bytes.len() - 1]).unwrap().is_none());
            let (frame, read) = Frame::parse(&bytes).unwrap().unwrap();
            assert_eq!(read, bytes.len());
            frame.is_grpc()
        };
        let coded = [b"\x88\x5f\x8b", CONTENT_TYPE_CODED, b"\x40"].concat();
        assert_eq!(frame(1, &coded), Some(true));
        assert_eq!(frame(1, b"\x88\x0f\x10\x16application/grpc+proto"), Some(true));
        assert_eq!(frame(1, b"\x8d\x0f\x10\x09text/html"), Some(false));
        assert_eq!(frame(3, b"\0\0\0\x01"), Some(false));
        assert_eq!(frame(7, &coded), Some(false));
        assert_eq!(frame(4, &coded), None);
        assert!(Frame::parse(b"HTTP/1.1 ").is_err());
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
