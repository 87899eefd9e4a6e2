//! What the engine knows: connections, calls, and where new calls go.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use etcdproxy_http2::{Connection, hpack};
use mio::{Poll, Token};
use rustc_hash::FxHashMap;
use slotmap::{Key as _, SlotMap};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::budget::Budget;
use super::call::{Call, CallKey, PeerKey, Role, Share};
use super::command::{Command, Notice};
use super::head::{Answer, Heads, Request};
use super::translate::Rules;
use super::wire::Wire;
use crate::api::methods::Shape;
use crate::proxy::members::Member;
use crate::proxy::native::lease::Keeper;
use crate::proxy::native::stats::{Stats, set};
use crate::proxy::native::watch::{ClientTag, Hub, Upstream as WatchStream};

/// While so many bytes wait for a member, no new calls go to it: headers need no window.
pub(super) const UNWRITTEN: usize = 1024 * 1024;

/// How much is read at once, in bytes.
const READ: usize = 64 * 1024;

pub(super) struct Peer {
    pub wire: Wire,
    pub side: Side,
    /// It is in the list of those that may have something to send.
    pub is_dirty: bool,
    /// The end follows its last byte.
    pub is_finished: bool,
    /// It has sent or received something since the last sweep.
    pub is_warm: bool,
    /// The memory that was counted for it, in bytes.
    pub counted: usize,
}

impl Peer {
    pub(super) fn memory(&self) -> usize {
        self.wire.http2.memory() + self.wire.rest.len()
    }

    /// Whether a call can go to this member.
    pub(super) fn has_room(&mut self) -> bool {
        self.wire.http2.output().len() <= UNWRITTEN && self.wire.http2.can_open()
    }
}

pub(super) enum Side {
    Client {
        _permit: Box<dyn Send>,
        /// Streams with watchers.
        watches: Vec<CallKey>,
        /// How many of them wait for a watcher.
        unsettled: u32,
    },
    Member(Upstream),
}

pub(super) struct Upstream {
    pub number: u64,
    pub member: Arc<Member>,
    /// Scheme and server name, for the head of each call.
    pub name: Vec<u8>,
    /// Since when it takes no calls although some wait.
    pub blocked: Option<Instant>,
    /// Without a leader, it would lose what is to be written, and hold keepalives back.
    pub has_leader: bool,
    _alive: oneshot::Sender<()>,
}

impl Upstream {
    pub(super) fn new(
        number: u64,
        member: Arc<Member>,
        is_tls: bool,
        authority: &str,
        has_leader: bool,
        alive: oneshot::Sender<()>,
    ) -> Self {
        let mut name = Vec::new();
        hpack::encode(&mut name, b":scheme", if is_tls { b"https" } else { b"http" });
        hpack::encode(&mut name, b":authority", authority.as_bytes());
        member.counters.connections.fetch_add(1, Ordering::Relaxed);
        member.open.fetch_add(1, Ordering::Relaxed);
        Self { number, member, name, blocked: None, has_leader, _alive: alive }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.member.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Our token.
pub(super) struct Login {
    /// Calls without a token get ours.
    pub logs_in: bool,
    /// Its header field; empty when the cluster wants no token. `None` while there is none.
    pub token: Option<Vec<u8>>,
    /// Counts tokens.
    pub number: u32,
    /// The pilot has been asked for one.
    pub is_asked: bool,
}

/// See the module.
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Engine {
    pub poll: Poll,
    pub commands: Receiver<Command>,
    pub notices: UnboundedSender<Notice>,
    pub peers: SlotMap<PeerKey, Peer>,
    pub calls: SlotMap<CallKey, Call>,
    /// Where new calls go.
    pub current: Option<PeerKey>,
    /// Calls that wait for a member or a token, and whether one of them may go.
    pub waiting: VecDeque<CallKey>,
    pub may_go: bool,
    pub login: Login,
    /// What clients share: leases to be kept alive, our streams for them, and when what waits was last looked at.
    pub keeper: Keeper,
    pub hub: Hub,
    /// Streams of watchers that a member has ended, and when to open others; and calls that wait for a watcher, since
    /// when.
    pub ended: VecDeque<(WatchStream, Instant)>,
    pub unsettled: FxHashMap<CallKey, Instant>,
    /// A watcher needs a new token.
    pub is_renewing: bool,
    pub own: FxHashMap<(Share, u64), CallKey>,
    pub paced: Option<Instant>,
    /// Calls of clients that share, and that have a deadline.
    pub timed: Vec<CallKey>,
    pub rules: Rc<Rules>,
    pub stats: Arc<Stats>,
    /// Peers with something to send.
    pub dirty: Vec<PeerKey>,
    /// Peers that may have sent more than was read, and whether that includes their end.
    pub ready: Vec<(PeerKey, bool)>,
    pub requests: Heads<Request>,
    pub answers: Heads<Answer>,
    /// Bytes that wait, of all peers and calls.
    pub held: usize,
    /// How many calls may be sent again.
    pub budget: Budget,
    /// A call was refused because there are too many.
    pub is_full: bool,
    /// Read into; used again and again.
    pub buffer: Vec<u8>,
    pub cipher: Vec<u8>,
    /// Header blocks are put together in it.
    pub scratch: Vec<u8>,
    pub start: Instant,
    pub now: Instant,
    /// When memory was given back, and whether something has happened since.
    pub swept: Instant,
    pub is_warm: bool,
    /// When waiting calls were looked at.
    pub ticked: Instant,
    pub has_stopped: bool,
}

impl Engine {
    pub(super) fn new(
        poll: Poll,
        commands: Receiver<Command>,
        notices: UnboundedSender<Notice>,
        rules: Rules,
        logs_in: bool,
        stats: Arc<Stats>,
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
            keeper: Keeper::default(),
            hub: Hub::new(rules.namespace.clone(), logs_in, now),
            ended: VecDeque::new(),
            unsettled: FxHashMap::default(),
            is_renewing: false,
            own: FxHashMap::default(),
            paced: None,
            timed: Vec::new(),
            login: Login { logs_in, token: None, number: 0, is_asked: false },
            rules: Rc::new(rules),
            stats,
            dirty: Vec::new(),
            ready: Vec::new(),
            requests: Heads::requests(),
            answers: Heads::answers(),
            buffer: vec![0; READ + 2 * Connection::LONGEST_FRAME],
            held: 0,
            budget: Budget::default(),
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

    /// Does something with a connection that may then have something to send. Nothing if it is gone.
    pub(super) fn with<T>(&mut self, key: PeerKey, action: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let done = action(&mut self.peers.get_mut(key)?.wire.http2);
        self.mark(key);
        Some(done)
    }

    /// Tells the pages how many watchers, leases and streams there are.
    pub(super) fn publish(&self) {
        let (watches, leases, stats) = (self.hub.counts(), self.keeper.counts(), &self.stats);
        for (sides, [client, member]) in [
            (&stats.watchers, [watches.client_watchers as u64, watches.upstream_watchers as u64]),
            (&stats.watch_streams, [watches.clients as u64, watches.streams as u64]),
            (&stats.watch_events, [watches.events, watches.received]),
            (&stats.lease_streams, [leases.clients as u64, leases.streams as u64]),
            (&stats.keepalives, [leases.asked, leases.forwarded]),
        ] {
            set(&sides.client, client);
            set(&sides.member, member);
        }
        set(&stats.watch_resumes, watches.resumes);
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = PeerKey> {
        self.peers.iter().filter(|(_, peer)| matches!(peer.side, Side::Client { .. })).map(|(key, _)| key)
    }

    pub(super) fn add(&mut self, wire: Wire, side: Side) -> Option<PeerKey> {
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

    pub(super) fn mark(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            (self.is_warm, peer.is_warm) = (true, true);
            if !peer.is_dirty {
                peer.is_dirty = true;
                self.dirty.push(key);
            }
        }
    }

    /// Forgets a call, and counts it if it is a client's: `code` is gRPC's status that the client sees.
    pub(super) fn end_call(&mut self, key: CallKey, code: u32) -> Option<Call> {
        let call = self.calls.remove(key)?;
        if !call.is_ours() {
            let took = (call.shape == Shape::Unary).then(|| self.now.duration_since(call.began));
            self.stats.ended(call.request.method, code, took);
        }
        match call.role {
            Role::Shared(Share::Leases) => self.keeper.close(key.tag()),
            Role::Shared(Share::Watches) => {
                self.hub.close(ClientTag(key.tag()));
                let client = call.client.peer;
                if let Some(Side::Client { watches, .. }) = self.peers.get_mut(client).map(|peer| &mut peer.side) {
                    watches.retain(|other| *other != key);
                }
                self.settle(key, client);
            }
            Role::Own(share, number) => drop(self.own.remove(&(share, number))),
            Role::Forwarded => drop(self.stats.in_flight.fetch_sub(1, Ordering::Relaxed)),
            Role::Question(_) => {}
        }
        self.held = self.held.saturating_sub(call.counted);
        Some(call)
    }
}
