//! A client that knows the truth, and checks every message against it.

use std::collections::{BTreeMap, VecDeque};

use super::cluster::{BAD_TOKEN, COMPACTED, Cluster, DENIED, DUPLICATE, EMPTY};
use super::proto::{Create, Event, WatchResponse};

#[derive(Default)]
pub(super) struct Client {
    pub(super) who: usize,
    /// Before the keys of its requests.
    pub(super) prefix: Vec<u8>,
    /// What it has sent and what was not answered yet.
    sent: VecDeque<Sent>,
    pub(super) watchers: BTreeMap<i64, Option<Watcher>>,
    next_id: i64,
    progress: i64,
    pub(super) progress_answers: usize,
    /// What it has not read.
    pub(super) inbox: VecDeque<WatchResponse>,
}

#[derive(Debug)]
enum Sent {
    Create(Create),
    Cancel(i64),
}

pub(super) struct Watcher {
    pub(super) request: Create,
    /// The first revision that it wants.
    pub(super) from: i64,
    /// What it has got.
    pub(super) got: Vec<Event>,
    /// The last message was not the last piece.
    is_open: bool,
}

impl Watcher {
    /// What it must have got up to this revision.
    fn expected(&self, prefix: &[u8], cluster: &Cluster, until: i64) -> Vec<Event> {
        let first = usize::try_from(self.from.max(0)).unwrap();
        let mut events = Vec::new();
        for event in cluster.log.iter().skip(first).flatten() {
            let mut event = event.clone();
            let kv = event.kv.as_mut().unwrap();
            let Some(key) = kv.key.strip_prefix(prefix) else { continue };
            kv.key = key.to_vec();
            if self.request.wants(&event) && event.revision() <= until {
                events.push(event);
            }
        }
        events
    }
}

impl Client {
    pub(super) fn new(who: usize, prefix: &[u8]) -> Self {
        Self { who, prefix: prefix.to_vec(), ..Self::default() }
    }

    pub(super) fn creates(&mut self, request: Create) {
        self.sent.push_back(Sent::Create(request));
    }

    pub(super) fn cancels(&mut self, id: i64) {
        self.sent.push_back(Sent::Cancel(id));
    }

    /// Reads the next message.
    pub(super) fn read(&mut self, cluster: &Cluster) {
        let Some(message) = self.inbox.pop_front() else { return };
        if message.created {
            self.is_created(&message, cluster);
        } else if message.canceled {
            self.is_canceled(&message, cluster);
        } else if message.id == -1 {
            assert!(message.revision() >= self.progress, "progress goes back");
            self.progress = message.revision();
            self.progress_answers += 1;
            let ids: Vec<_> = self.watchers.keys().copied().collect();
            for id in ids {
                self.is_at(id, message.revision(), cluster);
            }
        } else if message.events.is_empty() {
            self.is_at(message.id, message.revision(), cluster);
        } else {
            self.has_events(message);
        }
    }

    fn is_created(&mut self, message: &WatchResponse, cluster: &Cluster) {
        let request = loop {
            match self.sent.pop_front().expect("an answer without a request") {
                Sent::Create(request) => break request,
                // Answered only if there is a watcher.
                Sent::Cancel(id) => assert!(!self.watchers.contains_key(&id), "no answer to a cancel of {id}"),
            }
        };
        assert!(message.revision() <= cluster.revision());
        let full = |key: &[u8]| [&self.prefix, key].concat();
        let is_denied = self.who == 1 && {
            let end = if request.range_end.is_empty() { Vec::new() } else { full(&request.range_end) };
            Create { key: full(&request.key), range_end: end, ..Create::default() }.has(b"d")
        };
        let is_duplicate = request.id != 0 && self.watchers.contains_key(&request.id);
        let reason = if self.who == 2 {
            BAD_TOKEN
        } else if request.start < 0 {
            COMPACTED
        } else if is_denied {
            DENIED
        } else if request.is_empty() {
            EMPTY
        } else if is_duplicate {
            DUPLICATE
        } else {
            ""
        };
        assert_eq!(message.reason, reason, "{request:?}");
        if message.canceled {
            assert_eq!(message.id, -1);
            return;
        }
        assert!(reason.is_empty(), "it was created: {request:?}");
        let id = if request.id == 0 {
            while self.watchers.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        } else {
            request.id
        };
        assert_eq!(message.id, id, "{request:?}");
        let from = if request.start == 0 { message.revision() + 1 } else { request.start };
        self.watchers.insert(id, Some(Watcher { request, from, got: Vec::new(), is_open: false }));
    }

    fn is_canceled(&mut self, message: &WatchResponse, cluster: &Cluster) {
        if message.compact_revision > 0 {
            let watcher = self.watchers.get_mut(&message.id).unwrap().take().expect("it is canceled twice");
            assert!(message.compact_revision <= cluster.compacted);
            assert!(watcher.from < message.compact_revision, "nothing that it needs is compacted");
            return;
        }
        loop {
            match self.sent.pop_front() {
                Some(Sent::Cancel(id)) if id == message.id => break,
                Some(Sent::Cancel(id)) => assert!(!self.watchers.contains_key(&id), "no answer to a cancel of {id}"),
                other => panic!("canceled without a reason: {other:?}, {message:?}"),
            }
        }
        assert!(self.watchers.remove(&message.id).is_some(), "it is canceled twice");
    }

    fn has_events(&mut self, message: WatchResponse) {
        let watcher = self.watchers.get_mut(&message.id).unwrap().as_mut().expect("events after the end");
        assert!(watcher.request.fragment || !message.fragment, "pieces that nobody asked for");
        let first = message.events.first().unwrap().revision();
        let last = watcher.got.last().map_or(0, Event::revision);
        assert!(first > last || watcher.is_open, "revision {first} comes in two messages");
        assert!(message.revision() >= message.events.last().unwrap().revision());
        watcher.is_open = message.fragment;
        watcher.got.extend(message.events);
    }

    /// A watcher hears that it has got everything up to this revision.
    fn is_at(&self, id: i64, revision: i64, cluster: &Cluster) {
        assert!(revision <= cluster.revision());
        let Some(watcher) = self.watchers.get(&id).expect("progress of no watcher") else { return };
        let expected = watcher.expected(&self.prefix, cluster, revision);
        assert!(watcher.got.starts_with(&expected), "progress {revision} is not true of {:?}", watcher.request);
    }

    /// What it has got is the beginning of what it must get.
    pub(super) fn check(&self, cluster: &Cluster) {
        for (id, watcher) in &self.watchers {
            let Some(watcher) = watcher else { continue };
            let expected = watcher.expected(&self.prefix, cluster, i64::MAX);
            let got = &watcher.got;
            assert!(
                expected.starts_with(got),
                "watcher {id}: {:?}\n got {got:?}\n expected {expected:?}",
                watcher.request
            );
        }
    }

    /// There is nothing more to come.
    pub(super) fn check_all(&self, cluster: &Cluster) {
        let is_open = |sent: &Sent| match sent {
            Sent::Create(_) => true,
            Sent::Cancel(id) => self.watchers.contains_key(id),
        };
        assert!(!self.sent.iter().any(is_open), "no answer to {:?}", self.sent);
        for id in self.watchers.keys() {
            self.is_at(*id, cluster.revision(), cluster);
        }
    }

    /// Whether etcd would answer a request for progress.
    pub(super) fn may_hear_progress(&self, cluster: &Cluster) -> bool {
        let mut live = self.watchers.values().flatten().peekable();
        live.peek().is_some() && live.all(|watcher| watcher.request.start <= cluster.revision())
    }
}
