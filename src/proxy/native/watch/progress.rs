//! Progress: a member says that all events up to a revision have been sent.
//!
//! An answer to a request for progress has no watch id: it is about all watchers of the stream. Its facts, from etcd's
//! code:
//!
//! - Since 3.4.25 and 3.5.8, it passes the same channel as events, so it comes after all events up to its revision.
//!   Older ones answer at once, whatever is still to come. Those also answer a stream without watchers, which the newer
//!   ones do not. So each stream begins with a request, and if it is answered before the first watcher is created, the
//!   stream is not trusted: its answers count for nothing, and clients get none.
//! - It comes only if all watchers of the stream have caught up; since 3.5.22 and 3.6.2, also only if the revision has
//!   come to the start of each of them. Otherwise the request is forgotten. (3.5.8 to 3.5.12 remember it until the next
//!   event and forget others until then.)
//! - `created` passes another channel, and may overtake an answer. So an answer may not know of a watcher that we know
//!   of. It does know of it if its revision is higher than that of `created`. It also does if it is the answer to a
//!   later request; since answers come in the order of requests, the n-th answer is one to the n-th request or a later
//!   one.

use std::time::{Duration, Instant};

use super::action::{Action, Upstream};
use super::state::{Asking, ClientKey, GroupKey, Hub, SourceKey, Stream};
use crate::api::watch::{Answer, NO_ID, ask_progress};

/// How often to ask when nobody waits for the answer.
const SELDOM: Duration = Duration::from_secs(2);
/// How soon to ask again when somebody does. A member needs 100 ms to see that a watcher has caught up.
const SOON: Duration = Duration::from_millis(150);
/// So many requests for progress of a client are counted.
const MAX_REQUESTS: usize = 16;

/// What a client that asked for progress gets.
enum Verdict {
    /// Nothing, as from etcd.
    Nothing,
    NotYet,
    Revision(i64),
}

impl Hub {
    /// Time has passed.
    pub(in crate::proxy::native) fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let mut due: Vec<_> = self.streams.iter().filter(|(_, stream)| stream.next_ask <= now).collect();
        due.sort_unstable_by_key(|(upstream, _)| **upstream);
        let due: Vec<_> = due.into_iter().map(|(upstream, _)| *upstream).collect();
        for upstream in due {
            self.ask_in_time(upstream);
        }
        let is_late = |stream: &Stream| stream.leaves.is_some_and(|at| at <= now);
        let late: Vec<_> = self.streams.iter().filter(|(_, stream)| is_late(stream)).map(|(key, _)| *key).collect();
        for upstream in late {
            self.leave_stream(upstream);
        }
    }

    /// When [`Hub::tick`] has something to do.
    pub(in crate::proxy::native) fn wake(&self) -> Option<Instant> {
        let streams = self.streams.values().filter(|stream| !stream.ids.is_empty());
        streams.map(|stream| stream.leaves.unwrap_or(stream.next_ask).min(stream.next_ask)).min()
    }

    fn ask_in_time(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        let group = stream.group;
        let is_behind = |source: &SourceKey| !self.sources[*source].is_current;
        let is_urgent = !self.groups[group].progress.is_empty() || stream.ids.values().any(is_behind);
        stream.asking = Asking::No;
        stream.next_ask = self.now + if is_urgent { stream.pause } else { SELDOM };
        stream.pause = (stream.pause * 2).min(SELDOM);
        if !stream.is_trusted {
            return self.serve_progress(group);
        }
        if stream.ids.is_empty() || !stream.pending.is_empty() {
            return;
        }
        self.ask_progress(upstream);
    }

    fn ask_progress(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.get(&upstream) else { return };
        let group = stream.group;
        if (stream.unanswered > 0 || !self.groups[group].progress.is_empty()) && self.replace_future(upstream) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        for client in &self.groups[group].progress {
            let Some(client) = self.clients.get_mut(*client) else { continue };
            let asked = &mut client.asked;
            if asked.is_none_or(|(before, _)| before != upstream) {
                *asked = Some((upstream, stream.asked));
            }
        }
        stream.asked += 1;
        stream.unanswered += 1;
        stream.asking = Asking::Yes;
        self.actions.push_back(Action::Forward { upstream, message: ask_progress() });
    }

    /// A watcher that begins in the future keeps a member from answering. So another one takes its place, which begins
    /// now: see [`Hub::replace`]. Whether there was one.
    fn replace_future(&mut self, upstream: Upstream) -> bool {
        let Some(stream) = self.streams.get(&upstream) else { return false };
        let known = self.groups[stream.group].revision;
        let mut ahead: Vec<_> = stream.ids.iter().filter(|(_, source)| self.sources[**source].start > known).collect();
        ahead.sort_unstable();
        let ahead: Vec<_> = ahead.into_iter().map(|(_, source)| *source).collect();
        for source in &ahead {
            self.begin_replacement(*source);
        }
        if let (false, Some(stream)) = (ahead.is_empty(), self.streams.get_mut(&upstream)) {
            stream.hasten(self.now);
        }
        !ahead.is_empty()
    }

    /// A client asks for progress.
    pub(super) fn want_progress(&mut self, key: ClientKey) {
        let client = &mut self.clients[key];
        client.asks_progress = (client.asks_progress + 1).min(MAX_REQUESTS);
        client.asked = None;
        let group = &mut self.groups[client.group];
        if !group.progress.contains(&key) {
            group.progress.push(key);
        }
        let (group, upstream) = (client.group, group.stream);
        let Some(stream) = upstream.and_then(|upstream| self.streams.get_mut(&upstream)) else {
            return self.serve_progress(group);
        };
        stream.hasten(self.now);
        if !stream.is_trusted || !stream.has_created {
            self.serve_progress(group);
        } else if let Some(upstream) = upstream {
            self.ask_progress_now(upstream);
        }
    }

    /// Asks for progress, or again after the answer that is on its way, which may have an older revision.
    pub(super) fn ask_progress_now(&mut self, upstream: Upstream) {
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        if stream.asking == Asking::No {
            self.ask_progress(upstream);
        } else {
            stream.asking = Asking::Again;
        }
    }

    /// A member says how far all watchers of a stream are.
    pub(super) fn progress_of_all(&mut self, upstream: Upstream, revision: i64) {
        let Some(stream) = self.streams.get_mut(&upstream) else { return };
        stream.is_trusted &= stream.has_created;
        if !stream.is_trusted {
            return;
        }
        stream.answered += 1;
        stream.unanswered = 0;
        let must_ask = std::mem::replace(&mut stream.asking, Asking::No) == Asking::Again;
        let (answered, group) = (stream.answered, stream.group);
        let sources: Vec<_> = stream.ids.values().copied().collect();
        for key in sources {
            let Some(source) = self.sources.get_mut(key) else { continue };
            let knows_it = revision > source.created_at || answered > source.asked_before;
            if source.is_live && source.held.is_empty() && knows_it {
                source.position = source.position.map(|position| position.max(revision));
                source.confirmed = answered;
                source.is_current = true;
                self.merge(key);
            }
        }
        self.serve_progress(group);
        if self.streams.get(&upstream).is_some_and(|stream| stream.leaves.is_some()) {
            return self.leave_stream(upstream);
        }
        // Another answer may do for those whose own request has not been answered yet. The others wait for something
        // else.
        let waits = |key: &ClientKey| self.clients[*key].asked.is_some_and(|(_, before)| answered <= before);
        if must_ask || self.groups[group].progress.iter().any(waits) {
            self.ask_progress(upstream);
        }
    }

    /// A member says how far a watcher is, because its client asked to hear that from time to time.
    pub(super) fn progress_of_one(&mut self, key: SourceKey, answer: &Answer<'_>) {
        let source = &mut self.sources[key];
        let Some(position) = source.position else { return };
        let is_true = source.is_live && source.held.is_empty() && source.spec.notifies();
        if !is_true || answer.revision < position {
            return;
        }
        source.position = Some(answer.revision);
        source.is_current |= answer.revision >= source.created_at;
        let body: std::rc::Rc<[u8]> = answer.body().into();
        let watchers = source.watchers.clone();
        for key in watchers {
            let watcher = &self.watchers[key];
            let is_announced = matches!(watcher.news, super::state::News::Announced);
            let has_begun = watcher.from.saturating_sub(1) <= answer.revision;
            if is_announced && has_begun && !self.clients[watcher.client].is_slow {
                self.send(watcher.client, watcher.id, body.clone());
            }
        }
        self.merge(key);
    }

    /// Answers the clients of a group that asked for progress, as far as that can be done.
    fn serve_progress(&mut self, key: GroupKey) {
        let clients = std::mem::take(&mut self.groups[key].progress);
        let mut rest = Vec::new();
        for client in clients {
            let verdict = if self.clients.contains_key(client) { self.progress_of(client) } else { Verdict::Nothing };
            if matches!(verdict, Verdict::NotYet) {
                rest.push(client);
                continue;
            }
            let Some(found) = self.clients.get_mut(client) else { continue };
            let requests = std::mem::take(&mut found.asks_progress);
            let Some(header) = &self.groups[key].header else { continue };
            if let Verdict::Revision(revision) = verdict {
                let header = header.at(revision);
                let body: std::rc::Rc<[u8]> = Answer::new(&header).body().into();
                for _ in 0..requests {
                    self.send(client, NO_ID, body.clone());
                }
            }
        }
        self.groups[key].progress = rest;
    }

    /// How far all watchers of a client are.
    fn progress_of(&self, key: ClientKey) -> Verdict {
        let client = &self.clients[key];
        let stream = self.groups[client.group].stream.and_then(|upstream| self.streams.get(&upstream));
        let mut least = None;
        for watcher in client.ids.values().flatten().map(|key| &self.watchers[*key]) {
            let (Some((source, _)), Some(stream)) = (watcher.place, stream) else { return Verdict::NotYet };
            let source = &self.sources[source];
            let Some(position) = source.position.filter(|_| source.is_live) else { return Verdict::NotYet };
            if !stream.is_trusted {
                return Verdict::Nothing;
            }
            let is_later = client.asked.is_some_and(|(_, before)| stream.answered > before);
            if !is_later || source.confirmed != stream.answered {
                return Verdict::NotYet;
            }
            // It begins in the future. etcd says nothing then.
            if watcher.start > position {
                return Verdict::Nothing;
            }
            // It has come from a source that was further.
            if watcher.from.saturating_sub(1) > position {
                return Verdict::NotYet;
            }
            least = Some(least.map_or(position, |least: i64| least.min(position)));
        }
        least.map_or(Verdict::Nothing, Verdict::Revision)
    }
}

impl Stream {
    pub(super) fn new(group: GroupKey, now: Instant) -> Self {
        Self {
            group,
            ids: rustc_hash::FxHashMap::default(),
            pending: std::collections::VecDeque::new(),
            has_created: false,
            is_trusted: true,
            asked: 0,
            answered: 0,
            unanswered: 0,
            asking: Asking::No,
            leaves: None,
            next_ask: now + SELDOM,
            pause: SOON,
        }
    }

    /// Somebody waits for an answer.
    pub(super) fn hasten(&mut self, now: Instant) {
        self.pause = SOON;
        self.next_ask = self.next_ask.min(now + SOON);
    }
}
