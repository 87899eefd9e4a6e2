//! Calls that go to the current member, and those that wait for one, or for a token.

use std::time::Duration;

use etcdproxy_http2::hpack;

use super::call::{Call, CallKey, End};
use super::command::Notice;
use super::head::{status, timeout_text};
use super::state::{Engine, Peer, Side, UNWRITTEN, Upstream};

/// How long a call waits for a member.
pub(super) const WAIT: Duration = Duration::from_secs(6);
/// How often to look whether a call waits for too long.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// After this time on a connection that takes no more calls, they go elsewhere.
pub(super) const BLOCKED: Duration = Duration::from_secs(1);

impl Engine {
    /// Sends a call to the current member, or lets it wait.
    pub(super) fn dispatch(&mut self, key: CallKey) {
        if !self.try_dispatch(key) {
            self.waiting.push_back(key);
        }
    }

    /// Sends a call to the current member. Returns false when there is none, it takes no more calls, or a token is
    /// missing.
    pub(super) fn try_dispatch(&mut self, key: CallKey) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return true };
        call.goes();
        let needs_token = self.login.logs_in && call.request.token.is_none();
        if needs_token && self.login.token.is_none() {
            self.ask_for_token();
            return false;
        }
        let client = self.peers.get(call.client.peer).map(|peer| &peer.side);
        if matches!(client, Some(Side::Client { unsettled: 1.., .. })) {
            return false;
        }
        let Some(current) = self.current else { return false };
        let Some(peer) = self.peers.get_mut(current) else { return false };
        let Side::Member(upstream) = &mut peer.side else { return false };
        // Before that, the member may be one that dies or hangs: what it was sent would be lost, or must not be repeated.
        if peer.wire.http2.output().len() > UNWRITTEN {
            return false;
        }
        if !upstream.has_leader && call.needs_leader() {
            return false;
        }
        let opened = if peer.wire.http2.has_settings() { peer.wire.http2.open(key.tag()) } else { None };
        let Some(stream) = opened else {
            if peer.wire.http2.is_used_up() {
                self.leave(current);
            } else {
                upstream.blocked.get_or_insert(self.now);
            }
            return false;
        };
        upstream.blocked = None;
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
        self.budget.earn();
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

    pub(super) fn serve_waiting(&mut self) {
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

    /// Ends calls whose time is over, as far as no member does, and those that have waited for a member for too long.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        if now.duration_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.leave_if_blocked();
        let mut timed = std::mem::take(&mut self.timed);
        timed.retain(|key| {
            let deadline = self.calls.get(*key).and_then(Call::deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.fail(*key, status::DEADLINE_EXCEEDED, "context deadline exceeded");
            }
            deadline.is_some_and(|deadline| deadline > now)
        });
        self.timed = timed;
        for key in std::mem::take(&mut self.waiting) {
            let Some(call) = self.calls.get(key) else { continue };
            if call.is_ours() {
                // Its clients have their own patience.
                self.waiting.push_back(key);
            } else if call.deadline().is_some_and(|deadline| deadline <= now) {
                self.fail(key, status::DEADLINE_EXCEEDED, self.why_waiting());
            } else if now.duration_since(call.began) >= WAIT {
                self.fail(key, status::UNAVAILABLE, self.why_waiting());
            } else {
                self.waiting.push_back(key);
            }
        }
    }

    fn why_waiting(&self) -> &'static str {
        match self.current.and_then(|key| self.peers.get(key)).map(|peer| &peer.side) {
            Some(Side::Member(Upstream { has_leader: false, .. })) => "etcdproxy: the members have no leader",
            _ => "etcdproxy: no member can be reached",
        }
    }

    /// Leaves a connection that takes no more calls, as when long ones take all its streams.
    fn leave_if_blocked(&mut self) {
        let Some(current) = self.current else { return };
        let Some(Side::Member(upstream)) = self.peers.get(current).map(|peer| &peer.side) else { return };
        if upstream.blocked.is_some_and(|since| self.now.duration_since(since) >= BLOCKED) {
            self.leave(current);
            self.end_if_unused(current);
        }
    }

    pub(super) fn ask_for_token(&mut self) {
        if !std::mem::replace(&mut self.login.is_asked, true) {
            let _ = self.notices.send(Notice::NeedsToken);
        }
    }

    pub(super) fn take_token(&mut self, token: Result<Option<String>, String>) {
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
                self.renew(None);
            }
            Err(why) => {
                let why = format!("etcdproxy: {why}");
                self.renew(Some(&why));
                for key in std::mem::take(&mut self.waiting) {
                    let Some(call) = self.calls.get(key) else { continue };
                    if call.request.token.is_some() {
                        self.waiting.push_back(key);
                    } else {
                        self.fail(key, status::UNAUTHENTICATED, &why);
                    }
                }
            }
        }
    }
}
