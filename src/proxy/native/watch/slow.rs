//! Clients that do not read. They leave the sources of the others, so that nobody waits for them and little memory
//! waits for them; when they have read, each of their watchers goes on from where it stands.

use super::action::ClientTag;
use super::state::{ClientKey, Hub, News, WatcherKey};

/// When more bytes wait for a client, it is slow.
pub(super) const MAX_WAITING: usize = 1 << 20;

/// When fewer bytes wait for a slow client, it is not slow any more.
const FEW_WAITING: usize = 256 << 10;

impl Hub {
    /// How many bytes wait to be written to a client, all actions so far included. The hub adds what it sends; so the
    /// engine must say whenever they have become fewer, and at last 0.
    pub(in crate::proxy::native) fn room(&mut self, tag: ClientTag, waiting: usize) {
        let Some(&key) = self.tags.get(&tag) else { return };
        let client = &mut self.clients[key];
        client.waiting = waiting;
        if !client.is_slow || waiting >= FEW_WAITING {
            return;
        }
        client.is_slow = false;
        let watchers: Vec<_> = client.ids.values().flatten().copied().collect();
        for watcher in watchers {
            self.attach_again(watcher);
        }
    }

    /// Too much waits for this client: its watchers leave their sources.
    pub(super) fn is_slow(&mut self, key: ClientKey) {
        self.clients[key].is_slow = true;
        let watchers: Vec<_> = self.clients[key].ids.values().flatten().copied().collect();
        for watcher in watchers {
            let position = self.watchers[watcher].place.and_then(|(source, _)| self.sources[source].position);
            // Without a position it has not begun, so nothing can come that would have to wait.
            if let Some(position) = position {
                self.detach(watcher, position);
            }
        }
    }

    /// A watcher that has got all events up to this revision leaves its source.
    pub(super) fn detach(&mut self, key: WatcherKey, position: i64) {
        let watcher = &mut self.watchers[key];
        watcher.from = watcher.from.max(position.saturating_add(1));
        self.leave(key);
    }

    /// A watcher that has left its source goes on.
    pub(super) fn attach_again(&mut self, key: WatcherKey) {
        let watcher = &self.watchers[key];
        let is_slow = self.clients[watcher.client].is_slow;
        if is_slow || watcher.place.is_some() || !matches!(watcher.news, News::Announced) {
            return;
        }
        match self.joinable(key) {
            Some(source) => self.attach(key, source),
            None => self.begin_alone(key),
        }
    }
}
