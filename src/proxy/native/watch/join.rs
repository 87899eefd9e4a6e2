//! Watchers that join a source. A watcher "from now on" must not get older events, and its client must hear a true
//! revision. So it asks a member for the present revision with a linearizable read, which also checks permissions, and
//! joins with the answer. Those that come while a question is under way share the next one.

use std::collections::hash_map::Entry;
use std::rc::Rc;

use super::action::{Action, Identity, Question};
use super::state::{GroupKey, Hub, Scope, SourceKey, WatcherKey};
use crate::api::watch::Header;

/// A source that is this many revisions behind is still joined: etcd sends so many at once.
const NEAR: i64 = 1000;

impl Hub {
    /// Begins a watcher of a client.
    pub(super) fn begin(&mut self, key: WatcherKey) {
        let watcher = &self.watchers[key];
        let group = self.clients[watcher.client].group;
        let shared = self.groups[group].shared.get(watcher.spec.bytes());
        let may_join = shared.is_some_and(|source| {
            let has_passed = |position| watcher.from <= position;
            watcher.from == 0 || watcher.from > 0 && !self.sources[*source].position.is_some_and(has_passed)
        });
        if may_join { self.ask(group, key) } else { self.begin_alone(key) }
    }

    fn ask(&mut self, group: GroupKey, key: WatcherKey) {
        let checks_permission = self.logs_in || self.groups[group].identity != Identity::Sidecar;
        let scope = checks_permission.then(|| self.watchers[key].spec.range());
        match self.groups[group].asking.entry(scope) {
            Entry::Occupied(mut entry) => entry.get_mut().1.push(key),
            Entry::Vacant(entry) => {
                let scope = entry.key().clone();
                entry.insert((vec![key], Vec::new()));
                self.put_question(group, scope, key);
            }
        }
    }

    fn put_question(&mut self, group: GroupKey, scope: Scope, one: WatcherKey) {
        let question = Question(self.number());
        let checks_permission = scope.is_some();
        let identity = self.groups[group].identity.clone();
        let range = scope.clone().or_else(|| Some(self.watchers.get(one)?.spec.range()));
        let (key, range_end) = range.unwrap_or_else(|| (b"\0".to_vec(), Vec::new()));
        self.questions.insert(question, (group, scope));
        self.actions.push_back(Action::AskNow { question, identity, key, range_end, checks_permission });
    }

    /// The answer to a question: a `RangeResponse`, or `None` if there is none.
    pub(in crate::proxy::native) fn now_is(&mut self, question: Question, answer: Option<&[u8]>) {
        let Some((group, scope)) = self.questions.remove(&question) else { return };
        let header = answer.and_then(|answer| Header::of(answer).ok()).filter(|header| header.revision > 0);
        let Some((answered, mut next)) = self.groups[group].asking.remove(&scope) else { return };
        next.retain(|watcher| self.watchers.contains_key(*watcher));
        if let Some(&one) = next.first() {
            self.groups[group].asking.insert(scope.clone(), (next, Vec::new()));
            self.put_question(group, scope, one);
        }
        for watcher in answered {
            if !self.watchers.contains_key(watcher) {
                continue;
            }
            match &header {
                Some(header) => self.join(watcher, header),
                // etcd itself says what is wrong.
                None => self.begin_alone(watcher),
            }
        }
    }

    /// A watcher that waits knows the present revision, and joins the shared source if that has all that it needs.
    pub(super) fn join(&mut self, key: WatcherKey, header: &Header) {
        let watcher = &self.watchers[key];
        let group = &self.groups[self.clients[watcher.client].group];
        let Some(&source) = group.shared.get(watcher.spec.bytes()) else { return self.begin_instead(key) };
        let found = &self.sources[source];
        let Some(position) = found.position.filter(|_| found.was_created) else {
            // It depends on what the member says to the first one.
            self.watchers[key].joined = Some(header.clone());
            return self.place(key, source);
        };
        if watcher.from > 0 {
            if self.joinable(key).is_none() {
                return self.begin_instead(key);
            }
            self.place(key, source);
            return self.is_ready(key, header.clone());
        }
        let begins_later = position > header.revision.max(group.revision);
        if begins_later || !found.is_near(header.revision) {
            // The new source takes its part, and it joins that when it has caught up.
            let spec = Rc::clone(watcher.spec.bytes());
            self.groups[found.group].shared.remove(&spec);
            return self.begin_instead(key);
        }
        // The watchers of this source may have got newer events already. They are from before the client hears that its
        // watcher is created, so they are not for it.
        let now = header.revision.max(position);
        self.watchers[key].from = now.saturating_add(1);
        self.place(key, source);
        self.is_ready(key, header.at(now));
    }

    fn begin_instead(&mut self, key: WatcherKey) {
        self.leave(key);
        self.begin_alone(key);
    }

    fn place(&mut self, key: WatcherKey, source: SourceKey) {
        if self.watchers[key].place.is_none_or(|(place, _)| place != source) {
            self.leave(key);
            self.attach(key, source);
        }
    }

    /// The source from which a watcher with a known start can get all that it needs, without delay.
    pub(super) fn joinable(&self, key: WatcherKey) -> Option<SourceKey> {
        let watcher = &self.watchers[key];
        let group = &self.groups[self.clients[watcher.client].group];
        let &source = group.shared.get(watcher.spec.bytes())?;
        let found = &self.sources[source];
        let position = found.position.filter(|_| found.was_created)?;
        (watcher.from > position && found.is_near(watcher.from)).then_some(source)
    }
}

impl super::state::Source {
    /// It soon is at this revision.
    pub(super) fn is_near(&self, revision: i64) -> bool {
        self.is_current || self.position.is_some_and(|position| revision.saturating_sub(position) <= NEAR)
    }
}
