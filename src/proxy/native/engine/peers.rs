//! Connections: what comes from them, what goes to them, and their end.

use std::sync::atomic::Ordering;

use etcdproxy_http2::Event;

use super::call::{CallKey, End, PeerKey};
use super::command::Notice;
use super::head::status;
use super::queue::BLOCKED;
use super::state::{Engine, Peer, Side};
use super::wire::Received;
use crate::proxy::native::stats::Repeat;

/// How often a connection is read in one turn, so that others get theirs.
const READS: usize = 4;

impl Engine {
    /// Reads what has come. `until_end`: the peer has closed its side, so the end is there too.
    pub(super) fn read(&mut self, key: PeerKey, until_end: bool) {
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
    pub(super) fn take(&mut self, key: PeerKey, bytes: &[u8]) {
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
    pub(super) fn break_off(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            let _ = peer.wire.send();
        }
        self.remove(key, "etcdproxy: the member broke HTTP/2");
    }

    pub(super) fn event(&mut self, key: PeerKey, event: Event<'_>) -> Result<(), etcdproxy_http2::Error> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let is_client = matches!(peer.side, Side::Client { .. });
        let call = |tag: u64| CallKey::of(tag);
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
            Event::Reset { tag, .. } if is_client => self.canceled(call(tag), status::CANCELLED),
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

    pub(super) fn send_headers(&mut self, to: End, block: &[u8], end: bool) {
        self.with(to.peer, |http2| http2.send_headers(to.stream, block, end));
    }

    /// Writes what has gathered.
    pub(super) fn send(&mut self) {
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
                self.tell_room_of_all(key);
            } else {
                self.remove(key, "etcdproxy: the member has closed the connection");
            }
        }
    }

    /// Data that waited has gone out to `to`: the other side may send as much again.
    pub(super) fn release(&mut self, sent: &[(u64, usize)], to: PeerKey) {
        for &(tag, bytes) in sent {
            let key = CallKey::of(tag);
            let Some(call) = self.calls.get(key) else { continue };
            if call.client.peer == to {
                self.sent_to_client(key, bytes);
            } else {
                self.sent_to_member(key, bytes);
            }
        }
    }

    /// The member takes no new calls, and does not look at those after `last`.
    pub(super) fn goes(&mut self, key: PeerKey, last: u32) {
        self.leave(key);
        for (_, tag) in self.with(key, |http2| http2.take_streams(last)).unwrap_or_default() {
            self.lost_by_member(CallKey::of(tag), Repeat::NotProcessed, "etcdproxy: the member shuts down");
        }
    }

    /// New calls go elsewhere.
    pub(super) fn leave(&mut self, key: PeerKey) {
        if self.current == Some(key) {
            self.current = None;
            if let Some(Peer { side: Side::Member(upstream), .. }) = self.peers.get(key) {
                let is_full = upstream.blocked.is_some_and(|since| self.now.duration_since(since) >= BLOCKED);
                let notice = if is_full { Notice::Full } else { Notice::Lost };
                let _ = self.notices.send(notice(upstream.number));
            }
        }
    }

    /// A connection to a member that new calls do not use ends with its last call.
    pub(super) fn end_if_unused(&mut self, key: PeerKey) {
        let is_unused = |peer: &Peer| matches!(peer.side, Side::Member(_)) && peer.wire.http2.streams() == 0;
        if self.current == Some(key) {
            // A call has ended, so another one may go.
            self.may_go |= !self.waiting.is_empty();
        } else if self.peers.get(key).is_some_and(is_unused) {
            self.break_off(key);
        }
    }

    pub(super) fn finish_if_drained(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.wire.http2.is_drained()
        {
            peer.is_finished = true;
            self.mark(key);
        }
    }

    pub(super) fn remove(&mut self, key: PeerKey, why: &str) {
        if !self.peers.contains_key(key) {
            return;
        }
        self.leave(key);
        let Some(mut peer) = self.peers.remove(key) else { return };
        peer.wire.deregister(self.poll.registry());
        self.held = self.held.saturating_sub(peer.counted);
        let calls: Vec<_> = peer.wire.http2.take_streams(0).into_iter().map(|(_, tag)| tag).collect();
        for tag in calls {
            let call = CallKey::of(tag);
            match &peer.side {
                Side::Client { .. } => self.canceled(call, status::CANCELLED),
                Side::Member(_) => self.lost_by_member(call, Repeat::Lost, why),
            }
        }
    }
}
