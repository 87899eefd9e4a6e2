//! As much of HTTP/2 (RFC 9113) and gRPC as it takes to ask a member one question at a time.

use std::io;

use etcdproxy_http2::hpack::{Decoder, Field};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::settings::Scheme;

/// The client's preface (section 3.4) and SETTINGS: no dynamic table, and no server push.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x0c\x04\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

/// Length of a frame's header, in bytes.
const HEADER: usize = 9;
/// The longest payload that a client gets if it does not ask for longer ones (section 4.2), in bytes.
const MAX_PAYLOAD: usize = 16 * 1024;
/// The longest body and the longest block of headers that make sense, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_BLOCK: usize = 16 * 1024;
/// The longest header fields that come out of a block, in bytes.
const MAX_FIELDS: usize = 64 * 1024;
/// The most frames that an answer may have.
const MAX_FRAMES: u32 = 100;
/// The most frames of all kinds that may come before an answer is complete. etcd sends fewer than ten.
const MAX_FRAMES_BEFORE: u32 = 500;
/// The length of the text that explains an error, in characters.
const MAX_MESSAGE: usize = 200;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// The number of a call on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call(u32);

/// The answer to a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `None` when the answer is not gRPC.
    pub status: Option<u32>,
    pub message: String,
    pub body: Vec<u8>,
}

/// A gRPC connection to a server, to check the server itself.
pub(super) struct Http2<S> {
    stream: S,
    scheme: Scheme,
    authority: String,
    /// Bytes that were read and not used yet. They survive a read that times out.
    buffer: Vec<u8>,
    last: u32,
    /// The server's SETTINGS are not acknowledged yet.
    owes_ack: bool,
    /// Calls whose answers have not come completely.
    pending: Vec<(Call, Pending)>,
    /// Bytes of bodies that the server may send again.
    used: usize,
}

#[derive(Default)]
struct Pending {
    is_grpc: bool,
    block: Vec<u8>,
    answer: Answer,
    ends: bool,
    frames: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    /// `authority` is the server's name in each call.
    pub(super) fn new(stream: S, scheme: Scheme, authority: String) -> Self {
        Self { stream, scheme, authority, buffer: Vec::new(), last: 0, owes_ack: false, pending: Vec::new(), used: 0 }
    }

    /// Waits for SETTINGS, which every server sends first.
    ///
    /// # Errors
    /// `InvalidData` when something else comes.
    pub(super) async fn read_settings(&mut self) -> io::Result<()> {
        let frame = self.next_frame().await?;
        if frame.kind != SETTINGS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.owes_ack = true;
        Ok(())
    }

    /// Sends a call; the first one on a connection with the preface.
    pub(super) async fn start(&mut self, path: &str, message: &[u8]) -> io::Result<Call> {
        let mut bytes = Vec::new();
        let call = match self.last {
            0 => {
                bytes.extend(PREFACE);
                Call(1)
            }
            last => Call(last + 2),
        };
        self.last = call.0;
        if std::mem::take(&mut self.owes_ack) {
            bytes.extend(SETTINGS_ACK);
        }
        if self.used > 0 {
            bytes.extend(frame(WINDOW_UPDATE, 0, 0, &u32::try_from(self.used).unwrap_or(1).to_be_bytes()));
            self.used = 0;
        }
        bytes.extend(frame(HEADERS, END_HEADERS, call.0, &self.fields(path)));
        let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
        bytes.extend(frame(DATA, END_STREAM, call.0, &[&[0], &length[..], message].concat()));
        self.pending.push((call, Pending::default()));
        self.write(&bytes).await?;
        Ok(call)
    }

    /// Gives up the calls that have no answer yet.
    pub(super) async fn cancel(&mut self) -> io::Result<()> {
        const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
        let given_up = self.pending.drain(..);
        let bytes: Vec<u8> = given_up.flat_map(|(call, _)| frame(RESET, 0, call.0, &CANCEL)).collect();
        if bytes.is_empty() { Ok(()) } else { self.write(&bytes).await }
    }

    /// Waits for the answer to any call.
    ///
    /// # Errors
    /// When the connection ends or the server announces its end; `InvalidData` when this is not HTTP/2.
    pub(super) async fn answer(&mut self) -> io::Result<(Call, Answer)> {
        if std::mem::take(&mut self.owes_ack) {
            self.write(SETTINGS_ACK).await?;
        }
        for _ in 0..MAX_FRAMES_BEFORE {
            let frame = self.next_frame().await?;
            if let Some(answered) = self.take(frame).await? {
                return Ok(answered);
            }
        }
        // A flood would take all of the time that the answer may take.
        Err(io::ErrorKind::InvalidData.into())
    }

    async fn take(&mut self, frame: Frame) -> io::Result<Option<(Call, Answer)>> {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.write(SETTINGS_ACK).await?,
            PING if frame.flags & ACK == 0 => self.write(&self::frame(PING, ACK, 0, &frame.payload)).await?,
            GO_AWAY => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        if frame.kind == DATA {
            self.used += frame.payload.len();
        }
        let Some(at) = self.pending.iter().position(|(call, _)| call.0 == frame.stream) else { return Ok(None) };
        let (call, pending) = &mut self.pending[at];
        let call = *call;
        if pending.take(&frame)? {
            let (_, pending) = self.pending.swap_remove(at);
            return Ok(Some((call, pending.answer)));
        }
        Ok(None)
    }

    /// HPACK (RFC 7541): names, and some values, by their numbers in its table; nothing is compressed.
    fn fields(&self, path: &str) -> Vec<u8> {
        let scheme = if self.scheme == Scheme::Https { 0x87 } else { 0x86 };
        [
            &[0x83, scheme, 0x04][..], // POST
            &literal(path),
            &[0x01],
            &literal(&self.authority),
            b"\x0f\x10\x10application/grpc",
            b"\0\x02te\x08trailers",
            // etcd answers at once when it has no leader.
            b"\0\x09hasleader\x04true",
        ]
        .concat()
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

impl Pending {
    /// Adds a frame; returns whether the answer is complete.
    fn take(&mut self, frame: &Frame) -> io::Result<bool> {
        match frame.kind {
            HEADERS | CONTINUATION => {
                self.ends |= frame.kind == HEADERS && frame.flags & END_STREAM != 0;
                self.block.extend(&frame.payload);
                if self.block.len() > MAX_BLOCK {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if frame.flags & END_HEADERS != 0 {
                    let block = std::mem::take(&mut self.block);
                    self.headers(&block)?;
                    if self.ends || !self.is_grpc {
                        return Ok(true);
                    }
                }
            }
            DATA => {
                self.answer.body.extend(&frame.payload);
                self.ends = frame.flags & END_STREAM != 0;
                if self.ends {
                    return Ok(true);
                }
            }
            RESET => return Ok(true),
            _ => {}
        }
        self.frames += 1;
        if self.answer.body.len() > MAX_ANSWER || self.frames > MAX_FRAMES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(false)
    }

    fn headers(&mut self, block: &[u8]) -> io::Result<()> {
        let mut decoder = Decoder::default();
        decoder.forbid_table();
        for Field { name, value } in decoder.decode(block, MAX_FIELDS).map_err(|_| io::ErrorKind::InvalidData)? {
            match &name[..] {
                b"content-type" => self.is_grpc |= value.starts_with(b"application/grpc"),
                b"grpc-status" => {
                    self.is_grpc = true;
                    self.answer.status = std::str::from_utf8(&value).ok().and_then(|code| code.parse().ok());
                }
                b"grpc-message" => self.answer.message = readable(&value),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A text of the server's, for the log.
fn readable(text: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    String::from_utf8_lossy(text).chars().take(MAX_MESSAGE).map(printable).collect()
}

/// Length and text. No host name is longer than 253.
fn literal(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(254)];
    let length = u8::try_from(text.len()).unwrap_or(254);
    let length = if length < 127 { vec![length] } else { vec![127, length - 127] };
    [&length, text].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A frame from a server, without padding.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The first frame and its length in bytes; `None` when it has not come completely.
    ///
    /// # Errors
    /// `InvalidData` when this is not HTTP/2.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let Some((&[a, b, c, kind, flags, ref stream @ ..], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > MAX_PAYLOAD {
            return Err(invalid());
        }
        let Some(mut payload) = rest.get(..length) else { return Ok(None) };
        if matches!(kind, DATA | HEADERS) && flags & PADDED != 0 {
            let (&padding, padded) = payload.split_first().ok_or_else(invalid)?;
            payload = padded.get(..padded.len().saturating_sub(padding.into())).ok_or_else(invalid)?;
        }
        if kind == HEADERS && flags & PRIORITY != 0 {
            payload = payload.get(5..).ok_or_else(invalid)?;
        }
        let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
        Ok(Some((Self { kind, flags, stream, payload: payload.to_vec() }, HEADER + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that these frames make, if it is complete.
    fn answer(frames: &[(u8, u8, &[u8])]) -> Option<Answer> {
        let mut pending = Pending::default();
        let mut complete = false;
        for (kind, flags, payload) in frames {
            let bytes = frame(*kind, *flags, 1, payload);
            assert!(Frame::parse(&bytes[..bytes.len() - 1]).unwrap().is_none());
            let (frame, read) = Frame::parse(&bytes).unwrap().unwrap();
            assert_eq!((read, frame.stream), (bytes.len(), 1));
            complete = pending.take(&frame).unwrap();
        }
        complete.then_some(pending.answer)
    }

    #[test]
    fn answers() {
        let headers = b"\x88\x0f\x10\x10application/grpc";
        let trailers = b"\0\x0bgrpc-status\x0214\0\x0cgrpc-message\x04oops";
        let ok = Answer { status: Some(14), message: "oops".to_owned(), body: b"\0\0\0\0\0".to_vec() };
        assert_eq!(answer(&[(1, 4, headers), (0, 0, b"\0\0\0\0\0"), (1, 5, trailers)]), Some(ok));
        assert_eq!(answer(&[(1, 4, headers), (0, 8, b"\x01\0\0\0")]), None);
        let refused = Answer { status: Some(14), message: "oops".to_owned(), body: Vec::new() };
        assert_eq!(answer(&[(1, 1, &trailers[..10]), (9, 4, &trailers[10..])]), Some(refused));
        assert_eq!(answer(&[(1, 4, b"\x8d\x0f\x10\x09text/html")]).unwrap().status, None);
        assert_eq!(answer(&[(3, 0, b"\0\0\0\x01")]).unwrap().status, None);
        let padded = [b"\x02\0\0\0\0\x10", &trailers[..], b"\0\0"].concat();
        assert_eq!(answer(&[(1, 0x2d, &padded)]).unwrap().status, Some(14));
        assert!(Frame::parse(b"HTTP/1.1 ").is_err());

        let endless = |kind, payload: &[u8]| {
            let mut pending = Pending { is_grpc: true, ..Pending::default() };
            let bytes = frame(kind, END_HEADERS & kind.wrapping_neg(), 1, payload);
            let (frame, _) = Frame::parse(&bytes).unwrap().unwrap();
            (0..200).any(|_| pending.take(&frame).is_err())
        };
        assert!(endless(DATA, &[0; 1024]) && endless(DATA, b"") && endless(HEADERS, headers) && endless(9, &[0; 1024]));
        assert_eq!(readable(&[b"a\nb".as_slice(), &[b'x'; 300]].concat()), format!("a\u{fffd}b{}", "x".repeat(197)));
        assert!(Frame::parse(&frame(1, 8, 1, b"")).is_err());
    }

    #[test]
    fn a_flood_of_frames_is_no_answer() {
        for kind in [PING, SETTINGS, DATA, WINDOW_UPDATE] {
            let flood = frame(kind, 0, 0, b"12345678").repeat(600);
            let (near, mut far) = tokio::io::duplex(100_000);
            let answered = crate::net::block_on(async {
                far.write_all(&flood).await.unwrap();
                Http2::new(near, Scheme::Http, String::new()).answer().await
            });
            assert_eq!(answered.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
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
