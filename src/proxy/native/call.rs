//! A call: a stream of a client, and the stream to a member that serves it.

use std::rc::Rc;
use std::time::Instant;

use slotmap::new_key_type;

use super::head::{Answer, Request};

new_key_type! {
    /// A connection of the engine.
    pub(super) struct PeerKey;
    /// A call.
    pub(super) struct CallKey;
}

/// The longest request that is kept so that it can be sent again, in bytes.
pub(super) const KEPT: usize = 64 * 1024;

/// How often a call is sent at most.
pub(super) const MAX_ATTEMPTS: u8 = 4;

/// One end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub peer: PeerKey,
    pub stream: u32,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub client: End,
    /// `None` before it is sent, and between two attempts.
    pub member: Option<End>,
    pub request: Rc<Request>,
    /// One message in, one message out.
    pub is_unary: bool,
    /// A read, which may be sent again.
    pub is_read: bool,
    /// What the client has sent, as long as it may have to be sent, or sent again.
    pub body: Vec<u8>,
    /// `body` is everything that the client has sent so far.
    pub is_kept: bool,
    /// The client has sent everything.
    pub has_ended: bool,
    /// Bytes of `body` that the client may already send again.
    pub released: usize,
    /// The headers of the answer, which wait for its first message.
    pub held: Option<Rc<Answer>>,
    /// Something of the answer has gone to the client.
    pub is_answered: bool,
    pub attempts: u8,
    pub began: Instant,
}

impl Call {
    pub(super) fn new(client: End, request: Rc<Request>, has_ended: bool, now: Instant) -> Self {
        let method = Method::of(&request.path);
        Self {
            client,
            member: None,
            request,
            is_unary: method != Method::Stream,
            is_read: method == Method::Read,
            body: Vec::new(),
            is_kept: true,
            has_ended,
            released: 0,
            held: None,
            is_answered: false,
            attempts: 0,
            began: now,
        }
    }

    /// Whether it can be sent to another member. `is_seen`: a member may have begun to carry it out.
    pub(super) fn can_be_repeated(&self, is_seen: bool) -> bool {
        !self.is_answered && self.is_kept && self.attempts < MAX_ATTEMPTS && (!is_seen || self.is_read)
    }

    /// The body is not needed any more.
    pub(super) fn forget(&mut self) {
        self.is_kept = false;
        self.body = Vec::new();
    }

    /// It goes to a member once more.
    pub(super) fn begin_again(&mut self) {
        self.member = None;
        self.held = None;
        self.attempts += 1;
        // The client sent all of it long ago.
        self.released = self.body.len();
    }

    /// How many bytes its client may send again when `sent` have gone out to a member.
    pub(super) fn to_release(&mut self, sent: usize) -> usize {
        let known = self.released.min(sent);
        self.released -= known;
        sent - known
    }

    /// When its client gives up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.began.checked_add(self.request.patience()?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Read,
    Other,
    Stream,
}

impl Method {
    fn of(path: &[u8]) -> Self {
        match path {
            b"/etcdserverpb.KV/Range" => Self::Read,
            path if path.starts_with(b"/etcdserverpb.KV/") => Self::Other,
            _ => Self::Stream,
        }
    }
}
