//! What the hub remembers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slotmap::{SlotMap, new_key_type};

use super::action::{Action, ClientTag, Identity, Question, Upstream};
use crate::api::namespace::Namespace;
use crate::api::watch::{Header, Spec};

new_key_type! {
    pub(super) struct ClientKey;
    pub(super) struct WatcherKey;
    pub(super) struct SourceKey;
    pub(super) struct GroupKey;
}

/// See [`super`].
pub(in crate::proxy::native) struct Hub {
    pub(super) namespace: Option<Namespace>,
    /// Callers without a token act as the sidecar's user.
    pub(super) logs_in: bool,
    pub(super) now: Instant,
    pub(super) clients: SlotMap<ClientKey, Client>,
    pub(super) tags: FxHashMap<ClientTag, ClientKey>,
    pub(super) watchers: SlotMap<WatcherKey, Watcher>,
    pub(super) sources: SlotMap<SourceKey, Source>,
    pub(super) groups: SlotMap<GroupKey, Group>,
    pub(super) identities: HashMap<Identity, GroupKey>,
    pub(super) streams: FxHashMap<Upstream, Stream>,
    pub(super) questions: FxHashMap<Question, (GroupKey, Scope)>,
    /// For numbers that are never used twice.
    pub(super) last_number: u64,
    pub(super) last_id: i64,
    pub(super) actions: VecDeque<Action>,
    pub(super) counts: Counts,
}

/// Figures for the metrics. All of them only grow, but the first four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy::native) struct Counts {
    pub client_watchers: usize,
    pub upstream_watchers: usize,
    /// Calls of clients, and ours to members.
    pub clients: usize,
    pub streams: usize,
    /// Events that members have sent.
    pub received: u64,
    /// Events handed out, counted once for each watcher.
    pub events: u64,
    /// Watchers that were opened again at a member.
    pub resumes: u64,
}

/// A client's call of `Watch`.
pub(super) struct Client {
    pub tag: ClientTag,
    pub group: GroupKey,
    /// The ids in use. `None` is one that was canceled by a member: etcd keeps its id until the client cancels it too.
    pub ids: BTreeMap<i64, Option<WatcherKey>>,
    /// The next id to try for a watcher without one.
    pub next_id: i64,
    /// What waits for its turn.
    pub queue: VecDeque<Queued>,
    /// How many of them ask for a watcher.
    pub creates: usize,
    /// How many bytes wait to be written, as far as we know.
    pub waiting: usize,
    /// It reads too slowly: its watchers have no source.
    pub is_slow: bool,
    /// How many requests for progress wait.
    pub asks_progress: usize,
    /// The stream on which we asked for progress for it, and how many requests that stream had got before.
    pub asked: Option<(Upstream, u64)>,
}

/// A request that waits for its turn.
pub(super) enum Queued {
    Create(WatcherKey),
    Cancel(i64),
    Progress,
}

/// A client's watcher.
pub(super) struct Watcher {
    pub client: ClientKey,
    /// The client's id for it; before it is announced, the one that it asks for.
    pub id: i64,
    pub spec: Spec,
    /// The start that the client asked for.
    pub start: i64,
    /// It gets events of this revision and later ones; 0 before it is known what "now" is.
    pub from: i64,
    pub fragment: bool,
    pub news: News,
    /// Its source, and its index there.
    pub place: Option<(SourceKey, usize)>,
    /// The header of the answer to its question: see [`super::join`].
    pub joined: Option<Header>,
}

/// What a client knows of its watcher.
pub(super) enum News {
    /// It waits for a member's answer.
    Waiting,
    /// It is created, but an earlier request of the client still waits. If there is a body, it is canceled at once.
    Ready(Header, Option<Rc<[u8]>>),
    /// It cannot be created; the body says why. An earlier request of the client still waits.
    Failed(Rc<[u8]>),
    /// The client knows that it is created.
    Announced,
}

/// A watcher at a member.
pub(super) struct Source {
    pub group: GroupKey,
    pub spec: Spec,
    /// Where it is, and its id there. `None` until there is a token.
    pub stream: Option<(Upstream, i64)>,
    /// The start that the member knows.
    pub start: i64,
    /// The member has created it.
    pub is_live: bool,
    /// Some member has created it once.
    pub was_created: bool,
    /// Its watchers have got every event up to this revision. `None` before it is known what "now" is.
    pub position: Option<i64>,
    /// The member's revision when it was created there.
    pub created_at: i64,
    /// How many requests for progress were sent before its own.
    pub asked_before: u64,
    /// The number of the last answer about progress that was true for it.
    pub confirmed: u64,
    /// It has got all events from before it was created. A watcher that wants only new ones loses no time with it.
    pub is_current: bool,
    /// The events of a revision whose rest has not come.
    pub held: Vec<(i64, Box<[u8]>)>,
    pub watchers: Vec<WatcherKey>,
    /// The source whose place it takes when it is created, and the one that takes its place.
    pub replaces: Option<SourceKey>,
    pub replaced_by: Option<SourceKey>,
}

/// The keys that a question is about; `None` when any key will do.
pub(super) type Scope = Option<(Vec<u8>, Vec<u8>)>;

/// All clients of one identity.
pub(super) struct Group {
    pub identity: Identity,
    pub clients: usize,
    pub stream: Option<Upstream>,
    /// For each watch, the source that others may join.
    pub shared: HashMap<Rc<[u8]>, SourceKey>,
    /// Watchers that wait for the present revision: those whose question was asked, and those who came later.
    pub asking: HashMap<Scope, (Vec<WatcherKey>, Vec<WatcherKey>)>,
    /// Clients whose requests for progress wait.
    pub progress: Vec<ClientKey>,
    /// The last header of a member, and the highest revision of any.
    pub header: Option<Header>,
    pub revision: i64,
    /// It waits for a new token.
    pub is_renewing: bool,
    /// How many tokens were refused one after the other.
    pub renewals: u8,
}

/// A call of `Watch` to a member.
pub(super) struct Stream {
    pub group: GroupKey,
    pub ids: FxHashMap<i64, SourceKey>,
    /// The ids of watchers that were asked for. etcd answers in this order.
    pub pending: VecDeque<i64>,
    /// The member has answered a request for a watcher.
    pub has_created: bool,
    /// What it says about progress is true: see [`super::progress`].
    pub is_trusted: bool,
    /// Requests for progress, and their answers. Not every request is answered.
    pub asked: u64,
    pub answered: u64,
    /// Requests since the last answer.
    pub unanswered: u32,
    pub asking: Asking,
    pub next_ask: Instant,
    /// It is opened again elsewhere then, or when the member has said how far its watchers are.
    pub leaves: Option<Instant>,
    /// The pause after the next one.
    pub pause: std::time::Duration,
}

/// Whether an answer about progress may come soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Yes,
    /// Another request must follow that one.
    Again,
}

impl Hub {
    /// `logs_in`: callers without a token act as a user of the cluster.
    pub(in crate::proxy::native) fn new(namespace: Option<Namespace>, logs_in: bool, now: Instant) -> Self {
        Self {
            namespace,
            logs_in,
            now,
            clients: SlotMap::with_key(),
            tags: FxHashMap::default(),
            watchers: SlotMap::with_key(),
            sources: SlotMap::with_key(),
            groups: SlotMap::with_key(),
            identities: HashMap::new(),
            streams: FxHashMap::default(),
            questions: FxHashMap::default(),
            last_number: 0,
            last_id: 0,
            actions: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What is to be done next.
    pub(in crate::proxy::native) fn next(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if self.actions.is_empty() && self.actions.capacity() > 4096 {
            self.actions = VecDeque::new();
        }
        action
    }

    pub(in crate::proxy::native) fn counts(&self) -> Counts {
        Counts {
            client_watchers: self.watchers.len(),
            upstream_watchers: self.sources.len(),
            clients: self.clients.len(),
            streams: self.streams.len(),
            ..self.counts
        }
    }

    /// A number that was not used before.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn send(&mut self, client: ClientKey, watch_id: i64, body: Rc<[u8]>) {
        let Some(client) = self.clients.get_mut(client) else { return };
        client.waiting += body.len();
        self.actions.push_back(Action::Send { client: client.tag, watch_id, body });
    }
}
