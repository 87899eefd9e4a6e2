//! Sources of the same watch become one when they have come to the same place.

use std::rc::Rc;

use super::state::{Hub, SourceKey};

impl Hub {
    /// Looks whether the watchers of a source can go on with the shared one.
    pub(super) fn merge(&mut self, key: SourceKey) {
        let Some(source) = self.sources.get(key).filter(|source| source.is_live) else { return };
        let Some(position) = source.position else { return };
        let spec = Rc::clone(source.spec.bytes());
        let shared = &mut self.groups[source.group].shared;
        let other = *shared.entry(Rc::clone(&spec)).or_insert(key);
        if other == key {
            return;
        }
        let found = &self.sources[other];
        if found.position.is_none_or(|other| position < other) {
            return;
        }
        if !found.is_near(position) {
            // The shared one lags: it joins this one when it has caught up.
            shared.insert(spec, key);
            return;
        }
        let watchers = source.watchers.clone();
        for watcher in watchers {
            // The last one takes the source with it.
            self.detach(watcher, position);
            self.attach(watcher, other);
        }
    }
}
