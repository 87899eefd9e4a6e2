//! Streams that clients share: their calls end here, and calls of our own go to a member.
//!
//! [`lease`](crate::proxy::native::lease) and [`watch`](crate::proxy::native::watch) say what to do; this carries it out.

use std::rc::Rc;
use std::time::{Duration, Instant};

use etcdproxy_http2::hpack;

use super::call::{Call, CallKey, PeerKey, Role, Share};
use super::head::{Answer, PREFIX, Request, status};
use super::message::{Unreadable, take_messages, with_prefix};
use super::queue::WAIT;
use super::state::{Engine, Side};
use super::translate::{Refused, malformed};
use crate::api::{lease, range, watch};
use crate::proxy::native::identity::Identity;
use crate::proxy::native::lease::Action as LeaseAction;
use crate::proxy::native::watch::{Action as WatchAction, ClientTag, End, Question, Upstream};

/// How often what waits is looked at, and how soon a stream that a member has ended is opened again.
const PACE: Duration = Duration::from_millis(100);

/// How many watchers clients may have, all together.
const WATCHERS: usize = 256 * 1024;

/// The longest request that is put together, in bytes: etcd's own default.
const LONGEST_REQUEST: usize = 2 * 1024 * 1024;
/// The longest answer, in bytes. Members send large ones in pieces of 2 MB, but a single event can be larger.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

impl Engine {
    /// A client opens a stream that it shares with others.
    pub(super) fn share(&mut self, key: CallKey, share: Share) {
        let Some(call) = self.calls.get(key) else { return };
        let (identity, client) = (Identity::of(call.request.token.as_deref()), call.client.peer);
        if call.deadline().is_some() {
            self.timed.push(key);
        }
        match share {
            Share::Leases => self.keeper.open(key.tag(), identity),
            Share::Watches => {
                self.hub.open(ClientTag(key.tag()), identity);
                if let Some(Side::Client { watches, .. }) = self.peers.get_mut(client).map(|peer| &mut peer.side) {
                    watches.push(key);
                }
            }
        }
    }

    /// A client has sent something on a stream that it shares.
    pub(super) fn shared_request(&mut self, key: CallKey, share: Share, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.owed_to_client += bytes.len();
        let mut messages = Vec::new();
        let taken = take_messages(&mut call.body, bytes, LONGEST_REQUEST, unreadable, |message| {
            messages.push(message.to_vec());
            Ok(())
        });
        if let Err(refused) = taken {
            return self.refuse(key, refused);
        }
        if end && call.body.len() >= PREFIX {
            return self.refuse(key, (status::INTERNAL, "unexpected EOF".to_owned()));
        }
        for message in messages {
            let done: Result<(), Refused> = match share {
                Share::Leases => self.keeper.request(key.tag(), &message, self.now).map_err(|_| malformed()),
                Share::Watches if self.hub.counts().client_watchers >= WATCHERS => {
                    let why = format!("etcdproxy: clients have {WATCHERS} watchers already: end some");
                    Err((status::RESOURCE_EXHAUSTED, why))
                }
                Share::Watches => self
                    .hub
                    .request(ClientTag(key.tag()), &message)
                    .map_err(|refused| if refused.0 == status::INTERNAL { malformed() } else { refused }),
            };
            if let Err(refused) = done {
                return self.refuse(key, refused);
            }
        }
        if share == Share::Watches && self.hub.waits(ClientTag(key.tag())) {
            self.unsettle(key);
        }
        // A stream of watchers goes on when its client sends nothing more.
        if end && share == Share::Leases {
            self.keeper.end(key.tag());
        }
        self.count_call(key);
        self.release_shared(key);
    }

    /// The client may send more, unless it has sent more than can be answered now.
    fn release_shared(&mut self, key: CallKey) {
        let is_busy = self.keeper.is_busy(key.tag());
        let Some(call) = self.calls.get_mut(key).filter(|call| call.owed_to_client > 0 && !is_busy) else { return };
        let (client, owed) = (call.client, std::mem::take(&mut call.owed_to_client));
        self.with(client.peer, |http2| http2.release(client.stream, owed));
    }

    /// What a client sends after it has asked for a watcher is seen by that. So its later calls wait.
    fn unsettle(&mut self, key: CallKey) {
        let Some(call) = self.calls.get(key) else { return };
        if self.unsettled.insert(key, self.now).is_some() {
            return;
        }
        if let Some(Side::Client { unsettled, .. }) = self.peers.get_mut(call.client.peer).map(|peer| &mut peer.side) {
            *unsettled += 1;
        }
    }

    /// The watchers that a call has asked for are there, or the call is gone.
    pub(super) fn settle(&mut self, key: CallKey, client: PeerKey) {
        if self.unsettled.remove(&key).is_none() {
            return;
        }
        if let Some(Side::Client { unsettled, .. }) = self.peers.get_mut(client).map(|peer| &mut peer.side) {
            *unsettled -= 1;
            self.may_go |= *unsettled == 0 && !self.waiting.is_empty();
        }
    }

    /// The member has sent something on a stream of ours.
    pub(super) fn own_answer(&mut self, key: CallKey, (share, number): (Share, u64), bytes: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let member = call.member;
        let mut messages = Vec::new();
        let taken = take_messages(&mut call.body, bytes, LONGEST_ANSWER, unreadable, |message| {
            messages.push(message.to_vec());
            Ok(())
        });
        self.count_call(key);
        if let Some(member) = member {
            self.with(member.peer, |http2| http2.release(member.stream, bytes.len()));
        }
        if taken.is_err() {
            return self.give_up(key);
        }
        for message in messages {
            match share {
                Share::Leases => self.keeper.answer(number, &message),
                Share::Watches => self.hub.answer(Upstream(number), &message),
            }
        }
    }

    /// The member has ended a stream of ours, with this answer.
    pub(super) fn own_ended(&mut self, key: CallKey, answer: &Answer) {
        let why = String::from_utf8_lossy(&answer.message);
        match answer.status {
            _ if self.calls.get(key).is_some_and(|call| self.is_old_token(call, answer)) => {
                self.login.token = None;
                self.own_lost(key);
            }
            Some(status @ (status::PERMISSION_DENIED | status::UNIMPLEMENTED | status::UNAUTHENTICATED)) => {
                self.fail(key, status, &why);
            }
            // It may end the next one as soon. That of a watch is opened again at once, so it waits here.
            _ => match self.end_call(key, status::UNAVAILABLE).map(|call| call.role) {
                Some(Role::Own(Share::Watches, number)) => self.ended.push_back((Upstream(number), self.now + PACE)),
                Some(Role::Own(_, number)) => self.keeper.lost(number),
                _ => {}
            },
        }
    }

    /// A stream of ours has ended, or its member is gone.
    pub(super) fn own_lost(&mut self, key: CallKey) {
        match self.end_call(key, status::UNAVAILABLE).map(|call| call.role) {
            Some(Role::Own(Share::Leases, number)) => self.keeper.lost(number),
            Some(Role::Own(Share::Watches, number)) => self.hub.ended(Upstream(number), End::Lost),
            _ => {}
        }
    }

    /// A call of ours would end the same way again.
    pub(super) fn own_failed(&mut self, call: &Call, status: u32, why: &str) {
        match call.role {
            Role::Own(Share::Leases, number) => self.keeper.refused(number, status, why),
            Role::Own(Share::Watches, number) => {
                self.hub.ended(Upstream(number), End::Status(status, why.to_owned()));
            }
            Role::Question(number) => self.hub.now_is(Question(number), None),
            Role::Shared(_) | Role::Forwarded => {}
        }
    }

    /// The answer to a question has come.
    pub(super) fn present_is_known(&mut self, key: CallKey, answer: &Answer) {
        let Some(call) = self.end_call(key, answer.status.unwrap_or(status::UNKNOWN)) else { return };
        let Role::Question(question) = call.role else { return };
        let is_good = answer.status == Some(0);
        self.hub.now_is(Question(question), call.message.get(PREFIX..).filter(|_| is_good));
    }

    /// Ends a stream of ours. It is opened again if somebody needs it.
    fn give_up(&mut self, key: CallKey) {
        let member = self.calls.get(key).and_then(|call| call.member);
        self.own_lost(key);
        self.cancel_at_member(member);
    }

    /// Streams of ours follow when calls go to another member: nobody shall see one member's past and another's present.
    pub(super) fn move_own(&mut self) {
        let is_elsewhere = |call: &Call| {
            matches!(call.role, Role::Own(Share::Leases, _))
                && call.member.is_some_and(|member| Some(member.peer) != self.current)
        };
        let own = self.own.values().copied();
        let moved: Vec<_> = own.filter(|key| self.calls.get(*key).is_some_and(is_elsewhere)).collect();
        for key in moved {
            self.give_up(key);
        }
        self.hub.move_on();
        self.paced = None;
    }

    /// There is a new token, or why there is none, and somebody has asked for it.
    pub(super) fn renew(&mut self, failed: Option<&str>) {
        if !std::mem::take(&mut self.is_renewing) {
            return;
        }
        let Some(why) = failed else { return self.hub.renew(&Identity::Sidecar) };
        let is_sidecars = |key: &CallKey| self.calls.get(*key).is_some_and(|call| call.request.token.is_none());
        let watches = self.own.iter().filter(|((share, _), _)| *share == Share::Watches);
        let streams: Vec<_> = watches.map(|(_, key)| *key).filter(is_sidecars).collect();
        for key in streams {
            self.refuse(key, (status::UNAUTHENTICATED, why.to_owned()));
        }
    }

    /// When [`Self::serve_shared`] has something to do.
    pub(super) fn shared_timeout(&self) -> Option<Duration> {
        let paces = self.keeper.is_waiting() || !self.ended.is_empty() || !self.unsettled.is_empty();
        let wake = self.hub.wake().map(|at| at.saturating_duration_since(Instant::now()));
        [paces.then_some(PACE), wake].into_iter().flatten().min()
    }

    /// Does what those who share want, and looks at what waits.
    pub(super) fn serve_shared(&mut self) {
        if self.paced.is_none_or(|last| self.now.duration_since(last) >= PACE) {
            self.paced = Some(self.now);
            if self.keeper.is_waiting() {
                self.keeper.tick(self.now, self.current.is_some());
            }
            self.expire_unsettled();
        }
        while let Some((upstream, _)) = self.ended.pop_front_if(|(_, at)| *at <= self.now) {
            self.hub.ended(upstream, End::Lost);
        }
        if self.hub.wake().is_some_and(|at| at <= self.now) {
            self.hub.tick(self.now);
        }
        while let Some(action) = self.keeper.next() {
            match action {
                LeaseAction::Open { upstream, identity } => {
                    self.open_own((Share::Leases, upstream), lease::KEEP_ALIVE, &identity);
                }
                LeaseAction::Forward { upstream, message } => self.forward_own((Share::Leases, upstream), &message),
                LeaseAction::Close { upstream } => self.close_own((Share::Leases, upstream)),
                LeaseAction::Send { client, message } => {
                    let key = CallKey::of(client);
                    self.send_shared(key, &message, b"");
                    self.release_shared(key);
                }
                LeaseAction::End { client, status, why } => self.fail(CallKey::of(client), status, &why),
            }
        }
        while let Some(action) = self.hub.next() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: WatchAction) {
        match action {
            WatchAction::Send { client: ClientTag(tag), watch_id, body } => {
                let key = CallKey::of(tag);
                let mut tail = Vec::new();
                watch::put_watch_id(watch_id, &mut tail);
                self.send_shared(key, &body, &tail);
                self.tell_room(key);
            }
            WatchAction::End { client: ClientTag(tag), status, message } => {
                self.fail(CallKey::of(tag), status, &message);
            }
            // It may have asked for another one since.
            WatchAction::Settled { client } if self.hub.waits(client) => {}
            WatchAction::Settled { client: ClientTag(tag) } => {
                let key = CallKey::of(tag);
                if let Some(client) = self.calls.get(key).map(|call| call.client.peer) {
                    self.settle(key, client);
                }
            }
            WatchAction::Open { upstream: Upstream(number), identity } => {
                self.open_own((Share::Watches, number), watch::WATCH, &identity);
            }
            WatchAction::Forward { upstream: Upstream(number), message } => {
                self.forward_own((Share::Watches, number), &message);
            }
            WatchAction::Close { upstream: Upstream(number) } => self.close_own((Share::Watches, number)),
            WatchAction::AskNow { question: Question(number), identity, key, range_end, checks_permission } => {
                let message = if checks_permission { range::first_key(&key, &range_end) } else { range::count(&key) };
                self.ask(number, &identity, &message);
            }
            WatchAction::Renew { .. } => {
                self.is_renewing = true;
                self.login.token = None;
                self.ask_for_token();
            }
        }
    }

    /// Clients do not wait for ever for a watcher while there is no member.
    fn expire_unsettled(&mut self) {
        if self.current.is_some() {
            return;
        }
        let is_late = |since: &Instant| self.now.duration_since(*since) >= WAIT;
        let late: Vec<_> = self.unsettled.iter().filter(|(_, since)| is_late(since)).map(|(key, _)| *key).collect();
        for key in late {
            self.fail(key, status::UNAVAILABLE, "etcdproxy: no member can be reached");
        }
    }

    /// Tells how much waits for the client of a stream of watchers.
    fn tell_room(&mut self, key: CallKey) {
        let Some(client) = self.calls.get(key).map(|call| call.client) else { return };
        let Some(peer) = self.peers.get_mut(client.peer) else { return };
        let waiting = peer.wire.http2.waiting(client.stream) + peer.wire.http2.output().len();
        self.hub.room(ClientTag(key.tag()), waiting);
    }

    /// Something has gone out to this client.
    pub(super) fn tell_room_of_all(&mut self, client: PeerKey) {
        let Some(Side::Client { watches, .. }) = self.peers.get(client).map(|peer| &peer.side) else { return };
        for key in watches.clone() {
            self.tell_room(key);
        }
    }

    /// Sends a message, in two parts, to a client that shares its stream.
    fn send_shared(&mut self, key: CallKey, head: &[u8], tail: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let client = call.client;
        if !std::mem::replace(&mut call.is_answered, true) {
            let mut block = Vec::new();
            hpack::encode(&mut block, b":status", b"200");
            hpack::encode(&mut block, b"content-type", b"application/grpc");
            self.send_headers(client, &block, false);
        }
        let message = with_prefix(head, tail);
        self.with(client.peer, |http2| http2.send_data(client.stream, &message, false));
    }

    fn open_own(&mut self, id: (Share, u64), path: &str, identity: &Identity) {
        let request = Rc::new(Request::own(path, identity.token()));
        let key = self.calls.insert(Call::ours(Role::Own(id.0, id.1), request, self.now));
        self.own.insert(id, key);
        self.dispatch(key);
    }

    /// Asks a member for a range, to hear what its revision is.
    fn ask(&mut self, question: u64, identity: &Identity, message: &[u8]) {
        let request = Rc::new(Request::own(range::RANGE, identity.token()));
        let key = self.calls.insert(Call::ours(Role::Question(question), request, self.now));
        // Complete, so it goes.
        self.request_data(key, &with_prefix(message, b""), true);
    }

    fn forward_own(&mut self, id: (Share, u64), message: &[u8]) {
        if let Some(&key) = self.own.get(&id) {
            self.request_data(key, &with_prefix(message, b""), false);
        }
    }

    fn close_own(&mut self, id: (Share, u64)) {
        if let Some(&key) = self.own.get(&id) {
            self.give_up(key);
        }
    }
}

/// What a client hears whose message cannot be read, as etcd says it.
fn unreadable(why: Unreadable) -> Refused {
    match why {
        Unreadable::Compressed => malformed(),
        Unreadable::TooLong(length) => {
            let why = format!("grpc: received message larger than max ({length} vs. {LONGEST_REQUEST})");
            (status::RESOURCE_EXHAUSTED, why)
        }
    }
}
