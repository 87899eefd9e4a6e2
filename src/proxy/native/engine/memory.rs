//! The limit of memory: those who use most of it lose it.

use etcdproxy_http2::Code;
use rustc_hash::FxHashMap;

use super::call::{CallKey, End, PeerKey};
use super::calls::CALLS;
use super::head::status;
use super::state::Engine;

/// How many bytes may wait: for slow readers and writers, and in requests that are not complete.
pub(super) const HELD: usize = 32 * 1024 * 1024;
/// When there is too much of something, the greatest users of it lose it until this part is left.
const LEFT: (usize, usize) = (7, 8);

impl Engine {
    pub(super) fn count_peer(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            let memory = peer.memory();
            self.held = (self.held + memory).saturating_sub(std::mem::replace(&mut peer.counted, memory));
        }
    }

    pub(super) fn count_call(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            let memory = call.memory();
            self.held = (self.held + memory).saturating_sub(std::mem::replace(&mut call.counted, memory));
        }
    }

    /// Takes memory and calls away from those who have most of them, when there is too much.
    pub(super) fn shed(&mut self) {
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
                self.canceled(key, status::RESOURCE_EXHAUSTED);
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
    pub(super) fn turn_away(&mut self, key: PeerKey) {
        log::debug!("a client uses too much memory, or has too many calls");
        self.with(key, |http2| http2.go_away(0, Code::ENHANCE_YOUR_CALM));
        for (_, tag) in self.with(key, |http2| http2.take_streams(0)).unwrap_or_default() {
            self.canceled(CallKey::of(tag), status::RESOURCE_EXHAUSTED);
        }
        self.break_off(key);
    }
}
