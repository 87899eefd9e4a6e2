//! Carries calls between clients and members: one thread, and nothing but I/O.
//!
//! It has no timers of its own and looks nothing up. [`super::pilot`] tells it which member serves new calls, and cuts
//! the connections of a member that hangs.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use etcdproxy_http2::{Code, Connection, Event, hpack};
use mio::{Events, Poll, Token};
use rustc_hash::FxHashMap;
use rustls::ClientConnection;
use slotmap::{Key as _, KeyData, SlotMap};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::call::{Call, CallKey, End, KEPT, PeerKey};
use super::head::{Answer, Heads, Request, status, timeout_text};
use super::peer::{Received, Socket, Wire};
use super::translate::{Refused, Rules, Translation};
use crate::api::auth::Refusal;
use crate::api::methods::Shape;
use crate::proxy::members::Member;

/// How many streams a client may have at the same time.
const STREAMS: u32 = 4096;
/// How many calls there may be.
const CALLS: usize = 64 * 1024;

/// How many bytes may wait: for slow readers and writers, and in requests that are not complete.
const HELD: usize = 32 * 1024 * 1024;
/// When there is too much of something, the greatest users of it lose it until this part is left.
const LEFT: (usize, usize) = (7, 8);

/// While so many bytes wait for a member, no new calls go to it: headers need no window.
const UNWRITTEN: usize = 1024 * 1024;

/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;
/// How often a connection is read in one turn, so that others get theirs.
const READS: usize = 4;
const EVENTS: usize = 256;

/// How long a call waits for a member.
const WAIT: Duration = Duration::from_secs(6);
/// A member's clock may end a call that much earlier than ours, because it got its time in whole milliseconds.
const TOLERANCE: Duration = Duration::from_millis(2);
/// How often to look whether a call waits for too long.
const TICK: Duration = Duration::from_millis(100);
/// How often to give back what idle connections do not need.
const SWEEP: Duration = Duration::from_secs(1);

/// The token of the waker.
pub(super) const WAKER: Token = Token(usize::MAX);

/// What others tell the engine.
pub(super) enum Command {
    /// A client has connected, and has sent these bytes.
    Client { socket: Socket, first: Vec<u8>, permit: Box<dyn Send> },
    /// New calls go to this member. The connection is the pilot's `number`.
    Use(Box<Link>),
    /// The member of this connection hangs, or is gone.
    Cut(u64),
    /// The token for calls without one; `None` when the cluster wants none, or why nobody can log in.
    Token(Result<Option<String>, String>),
    /// Somebody needs a token for a request that the engine does not carry.
    NeedToken,
    /// Clients shall finish what they have begun, and open no new calls.
    Drain,
    /// The end.
    Stop,
}

/// A connection to a member.
pub(super) struct Link {
    pub number: u64,
    pub member: Arc<Member>,
    pub socket: Socket,
    pub tls: Option<ClientConnection>,
    /// The member's name in each call.
    pub authority: String,
    /// Dropped with the connection.
    pub alive: oneshot::Sender<()>,
}

/// What the engine tells the pilot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// This connection takes no new calls.
    Lost(u64),
    /// The token is missing, or no longer valid.
    NeedsToken,
}

struct Peer {
    wire: Wire,
    side: Side,
    /// It is in the list of those that may have something to send.
    is_dirty: bool,
    /// The end follows its last byte.
    is_finished: bool,
    /// It has sent or received something since the last sweep.
    is_warm: bool,
    /// The memory that was counted for it, in bytes.
    counted: usize,
}

impl Peer {
    fn memory(&self) -> usize {
        self.wire.http2.memory() + self.wire.rest.len()
    }

    /// Whether a call can go to this member.
    fn has_room(&mut self) -> bool {
        self.wire.http2.output().len() <= UNWRITTEN && self.wire.http2.can_open()
    }
}

enum Side {
    Client { _permit: Box<dyn Send> },
    Member(Upstream),
}

struct Upstream {
    number: u64,
    member: Arc<Member>,
    /// Scheme and server name, for the head of each call.
    name: Vec<u8>,
    _alive: oneshot::Sender<()>,
}

impl Upstream {
    fn new(number: u64, member: Arc<Member>, is_tls: bool, authority: &str, alive: oneshot::Sender<()>) -> Self {
        let mut name = Vec::new();
        hpack::encode(&mut name, b":scheme", if is_tls { b"https" } else { b"http" });
        hpack::encode(&mut name, b":authority", authority.as_bytes());
        member.counters.connections.fetch_add(1, Ordering::Relaxed);
        member.open.fetch_add(1, Ordering::Relaxed);
        Self { number, member, name, _alive: alive }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.member.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Our token.
struct Login {
    /// Calls without a token get ours.
    logs_in: bool,
    /// Its header field; empty when the cluster wants no token. `None` while there is none.
    token: Option<Vec<u8>>,
    /// Counts tokens.
    number: u32,
    /// The pilot has been asked for one.
    is_asked: bool,
}

/// See the module.
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Engine {
    poll: Poll,
    commands: Receiver<Command>,
    notices: UnboundedSender<Notice>,
    peers: SlotMap<PeerKey, Peer>,
    calls: SlotMap<CallKey, Call>,
    /// Where new calls go.
    current: Option<PeerKey>,
    /// Calls that wait for a member or a token, and whether one of them may go.
    waiting: VecDeque<CallKey>,
    may_go: bool,
    login: Login,
    rules: Rc<Rules>,
    /// Peers with something to send.
    dirty: Vec<PeerKey>,
    /// Peers that may have sent more than was read, and whether that includes their end.
    ready: Vec<(PeerKey, bool)>,
    requests: Heads<Request>,
    answers: Heads<Answer>,
    /// Bytes that wait, of all peers and calls.
    held: usize,
    /// A call was refused because there are too many.
    is_full: bool,
    /// Read into; used again and again.
    buffer: Vec<u8>,
    cipher: Vec<u8>,
    /// Header blocks are put together in it.
    scratch: Vec<u8>,
    start: Instant,
    now: Instant,
    /// When memory was given back, and whether something has happened since.
    swept: Instant,
    is_warm: bool,
    /// When waiting calls were looked at.
    ticked: Instant,
    has_stopped: bool,
}

impl Engine {
    pub(super) fn new(
        poll: Poll,
        commands: Receiver<Command>,
        notices: UnboundedSender<Notice>,
        rules: Rules,
        logs_in: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            poll,
            commands,
            notices,
            peers: SlotMap::with_key(),
            calls: SlotMap::with_key(),
            current: None,
            waiting: VecDeque::new(),
            may_go: false,
            login: Login { logs_in, token: None, number: 0, is_asked: false },
            rules: Rc::new(rules),
            dirty: Vec::new(),
            ready: Vec::new(),
            requests: Heads::requests(),
            answers: Heads::answers(),
            buffer: vec![0; READ + 2 * Connection::LONGEST_FRAME],
            held: 0,
            is_full: false,
            cipher: vec![0; READ],
            scratch: Vec::new(),
            start: now,
            now,
            swept: now,
            is_warm: false,
            ticked: now,
            has_stopped: false,
        }
    }

    /// Carries calls until it is told to stop.
    ///
    /// # Errors
    /// When the system cannot wait for events.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.has_stopped {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(err) if err.kind() != io::ErrorKind::Interrupted => return Err(err),
                _ => {}
            }
            self.now = Instant::now();
            let mut again = std::mem::take(&mut self.ready);
            for event in &events {
                if event.token() == WAKER {
                    self.obey();
                    continue;
                }
                let key = PeerKey::from(KeyData::from_ffi(event.token().0 as u64));
                if event.is_writable() {
                    self.mark(key);
                }
                if event.is_readable() || event.is_error() {
                    // An end may have come together with the last bytes, and does not announce itself again.
                    again.push((key, event.is_read_closed() || event.is_error()));
                }
            }
            for (key, until_end) in again {
                self.read(key, until_end);
                self.count_peer(key);
                if self.held > HELD {
                    // Hundreds of clients can send a quarter of a megabyte each in a turn.
                    self.send();
                    self.shed();
                }
            }
            self.serve_waiting();
            self.expire();
            self.send();
            self.shed();
            self.sweep();
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.dirty.is_empty() || self.may_go {
            Some(Duration::ZERO)
        } else if !self.waiting.is_empty() {
            Some(TICK)
        } else {
            self.is_warm.then_some(SWEEP)
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Client { socket, first, permit } => {
                    let wire = Wire::new(socket, None, Connection::server(STREAMS));
                    let Some(key) = self.add(wire, Side::Client { _permit: permit }) else { continue };
                    self.take(key, &first);
                    self.read(key, false);
                }
                Command::Use(link) => self.use_link(*link),
                Command::Cut(number) => {
                    let of_number = |peer: &Peer| matches!(&peer.side, Side::Member(up) if up.number == number);
                    let found = self.peers.iter().find(|(_, peer)| of_number(peer)).map(|(key, _)| key);
                    if let Some(key) = found {
                        self.remove(key, "etcdproxy: the member does not answer");
                    }
                }
                Command::Token(token) => self.take_token(token),
                Command::NeedToken => self.ask_for_token(),
                Command::Drain => {
                    let clients: Vec<_> = self.clients().collect();
                    for key in clients {
                        self.with(key, Connection::drain);
                        self.finish_if_drained(key);
                    }
                }
                Command::Stop => self.has_stopped = true,
            }
        }
    }

    /// Does something with a connection that may then have something to send. Nothing if it is gone.
    fn with<T>(&mut self, key: PeerKey, action: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let done = action(&mut self.peers.get_mut(key)?.wire.http2);
        self.mark(key);
        Some(done)
    }

    fn clients(&self) -> impl Iterator<Item = PeerKey> {
        self.peers.iter().filter(|(_, peer)| matches!(peer.side, Side::Client { .. })).map(|(key, _)| key)
    }

    fn add(&mut self, wire: Wire, side: Side) -> Option<PeerKey> {
        let key =
            self.peers.insert(Peer { wire, side, is_dirty: false, is_finished: false, is_warm: true, counted: 0 });
        let token = Token(usize::try_from(key.data().as_ffi()).unwrap_or_default());
        if self.peers[key].wire.register(self.poll.registry(), token).is_err() {
            self.peers.remove(key);
            return None;
        }
        self.mark(key);
        Some(key)
    }

    fn use_link(&mut self, link: Link) {
        let Link { number, member, socket, tls, authority, alive } = link;
        let upstream = Upstream::new(number, member, tls.is_some(), &authority, alive);
        let key = self.add(Wire::new(socket, tls, Connection::client()), Side::Member(upstream));
        let Some(key) = key else {
            let _ = self.notices.send(Notice::Lost(number));
            return;
        };
        self.may_go = true;
        let last = self.current.replace(key);
        if let Some(last) = last {
            self.end_if_unused(last);
        }
        self.read(key, false);
    }

    fn mark(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            (self.is_warm, peer.is_warm) = (true, true);
            if !peer.is_dirty {
                peer.is_dirty = true;
                self.dirty.push(key);
            }
        }
    }

    /// Reads what has come. `until_end`: the peer has closed its side, so the end is there too.
    fn read(&mut self, key: PeerKey, until_end: bool) {
        for _ in 0..READS {
            let Some(peer) = self.peers.get_mut(key) else { return };
            let mut buffer = std::mem::take(&mut self.buffer);
            let rest = peer.wire.rest.len();
            buffer[..rest].copy_from_slice(&peer.wire.rest);
            let received = peer.wire.receive(&mut buffer[rest..], &mut self.cipher);
            let mut more = false;
            match received {
                Received::Bytes { count, more: is_more } => {
                    if let Side::Member(upstream) = &peer.side {
                        upstream.member.counters.received.fetch_add(count as u64, Ordering::Relaxed);
                    }
                    self.take(key, &buffer[..rest + count]);
                    more = is_more || until_end;
                }
                Received::Nothing => {}
                Received::End => self.remove(key, "etcdproxy: the member has closed the connection"),
            }
            self.buffer = buffer;
            if !more {
                return;
            }
        }
        self.ready.push((key, until_end));
    }

    /// Takes what a peer has sent.
    fn take(&mut self, key: PeerKey, bytes: &[u8]) {
        let mut input = bytes;
        let second = u32::try_from(self.now.duration_since(self.start).as_secs()).unwrap_or(u32::MAX);
        let mut had_settings = true;
        if let Some(peer) = self.peers.get_mut(key) {
            had_settings = peer.wire.http2.has_settings();
            peer.wire.http2.set_clock(second);
        }
        self.mark(key);
        while let Some(peer) = self.peers.get_mut(key) {
            match peer.wire.http2.next(&mut input) {
                Ok(Some(event)) => {
                    if self.event(key, event).is_err() {
                        return self.break_off(key);
                    }
                }
                Ok(None) => {
                    self.may_go |= !had_settings && peer.wire.http2.has_settings();
                    peer.wire.rest.clear();
                    if input.is_empty() {
                        peer.wire.rest = Vec::new();
                    }
                    peer.wire.rest.extend_from_slice(input);
                    let sent: Vec<_> = peer.wire.http2.sent().collect();
                    self.release(&sent, key);
                    return;
                }
                Err(err) => {
                    log::debug!("a peer broke HTTP/2: {err}");
                    return self.break_off(key);
                }
            }
        }
    }

    /// The peer broke a rule, and its output says so.
    fn break_off(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            let _ = peer.wire.send();
        }
        self.remove(key, "etcdproxy: the member broke HTTP/2");
    }

    fn event(&mut self, key: PeerKey, event: Event<'_>) -> Result<(), etcdproxy_http2::Error> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let is_client = matches!(peer.side, Side::Client { .. });
        let call = |tag: u64| CallKey::from(KeyData::from_ffi(tag));
        match event {
            Event::Opened { stream, block, end } => {
                let request = self.requests.get(&mut peer.wire.http2, &block)?;
                self.opened(End { peer: key, stream }, request, end);
            }
            Event::Headers { tag, block, end, .. } if is_client => {
                // Trailers of a request: gRPC has none, so only the end counts.
                if !peer.wire.http2.is_stateless() {
                    peer.wire.http2.decode(&block)?;
                }
                self.request_data(call(tag), b"", end);
            }
            Event::Headers { tag, block, end, .. } => {
                let answer = self.answers.get(&mut peer.wire.http2, &block)?;
                self.answer_headers(call(tag), answer, end);
            }
            Event::Data { tag, bytes, end, .. } if is_client => self.request_data(call(tag), bytes, end),
            Event::Data { tag, bytes, end, .. } => self.answer_data(call(tag), bytes, end),
            Event::Reset { tag, .. } if is_client => self.canceled(call(tag)),
            Event::Reset { tag, code, .. } => self.reset_by_member(call(tag), code),
            Event::GoAway { last, .. } => {
                if !is_client {
                    self.goes(key, last);
                }
            }
        }
        if is_client {
            self.finish_if_drained(key);
        } else {
            self.end_if_unused(key);
        }
        Ok(())
    }

    fn opened(&mut self, client: End, request: Rc<Request>, end: bool) {
        if let Some(status) = request.refused {
            let mut block = Vec::new();
            hpack::encode(&mut block, b":status", status.as_bytes());
            return self.send_headers(client, &block, true);
        }
        if self.calls.len() >= CALLS {
            self.is_full = true;
            self.with(client.peer, |http2| http2.reset(client.stream, Code::REFUSED_STREAM));
            return;
        }
        let translation = Translation::of(&self.rules, &request);
        let key = self.calls.insert(Call::new(client, request, end, self.now));
        self.with(client.peer, |http2| http2.accept(client.stream, key.data().as_ffi()));
        match translation {
            Ok(translation) => self.calls[key].translation = translation,
            Err(refused) => return self.refuse(key, refused),
        }
        self.count_call(key);
        if self.calls[key].must_go() {
            self.dispatch(key);
        }
    }

    fn send_headers(&mut self, to: End, block: &[u8], end: bool) {
        self.with(to.peer, |http2| http2.send_headers(to.stream, block, end));
    }

    fn request_data(&mut self, key: CallKey, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.has_ended |= end;
        call.owed_to_client += bytes.len();
        let translated = match &mut call.translation {
            Some(translation) => match translation.request(bytes) {
                Ok(bytes) => Some(bytes),
                Err(refused) => return self.refuse(key, refused),
            },
            None => None,
        };
        let bytes = translated.as_deref().unwrap_or(bytes);
        if let Some(member) = call.member {
            call.forget();
            self.count_call(key);
            let sent = self.with(member.peer, |http2| http2.send_data(member.stream, bytes, end));
            return self.sent_to_member(key, sent.unwrap_or_default());
        }
        call.body.extend_from_slice(bytes);
        let must_go = call.must_go();
        // Beyond that, the client's window is the limit.
        if call.body.len() <= KEPT {
            let (client, owed) = (call.client, std::mem::take(&mut call.owed_to_client));
            self.with(client.peer, |http2| http2.release(client.stream, owed));
        }
        self.count_call(key);
        if must_go {
            self.dispatch(key);
        }
    }

    /// Some of the request has gone out: its client may send more.
    fn sent_to_member(&mut self, key: CallKey, bytes: usize) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(member) = call.member else { return };
        let is_waiting = self.peers.get(member.peer).is_some_and(|peer| peer.wire.http2.is_waiting(member.stream));
        // What was changed on the way may have another length: all is settled when nothing waits.
        let released = if is_waiting { bytes.min(call.owed_to_client) } else { call.owed_to_client };
        call.owed_to_client -= released;
        let client = call.client;
        if released > 0 {
            self.with(client.peer, |http2| http2.release(client.stream, released));
        }
    }

    /// Some of the answer has gone out: the member may send more.
    fn sent_to_client(&mut self, key: CallKey, bytes: usize) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let client = call.client;
        let is_waiting = self.peers.get(client.peer).is_some_and(|peer| peer.wire.http2.is_waiting(client.stream));
        let released = if is_waiting { bytes.min(call.owed_to_member) } else { call.owed_to_member };
        call.owed_to_member -= released;
        if let Some(member) = call.member.filter(|_| released > 0) {
            self.with(member.peer, |http2| http2.release(member.stream, released));
        }
    }

    /// Sends a call to the current member, or lets it wait.
    fn dispatch(&mut self, key: CallKey) {
        if !self.try_dispatch(key) {
            self.waiting.push_back(key);
        }
    }

    /// Sends a call to the current member. Returns false when there is none, it takes no more calls, or a token is
    /// missing.
    fn try_dispatch(&mut self, key: CallKey) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return true };
        call.goes();
        let needs_token = self.login.logs_in && !call.request.has_token;
        if needs_token && self.login.token.is_none() {
            self.ask_for_token();
            return false;
        }
        let Some(current) = self.current else { return false };
        let Some(peer) = self.peers.get_mut(current) else { return false };
        let Side::Member(upstream) = &peer.side else { return false };
        // Before that, the member may be one that dies or hangs: what it was sent would be lost, or must not be repeated.
        if !peer.wire.http2.has_settings() || peer.wire.http2.output().len() > UNWRITTEN {
            return false;
        }
        let Some(stream) = peer.wire.http2.open(key.data().as_ffi()) else {
            if peer.wire.http2.is_used_up() {
                self.leave(current);
            }
            return false;
        };
        let block = &mut self.scratch;
        block.clear();
        block.extend_from_slice(&call.request.first);
        block.extend_from_slice(&upstream.name);
        block.extend_from_slice(&call.request.rest);
        if let Some(timeout) = &call.request.timeout {
            // What it has waited for already does not come back.
            let waited = self.now.duration_since(call.began);
            match call.request.patience() {
                Some(patience) if waited > Duration::from_millis(1) => {
                    let left = timeout_text(patience.saturating_sub(waited));
                    hpack::encode(block, b"grpc-timeout", left.as_bytes());
                }
                _ => hpack::encode(block, b"grpc-timeout", timeout),
            }
        }
        if let Some(token) = self.login.token.as_ref().filter(|_| needs_token) {
            block.extend_from_slice(token);
            call.token = self.login.number;
        }
        call.member = Some(End { peer: current, stream });
        let has_body = !call.body.is_empty();
        peer.wire.http2.send_headers(stream, block, call.has_ended && !has_body);
        if has_body {
            let sent = peer.wire.http2.send_data(stream, &call.body, call.has_ended);
            call.sent();
            self.count_call(key);
            self.sent_to_member(key, sent);
        } else {
            call.sent();
        }
        self.mark(current);
        true
    }

    fn answer_headers(&mut self, key: CallKey, answer: Rc<Answer>, end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if answer.is_interim {
            return;
        }
        if call.shape == Shape::Unary && !end {
            if call.is_answered || call.held.replace(answer).is_some() {
                return self.refuse(key, (status::INTERNAL, "etcdproxy: the member has sent headers twice".to_owned()));
            }
            return self.count_call(key);
        }
        if !end && call.is_answered {
            return self.refuse(key, (status::INTERNAL, "etcdproxy: the member has sent headers twice".to_owned()));
        }
        if end && !call.is_answered && answer.status.is_some_and(|status| status != 0) && self.repeats(key, &answer) {
            return;
        }
        self.forward_held(key);
        self.forward_headers(key, &answer, end);
        if end {
            self.end_call(key);
        }
    }

    /// Sends a call again that a member has answered with an error, if that can help.
    fn repeats(&mut self, key: CallKey, answer: &Answer) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let refusal = answer.status.zip(str::from_utf8(&answer.message).ok());
        let refusal = refusal.and_then(|(status, message)| Refusal::recognise(status, message));
        if call.token > 0 && refusal.is_some_and(Refusal::asks_for_a_new_token) && call.can_be_repeated(true) {
            if call.token == self.login.number {
                self.login.token = None;
            }
        } else if !(is_passing(answer) && call.can_be_repeated(false)) {
            return false;
        }
        call.begin_again();
        self.dispatch(key);
        true
    }

    fn ask_for_token(&mut self) {
        if !std::mem::replace(&mut self.login.is_asked, true) {
            let _ = self.notices.send(Notice::NeedsToken);
        }
    }

    fn take_token(&mut self, token: Result<Option<String>, String>) {
        self.login.is_asked = false;
        match token {
            Ok(token) => {
                let mut field = Vec::new();
                if let Some(token) = token {
                    hpack::encode(&mut field, b"token", token.as_bytes());
                }
                self.login.token = Some(field);
                self.login.number += 1;
                self.may_go = true;
            }
            Err(why) => {
                for key in std::mem::take(&mut self.waiting) {
                    let Some(call) = self.calls.get(key) else { continue };
                    if call.request.has_token {
                        self.waiting.push_back(key);
                    } else {
                        self.fail(key, status::UNAUTHENTICATED, &format!("etcdproxy: {why}"));
                    }
                }
            }
        }
    }

    fn answer_data(&mut self, key: CallKey, bytes: &[u8], end: bool) {
        self.forward_held(key);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.owed_to_member += bytes.len();
        let translated = match &mut call.translation {
            Some(translation) => match translation.answer(bytes) {
                Ok(bytes) => Some(bytes),
                Err(refused) => return self.refuse(key, refused),
            },
            None => None,
        };
        let is_counted = call.translation.is_some();
        let bytes = translated.as_deref().unwrap_or(bytes);
        let client = call.client;
        if is_counted {
            self.count_call(key);
        }
        let sent = self.with(client.peer, |http2| http2.send_data(client.stream, bytes, end));
        self.sent_to_client(key, sent.unwrap_or_default());
        if end {
            self.end_call(key);
        }
    }

    fn forward_held(&mut self, key: CallKey) {
        if let Some(held) = self.calls.get_mut(key).and_then(|call| call.held.take()) {
            self.forward_headers(key, &held, false);
        }
    }

    fn forward_headers(&mut self, key: CallKey, answer: &Answer, end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.is_answered = true;
        call.forget();
        let client = call.client;
        self.count_call(key);
        self.send_headers(client, &answer.block, end);
    }

    /// The client gives the call up.
    fn canceled(&mut self, key: CallKey) {
        let Some(call) = self.end_call(key) else { return };
        if let Some(member) = call.member {
            self.with(member.peer, |http2| http2.reset(member.stream, Code::CANCEL));
            self.end_if_unused(member.peer);
        }
    }

    /// The member gives the call up, or is gone. `is_seen`: it may have begun to carry it out.
    fn lost_by_member(&mut self, key: CallKey, is_seen: bool, why: &str) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if call.can_be_repeated(!is_seen) {
            call.begin_again();
            return self.dispatch(key);
        }
        self.fail(key, status::UNAVAILABLE, why);
    }

    /// The member gives the call up. gRPC has a status for each code of HTTP/2, so the client gets the same code.
    fn reset_by_member(&mut self, key: CallKey, code: Code) {
        let Some(call) = self.calls.get(key) else { return };
        if call.can_be_repeated(code == Code::REFUSED_STREAM) {
            self.lost_by_member(key, code != Code::REFUSED_STREAM, "");
        } else if code == Code::REFUSED_STREAM {
            self.fail(key, status::UNAVAILABLE, "etcdproxy: the member refuses the call");
        } else if call.deadline().is_some_and(|deadline| deadline <= self.now + TOLERANCE) {
            // etcd may do that instead of an answer.
            self.fail(key, status::DEADLINE_EXCEEDED, "etcdproxy: the member gave the call up when its time was over");
        } else {
            let client = call.client;
            self.end_call(key);
            self.with(client.peer, |http2| http2.reset(client.stream, code));
            self.finish_if_drained(client.peer);
        }
    }

    /// Ends a call that must not go on.
    fn refuse(&mut self, key: CallKey, (status, why): Refused) {
        if let Some(member) = self.calls.get(key).and_then(|call| call.member) {
            self.with(member.peer, |http2| http2.reset(member.stream, Code::CANCEL));
            self.end_if_unused(member.peer);
        }
        self.fail(key, status, &why);
    }

    /// Ends a call that no member answers.
    fn fail(&mut self, key: CallKey, status: u32, why: &str) {
        let Some(call) = self.end_call(key) else { return };
        let answer = Answer::error(status, why, call.is_answered);
        self.send_headers(call.client, &answer.block, true);
        self.finish_if_drained(call.client.peer);
    }

    /// The member takes no new calls, and does not look at those after `last`.
    fn goes(&mut self, key: PeerKey, last: u32) {
        self.leave(key);
        for (_, tag) in self.with(key, |http2| http2.take_streams(last)).unwrap_or_default() {
            self.lost_by_member(CallKey::from(KeyData::from_ffi(tag)), false, "etcdproxy: the member shuts down");
        }
    }

    /// New calls go elsewhere.
    fn leave(&mut self, key: PeerKey) {
        if self.current == Some(key) {
            self.current = None;
            if let Some(Peer { side: Side::Member(upstream), .. }) = self.peers.get(key) {
                let _ = self.notices.send(Notice::Lost(upstream.number));
            }
        }
    }

    /// A connection to a member that new calls do not use ends with its last call.
    fn end_if_unused(&mut self, key: PeerKey) {
        let is_unused = |peer: &Peer| matches!(peer.side, Side::Member(_)) && peer.wire.http2.streams() == 0;
        if self.current == Some(key) {
            // A call has ended, so another one may go.
            self.may_go |= !self.waiting.is_empty();
        } else if self.peers.get(key).is_some_and(is_unused) {
            self.break_off(key);
        }
    }

    fn finish_if_drained(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.wire.http2.is_drained()
        {
            peer.is_finished = true;
            self.mark(key);
        }
    }

    fn remove(&mut self, key: PeerKey, why: &str) {
        if !self.peers.contains_key(key) {
            return;
        }
        self.leave(key);
        let Some(mut peer) = self.peers.remove(key) else { return };
        peer.wire.deregister(self.poll.registry());
        self.held = self.held.saturating_sub(peer.counted);
        let calls: Vec<_> = peer.wire.http2.take_streams(0).into_iter().map(|(_, tag)| tag).collect();
        for tag in calls {
            let call = CallKey::from(KeyData::from_ffi(tag));
            match &peer.side {
                Side::Client { .. } => self.canceled(call),
                Side::Member(_) => self.lost_by_member(call, true, why),
            }
        }
    }

    fn serve_waiting(&mut self) {
        if !std::mem::take(&mut self.may_go) {
            return;
        }
        for _ in 0..self.waiting.len() {
            // There may be thousands.
            if !self.current.and_then(|key| self.peers.get_mut(key)).is_some_and(Peer::has_room) {
                return;
            }
            let Some(key) = self.waiting.pop_front() else { return };
            self.dispatch(key);
        }
    }

    /// Ends calls that have waited for a member for too long.
    fn expire(&mut self) {
        let now = self.now;
        if self.waiting.is_empty() || now.duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        for key in std::mem::take(&mut self.waiting) {
            let Some(call) = self.calls.get(key) else { continue };
            if call.deadline().is_some_and(|deadline| deadline <= now) {
                self.fail(key, status::DEADLINE_EXCEEDED, "etcdproxy: no member can be reached");
            } else if now.duration_since(call.began) >= WAIT {
                self.fail(key, status::UNAVAILABLE, "etcdproxy: no member can be reached");
            } else {
                self.waiting.push_back(key);
            }
        }
    }

    /// Writes what has gathered.
    fn send(&mut self) {
        while let Some(key) = self.dirty.pop() {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.is_dirty = false;
            let is_open = loop {
                let before = peer.wire.http2.output().len();
                let Ok(is_all) = peer.wire.send() else { break false };
                let left = peer.wire.http2.output().len();
                if let Side::Member(upstream) = &peer.side {
                    upstream.member.counters.sent.fetch_add((before - left) as u64, Ordering::Relaxed);
                }
                peer.wire.http2.pump();
                if !is_all || peer.wire.http2.output().is_empty() {
                    if is_all && peer.is_finished {
                        peer.wire.shut_down();
                    }
                    break true;
                }
            };
            let sent: Vec<_> = peer.wire.http2.sent().collect();
            if is_open {
                // It may take calls again.
                self.may_go |= self.current == Some(key) && !self.waiting.is_empty() && peer.has_room();
                self.count_peer(key);
                self.release(&sent, key);
            } else {
                self.remove(key, "etcdproxy: the member has closed the connection");
            }
        }
    }

    /// Data that waited has gone out to `to`: the other side may send as much again.
    fn release(&mut self, sent: &[(u64, usize)], to: PeerKey) {
        for &(tag, bytes) in sent {
            let key = CallKey::from(KeyData::from_ffi(tag));
            let Some(call) = self.calls.get(key) else { continue };
            if call.client.peer == to {
                self.sent_to_client(key, bytes);
            } else {
                self.sent_to_member(key, bytes);
            }
        }
    }

    fn count_peer(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            let memory = peer.memory();
            self.held = (self.held + memory).saturating_sub(std::mem::replace(&mut peer.counted, memory));
        }
    }

    fn count_call(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            let memory = call.memory();
            self.held = (self.held + memory).saturating_sub(std::mem::replace(&mut call.counted, memory));
        }
    }

    fn end_call(&mut self, key: CallKey) -> Option<Call> {
        let call = self.calls.remove(key)?;
        self.held = self.held.saturating_sub(call.counted);
        Some(call)
    }

    /// Takes memory and calls away from those who have most of them, when there is too much.
    fn shed(&mut self) {
        let left = |all: usize| all / LEFT.1 * LEFT.0;
        if std::mem::take(&mut self.is_full) {
            let mut clients: Vec<_> = self.clients().map(|key| (self.peers[key].wire.http2.streams(), key)).collect();
            clients.sort_unstable();
            while self.calls.len() > left(CALLS)
                && let Some((_, key)) = clients.pop()
            {
                self.turn_away(key);
            }
        }
        if self.held <= HELD {
            return;
        }
        // What was sent is kept only for another attempt.
        let sent = self.calls.iter().filter(|(_, call)| call.member.is_some() && call.counted > 0);
        for key in sent.map(|(key, _)| key).collect::<Vec<_>>() {
            self.calls[key].forget();
            self.count_call(key);
        }
        if self.held <= left(HELD) {
            return;
        }
        let mut clients: FxHashMap<PeerKey, (usize, Vec<(usize, CallKey)>)> =
            self.clients().map(|key| (key, (self.peers[key].memory(), Vec::new()))).collect();
        for (key, call) in &self.calls {
            let waiting = |end: End| self.peers.get(end.peer).map_or(0, |peer| peer.wire.http2.waiting(end.stream));
            let for_member = call.member.map_or(0, waiting);
            if let Some((all, calls)) = clients.get_mut(&call.client.peer) {
                *all += call.counted + for_member;
                calls.push((call.counted + for_member + waiting(call.client), key));
            }
        }
        let mut clients: Vec<_> = clients.into_iter().map(|(key, (all, calls))| (all, key, calls)).collect();
        clients.sort_unstable();
        while self.held > left(HELD)
            && let Some((_, client, mut calls)) = clients.pop()
        {
            calls.sort_unstable();
            while self.held > left(HELD)
                && let Some((1.., key)) = calls.pop()
                && let Some(call) = self.calls.get(key)
            {
                // gRPC's code for that is RESOURCE_EXHAUSTED.
                let (stream, member) = (call.client.stream, call.member);
                self.with(client, |http2| http2.reset(stream, Code::ENHANCE_YOUR_CALM));
                self.canceled(key);
                self.count_peer(client);
                if let Some(member) = member {
                    self.count_peer(member.peer);
                }
            }
            // What is left is no call's.
            if self.held > left(HELD) {
                self.turn_away(client);
            }
        }
    }

    /// Ends a client's connection.
    fn turn_away(&mut self, key: PeerKey) {
        log::debug!("a client uses too much memory, or has too many calls");
        self.with(key, |http2| http2.go_away(0, Code::ENHANCE_YOUR_CALM));
        self.break_off(key);
    }

    fn sweep(&mut self) {
        if self.now.duration_since(self.swept) < SWEEP {
            return;
        }
        (self.swept, self.is_warm) = (self.now, false);
        for peer in self.peers.values_mut() {
            if std::mem::take(&mut peer.is_warm) {
                // Look again when it has been idle for a while.
                self.is_warm = true;
            } else {
                peer.wire.shrink();
            }
        }
    }
}

/// Whether a read may succeed a moment later, on the same member or another.
fn is_passing(answer: &Answer) -> bool {
    answer.status == Some(status::UNAVAILABLE) && answer.message.ends_with(b"leader changed")
}
