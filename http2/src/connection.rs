//! One end of a connection.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::frame::{
    self, ACK, CONTINUATION, Code, DATA, END_HEADERS, END_STREAM, Frame, GO_AWAY, HAS_PRIORITY, HEADER, HEADERS,
    MAX_PAYLOAD, PADDED, PING, PRIORITY, PUSH_PROMISE, RESET, SETTINGS, WINDOW_UPDATE,
};
use crate::hpack::{Decoder, Field};
use crate::stream::{Stream, Streams, UNTAGGED};
use crate::{Error, PREFACE};

/// How much a peer may send on a stream before it is used up, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The connection's window is never the brake: what counts is what the streams hold.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// The window of a connection and of its streams before anybody says something else (section 6.9.2).
const INITIAL_WINDOW: u32 = 65_535;
const MAX_WINDOW: i64 = 0x7fff_ffff;

/// No data is added to an output that has this many bytes: it waits in its stream, and its sender with it.
const OUTPUT_FULL: usize = 128 * 1024;
/// A peer that makes us answer and does not read the answers is left when this many bytes wait for it.
const OUTPUT_FLOODED: usize = 2 * 1024 * 1024;

/// The longest header block, and the longest names and values in it, in bytes.
const MAX_BLOCK: usize = 64 * 1024;
/// The most frames that a header block may have.
const MAX_CONTINUATIONS: u32 = 64;

/// How many frames that cost us more than the peer a peer may send at once, and in each second. A client may also give up
/// all its streams at once.
const BURST: u32 = 2000;
const RATE: u32 = 1000;

/// More fields in a block than this cost as much as a frame, and as many again.
const FREE_FIELDS: usize = 32;

/// The first stream of a client that no id is left for.
const LAST_STREAM: u32 = 0x7fff_fff0;
/// The answer to it shows that the peer has read what came before.
const DRAIN_PING: &[u8; 8] = b"draining";

/// Something that the peer did.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It opens a stream: give it a tag with [`Connection::accept`], or reset it.
    Opened {
        /// Its id.
        stream: u32,
        /// For [`Connection::decode`].
        block: Cow<'a, [u8]>,
        /// No data follows.
        end: bool,
    },
    /// Headers or trailers on a stream that we opened, or the trailers of a request.
    Headers {
        /// The stream.
        stream: u32,
        /// Its tag.
        tag: u64,
        /// For [`Connection::decode`].
        block: Cow<'a, [u8]>,
        /// Nothing follows.
        end: bool,
    },
    /// Data. When it is used up, call [`Connection::release`].
    Data {
        /// The stream.
        stream: u32,
        /// Its tag.
        tag: u64,
        /// The data, without padding.
        bytes: &'a [u8],
        /// Nothing follows.
        end: bool,
    },
    /// It gives a stream up.
    Reset {
        /// The stream, which is gone.
        stream: u32,
        /// Its tag.
        tag: u64,
        /// Why.
        code: Code,
    },
    /// It takes no new streams.
    GoAway {
        /// It does not look at streams after this one.
        last: u32,
        /// Why.
        code: Code,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// How far [`Connection::drain`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Off,
    /// The peer may not have read it yet.
    Announced,
    /// New streams are refused.
    Final,
}

/// A header block of which more is to come.
#[derive(Debug)]
struct Partial {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// One end of a connection. It does no I/O: bytes go in by [`Connection::next`], and what it has to say gathers in
/// [`Connection::output`].
#[derive(Debug)]
pub struct Connection {
    role: Role,
    out: Vec<u8>,
    streams: Streams,
    decoder: Decoder,
    partial: Option<Partial>,
    awaits_preface: bool,
    has_settings: bool,
    /// The last stream that the peer opened.
    last_peer: u32,
    /// The next stream that we open.
    next_own: u32,
    /// How many streams the peer may open at the same time.
    max_streams: u32,
    drain: Drain,
    /// What the peer allows.
    peer_window: u32,
    peer_payload: usize,
    peer_streams: u32,
    peer_goes: bool,
    send_window: i64,
    /// Bytes since the last time that the connection's window was opened.
    received: u32,
    /// Streams with data that their own window takes.
    queue: VecDeque<u32>,
    /// Bytes of all streams that wait.
    held: usize,
    /// Tags of streams, and how many bytes of them went out from what was pending.
    sent: Vec<(u64, usize)>,
    /// Frames that the peer may still send at no cost, and when that was known.
    credit: u32,
    /// The most that [`Self::credit`] may be. A peer may give up all its streams at once, and soon again.
    burst: u32,
    second: u32,
}

impl Connection {
    /// The server's end. The peer may have `max_streams` at the same time.
    #[must_use]
    pub fn server(max_streams: u32) -> Self {
        Self::new(Role::Server, max_streams)
    }

    /// The client's end. It has said the preface.
    #[must_use]
    pub fn client() -> Self {
        Self::new(Role::Client, 0)
    }

    fn new(role: Role, max_streams: u32) -> Self {
        const HEADER_TABLE_SIZE: u16 = 1;
        const ENABLE_PUSH: u16 = 2;
        const MAX_CONCURRENT_STREAMS: u16 = 3;
        const INITIAL_WINDOW_SIZE: u16 = 4;
        const MAX_HEADER_LIST_SIZE: u16 = 6;
        let mut out = Vec::new();
        let second = match role {
            Role::Client => {
                out.extend_from_slice(PREFACE);
                (ENABLE_PUSH, 0)
            }
            Role::Server => (MAX_CONCURRENT_STREAMS, max_streams),
        };
        let longest = u32::try_from(MAX_BLOCK).unwrap_or(u32::MAX);
        let settings =
            [(HEADER_TABLE_SIZE, 0), second, (INITIAL_WINDOW_SIZE, STREAM_WINDOW), (MAX_HEADER_LIST_SIZE, longest)];
        let bytes = |(name, value): (u16, u32)| {
            let mut bytes = [0; 6];
            bytes[..2].copy_from_slice(&name.to_be_bytes());
            bytes[2..].copy_from_slice(&value.to_be_bytes());
            bytes
        };
        frame::write(&mut out, SETTINGS, 0, 0, settings.map(bytes).as_flattened());
        frame::write(&mut out, WINDOW_UPDATE, 0, 0, &(CONNECTION_WINDOW - INITIAL_WINDOW).to_be_bytes());
        let mut connection = Self {
            role,
            out,
            streams: Streams::default(),
            decoder: Decoder::default(),
            partial: None,
            awaits_preface: role == Role::Server,
            has_settings: false,
            last_peer: 0,
            next_own: 1,
            max_streams,
            drain: Drain::Off,
            peer_window: INITIAL_WINDOW,
            peer_payload: MAX_PAYLOAD,
            peer_streams: u32::MAX,
            peer_goes: false,
            send_window: INITIAL_WINDOW.into(),
            received: 0,
            queue: VecDeque::new(),
            held: 0,
            sent: Vec::new(),
            credit: 0,
            burst: BURST.saturating_add(max_streams.saturating_mul(2)),
            second: 0,
        };
        connection.credit = connection.burst;
        connection
    }

    /// What is to be written to the peer. Whoever writes it takes it out, and then calls [`Connection::pump`].
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Takes the next event out of `input`, which stays at a complete frame or at the beginning of an incomplete one.
    /// An incomplete frame has fewer than [`Connection::LONGEST_FRAME`] bytes.
    ///
    /// # Errors
    /// When the peer breaks a rule or a limit. It has been told in the output, and the connection must be closed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        self.read(input).inspect_err(|err| self.go_away(self.last_peer, err.code))
    }

    /// Bytes of the longest frame that a peer may send, with its header.
    pub const LONGEST_FRAME: usize = HEADER + MAX_PAYLOAD;

    /// The fields of a header block, which must be decoded in the order of the events, or remembered if
    /// [`Connection::is_stateless`].
    ///
    /// # Errors
    /// When it is no header block, or too long, or there are too many with very many fields. The peer has been told, and
    /// the connection must be closed.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, Error> {
        self.decode_and_count(block).inspect_err(|err| self.go_away(self.last_peer, err.code))
    }

    fn decode_and_count(&mut self, block: &[u8]) -> Result<Vec<Field>, Error> {
        let err = Error { code: Code::COMPRESSION_ERROR, why: "a header block cannot be read" };
        let fields = self.decoder.decode(block, MAX_BLOCK).map_err(|_| err)?;
        for _ in 0..fields.len() / FREE_FIELDS {
            self.spend()?;
        }
        Ok(fields)
    }

    /// Whether equal header blocks have equal fields from now on.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.decoder.is_stateless()
    }

    /// Whether the peer has sent its settings.
    #[must_use]
    pub fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Says what time it is, in seconds since any moment. Peers may do some things only so often.
    pub fn set_clock(&mut self, second: u32) {
        let passed = second.saturating_sub(self.second);
        self.second = second;
        self.credit = passed.saturating_mul(RATE).saturating_add(self.credit).min(self.burst);
    }

    /// Names a stream that the peer has opened.
    pub fn accept(&mut self, stream: u32, tag: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.tag = tag;
        }
    }

    /// Whether the peer takes a new stream now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        !self.is_used_up() && self.streams.len() < self.peer_streams as usize
    }

    /// Opens a stream and names it. `None` when the peer takes none now.
    pub fn open(&mut self, tag: u64) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        let id = self.next_own;
        self.next_own += 2;
        let stream = self.new_stream(tag);
        self.streams.insert(id, stream);
        Some(id)
    }

    /// Whether no stream can be opened any more.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.peer_goes || self.next_own >= LAST_STREAM
    }

    fn new_stream(&self, tag: u64) -> Stream {
        Stream {
            tag,
            send_window: self.peer_window.into(),
            receive_window: STREAM_WINDOW.into(),
            released: 0,
            has_headers: false,
            receive_closed: false,
            send_closed: false,
            pending: None,
        }
    }

    /// Sends a header block, behind data that still waits. A stream that is gone takes nothing.
    pub fn send_headers(&mut self, id: u32, block: &[u8], end: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send_closed {
            return;
        }
        stream.send_closed = end;
        if let Some(pending) = &mut stream.pending {
            pending.trailers = Some(block.to_vec());
            return;
        }
        self.write_block(id, block, end);
        if end {
            self.sent_end(id);
        }
    }

    /// Sends data. Returns how many bytes went out at once; the others wait, and [`Connection::sent`] tells when they
    /// have gone out. A stream that is gone takes everything.
    pub fn send_data(&mut self, id: u32, bytes: &[u8], end: bool) -> usize {
        // Frames without data move nothing, and peers count them.
        if bytes.is_empty() && !end {
            return 0;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return bytes.len() };
        if stream.send_closed {
            return bytes.len();
        }
        stream.send_closed = end;
        let windows = stream.send_window.min(self.send_window).max(0);
        let room = OUTPUT_FULL.saturating_sub(self.out.len());
        let now = if stream.pending.is_some() { 0 } else { usize::try_from(windows).unwrap_or(0).min(room) };
        if now >= bytes.len() && stream.pending.is_none() {
            self.write_data(id, bytes, end);
            if end {
                self.sent_end(id);
            }
            return bytes.len();
        }
        if now > 0 {
            self.write_data(id, &bytes[..now], false);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return bytes.len() };
        stream.pending.get_or_insert_default().push(&bytes[now..]);
        self.held += bytes.len() - now;
        self.enqueue(id);
        now
    }

    /// How many bytes of data wait, on all streams.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many bytes of memory wait for something: what is to be written, what waits for windows, and a header block of
    /// which more is to come.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.out.len() + self.held + self.partial.as_ref().map_or(0, |partial| partial.bytes.len())
    }

    /// How many bytes of this stream wait.
    #[must_use]
    pub fn waiting(&self, id: u32) -> usize {
        let pending = self.streams.get(&id).and_then(|stream| stream.pending.as_ref());
        pending.map_or(0, |pending| pending.left() + pending.trailers.as_ref().map_or(0, Vec::len))
    }

    /// Whether data of this stream still waits.
    #[must_use]
    pub fn is_waiting(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.pending.is_some())
    }

    /// Gives a stream up. One that is gone stays so.
    pub fn reset(&mut self, id: u32, code: Code) {
        if self.remove(id).is_some() {
            frame::write(&mut self.out, RESET, 0, id, &code.0.to_be_bytes());
        }
    }

    /// `bytes` of what came on a stream are used up, so the peer may send as many again.
    pub fn release(&mut self, id: u32, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.released = stream.released.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if stream.released >= STREAM_WINDOW / 2 && !stream.receive_closed {
            let released = std::mem::take(&mut stream.released);
            stream.receive_window += i64::from(released);
            frame::write(&mut self.out, WINDOW_UPDATE, 0, id, &released.to_be_bytes());
        }
    }

    /// Tags of streams whose data waited, and how many bytes of it have gone out since the last call.
    pub fn sent(&mut self) -> impl Iterator<Item = (u64, usize)> {
        self.sent.drain(..)
    }

    /// Says that no stream after `last` is looked at.
    pub fn go_away(&mut self, last: u32, code: Code) {
        frame::write(&mut self.out, GO_AWAY, 0, 0, [last.to_be_bytes(), code.0.to_be_bytes()].as_flattened());
    }

    /// The peer shall open no new streams, and finish those that it has. Streams are taken until the peer has read that
    /// (section 6.8 of RFC 9113), or until the second call.
    pub fn drain(&mut self) {
        if self.drain == Drain::Off {
            self.drain = Drain::Announced;
            self.go_away(0x7fff_ffff, Code::NO_ERROR);
            frame::write(&mut self.out, PING, 0, 0, DRAIN_PING);
        } else {
            self.take_no_more();
        }
    }

    fn take_no_more(&mut self) {
        if self.drain == Drain::Announced {
            self.drain = Drain::Final;
            self.max_streams = 0;
            self.go_away(self.last_peer, Code::NO_ERROR);
        }
    }

    /// Whether [`Connection::drain`] has ended, and with it all streams of the peer.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drain == Drain::Final && self.streams.is_empty()
    }

    /// Takes the streams after `last` out: their ids and tags.
    pub fn take_streams(&mut self, last: u32) -> Vec<(u32, u64)> {
        let ids: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
        let taken = ids.into_iter().filter_map(|id| Some((id, self.remove(id)?.tag)));
        taken.filter(|(_, tag)| *tag != UNTAGGED).collect()
    }

    fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.held -= stream.pending.as_ref().map_or(0, |pending| pending.left());
        Some(stream)
    }

    /// Sends data that waits, as far as the windows and the output take it.
    pub fn pump(&mut self) {
        for _ in 0..self.queue.len() {
            if self.send_window <= 0 || self.out.len() >= OUTPUT_FULL {
                return;
            }
            let Some(id) = self.queue.pop_front() else { return };
            self.pump_one(id);
        }
    }

    fn pump_one(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(mut pending) = stream.pending.take() else { return };
        pending.is_queued = false;
        let ends = stream.send_closed;
        let windows = usize::try_from(stream.send_window.min(self.send_window)).unwrap_or(0);
        let now = windows.min(OUTPUT_FULL - self.out.len()).min(pending.left()).min(self.peer_payload);
        let is_last = now == pending.left();
        if now > 0 {
            self.sent.push((stream.tag, now));
        }
        let range = pending.sent..pending.sent + now;
        pending.sent += now;
        self.held -= now;
        if is_last {
            let ends_with_data = ends && pending.trailers.is_none();
            if now > 0 || ends_with_data {
                self.write_data(id, &pending.bytes[range], ends_with_data);
            }
            if let Some(trailers) = &pending.trailers {
                self.write_block(id, trailers, ends);
            }
            if ends {
                self.sent_end(id);
            }
            return;
        }
        if now > 0 {
            self.write_data(id, &pending.bytes[range], false);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.pending = Some(pending);
            self.enqueue(id);
        }
    }

    /// A stream whose own window is closed comes into the queue when that opens.
    fn enqueue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(pending) = &mut stream.pending
            && !pending.is_queued
            && (stream.send_window > 0 || pending.left() == 0)
        {
            pending.is_queued = true;
            self.queue.push_back(id);
        }
    }

    fn write_block(&mut self, id: u32, block: &[u8], end: bool) {
        let mut parts = block.chunks(self.peer_payload);
        let first = parts.next().unwrap_or_default();
        let is_complete = |left: usize| if left == 0 { END_HEADERS } else { 0 };
        let flags = is_complete(parts.len()) | if end { END_STREAM } else { 0 };
        frame::write(&mut self.out, HEADERS, flags, id, first);
        while let Some(part) = parts.next() {
            frame::write(&mut self.out, CONTINUATION, is_complete(parts.len()), id, part);
        }
    }

    /// Writes data that the windows take.
    fn write_data(&mut self, id: u32, bytes: &[u8], end: bool) {
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.send_window -= length;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_window -= length;
        }
        let mut parts = bytes.chunks(self.peer_payload).peekable();
        if parts.peek().is_none() {
            frame::write(&mut self.out, DATA, if end { END_STREAM } else { 0 }, id, b"");
        }
        while let Some(part) = parts.next() {
            let flags = if end && parts.peek().is_none() { END_STREAM } else { 0 };
            frame::write(&mut self.out, DATA, flags, id, part);
        }
    }

    /// Our end has been sent. A server that has answered wants no more of the request (section 8.1).
    fn sent_end(&mut self, id: u32) {
        match self.streams.get(&id) {
            Some(stream) if stream.receive_closed => drop(self.remove(id)),
            Some(_) if self.role == Role::Server => self.reset(id, Code::NO_ERROR),
            _ => {}
        }
    }

    /// The peer's end has come. A client that has its answer stops asking.
    fn received_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.receive_closed = true;
        let is_sent = stream.send_closed && stream.pending.is_none();
        if is_sent {
            self.remove(id);
        } else if self.role == Role::Client {
            self.reset(id, Code::CANCEL);
        }
    }

    fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        if self.awaits_preface {
            let Some(first) = input.split_off(..PREFACE.len()) else { return Ok(None) };
            if first != PREFACE {
                return Err(Error::protocol("the preface is wrong"));
            }
            self.awaits_preface = false;
        }
        loop {
            let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
            let frame = Frame::parse(header);
            if frame.length > MAX_PAYLOAD {
                return Err(Error { code: Code::FRAME_SIZE_ERROR, why: "a frame is too long" });
            }
            let Some(payload) = input.get(HEADER..HEADER + frame.length) else { return Ok(None) };
            *input = &input[HEADER + frame.length..];
            if let Some(event) = self.take(frame, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn take<'a>(&mut self, frame: Frame, payload: &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        if self.partial.is_some() != (frame.kind == CONTINUATION) {
            return Err(Error::protocol("a header block is not complete"));
        }
        if !self.has_settings && frame.kind != SETTINGS {
            return Err(Error::protocol("the first frame has no settings"));
        }
        let is_of_connection = matches!(frame.kind, SETTINGS | PING | GO_AWAY);
        let is_of_stream = matches!(frame.kind, DATA | HEADERS | PRIORITY | RESET | CONTINUATION);
        if (is_of_connection && frame.stream != 0) || (is_of_stream && frame.stream == 0) {
            return Err(Error::protocol("a frame is on the wrong stream"));
        }
        match frame.kind {
            DATA => return self.take_data(frame, payload),
            HEADERS => return self.take_headers(frame, payload),
            CONTINUATION => return self.take_continuation(frame, payload),
            RESET => return self.take_reset(frame, payload),
            SETTINGS => self.take_settings(frame, payload)?,
            PING => {
                let ping: &[u8; 8] = sized(payload)?;
                if !frame.has(ACK) {
                    self.answer(PING, ping)?;
                } else if ping == DRAIN_PING {
                    self.take_no_more();
                }
            }
            GO_AWAY => {
                let ([last, code, ..], _) = payload.as_chunks::<4>() else {
                    return Err(Error { code: Code::FRAME_SIZE_ERROR, why: "a frame has the wrong length" });
                };
                self.spend()?;
                self.peer_goes = true;
                let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
                return Ok(Some(Event::GoAway { last, code: Code(u32::from_be_bytes(*code)) }));
            }
            WINDOW_UPDATE => self.take_window_update(frame, payload)?,
            PUSH_PROMISE => return Err(Error::protocol("a push was not asked for")),
            // Priorities, and kinds that nobody has defined.
            _ => self.spend()?,
        }
        Ok(None)
    }

    fn take_data<'a>(&mut self, frame: Frame, payload: &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        let length = u32::try_from(frame.length).unwrap_or(u32::MAX);
        self.received += length;
        if self.received >= CONNECTION_WINDOW / 2 {
            let received = std::mem::take(&mut self.received);
            frame::write(&mut self.out, WINDOW_UPDATE, 0, 0, &received.to_be_bytes());
        }
        let bytes = unpadded(frame, payload)?;
        let end = frame.has(END_STREAM);
        if bytes.is_empty() && !end {
            self.spend()?;
        }
        self.must_not_be_idle(frame.stream)?;
        // What is on its way to a stream that has just been reset goes nowhere.
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(None) };
        if stream.receive_closed || !stream.has_headers {
            return Err(Error::protocol("data came before the headers or after the end"));
        }
        stream.receive_window -= i64::from(length);
        if stream.receive_window < 0 {
            return Err(Error { code: Code::FLOW_CONTROL_ERROR, why: "a stream's window is overrun" });
        }
        let tag = stream.tag;
        self.release(frame.stream, payload.len() - bytes.len());
        if end {
            self.received_end(frame.stream);
        }
        Ok((tag != UNTAGGED).then_some(Event::Data { stream: frame.stream, tag, bytes, end }))
    }

    fn take_headers<'a>(&mut self, frame: Frame, payload: &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        let mut block = unpadded(frame, payload)?;
        if frame.has(HAS_PRIORITY) {
            block = block.get(5..).ok_or(Error::protocol("a frame is too short"))?;
        }
        let (stream, end) = (frame.stream, frame.has(END_STREAM));
        if frame.has(END_HEADERS) {
            return self.take_block(stream, Cow::Borrowed(block), end);
        }
        self.partial = Some(Partial { stream, end, bytes: block.to_vec(), frames: 0 });
        Ok(None)
    }

    fn take_continuation<'a>(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event<'a>>, Error> {
        let Some(mut partial) = self.partial.take().filter(|partial| partial.stream == frame.stream) else {
            return Err(Error::protocol("a header block is not complete"));
        };
        partial.bytes.extend_from_slice(payload);
        partial.frames += 1;
        if partial.bytes.len() > MAX_BLOCK || partial.frames > MAX_CONTINUATIONS {
            return Err(Error::flood("a header block is too long"));
        }
        if frame.has(END_HEADERS) {
            return self.take_block(partial.stream, Cow::Owned(partial.bytes), partial.end);
        }
        self.partial = Some(partial);
        Ok(None)
    }

    fn take_block<'a>(&mut self, id: u32, block: Cow<'a, [u8]>, end: bool) -> Result<Option<Event<'a>>, Error> {
        if let Some(stream) = self.streams.get_mut(&id) {
            // The trailers of a request end it; a server may send several blocks.
            if stream.receive_closed || (self.role == Role::Server && !end) {
                return Err(Error::protocol("headers came after the end"));
            }
            let is_extra = std::mem::replace(&mut stream.has_headers, true) && !end;
            let tag = stream.tag;
            if is_extra {
                // Interim answers, whose number HTTP does not limit.
                self.spend()?;
            }
            if end {
                self.received_end(id);
            }
            return Ok(Some(Event::Headers { stream: id, tag, block, end }));
        }
        let is_new = self.role == Role::Server && id > self.last_peer;
        if is_new && id.is_multiple_of(2) {
            return Err(Error::protocol("a client's stream has an odd number"));
        }
        if !is_new {
            self.must_not_be_idle(id)?;
        }
        let fits = self.streams.len() < self.max_streams as usize;
        if is_new {
            self.last_peer = id;
            // Each stream has an answer, and headers need no window.
            self.must_be_read()?;
            if fits {
                let mut stream = self.new_stream(UNTAGGED);
                (stream.has_headers, stream.receive_closed) = (true, end);
                self.streams.insert(id, stream);
                return Ok(Some(Event::Opened { stream: id, block, end }));
            }
            self.spend()?;
            frame::write(&mut self.out, RESET, 0, id, &Code::REFUSED_STREAM.0.to_be_bytes());
        }
        // Nobody reads it, but the next block may need what it says.
        if !self.is_stateless() {
            self.decode_and_count(&block)?;
        }
        Ok(None)
    }

    fn take_reset<'a>(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event<'a>>, Error> {
        let code = Code(u32::from_be_bytes(*sized(payload)?));
        self.must_not_be_idle(frame.stream)?;
        // A client could open and reset streams for ever. A server resets only what we have opened.
        if self.role == Role::Server {
            self.spend()?;
        }
        let Some(stream) = self.remove(frame.stream) else { return Ok(None) };
        let event = Event::Reset { stream: frame.stream, tag: stream.tag, code };
        Ok((stream.tag != UNTAGGED).then_some(event))
    }

    fn take_settings(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Error> {
        if frame.has(ACK) {
            self.decoder.forbid_table();
            return Ok(());
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Error { code: Code::FRAME_SIZE_ERROR, why: "a frame has the wrong length" });
        }
        let mut window = None;
        for &[a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                3 => self.peer_streams = value,
                4 if i64::from(value) > MAX_WINDOW => {
                    return Err(Error { code: Code::FLOW_CONTROL_ERROR, why: "a window is too large" });
                }
                4 => window = Some(value),
                5 => {
                    let length = usize::try_from(value).unwrap_or(usize::MAX);
                    if !(MAX_PAYLOAD..1 << 24).contains(&length) {
                        return Err(Error::protocol("the longest frame is out of range"));
                    }
                    // Longer frames would make streams wait for each other.
                    self.peer_payload = MAX_PAYLOAD;
                }
                _ => {}
            }
        }
        // Only the last one counts: each change looks at all streams, and a frame has room for 2,730 of them.
        if let Some(window) = window.filter(|window| *window != self.peer_window) {
            self.change_window(window)?;
        }
        self.has_settings = true;
        self.spend()?;
        self.answer(SETTINGS, b"")?;
        self.pump();
        Ok(())
    }

    /// Applies to the streams that exist as well (section 6.9.2).
    fn change_window(&mut self, window: u32) -> Result<(), Error> {
        let change = i64::from(window) - i64::from(self.peer_window);
        self.peer_window = window;
        let mut waiting = Vec::new();
        for (id, stream) in &mut self.streams {
            stream.send_window += change;
            if stream.send_window > MAX_WINDOW {
                return Err(Error { code: Code::FLOW_CONTROL_ERROR, why: "a window is too large" });
            }
            if stream.pending.is_some() {
                waiting.push(*id);
            }
        }
        for id in waiting {
            self.enqueue(id);
        }
        Ok(())
    }

    fn take_window_update(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Error> {
        /// Windows that stay below this make us send many small frames. Small parts alone do not: grpc-go opens the
        /// connection's window by every few bytes that it has received.
        const SMALL: i64 = 256;
        let by = u32::from_be_bytes(*sized(payload)?) & 0x7fff_ffff;
        if by == 0 {
            return Err(Error::protocol("a window is opened by nothing"));
        }
        let too_large = Error { code: Code::FLOW_CONTROL_ERROR, why: "a window is too large" };
        if frame.stream == 0 {
            self.send_window += i64::from(by);
            if self.send_window > MAX_WINDOW {
                return Err(too_large);
            }
            if self.send_window < SMALL {
                self.spend()?;
            }
        } else {
            self.must_not_be_idle(frame.stream)?;
            let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(()) };
            stream.send_window += i64::from(by);
            if stream.send_window > MAX_WINDOW {
                return Err(too_large);
            }
            if stream.send_window < SMALL {
                self.spend()?;
            }
            self.enqueue(frame.stream);
        }
        self.pump();
        Ok(())
    }

    /// Nobody may speak about a stream that nobody has opened. After a drain, a client may give up streams whose headers
    /// it has not sent (the crate `h2` does).
    fn must_not_be_idle(&self, id: u32) -> Result<(), Error> {
        let is_own = id % 2 == 1 && self.role == Role::Client;
        let is_idle = if is_own { id >= self.next_own } else { id > self.last_peer };
        if is_idle && self.drain == Drain::Off { Err(Error::protocol("a stream was not opened")) } else { Ok(()) }
    }

    /// Acknowledges a frame.
    fn answer(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error> {
        self.must_be_read()?;
        frame::write(&mut self.out, kind, ACK, 0, payload);
        Ok(())
    }

    fn must_be_read(&self) -> Result<(), Error> {
        if self.out.len() > OUTPUT_FLOODED { Err(Error::flood("answers are not read")) } else { Ok(()) }
    }

    /// Counts a frame that costs us more than the peer.
    fn spend(&mut self) -> Result<(), Error> {
        self.credit = self.credit.checked_sub(1).ok_or(Error::flood("too many frames that move nothing"))?;
        Ok(())
    }
}

fn sized<const N: usize>(payload: &[u8]) -> Result<&[u8; N], Error> {
    payload.try_into().map_err(|_| Error { code: Code::FRAME_SIZE_ERROR, why: "a frame has the wrong length" })
}

fn unpadded(frame: Frame, payload: &[u8]) -> Result<&[u8], Error> {
    if !frame.has(PADDED) {
        return Ok(payload);
    }
    let padded = payload.split_first().and_then(|(&padding, rest)| rest.get(..rest.len().checked_sub(padding.into())?));
    padded.ok_or(Error::protocol("a frame has more padding than payload"))
}
