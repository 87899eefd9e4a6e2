//! A call: a stream of a client, and the stream to a member that serves it.

use std::rc::Rc;
use std::time::Instant;

use slotmap::{Key as _, KeyData, new_key_type};

use super::head::{Answer, PREFIX, Request};
use super::translate::Translation;
use crate::api::methods::Shape;
use crate::api::{lease, watch};

new_key_type! {
    /// A connection of the engine.
    pub(super) struct PeerKey;
    /// A call.
    pub(super) struct CallKey;
}

impl CallKey {
    /// The key with this tag.
    pub(super) fn of(tag: u64) -> Self {
        KeyData::from_ffi(tag).into()
    }

    /// What others know the call by.
    pub(super) fn tag(self) -> u64 {
        self.data().as_ffi()
    }
}

/// The longest request that is kept so that it can be sent again, in bytes.
const KEPT: usize = 64 * 1024;
/// The same if our token may be refused; etcd's own limit for requests is 1.5 MB.
const KEPT_WITH_TOKEN: usize = 2 * 1024 * 1024;

/// The longest message of an answer that waits for its end, in bytes.
const HELD: usize = 16 * 1024;

/// How often a call is sent at most.
const MAX_ATTEMPTS: u8 = 4;

/// How often a call is sent with a new token at most. Users may change all the time.
const MAX_RENEWALS: u8 = 10;

/// One end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub peer: PeerKey,
    pub stream: u32,
}

/// Who answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A member answers a client.
    Forwarded,
    /// We answer a client, with what it shares with others.
    Shared(Share),
    /// A member answers us: it is a stream of ours, for those who share. The number says which of ours.
    Own(Share, u64),
    /// A member answers us: it is the question with this number, what the present revision is.
    Question(u64),
}

/// What clients share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Share {
    /// Streams that keep leases alive.
    Leases,
    /// Streams of watchers.
    Watches,
}

impl Share {
    /// What clients share who make this call. What is compressed, we cannot read.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let path = request.method.filter(|_| !request.is_compressed).map(|method| method.path);
        match path? {
            lease::KEEP_ALIVE => Some(Self::Leases),
            watch::WATCH => Some(Self::Watches),
            _ => None,
        }
    }
}

/// A call.
pub(super) struct Call {
    pub role: Role,
    /// Nobody, whose key is null, if it is ours.
    pub client: End,
    /// `None` before it is sent, and between two attempts.
    pub member: Option<End>,
    pub request: Rc<Request>,
    pub shape: Shape,
    /// What the client has sent, as long as it may have to be sent, or sent again.
    pub body: Vec<u8>,
    /// The longest body that is kept, in bytes.
    longest: usize,
    /// `body` is everything that the client has sent so far.
    is_kept: bool,
    /// The client has sent everything.
    pub has_ended: bool,
    /// Changes the messages on their way.
    pub translation: Option<Box<Translation>>,
    /// Bytes that the client, and the member, has sent and may not yet send again.
    pub owed_to_client: usize,
    pub owed_to_member: usize,
    /// The headers of the answer, which wait for its first message.
    pub held: Option<Rc<Answer>>,
    /// The message of the answer, which waits for its end: members send the end on its own, and the client needs both.
    pub message: Vec<u8>,
    /// Something of the answer has gone to the client.
    pub is_answered: bool,
    attempts: u8,
    /// How often it was sent again with another token.
    renewals: u8,
    /// Which of our tokens it was sent with; 0 for none.
    pub token: u32,
    pub began: Instant,
    /// The memory that was counted for it, in bytes.
    pub counted: usize,
}

impl Call {
    pub(super) fn new(client: End, request: Rc<Request>, has_ended: bool, now: Instant) -> Self {
        Self {
            role: Role::Forwarded,
            client,
            member: None,
            // A method that we do not know may be anything.
            shape: request.method.map_or(Shape::Streams, |method| method.shape),
            request,
            body: Vec::new(),
            longest: KEPT,
            is_kept: true,
            has_ended,
            translation: None,
            owed_to_client: 0,
            owed_to_member: 0,
            held: None,
            message: Vec::new(),
            is_answered: false,
            attempts: 0,
            renewals: 0,
            token: 0,
            began: now,
            counted: 0,
        }
    }

    /// A call of our own.
    pub(super) fn ours(role: Role, request: Rc<Request>, now: Instant) -> Self {
        let nobody = End { peer: PeerKey::null(), stream: 0 };
        Self { role, ..Self::new(nobody, request, false, now) }
    }

    /// Whether it is ours, and no client's.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.role, Role::Own(..) | Role::Question(_))
    }

    /// It is sent with our token, which may be refused.
    pub(super) fn needs_token(&mut self) {
        self.longest = KEPT_WITH_TOKEN;
    }

    /// Whether its client may go on sending while it waits. Beyond that, the client's window is the limit.
    pub(super) fn has_room(&self) -> bool {
        self.body.len() <= self.longest
    }

    /// Whether it must be sent now. A request that is one message goes when it is complete, or too long to be kept.
    pub(super) fn must_go(&self) -> bool {
        let is_shared = matches!(self.role, Role::Shared(_));
        !is_shared && self.attempts == 0 && (self.shape == Shape::Streams || self.has_ended || !self.has_room())
    }

    /// It goes to a member for the first time, or waits for one.
    pub(super) fn goes(&mut self) {
        self.attempts = self.attempts.max(1);
    }

    /// How much memory it takes beside what every call takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |answer| answer.memory());
        let translation = self.translation.as_ref().map_or(0, |translation| translation.memory());
        self.body.capacity() + self.message.capacity() + self.request.memory() + held + translation
    }

    /// The body is needed only as long as it may be sent again.
    pub(super) fn sent(&mut self) {
        if self.shape == Shape::Streams || !self.has_ended || !self.has_room() {
            self.forget();
        }
    }

    /// Keeps a part of the answer until its end has come. Returns false if it must not wait.
    pub(super) fn holds(&mut self, bytes: &[u8]) -> bool {
        let holds = self.held.is_some() && self.message.len() + bytes.len() <= HELD;
        if holds {
            self.message.extend_from_slice(bytes);
        }
        holds
    }

    /// The body is not needed any more.
    pub(super) fn forget(&mut self) {
        self.is_kept = false;
        self.body = Vec::new();
    }

    /// Whether it may be sent once more. `has_refused`: no member has carried it out.
    pub(super) fn can_be_repeated(&self, has_refused: bool) -> bool {
        let is_possible = !self.is_answered && self.is_kept && self.attempts < MAX_ATTEMPTS;
        is_possible && (has_refused || self.may_ask_another())
    }

    /// Whether it may be sent once more with a new token: no member has carried it out.
    pub(super) fn can_be_renewed(&mut self) -> bool {
        let is_possible = !self.is_answered && self.is_kept && self.renewals < MAX_RENEWALS;
        self.renewals += u8::from(is_possible);
        self.attempts -= u8::from(is_possible).min(self.attempts);
        is_possible
    }

    /// Whether a member without a leader would keep it, and not answer for seconds.
    pub(super) fn needs_leader(&self) -> bool {
        match self.role {
            Role::Forwarded => self.shape == Shape::Unary && !self.may_ask_another(),
            Role::Own(share, _) => share == Share::Leases,
            Role::Shared(_) | Role::Question(_) => false,
        }
    }

    fn may_ask_another(&self) -> bool {
        match (self.request.method, self.body.get(PREFIX..)) {
            (Some(method), Some(message)) => !self.request.is_compressed && method.may_ask_another(message),
            _ => false,
        }
    }

    /// It goes to a member once more.
    pub(super) fn begin_again(&mut self) {
        self.member = None;
        self.held = None;
        self.message = Vec::new();
        self.owed_to_member = 0;
        self.attempts += 1;
        if let Some(translation) = &mut self.translation {
            translation.forget_answer();
        }
    }

    /// When its client gives up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.began.checked_add(self.request.patience()?)
    }
}
