//! Events: each goes to each watcher that wants it, and all events of a revision go in one message.

use super::action::Action;
use super::bodies::Bodies;
use super::slow::MAX_WAITING;
use super::state::{ClientKey, Hub, News, SourceKey};
use crate::api::watch::{Answer, Event};

impl Hub {
    /// Hands out the events of an answer, up to the last revision that is complete.
    pub(super) fn deliver(&mut self, key: SourceKey, mut answer: Answer<'_>) {
        let Self { sources, watchers, clients, actions, counts, .. } = self;
        let source = &mut sources[key];
        let Some(position) = source.position.filter(|_| source.is_live) else { return };
        let held = std::mem::take(&mut source.held);
        let mut events = std::mem::take(&mut answer.events);
        if !held.is_empty() {
            events.splice(0..0, held.iter().map(|(revision, raw)| Event { revision: *revision, raw }));
        }
        // What comes again after a member was lost, or was asked for from an earlier revision.
        events.retain(|event| event.revision > position);
        if let (true, Some(last)) = (answer.fragment, events.last()) {
            let complete = events.partition_point(|event| event.revision < last.revision);
            source.held = events.drain(complete..).map(|event| (event.revision, event.raw.into())).collect();
        }
        let Some(last) = events.last().map(|event| event.revision) else { return };
        answer.fragment = false;
        let mut bodies = Bodies::new(answer, &events);
        let mut early = Vec::new();
        let mut slow: Vec<ClientKey> = Vec::new();
        for &watcher_key in &source.watchers {
            let watcher = &mut watchers[watcher_key];
            let first = bodies.first(watcher.from);
            if bodies.count(first) == 0 {
                continue;
            }
            let client = &mut clients[watcher.client];
            if client.is_slow || !matches!(watcher.news, News::Announced) {
                early.push(watcher_key);
                continue;
            }
            counts.events += bodies.count(first) as u64;
            for body in bodies.from(first, watcher.fragment) {
                client.waiting += body.len();
                actions.push_back(Action::Send { client: client.tag, watch_id: watcher.id, body: body.clone() });
            }
            if client.waiting > MAX_WAITING && slow.last() != Some(&watcher.client) {
                slow.push(watcher.client);
            }
        }
        // They cannot get these events now. They leave, and later go on from here.
        for watcher in early {
            self.detach(watcher, position);
        }
        if let Some(source) = self.sources.get_mut(key) {
            source.position = Some(last);
            source.is_current |= last >= source.created_at;
        }
        for client in slow {
            self.is_slow(client);
        }
        self.merge(key);
    }
}
