//! A call's way: from the client to the member, and its answer back.

use std::rc::Rc;
use std::time::Duration;

use etcdproxy_http2::{Code, hpack};

use super::call::{Call, CallKey, End, Role, Share};
use super::head::{Answer, Request, status};
use super::state::Engine;
use super::translate::{Refused, Translation};
use crate::api::auth::Refusal;
use crate::api::methods::Shape;
use crate::proxy::native::stats::{Repeat, add};

/// How many calls there may be.
pub(super) const CALLS: usize = 64 * 1024;
/// A member's clock may end a call that much earlier than ours, because it got its time in whole milliseconds.
const TOLERANCE: Duration = Duration::from_millis(2);

impl Engine {
    pub(super) fn opened(&mut self, client: End, request: Rc<Request>, end: bool) {
        if let Some(status) = request.refused {
            let mut block = Vec::new();
            hpack::encode(&mut block, b":status", status.as_bytes());
            return self.send_headers(client, &block, true);
        }
        if self.calls.len() >= CALLS {
            self.is_full = true;
            self.stats.ended(request.method, status::UNAVAILABLE, None);
            self.with(client.peer, |http2| http2.reset(client.stream, Code::REFUSED_STREAM));
            return;
        }
        let share = Share::of(&request);
        let role = share.map_or(Role::Forwarded, Role::Shared);
        if role == Role::Forwarded {
            add(&self.stats.in_flight, 1);
        }
        // Whoever serves watches knows of the namespace.
        let is_changed = share != Some(Share::Watches);
        let translation = if is_changed { Translation::of(&self.rules, &request) } else { Ok(None) };
        let mut call = Call::new(client, request, end, self.now);
        call.role = role;
        let key = self.calls.insert(call);
        self.with(client.peer, |http2| http2.accept(client.stream, key.tag()));
        match translation {
            Ok(translation) => self.calls[key].translation = translation,
            Err(refused) => return self.refuse(key, refused),
        }
        if let Some(share) = share {
            self.share(key, share);
            if end {
                self.shared_request(key, share, b"", true);
            }
            return self.count_call(key);
        }
        if self.login.logs_in && self.calls[key].request.token.is_none() {
            self.calls[key].needs_token();
        }
        self.count_call(key);
        if self.calls[key].must_go() {
            self.dispatch(key);
        }
    }

    pub(super) fn request_data(&mut self, key: CallKey, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.has_ended |= end;
        if let Role::Shared(share) = call.role {
            return self.shared_request(key, share, bytes, end);
        }
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
        if call.has_room() {
            let (client, owed) = (call.client, std::mem::take(&mut call.owed_to_client));
            self.with(client.peer, |http2| http2.release(client.stream, owed));
        }
        self.count_call(key);
        if must_go {
            self.dispatch(key);
        }
    }

    /// Some of the request has gone out: its client may send more.
    pub(super) fn sent_to_member(&mut self, key: CallKey, bytes: usize) {
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
    pub(super) fn sent_to_client(&mut self, key: CallKey, bytes: usize) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let client = call.client;
        let is_waiting = self.peers.get(client.peer).is_some_and(|peer| peer.wire.http2.is_waiting(client.stream));
        let released = if is_waiting { bytes.min(call.owed_to_member) } else { call.owed_to_member };
        call.owed_to_member -= released;
        if let Some(member) = call.member.filter(|_| released > 0) {
            self.with(member.peer, |http2| http2.release(member.stream, released));
        }
    }

    pub(super) fn answer_headers(&mut self, key: CallKey, answer: Rc<Answer>, end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if answer.is_interim {
            return;
        }
        if let Role::Own(..) = call.role {
            if end {
                self.own_ended(key, &answer);
            }
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
        if end && self.calls.get(key).is_some_and(Call::is_ours) {
            return self.present_is_known(key, &answer);
        }
        self.forward_held(key);
        self.forward_headers(key, &answer, end);
        if end {
            self.end_call(key, answer.status.unwrap_or(status::UNKNOWN));
        }
    }

    pub(super) fn answer_data(&mut self, key: CallKey, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Role::Own(share, number) = call.role {
            self.own_answer(key, (share, number), bytes);
            if end {
                self.own_lost(key);
            }
            return;
        }
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
        if !end && call.holds(bytes) {
            return self.count_call(key);
        }
        if is_counted {
            self.count_call(key);
        }
        self.forward_held(key);
        let sent = self.with(client.peer, |http2| http2.send_data(client.stream, bytes, end));
        self.sent_to_client(key, sent.unwrap_or_default());
        if end {
            // Without trailers, nobody knows.
            self.end_call(key, status::UNKNOWN);
        }
    }

    pub(super) fn forward_held(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (client, message) = (call.client, std::mem::take(&mut call.message));
        if let Some(held) = call.held.take() {
            self.forward_headers(key, &held, false);
        }
        if !message.is_empty() {
            let sent = self.with(client.peer, |http2| http2.send_data(client.stream, &message, false));
            self.sent_to_client(key, sent.unwrap_or_default());
        }
    }

    pub(super) fn forward_headers(&mut self, key: CallKey, answer: &Answer, end: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.is_answered = true;
        call.forget();
        let client = call.client;
        self.count_call(key);
        self.send_headers(client, &answer.block, end);
    }

    /// Sends a call again that a member has answered with an error, if that can help.
    pub(super) fn repeats(&mut self, key: CallKey, answer: &Answer) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let (is_refused, is_old) = (wants_new_token(call, answer), self.is_old_token(call, answer));
        let call = &mut self.calls[key];
        let why = if is_refused && call.can_be_renewed() {
            if is_old {
                self.login.token = None;
            }
            Repeat::Token
        } else if is_passing(answer) && call.can_be_repeated(false) {
            Repeat::LeaderChanged
        } else {
            return false;
        };
        if !self.may_repeat(key, why) {
            return false;
        }
        self.calls[key].begin_again();
        self.dispatch(key);
        true
    }

    /// Whether the budget allows to send a call again; counts that.
    fn may_repeat(&mut self, key: CallKey, why: Repeat) -> bool {
        let is_allowed = self.budget.spend();
        if self.calls.get(key).is_some_and(|call| !call.is_ours()) {
            self.stats.repeated(why, is_allowed);
        }
        is_allowed
    }

    /// Whether the member refuses our token, and there is no newer one.
    pub(super) fn is_old_token(&self, call: &Call, answer: &Answer) -> bool {
        wants_new_token(call, answer) && call.token == self.login.number
    }

    /// The client gives the call up, or we do: `code` is gRPC's status for that.
    pub(super) fn canceled(&mut self, key: CallKey, code: u32) {
        let Some(call) = self.end_call(key, code) else { return };
        self.cancel_at_member(call.member);
    }

    /// Tells a member that nobody waits for its answer any more.
    pub(super) fn cancel_at_member(&mut self, member: Option<End>) {
        if let Some(member) = member {
            self.with(member.peer, |http2| http2.reset(member.stream, Code::CANCEL));
            self.end_if_unused(member.peer);
        }
    }

    /// The member gives the call up, or is gone. Unless it has not looked at it, it may have begun to carry it out.
    pub(super) fn lost_by_member(&mut self, key: CallKey, how: Repeat, why: &str) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Role::Own(..) = call.role {
            return self.own_lost(key);
        }
        if call.can_be_repeated(how == Repeat::NotProcessed) && self.may_repeat(key, how) {
            self.calls[key].begin_again();
            return self.dispatch(key);
        }
        self.fail(key, status::UNAVAILABLE, why);
    }

    /// The member gives the call up. gRPC has a status for each code of HTTP/2, so the client gets the same code.
    pub(super) fn reset_by_member(&mut self, key: CallKey, code: Code) {
        let Some(call) = self.calls.get(key) else { return };
        let how = if code == Code::REFUSED_STREAM { Repeat::NotProcessed } else { Repeat::GivenUp };
        if call.is_ours() || call.can_be_repeated(how == Repeat::NotProcessed) {
            self.lost_by_member(key, how, "etcdproxy: the member has given the call up");
        } else if code == Code::REFUSED_STREAM {
            self.fail(key, status::UNAVAILABLE, "etcdproxy: the member refuses the call");
        } else if call.deadline().is_some_and(|deadline| deadline <= self.now + TOLERANCE) {
            // etcd may do that instead of an answer.
            self.fail(key, status::DEADLINE_EXCEEDED, "etcdproxy: the member gave the call up when its time was over");
        } else {
            let client = call.client;
            self.end_call(key, status::of_reset(code));
            self.with(client.peer, |http2| http2.reset(client.stream, code));
            self.finish_if_drained(client.peer);
        }
    }

    /// Ends a call that must not go on.
    pub(super) fn refuse(&mut self, key: CallKey, (status, why): Refused) {
        self.cancel_at_member(self.calls.get(key).and_then(|call| call.member));
        self.fail(key, status, &why);
    }

    /// Ends a call that no member answers.
    pub(super) fn fail(&mut self, key: CallKey, status: u32, why: &str) {
        let Some(call) = self.end_call(key, status) else { return };
        if call.is_ours() {
            return self.own_failed(&call, status, why);
        }
        let answer = Answer::error(status, why, call.is_answered);
        self.send_headers(call.client, &answer.block, true);
        self.finish_if_drained(call.client.peer);
    }
}

/// Whether the member refuses our token.
fn wants_new_token(call: &Call, answer: &Answer) -> bool {
    let refusal = answer.status.zip(str::from_utf8(&answer.message).ok());
    let refusal = refusal.and_then(|(status, message)| Refusal::recognise(status, message));
    call.token > 0 && refusal.is_some_and(Refusal::asks_for_a_new_token)
}

/// Whether a read may succeed a moment later, on the same member or another.
fn is_passing(answer: &Answer) -> bool {
    answer.status == Some(status::UNAVAILABLE) && answer.message.ends_with(b"leader changed")
}
