//! A model of etcd's watch: three members that apply a log, and streams that behave as etcd's code does, with all the
//! freedom that it has. What may come in any order, comes in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;

use super::super::Upstream;
use super::proto::{Create, Event, Header, KeyValue, Union, WatchRequest, WatchResponse};

pub(super) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(super) const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
pub(super) const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
pub(super) const EMPTY: &str = "mvcc: watcher range is empty";
pub(super) const BAD_TOKEN: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";

/// A source of decisions.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below this one.
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.roll(count) == 0
    }
}

/// How the etcd of a case behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Progress is answered at once, whatever is still to come (before 3.5.8).
    Early,
    /// Progress waits until the next event (3.5.8 to 3.5.12).
    Deferred,
    /// Progress is answered if all watchers have caught up (until 3.5.21).
    Synced,
    /// The same, and if none of them begins in the future.
    Now,
}

pub(super) struct Cluster {
    pub(super) version: Version,
    /// All events, by revision. The first revision is 1 and empty.
    pub(super) log: Vec<Vec<Event>>,
    pub(super) compacted: i64,
    /// How far the members are.
    pub(super) applied: [i64; 3],
    pub(super) streams: BTreeMap<Upstream, Stream>,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) member: usize,
    /// Who asks: it may not watch the key `d` when it is 1. 2 has a token that is not valid any more.
    pub(super) who: usize,
    pub(super) requests: VecDeque<Vec<u8>>,
    watchers: BTreeMap<i64, Watcher>,
    control: VecDeque<WatchResponse>,
    channel: VecDeque<WatchResponse>,
    announced: BTreeSet<i64>,
    early: BTreeMap<i64, Vec<WatchResponse>>,
    deferred: bool,
    pub(super) out: VecDeque<Vec<u8>>,
}

struct Watcher {
    request: Create,
    next: i64,
    synced: bool,
    compacted: bool,
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        self.request.wants(event)
    }
}

impl Create {
    pub(super) fn has(&self, key: &[u8]) -> bool {
        match &*self.range_end {
            [] => key == self.key,
            [0] => key >= &*self.key,
            end => key >= &*self.key && key < end,
        }
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        self.has(&event.kv.as_ref().unwrap().key) && !self.filters.contains(&event.kind)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range_end.len() > 1 && self.range_end <= self.key
            || self.range_end.len() == 1 && self.range_end != [0] && self.range_end <= self.key
    }
}

impl Cluster {
    pub(super) fn new(version: Version) -> Self {
        Self { version, log: vec![vec![], vec![]], compacted: 0, applied: [1; 3], streams: BTreeMap::new() }
    }

    pub(super) fn revision(&self) -> i64 {
        i64::try_from(self.log.len()).unwrap() - 1
    }

    /// A transaction: keys, and whether each is deleted.
    pub(super) fn write(&mut self, keys: &[(&[u8], bool)]) {
        let mod_revision = self.revision() + 1;
        let event = |(key, is_deleted): &(&[u8], bool)| {
            let kv = KeyValue { key: key.to_vec(), mod_revision, ..KeyValue::default() };
            Event { kind: i32::from(*is_deleted), kv: Some(kv), previous: None }
        };
        self.log.push(keys.iter().map(event).collect());
    }

    pub(super) fn header(member: usize, revision: i64) -> Header {
        Header { cluster: 7, member: member as u64 + 1, revision, term: 2 }
    }

    pub(super) fn open(&mut self, upstream: Upstream, member: usize, who: usize) {
        let stream = Stream { member, who, ..Stream::default() };
        assert!(self.streams.insert(upstream, stream).is_none(), "a number is used twice");
    }

    /// A member applies the next revision, and tells the watchers that have caught up.
    pub(super) fn apply(&mut self, member: usize, dice: &mut Dice) {
        if self.applied[member] == self.revision() {
            return;
        }
        self.applied[member] += 1;
        let revision = self.applied[member];
        let events = &self.log[usize::try_from(revision).unwrap()];
        let header = Self::header(member, revision);
        for stream in self.streams.values_mut().filter(|stream| stream.member == member) {
            for (id, watcher) in &mut stream.watchers {
                if !watcher.synced || revision < watcher.next {
                    continue;
                }
                // Its channel is full.
                if dice.one_in(20) {
                    watcher.synced = false;
                    continue;
                }
                watcher.next = revision + 1;
                let events: Vec<_> = events.iter().filter(|event| watcher.wants(event)).cloned().collect();
                if !events.is_empty() {
                    let header = Some(header.clone());
                    stream.channel.push_back(WatchResponse { header, id: *id, events, ..WatchResponse::default() });
                }
            }
        }
    }

    /// Watchers that have not caught up get their next events.
    pub(super) fn sync(&mut self, upstream: Upstream, dice: &mut Dice) {
        let (applied, compacted) = (self.applied, self.compacted);
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        let now = applied[stream.member];
        let header = Self::header(stream.member, now);
        for (id, watcher) in &mut stream.watchers {
            if watcher.synced || watcher.compacted || dice.one_in(3) {
                continue;
            }
            if watcher.next < compacted {
                watcher.compacted = true;
                let compact_revision = compacted;
                let header = Some(Header { revision: 0, ..header.clone() });
                let answer =
                    WatchResponse { header, id: *id, canceled: true, compact_revision, ..WatchResponse::default() };
                stream.channel.push_back(answer);
                continue;
            }
            let mut events = Vec::new();
            let mut revisions = dice.roll(4) + 1;
            while watcher.next <= now && revisions > 0 {
                let all = self.log.get(usize::try_from(watcher.next).unwrap()).into_iter().flatten();
                let found: Vec<_> = all.filter(|event| watcher.wants(event)).cloned().collect();
                revisions -= usize::from(!found.is_empty());
                events.extend(found);
                watcher.next += 1;
            }
            watcher.synced = watcher.next > now;
            if !events.is_empty() {
                let header = Some(header.clone());
                stream.channel.push_back(WatchResponse { header, id: *id, events, ..WatchResponse::default() });
            }
        }
    }

    /// A member carries out the next request of a stream.
    pub(super) fn receive(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        let Some(request) = stream.requests.pop_front() else { return };
        let now = self.applied[stream.member];
        let header = Self::header(stream.member, now);
        match WatchRequest::decode(&*request).unwrap().union.unwrap() {
            Union::Create(request) => {
                let mut answer = WatchResponse { header: Some(header), created: true, ..WatchResponse::default() };
                let is_denied = stream.who == 1 && request.has(b"d");
                let reason = if stream.who == 2 {
                    BAD_TOKEN
                } else if request.start < 0 {
                    COMPACTED
                } else if is_denied {
                    DENIED
                } else if request.is_empty() {
                    EMPTY
                } else {
                    ""
                };
                assert!(request.fragment && request.id > 0);
                if reason.is_empty() {
                    let synced = request.start == 0 || request.start > now;
                    let next = if request.start == 0 { now + 1 } else { request.start };
                    answer.id = request.id;
                    let watcher = Watcher { next, synced, compacted: false, request };
                    assert!(stream.watchers.insert(answer.id, watcher).is_none(), "an id is used twice");
                } else {
                    (answer.id, answer.canceled, answer.reason) = (-1, true, reason.to_owned());
                }
                // Its header says where the member is a moment later: see `announce`.
                stream.control.push_back(answer);
            }
            Union::Cancel(cancel) => {
                if stream.watchers.remove(&cancel.id).is_some() {
                    let header = Some(header);
                    let answer = WatchResponse { header, id: cancel.id, canceled: true, ..WatchResponse::default() };
                    stream.control.push_back(answer);
                }
            }
            Union::Progress(_) if self.version == Version::Early => {
                let header = Some(header);
                stream.control.push_back(WatchResponse { header, id: -1, ..WatchResponse::default() });
            }
            Union::Progress(_) if stream.deferred => {}
            Union::Progress(_) => {
                let is_done = stream.progress(now, self.version, header);
                stream.deferred = !is_done && self.version == Version::Deferred;
            }
        }
    }

    /// The same, but the member applies revisions between making a watcher and looking at its revision.
    pub(super) fn receive_late(&mut self, upstream: Upstream, dice: &mut Dice) {
        self.receive(upstream);
        let Some(member) = self.streams.get(&upstream).map(|stream| stream.member) else { return };
        self.apply(member, dice);
        let revision = self.applied[member];
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        if let Some(last) = stream.control.back_mut().filter(|last| last.created)
            && let Some(header) = &mut last.header
        {
            header.revision = revision;
        }
    }

    /// A member sends the next message of a stream.
    pub(super) fn send(&mut self, upstream: Upstream, dice: &mut Dice) {
        let (version, applied) = (self.version, self.applied);
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        let takes_control = if stream.channel.is_empty() { true } else { dice.one_in(2) };
        if takes_control && let Some(answer) = stream.control.pop_front() {
            stream.out.push_back(answer.encode_to_vec());
            if answer.canceled && answer.id != -1 {
                stream.announced.remove(&answer.id);
            } else if answer.created {
                stream.announced.insert(answer.id);
                for answer in stream.early.remove(&answer.id).unwrap_or_default() {
                    stream.out.push_back(answer.encode_to_vec());
                }
            }
        } else if let Some(answer) = stream.channel.pop_front() {
            if answer.id != -1 && !stream.announced.contains(&answer.id) {
                stream.early.entry(answer.id).or_default().push(answer);
                return;
            }
            stream.send_in_pieces(&answer, dice);
            if stream.deferred {
                let now = applied[stream.member];
                let header = Self::header(stream.member, now);
                stream.deferred = !stream.progress(now, version, header);
            }
        }
    }

    /// A member tells a watcher that asked for it how far it is.
    pub(super) fn notify(&mut self, upstream: Upstream) {
        let applied = self.applied;
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        let revision = applied[stream.member];
        let header = Self::header(stream.member, revision);
        for (id, watcher) in &stream.watchers {
            if watcher.request.notifies && watcher.synced && watcher.request.start <= revision {
                let header = Some(header.clone());
                stream.channel.push_back(WatchResponse { header, id: *id, ..WatchResponse::default() });
            }
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |stream: &Stream| {
            let has_nothing = stream.requests.is_empty() && stream.control.is_empty() && stream.channel.is_empty();
            has_nothing && stream.out.is_empty() && stream.watchers.values().all(|one| one.synced || one.compacted)
        };
        self.applied == [self.revision(); 3] && self.streams.values().all(is_idle)
    }
}

impl Stream {
    fn progress(&mut self, now: i64, version: Version, header: Header) -> bool {
        let is_synced = |watcher: &Watcher| {
            watcher.synced && !watcher.compacted && (version != Version::Now || watcher.request.start <= now)
        };
        if !self.watchers.values().all(is_synced) {
            return false;
        }
        if !self.watchers.is_empty() {
            self.channel.push_back(WatchResponse { header: Some(header), id: -1, ..WatchResponse::default() });
        }
        true
    }

    fn send_in_pieces(&mut self, answer: &WatchResponse, dice: &mut Dice) {
        let mut events = answer.events.clone();
        loop {
            let count = if dice.one_in(2) { dice.roll(3) + 1 } else { events.len() };
            let rest = events.split_off(count.min(events.len()));
            let piece = WatchResponse { events, fragment: !rest.is_empty(), ..answer.clone() };
            self.out.push_back(piece.encode_to_vec());
            if rest.is_empty() {
                return;
            }
            events = rest;
        }
    }
}
