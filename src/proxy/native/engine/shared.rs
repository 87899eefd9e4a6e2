//! Streams that clients share: their calls end here, and calls of our own go to a member.
//!
//! [`crate::proxy::native::lease`] says what to do; this carries it out.

use std::rc::Rc;
use std::time::Duration;

use etcdproxy_http2::{Code, hpack};

use super::call::{Call, CallKey, Role, Share, nobody};
use super::head::{Answer, PREFIX, Request, status};
use super::state::Engine;
use super::translate::malformed;
use crate::api::lease;
use crate::proxy::native::identity::Identity;
use crate::proxy::native::lease::Action;

/// How often what waits is looked at.
pub(super) const PACE: Duration = Duration::from_millis(100);

/// The longest message that is put together, in bytes: the longest that etcd's own proxy takes.
const LONGEST: usize = 64 * 1024 * 1024;

impl Engine {
    /// A client opens a stream that it shares with others.
    pub(super) fn share(&mut self, key: CallKey, share: Share) {
        let Some(call) = self.calls.get(key) else { return };
        let identity = Identity::of(call.request.token.as_deref());
        if call.deadline().is_some() {
            self.timed.push(key);
        }
        match share {
            Share::Leases => self.keeper.open(key.tag(), identity),
        }
    }

    /// A client has sent something on a stream that it shares.
    pub(super) fn shared_request(&mut self, key: CallKey, share: Share, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.owed_to_client += bytes.len();
        let Some(messages) = take_messages(&mut call.body, bytes) else { return self.refuse(key, malformed()) };
        for message in messages {
            let done = match share {
                Share::Leases => self.keeper.request(key.tag(), &message, self.now),
            };
            if done.is_err() {
                return self.refuse(key, malformed());
            }
        }
        if end {
            match share {
                Share::Leases => self.keeper.end(key.tag()),
            }
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

    /// The member has sent something on a stream of ours.
    pub(super) fn own_answer(&mut self, key: CallKey, (share, upstream): (Share, u64), bytes: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let member = call.member;
        let messages = take_messages(&mut call.body, bytes);
        self.count_call(key);
        if let Some(member) = member {
            self.with(member.peer, |http2| http2.release(member.stream, bytes.len()));
        }
        match messages {
            Some(messages) => messages.iter().for_each(|message| match share {
                Share::Leases => self.keeper.answer(upstream, message),
            }),
            None => self.give_up(key),
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
                self.own_refused(key, status, &why);
            }
            _ => self.own_lost(key),
        }
    }

    /// A stream of ours would end the same way again.
    pub(super) fn own_refused(&mut self, key: CallKey, status: u32, why: &str) {
        let Some(call) = self.end_call(key) else { return };
        let Role::Own(share, upstream) = call.role else { return };
        self.own.remove(&(share, upstream));
        match share {
            Share::Leases => self.keeper.refused(upstream, status, why),
        }
    }

    /// A stream of ours has ended, or its member is gone.
    pub(super) fn own_lost(&mut self, key: CallKey) {
        let Some(call) = self.end_call(key) else { return };
        let Role::Own(share, upstream) = call.role else { return };
        self.own.remove(&(share, upstream));
        match share {
            Share::Leases => self.keeper.lost(upstream),
        }
    }

    /// Ends a stream of ours. It is opened again.
    fn give_up(&mut self, key: CallKey) {
        let member = self.calls.get(key).and_then(|call| call.member);
        self.own_lost(key);
        if let Some(member) = member {
            self.with(member.peer, |http2| http2.reset(member.stream, Code::CANCEL));
            self.end_if_unused(member.peer);
        }
    }

    /// Streams of ours follow when calls go to another member: nobody shall see one member's past and another's present.
    pub(super) fn move_own(&mut self) {
        let is_elsewhere = |call: &Call| call.member.is_some_and(|member| Some(member.peer) != self.current);
        let own = self.own.values().copied();
        let moved: Vec<_> = own.filter(|key| self.calls.get(*key).is_some_and(is_elsewhere)).collect();
        for key in moved {
            self.give_up(key);
        }
        self.paced = None;
    }

    /// Does what those who share want, and looks at what waits.
    pub(super) fn serve_shared(&mut self) {
        if self.keeper.is_waiting() && self.paced.is_none_or(|last| self.now.duration_since(last) >= PACE) {
            self.paced = Some(self.now);
            let has_member = self.current.is_some();
            self.keeper.tick(self.now, has_member);
        }
        while let Some(action) = self.keeper.next() {
            match action {
                Action::Open { upstream, identity } => {
                    self.open_own((Share::Leases, upstream), lease::KEEP_ALIVE, &identity);
                }
                Action::Forward { upstream, message } => {
                    if let Some(&key) = self.own.get(&(Share::Leases, upstream)) {
                        self.request_data(key, &with_prefix(&message, b""), false);
                    }
                }
                Action::Close { upstream } => {
                    if let Some(&key) = self.own.get(&(Share::Leases, upstream)) {
                        self.give_up(key);
                    }
                }
                Action::Send { client, message } => {
                    let key = CallKey::of(client);
                    self.send_shared(key, &message, b"");
                    self.release_shared(key);
                }
                Action::End { client, status, why } => self.fail(CallKey::of(client), status, &why),
            }
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
        let mut call = Call::new(nobody(), request, false, self.now);
        call.role = Role::Own(id.0, id.1);
        let key = self.calls.insert(call);
        self.own.insert(id, key);
        self.dispatch(key);
    }
}

/// As gRPC has it on the wire.
fn with_prefix(head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + head.len() + tail.len());
    framed.push(0);
    framed.extend(u32::try_from(head.len() + tail.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(head);
    framed.extend_from_slice(tail);
    framed
}

/// The messages that are complete with these bytes; the beginning of the next one stays in `rest`. `None` when they are
/// compressed, or one is too long.
fn take_messages(rest: &mut Vec<u8>, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    rest.extend_from_slice(bytes);
    let mut left = &rest[..];
    let mut messages = Vec::new();
    while let Some((&[flag, a, b, c, d], after)) = left.split_first_chunk::<PREFIX>() {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > LONGEST || flag != 0 {
            return None;
        }
        let Some(message) = after.get(..length) else { break };
        left = &after[length..];
        messages.push(message.to_vec());
    }
    let used = rest.len() - left.len();
    rest.drain(..used);
    if rest.is_empty() {
        *rest = Vec::new();
    }
    Some(messages)
}
