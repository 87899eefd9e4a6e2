//! Sources of the same watch become one when they have come to the same place.

use std::rc::Rc;

use super::state::{Hub, Source, SourceKey};

impl Hub {
    /// Looks whether the watchers of a source can go on with the shared one.
    pub(super) fn merge(&mut self, key: SourceKey) {
        let Some(source) = self.sources.get(key).filter(|source| source.is_live) else { return };
        let Some(position) = source.position else { return };
        let spec = Rc::clone(source.spec.bytes());
        let group = &mut self.groups[source.group];
        let other = *group.shared.entry(Rc::clone(&spec)).or_insert(key);
        if other == key {
            return;
        }
        let found = &self.sources[other];
        let Some(other_position) = found.position else { return };
        if position < other_position {
            // One that begins in the future takes its watchers to one that knows the present.
            if other_position > group.revision && source.is_current {
                group.shared.insert(spec, key);
                self.merge(other);
            }
            return;
        }
        if !found.is_near(position) {
            // The shared one lags: it joins this one when it has caught up.
            group.shared.insert(spec, key);
            return;
        }
        let watchers = source.watchers.clone();
        for watcher in watchers {
            // The last one takes the source with it.
            self.detach(watcher, position);
            self.attach(watcher, other);
        }
    }

    /// Opens the source that takes the place of one that begins in the future.
    pub(super) fn begin_replacement(&mut self, key: SourceKey) {
        let old = &self.sources[key];
        if !old.is_live || old.replaced_by.is_some_and(|new| self.sources.contains_key(new)) {
            return;
        }
        let new = Source { replaces: Some(key), ..Source::new(old.group, old.spec.clone(), 0) };
        let new = self.sources.insert(new);
        self.sources[key].replaced_by = Some(new);
        self.request_source(new);
    }

    /// A source is created that may have to take the place of another one. If the start of that is still in the future,
    /// the new one gets all that it would get, and the member never has to look for old events, which may be compacted.
    /// Otherwise, the old one is not in the way any more.
    pub(super) fn replace(&mut self, key: SourceKey) {
        let Some(old) = self.sources[key].replaces.take() else { return };
        let now = self.sources[key].created_at;
        let Some(found) = self.sources.get(old).filter(|old| old.is_live && old.start > now) else {
            self.remove_source(key);
            return;
        };
        let Some(position) = found.position else { return };
        let shared = &mut self.groups[found.group].shared;
        if shared.get(found.spec.bytes()) == Some(&old) {
            shared.insert(Rc::clone(found.spec.bytes()), key);
        }
        let watchers = found.watchers.clone();
        for watcher in watchers {
            // The last one takes the old source with it.
            self.detach(watcher, position);
            self.attach(watcher, key);
        }
    }
}
