//! Sources: watchers at a member. They are opened, and opened again when the member is gone.

use std::rc::Rc;
use std::time::Duration;

use super::action::{Action, End, Identity, Upstream};
use super::state::{GroupKey, Hub, News, Source, SourceKey, Stream, WatcherKey};
use crate::api::namespace;
use crate::api::watch::{self, Answer, Header, NO_ID};
use crate::api::wire::Error;

/// How etcd begins the reasons that another token may cure.
const TOKEN_REASONS: [&str; 2] = ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];

/// How many new tokens are tried one after the other.
const MAX_RENEWALS: u8 = 10;

/// How long to wait for an answer about progress before a stream is opened elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);

const INTERNAL: u32 = 13;

impl Hub {
    /// A message of a member.
    pub(in crate::proxy::native) fn answer(&mut self, upstream: Upstream, message: &[u8]) {
        if !self.streams.contains_key(&upstream) {
            return;
        }
        if let Err(err) = self.take_answer(upstream, message) {
            self.actions.push_back(Action::Close { upstream });
            self.ended(upstream, End::Status(INTERNAL, err.to_string()));
        }
    }

    fn take_answer(&mut self, upstream: Upstream, message: &[u8]) -> Result<(), Error> {
        let translated = match &self.namespace {
            Some(namespace) => Some(namespace.take_off(&namespace::WATCH_ANSWER, message)?),
            None => None,
        };
        let answer = Answer::decode(translated.as_deref().unwrap_or(message))?;
        let Some(stream) = self.streams.get_mut(&upstream) else { return Ok(()) };
        let group = &mut self.groups[stream.group];
        group.revision = group.revision.max(answer.revision);
        if answer.events.is_empty() && answer.revision > 0 {
            group.header = Some(Header::decode(answer.header)?);
        }
        if answer.created {
            self.created(upstream, answer)
        } else if answer.watch_id == NO_ID {
            self.progress_of_all(upstream, answer.revision);
            Ok(())
        } else {
            // A source without watchers is forgotten at once, though the member may have sent more.
            let Some(&source) = stream.ids.get(&answer.watch_id) else { return Ok(()) };
            if answer.canceled {
                self.canceled(source, &answer);
            } else if answer.events.is_empty() {
                self.progress_of_one(source, &answer);
            } else {
                self.counts.received += answer.events.len() as u64;
                self.deliver(source, answer);
            }
            Ok(())
        }
    }

    /// A call to a member has ended.
    pub(in crate::proxy::native) fn ended(&mut self, upstream: Upstream, end: End) {
        let Some(stream) = self.streams.remove(&upstream) else { return };
        match end {
            End::Lost => {
                // It was about to be opened with the new token anyway.
                self.groups[stream.group].is_renewing &= stream.leaves.is_none();
                self.open_again(stream.group, &stream);
            }
            End::Status(status, message) => {
                let clients: Vec<_> = self.clients.values().filter(|client| client.group == stream.group).collect();
                let tags: Vec<_> = clients.iter().map(|client| client.tag).collect();
                for client in tags {
                    self.close(client);
                    self.actions.push_back(Action::End { client, status, message: message.clone() });
                }
            }
        }
    }

    /// There is a new token for this identity. Everything goes on with it.
    pub(in crate::proxy::native) fn renew(&mut self, identity: &Identity) {
        let Some(&key) = self.identities.get(identity) else { return };
        if let Some(upstream) = self.groups[key].stream {
            self.leave_soon(upstream);
        } else {
            self.groups[key].is_renewing = false;
            self.send_unsent(key);
        }
    }

    /// Calls go to another member now, and so do the streams; but not those of callers with a token of their own, which
    /// may have become invalid since. As long as their member lives, they go on.
    pub(in crate::proxy::native) fn move_on(&mut self) {
        let is_sidecars = |stream: &Stream| self.groups[stream.group].identity == Identity::Sidecar;
        let streams = self.streams.iter().filter(|(_, stream)| is_sidecars(stream));
        let mut streams: Vec<_> = streams.map(|(upstream, _)| *upstream).collect();
        streams.sort_unstable();
        for upstream in streams {
            self.leave_soon(upstream);
        }
    }

    /// Opens a stream again that still works, when its member has said how far its watchers are. Without that, a watcher
    /// without events would be where it was some time ago, and what it needs then may be compacted.
    fn leave_soon(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        if stream.ids.is_empty() || !stream.has_created || !stream.is_trusted {
            return self.leave_stream(upstream);
        }
        stream.leaves = stream.leaves.or(Some(self.now + PATIENCE));
        self.ask_progress_now(upstream);
    }

    pub(super) fn leave_stream(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.remove(&upstream) else { return };
        self.groups[stream.group].is_renewing = false;
        self.actions.push_back(Action::Close { upstream });
        self.open_again(stream.group, &stream);
    }

    /// Opens the sources of a stream that is gone on a new one, each where it stands.
    fn open_again(&mut self, group: GroupKey, stream: &Stream) {
        self.groups[group].stream = None;
        let mut sources: Vec<_> = stream.ids.iter().collect();
        // In the order of the requests.
        sources.sort_unstable();
        let sources: Vec<_> = sources.into_iter().map(|(_, source)| *source).collect();
        for key in sources {
            let source = &mut self.sources[key];
            source.stream = None;
            self.counts.resumes += u64::from(source.is_live);
            source.forget_member();
            if source.watchers.is_empty() {
                self.remove_source(key);
            } else {
                self.request_source(key);
            }
        }
        self.send_unsent(group);
    }

    fn send_unsent(&mut self, group: GroupKey) {
        let is_unsent = |source: &Source| source.group == group && source.stream.is_none();
        let unsent: Vec<_> = self.sources.iter().filter(|(_, source)| is_unsent(source)).map(|(key, _)| key).collect();
        for source in unsent {
            self.request_source(source);
        }
    }

    /// Gives a watcher a source of its own, which starts where the watcher stands.
    pub(super) fn begin_alone(&mut self, key: WatcherKey) {
        let watcher = &self.watchers[key];
        let (group, spec, start) = (self.clients[watcher.client].group, watcher.spec.clone(), watcher.from);
        let source = self.sources.insert(Source::new(group, spec.clone(), start));
        self.groups[group].shared.entry(Rc::clone(spec.bytes())).or_insert(source);
        self.attach(key, source);
        self.request_source(source);
    }

    /// Asks a member for a watcher that starts where the source stands. If it was asked for before, that is forgotten.
    pub(super) fn request_source(&mut self, key: SourceKey) {
        self.last_id += 1;
        let id = self.last_id;
        self.cancel_at_member(key);
        let group = self.sources[key].group;
        let Some(upstream) = self.stream(group) else { return };
        let source = &mut self.sources[key];
        source.start = source.position.map_or(source.start, |position| position.saturating_add(1));
        source.stream = Some((upstream, id));
        if let Some(stream) = self.streams.get_mut(&upstream) {
            stream.ids.insert(id, key);
            stream.pending.push_back(id);
            source.asked_before = stream.asked;
        }
        self.actions.push_back(Action::Forward { upstream, message: source.spec.create(source.start, id) });
    }

    /// The stream of a group; `None` while it waits for a token.
    fn stream(&mut self, key: GroupKey) -> Option<Upstream> {
        let group = &self.groups[key];
        if group.is_renewing || group.stream.is_some() {
            return group.stream.filter(|_| !group.is_renewing);
        }
        let identity = group.identity.clone();
        let upstream = Upstream(self.number());
        self.groups[key].stream = Some(upstream);
        self.streams.insert(upstream, Stream::new(key, self.now));
        self.actions.push_back(Action::Open { upstream, identity });
        // See `progress`: who answers this does not know what it says.
        self.actions.push_back(Action::Forward { upstream, message: watch::ask_progress() });
        Some(upstream)
    }

    /// A member has answered the oldest request for a watcher.
    fn created(&mut self, upstream: Upstream, answer: Answer<'_>) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(&upstream) else { return Ok(()) };
        stream.has_created = true;
        let Some(id) = stream.pending.pop_front() else { return Ok(()) };
        let Some(&key) = stream.ids.get(&id) else { return Ok(()) };
        if answer.canceled {
            self.refused(key, answer);
            return Ok(());
        }
        self.groups[stream.group].renewals = 0;
        let source = &mut self.sources[key];
        source.is_live = true;
        source.created_at = answer.revision;
        // Before it was asked for, it had no start: the member's "now", or for a negative one, the beginning.
        let now = if source.start == 0 { answer.revision } else { 0 };
        source.position.get_or_insert(now);
        source.was_created = true;
        source.is_current = source.start == 0 || answer.revision < source.start;
        if !source.is_current {
            stream.hasten(self.now);
        }
        let header = Header::decode(answer.header)?;
        self.replace(key);
        let waiting = self.waiting_at(key);
        for watcher in waiting {
            self.is_created(watcher, &header);
        }
        self.merge(key);
        Ok(())
    }

    /// The watchers of a source that are not created yet.
    fn waiting_at(&self, key: SourceKey) -> Vec<WatcherKey> {
        let waits = |key: &&WatcherKey| matches!(self.watchers[**key].news, News::Waiting);
        self.sources.get(key).into_iter().flat_map(|source| &source.watchers).filter(waits).copied().collect()
    }

    /// The source of a watcher that waits is created.
    fn is_created(&mut self, key: WatcherKey, header: &Header) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        if let Some(joined) = watcher.joined.take() {
            return self.join(key, &joined);
        }
        if watcher.from == 0 {
            watcher.from = header.revision.saturating_add(1);
        }
        self.is_ready(key, header.clone());
    }

    /// A member does not create a watcher.
    fn refused(&mut self, key: SourceKey, answer: Answer<'_>) {
        let source = &self.sources[key];
        let group = &mut self.groups[source.group];
        let reason = String::from_utf8_lossy(answer.cancel_reason);
        let may_renew = self.logs_in && group.identity == Identity::Sidecar && group.renewals < MAX_RENEWALS;
        if may_renew && TOKEN_REASONS.iter().any(|known| reason.contains(known)) {
            if let Some((upstream, id)) = self.sources[key].stream.take() {
                self.streams.get_mut(&upstream).map(|stream| stream.ids.remove(&id));
            }
            if !group.is_renewing {
                group.is_renewing = true;
                group.renewals += 1;
                let identity = group.identity.clone();
                self.actions.push_back(Action::Renew { identity });
            }
            return;
        }
        let unborn: Rc<[u8]> = answer.body().into();
        let ended: Rc<[u8]> = Answer { created: false, ..answer }.body().into();
        for watcher in self.remove_source(key) {
            // One that failed lets the next request of its client be carried out, which may remove others.
            let Some(one) = self.watchers.get_mut(watcher) else { continue };
            let has_joined = one.joined.take().is_some();
            match one.news {
                // A member that was asked has allowed it. Let this one say itself what is wrong.
                News::Waiting if has_joined => self.begin_alone(watcher),
                News::Announced => self.end_watcher(watcher, Rc::clone(&ended)),
                _ => self.has_failed(watcher, Rc::clone(&unborn)),
            }
        }
    }

    /// A member has canceled a source that we did not cancel: the next event that it needs is compacted.
    fn canceled(&mut self, key: SourceKey, answer: &Answer<'_>) {
        let source = &self.sources[key];
        let next = source.position.map_or(0, |position| position.saturating_add(1));
        let is_compacted = |next: i64| answer.compact_revision == 0 || next < answer.compact_revision;
        let body: Rc<[u8]> = answer.body().into();
        // etcd answers no requests for progress until a compacted watcher is canceled by its client too.
        for watcher in self.remove_source(key) {
            let one = &mut self.watchers[watcher];
            one.from = one.from.max(next);
            if !is_compacted(one.from) {
                self.begin_alone(watcher);
                continue;
            }
            match &mut one.news {
                News::Ready(_, end) => *end = Some(Rc::clone(&body)),
                _ => self.end_watcher(watcher, Rc::clone(&body)),
            }
        }
    }

    /// Removes a source, and returns its watchers.
    pub(super) fn remove_source(&mut self, key: SourceKey) -> Vec<WatcherKey> {
        self.cancel_at_member(key);
        let Some(source) = self.sources.remove(key) else { return Vec::new() };
        let shared = &mut self.groups[source.group].shared;
        if shared.get(source.spec.bytes()) == Some(&key) {
            shared.remove(source.spec.bytes());
        }
        for watcher in &source.watchers {
            self.watchers[*watcher].place = None;
        }
        let waits = |new: &SourceKey| self.sources.get(*new).is_some_and(|new| new.replaces == Some(key));
        if let Some(new) = source.replaced_by.filter(waits) {
            self.remove_source(new);
        }
        source.watchers
    }

    fn cancel_at_member(&mut self, key: SourceKey) {
        let Some((upstream, id)) = self.sources[key].stream.take() else { return };
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        stream.ids.remove(&id);
        self.actions.push_back(Action::Forward { upstream, message: watch::cancel(id) });
    }

    /// Gives a watcher a source.
    pub(super) fn attach(&mut self, watcher: WatcherKey, key: SourceKey) {
        let source = &mut self.sources[key];
        self.watchers[watcher].place = Some((key, source.watchers.len()));
        source.watchers.push(watcher);
    }

    /// Takes a watcher from its source, and removes that if nobody else needs it.
    pub(super) fn leave(&mut self, watcher: WatcherKey) {
        let Some((key, index)) = self.watchers.get_mut(watcher).and_then(|watcher| watcher.place.take()) else {
            return;
        };
        let source = &mut self.sources[key];
        source.watchers.swap_remove(index);
        if let Some(moved) = source.watchers.get(index) {
            self.watchers[*moved].place = Some((key, index));
        }
        if source.watchers.is_empty() {
            self.remove_source(key);
        }
    }

    /// Nobody has this identity any more.
    pub(super) fn remove_group(&mut self, key: GroupKey) {
        let Some(group) = self.groups.remove(key) else { return };
        self.identities.remove(&group.identity);
        self.questions.retain(|_, (of, _)| *of != key);
        if let Some(upstream) = group.stream
            && self.streams.remove(&upstream).is_some()
        {
            self.actions.push_back(Action::Close { upstream });
        }
    }
}

impl Source {
    pub(super) fn new(group: GroupKey, spec: watch::Spec, start: i64) -> Self {
        Self {
            group,
            spec,
            stream: None,
            start,
            is_live: false,
            was_created: false,
            position: (start > 0).then(|| start - 1),
            created_at: 0,
            asked_before: 0,
            confirmed: 0,
            is_current: false,
            held: Vec::new(),
            watchers: Vec::new(),
            replaces: None,
            replaced_by: None,
        }
    }

    /// What it knows of its watcher at a member is not true any more.
    fn forget_member(&mut self) {
        self.is_live = false;
        self.is_current = false;
        self.confirmed = 0;
        self.held = Vec::new();
    }
}
