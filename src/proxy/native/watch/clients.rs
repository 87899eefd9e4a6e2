//! The requests of clients. etcd carries out the requests of a call one after the other; so do we, but those for
//! watchers go to the member at once, and only their answers wait for their turn.

use std::collections::{BTreeMap, VecDeque, hash_map::Entry};
use std::rc::Rc;

use super::action::{Action, ClientTag, Identity, Refused};
use super::state::{Client, ClientKey, Group, Hub, News, Queued, Watcher, WatcherKey};
use crate::api::namespace;
use crate::api::watch::{Answer, Create, Header, NO_ID, Request};
use crate::api::wire;

const DUPLICATE: &[u8] = b"mvcc: duplicate watch ID provided on the WatchStream";

impl Hub {
    /// A client begins a call.
    pub(in crate::proxy::native) fn open(&mut self, tag: ClientTag, identity: Identity) {
        self.close(tag);
        let group = match self.identities.entry(identity) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let group = self.groups.insert(Group::new(entry.key().clone()));
                *entry.insert(group)
            }
        };
        self.groups[group].clients += 1;
        let client = self.clients.insert(Client::new(tag, group));
        self.tags.insert(tag, client);
    }

    /// A message of it.
    ///
    /// # Errors
    /// When it is no `WatchRequest`: the call must be ended, with [`Hub::close`].
    pub(in crate::proxy::native) fn request(&mut self, tag: ClientTag, message: &[u8]) -> Result<(), Refused> {
        let Some(&client) = self.tags.get(&tag) else { return Ok(()) };
        let refused = |err: wire::Error| (err.status(), err.to_string());
        let request = match &self.namespace {
            Some(rule) => Request::decode(&rule.put_on(&namespace::WATCH, message).map_err(refused)?),
            None => Request::decode(message),
        };
        match request.map_err(|err| refused(err.into()))? {
            Request::Create(create) => self.create(client, create),
            Request::Cancel(id) => self.clients[client].queue.push_back(Queued::Cancel(id)),
            Request::Progress => self.clients[client].queue.push_back(Queued::Progress),
            Request::Nothing => {}
        }
        self.advance(client);
        Ok(())
    }

    /// It is gone: it has given up, or its connection is lost. A client that has only said that it sends nothing more
    /// goes on reading.
    pub(in crate::proxy::native) fn close(&mut self, tag: ClientTag) {
        let Some(client) = self.tags.remove(&tag).and_then(|key| self.clients.remove(key)) else { return };
        let queued = client.queue.iter().filter_map(|request| match request {
            Queued::Create(watcher) => Some(*watcher),
            _ => None,
        });
        for watcher in client.ids.into_values().flatten().chain(queued) {
            self.remove_watcher(watcher);
        }
        let group = &mut self.groups[client.group];
        group.clients -= 1;
        if group.clients == 0 {
            self.remove_group(client.group);
        }
    }

    /// Whether a request for a watcher waits for an answer. What its connection sends then must wait too.
    pub(in crate::proxy::native) fn waits(&self, tag: ClientTag) -> bool {
        self.tags.get(&tag).is_some_and(|client| self.clients[*client].creates > 0)
    }

    fn create(&mut self, client: ClientKey, create: Create) {
        let Create { spec, start_revision: start, watch_id: id, fragment } = create;
        let news = News::Waiting;
        let watcher = Watcher { client, id, spec, start, from: start, fragment, news, place: None, joined: None };
        let watcher = self.watchers.insert(watcher);
        self.clients[client].queue.push_back(Queued::Create(watcher));
        self.clients[client].creates += 1;
        self.begin(watcher);
    }

    /// Carries out the requests of a client whose turn has come.
    pub(super) fn advance(&mut self, client: ClientKey) {
        let Some(had) = self.clients.get(client).map(|client| client.creates) else { return };
        while let Some(request) = self.clients[client].queue.front() {
            match *request {
                Queued::Create(watcher) if matches!(self.watchers[watcher].news, News::Waiting) => break,
                Queued::Create(watcher) => {
                    self.clients[client].creates -= 1;
                    self.announce(client, watcher);
                }
                Queued::Cancel(id) => self.cancel(client, id),
                Queued::Progress => self.want_progress(client),
            }
            self.clients[client].queue.pop_front();
        }
        if had > 0 && self.clients[client].creates == 0 {
            let client = self.clients[client].tag;
            self.actions.push_back(Action::Settled { client });
        }
    }

    /// Tells a client what became of its request for a watcher.
    fn announce(&mut self, client: ClientKey, key: WatcherKey) {
        let watcher = &mut self.watchers[key];
        let (header, end) = match std::mem::replace(&mut watcher.news, News::Announced) {
            News::Ready(header, end) => (header, end),
            News::Failed(body) => {
                self.send(client, NO_ID, body);
                self.remove_watcher(key);
                return;
            }
            News::Waiting | News::Announced => return,
        };
        let wanted = watcher.id;
        let Some(id) = self.clients[client].take_id(wanted, key) else {
            let answer = Answer { created: true, canceled: true, cancel_reason: DUPLICATE, ..Answer::new(&header) };
            self.send(client, NO_ID, answer.body().into());
            self.remove_watcher(key);
            return;
        };
        self.watchers[key].id = id;
        self.send(client, id, Answer { created: true, ..Answer::new(&header) }.body().into());
        match end {
            Some(body) => self.end_watcher(key, body),
            None => self.attach_again(key),
        }
    }

    /// A client cancels a watcher. etcd does not answer when there is none with that id.
    fn cancel(&mut self, client: ClientKey, id: i64) {
        let Some(watcher) = self.clients[client].ids.remove(&id) else { return };
        if let Some(watcher) = watcher {
            self.remove_watcher(watcher);
        }
        let group = &self.groups[self.clients[client].group];
        let Some(header) = &group.header else { return };
        let header = header.at(group.revision);
        self.send(client, id, Answer { canceled: true, ..Answer::new(&header) }.body().into());
    }

    /// A member has canceled an announced watcher; the body says why.
    pub(super) fn end_watcher(&mut self, key: WatcherKey, body: Rc<[u8]>) {
        let Some(&Watcher { client, id, .. }) = self.watchers.get(key) else { return };
        self.clients[client].ids.insert(id, None);
        self.send(client, id, body);
        self.remove_watcher(key);
    }

    /// A watcher is created, with this header, though its client may not know it yet.
    pub(super) fn is_ready(&mut self, key: WatcherKey, header: Header) {
        let watcher = &mut self.watchers[key];
        watcher.news = News::Ready(header, None);
        watcher.joined = None;
        let client = watcher.client;
        self.advance(client);
    }

    /// A watcher cannot be created; the body says why.
    pub(super) fn has_failed(&mut self, key: WatcherKey, body: Rc<[u8]>) {
        let watcher = &mut self.watchers[key];
        watcher.news = News::Failed(body);
        let client = watcher.client;
        self.advance(client);
    }

    /// Forgets a watcher, and its source if nobody else needs that.
    fn remove_watcher(&mut self, key: WatcherKey) {
        self.leave(key);
        self.watchers.remove(key);
    }
}

impl Client {
    fn new(tag: ClientTag, group: super::state::GroupKey) -> Self {
        Self {
            tag,
            group,
            ids: BTreeMap::new(),
            next_id: 0,
            queue: VecDeque::new(),
            creates: 0,
            waiting: 0,
            is_slow: false,
            asks_progress: 0,
            asked: None,
        }
    }

    /// The id of a new watcher, by etcd's rules; `None` when the wanted one is in use.
    fn take_id(&mut self, wanted: i64, watcher: WatcherKey) -> Option<i64> {
        let id = if wanted == 0 {
            while self.ids.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        } else {
            wanted
        };
        if self.ids.contains_key(&id) {
            return None;
        }
        self.ids.insert(id, Some(watcher));
        Some(id)
    }
}

impl Group {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            clients: 0,
            stream: None,
            shared: std::collections::HashMap::new(),
            asking: std::collections::HashMap::new(),
            progress: Vec::new(),
            header: None,
            revision: 0,
            is_renewing: false,
            renewals: 0,
        }
    }
}
