//! Random histories of clients and members. Each client's messages are compared with the truth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;

use super::super::action::Identity;
use super::super::{Action, ClientTag, End, Hub, Question, Upstream};
use super::client::Client;
use super::cluster::{Cluster, Dice, Version};
use super::proto::{self, Create, Headed, WatchResponse};
use crate::api::namespace::Namespace;
use crate::api::watch::put_watch_id;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

struct World {
    hub: Hub,
    cluster: Cluster,
    prefix: Vec<u8>,
    clients: BTreeMap<ClientTag, Client>,
    questions: BTreeMap<Question, usize>,
    now: Instant,
    last_client: u64,
    /// Members do not accept the sidecar's token.
    is_token_old: bool,
    renewals: Vec<Identity>,
}

impl World {
    fn new(config: u8) -> Self {
        let version = [Version::Early, Version::Deferred, Version::Synced, Version::Now][usize::from(config) % 4];
        let prefix = if config & 4 == 0 { Vec::new() } else { b"ns/".to_vec() };
        let namespace = (!prefix.is_empty()).then(|| Namespace::new(prefix.clone()));
        let now = Instant::now();
        Self {
            hub: Hub::new(namespace, config & 8 == 0, now),
            cluster: Cluster::new(version),
            prefix,
            clients: BTreeMap::new(),
            questions: BTreeMap::new(),
            now,
            last_client: 0,
            is_token_old: false,
            renewals: Vec::new(),
        }
    }

    fn identity(who: usize) -> Identity {
        if who == 0 { Identity::Sidecar } else { Identity::Own(who.to_string().into_bytes().into()) }
    }

    fn who(identity: &Identity) -> usize {
        match identity {
            Identity::Sidecar => 0,
            Identity::Own(token) => std::str::from_utf8(token).unwrap().parse().unwrap(),
        }
    }

    /// Does what the hub says.
    fn carry_out(&mut self, dice: &mut Dice) {
        while let Some(action) = self.hub.next() {
            match action {
                Action::Send { client, watch_id, body } => {
                    let mut message = body.to_vec();
                    put_watch_id(watch_id, &mut message);
                    let message = WatchResponse::decode(&*message).unwrap();
                    assert_eq!(message.id, watch_id);
                    self.clients.get_mut(&client).expect("a client that is gone").inbox.push_back(message);
                }
                Action::End { client, status, message } => panic!("{client:?} is ended: {status} {message}"),
                Action::Settled { client } => assert!(!self.hub.waits(client)),
                Action::Open { upstream, identity } => {
                    let mut who = Self::who(&identity);
                    if who == 0 && self.is_token_old {
                        who = 2;
                    }
                    self.cluster.open(upstream, dice.roll(3), who);
                }
                Action::Forward { upstream, message } => {
                    self.cluster.streams.get_mut(&upstream).expect("no stream").requests.push_back(message);
                }
                Action::Close { upstream } => {
                    self.cluster.streams.remove(&upstream).expect("no stream");
                }
                Action::AskNow { question, identity, key, range_end, checks_permission } => {
                    let scope = Create { key, range_end, ..Create::default() };
                    let who = Self::who(&identity);
                    assert!(checks_permission || who == 0);
                    self.questions.insert(question, usize::from(who == 1 && scope.has(b"d")));
                }
                Action::Renew { identity } => self.renewals.push(identity),
            }
        }
    }

    fn pick<T: Copy>(from: impl Iterator<Item = T>, dice: &mut Dice) -> Option<T> {
        let all: Vec<T> = from.collect();
        (!all.is_empty()).then(|| all[dice.roll(all.len())])
    }

    fn write(&mut self, dice: &mut Dice) {
        let keys: Vec<_> = (0..=dice.roll(3))
            .map(|_| {
                let key = KEYS[dice.roll(4)].as_bytes();
                let key = if dice.one_in(6) { key.to_vec() } else { [&self.prefix, key].concat() };
                (key, dice.one_in(3))
            })
            .collect();
        let keys: Vec<_> = keys.iter().map(|(key, is_deleted)| (&**key, *is_deleted)).collect();
        self.cluster.write(&keys);
    }

    fn create(&mut self, dice: &mut Dice) {
        let Some(tag) = Self::pick(self.clients.keys().copied(), dice) else { return };
        let now = self.cluster.revision();
        let start = match dice.roll(8) {
            0..=2 => 0,
            3 => now + 1,
            4 => 1 + i64::try_from(dice.roll(usize::try_from(now).unwrap())).unwrap(),
            5 => (now - 2).max(1),
            6 => now + 3,
            _ => {
                if dice.one_in(4) {
                    -1
                } else {
                    0
                }
            }
        };
        let key = KEYS[dice.roll(4)].into();
        let range_end = match dice.roll(8) {
            0 => b"\0".to_vec(),
            1 => b"c".to_vec(),
            _ => Vec::new(),
        };
        let create = Create {
            key,
            range_end,
            start,
            notifies: dice.one_in(6),
            filters: if dice.one_in(8) { vec![i32::try_from(dice.roll(2)).unwrap()] } else { vec![] },
            previous: dice.one_in(8),
            id: if dice.one_in(4) { i64::try_from(dice.roll(4)).unwrap() - 1 } else { 0 },
            fragment: dice.one_in(4),
        };
        // Progress has this id.
        let create = Create { id: if create.id == -1 { -2 } else { create.id }, ..create };
        self.clients.get_mut(&tag).unwrap().creates(create.clone());
        self.hub.request(tag, &proto::create(create)).unwrap();
    }

    fn step(&mut self, op: u64) {
        let dice = &mut Dice(op);
        let upstream = Self::pick(self.cluster.streams.keys().copied(), dice);
        match dice.roll(40) {
            0..=5 => self.write(dice),
            6..=8 => self.create(dice),
            9 => {
                self.last_client += 1;
                let tag = ClientTag(self.last_client);
                let who = if dice.one_in(4) { dice.roll(3) } else { 0 };
                let who = if who == 2 { 3 } else { who };
                self.hub.open(tag, Self::identity(who));
                self.clients.insert(tag, Client::new(who, &self.prefix));
            }
            10 => {
                if let Some(tag) = Self::pick(self.clients.keys().copied(), dice).filter(|_| dice.one_in(2)) {
                    self.clients.remove(&tag);
                    self.hub.close(tag);
                }
            }
            11 => {
                if let Some(tag) = Self::pick(self.clients.keys().copied(), dice) {
                    let id = i64::try_from(dice.roll(5)).unwrap();
                    self.clients.get_mut(&tag).unwrap().cancels(id);
                    self.hub.request(tag, &proto::cancel(id)).unwrap();
                }
            }
            12 => {
                if let Some(tag) = Self::pick(self.clients.keys().copied(), dice) {
                    self.hub.request(tag, &proto::progress()).unwrap();
                }
            }
            13 => {
                if dice.one_in(3) {
                    let back = i64::try_from(dice.roll(5)).unwrap();
                    self.cluster.compacted = self.cluster.compacted.max(self.cluster.revision() - back);
                }
            }
            14 => {
                if let Some(upstream) = upstream.filter(|_| dice.one_in(2)) {
                    self.cluster.streams.remove(&upstream);
                    self.hub.ended(upstream, End::Lost);
                }
            }
            15..=18 => self.cluster.apply(dice.roll(3), dice),
            19..=21 => upstream.into_iter().for_each(|upstream| self.cluster.sync(upstream, dice)),
            22 => upstream.into_iter().for_each(|upstream| self.cluster.receive_late(upstream, dice)),
            23..=25 => upstream.into_iter().for_each(|upstream| self.cluster.receive(upstream)),
            26..=28 => upstream.into_iter().for_each(|upstream| self.cluster.send(upstream, dice)),
            29..=32 => self.pass_on(upstream),
            33 => upstream.into_iter().for_each(|upstream| self.cluster.notify(upstream)),
            34 => {
                let question = Self::pick(self.questions.keys().copied(), dice);
                self.reply(question, dice);
            }
            35 => {
                self.now += Duration::from_millis([20, 200, 10_000][dice.roll(3)]);
                self.hub.tick(self.now);
            }
            36 => {
                // Only the sidecar logs in again.
                self.is_token_old = self.hub.logs_in && dice.one_in(4);
                self.renew();
            }
            37..=38 => self.read(dice),
            _ => {
                // Everything is quick for a while.
                for _ in 0..20 {
                    self.settle_a_little(dice);
                }
            }
        }
        self.carry_out(dice);
    }

    fn pass_on(&mut self, upstream: Option<Upstream>) {
        let Some(upstream) = upstream else { return };
        if let Some(message) = self.cluster.streams.get_mut(&upstream).and_then(|stream| stream.out.pop_front()) {
            self.hub.answer(upstream, &message);
        }
    }

    fn reply(&mut self, question: Option<Question>, dice: &mut Dice) {
        let Some(question) = question else { return };
        if self.questions.remove(&question) == Some(1) || dice.one_in(10) {
            return self.hub.now_is(question, None);
        }
        // The member of a linearizable read has applied everything.
        let member = dice.roll(3);
        while self.cluster.applied[member] < self.cluster.revision() {
            self.cluster.apply(member, dice);
        }
        let header = Some(Cluster::header(member, self.cluster.revision()));
        self.hub.now_is(question, Some(&Headed { header }.encode_to_vec()));
    }

    fn renew(&mut self) {
        for identity in std::mem::take(&mut self.renewals) {
            assert_eq!(identity, Identity::Sidecar);
            self.is_token_old = false;
            self.hub.renew(&identity);
        }
    }

    fn read(&mut self, dice: &mut Dice) {
        let Some(tag) = Self::pick(self.clients.keys().copied(), dice) else { return };
        let client = self.clients.get_mut(&tag).unwrap();
        for _ in 0..dice.roll(6) {
            client.read(&self.cluster);
        }
        client.check(&self.cluster);
        // A few messages are a lot for a slow client.
        let waiting = if dice.one_in(2) { client.inbox.len() * 400_000 } else { 0 };
        self.hub.room(tag, waiting);
    }

    fn settle_a_little(&mut self, dice: &mut Dice) {
        self.carry_out(dice);
        self.renew();
        for member in 0..3 {
            self.cluster.apply(member, dice);
        }
        let upstreams: Vec<_> = self.cluster.streams.keys().copied().collect();
        for upstream in upstreams {
            self.cluster.receive(upstream);
            self.cluster.sync(upstream, dice);
            self.cluster.send(upstream, dice);
            self.pass_on(Some(upstream));
            self.carry_out(dice);
        }
        let question = self.questions.keys().next().copied();
        self.reply(question, dice);
        self.carry_out(dice);
    }

    /// Lets everything come to an end.
    fn settle(&mut self, dice: &mut Dice) {
        let mut pauses = 0;
        for round in 0.. {
            assert!(round < 100_000, "no end");
            self.settle_a_little(dice);
            for (tag, client) in &mut self.clients {
                while !client.inbox.is_empty() {
                    client.read(&self.cluster);
                }
                self.hub.room(*tag, 0);
            }
            self.carry_out(dice);
            let is_read = self.clients.values().all(|client| client.inbox.is_empty());
            if is_read && self.questions.is_empty() && self.renewals.is_empty() && self.cluster.is_idle() {
                // A stream that is about to be left waits so long for an answer.
                pauses += 1;
                if pauses > 3 {
                    return;
                }
                self.now += Duration::from_secs(1);
                self.hub.tick(self.now);
            }
        }
    }

    fn end(&mut self) {
        let dice = &mut Dice(1);
        self.is_token_old = false;
        self.settle(dice);
        for (tag, client) in &self.clients {
            assert!(!self.hub.waits(*tag));
            client.check_all(&self.cluster);
        }
        // Requests for progress are answered.
        let mut ask = Vec::new();
        for (tag, client) in &mut self.clients {
            client.progress_answers = 0;
            if client.may_hear_progress(&self.cluster) {
                ask.push(*tag);
                self.hub.request(*tag, &proto::progress()).unwrap();
            }
        }
        for _ in 0..15 {
            self.settle(dice);
            if self.cluster.version == Version::Deferred {
                // Such an etcd may not answer before the next event.
                let all: Vec<_> = KEYS.iter().map(|key| [&self.prefix, key.as_bytes()].concat()).collect();
                let both = all.iter().flat_map(|key| [(&**key, false), (&**key, true)]);
                self.cluster.write(&both.collect::<Vec<_>>());
            }
            self.now += Duration::from_secs(10);
            self.hub.tick(self.now);
            self.settle(dice);
        }
        for tag in ask {
            let answers = self.clients[&tag].progress_answers;
            assert_eq!(answers > 0, self.cluster.version != Version::Early, "progress for {tag:?}");
        }
        if self.cluster.version == Version::Now || self.cluster.version == Version::Synced {
            self.check_sharing();
        }
        for tag in self.clients.keys() {
            self.hub.close(*tag);
        }
        self.carry_out_end();
    }

    /// All that is the same is shared.
    fn check_sharing(&self) {
        let mut seen = std::collections::BTreeSet::new();
        for source in self.hub.sources.values() {
            let who = Self::who(&self.hub.groups[source.group].identity);
            assert!(seen.insert((who, source.spec.bytes().to_vec())), "two sources of the same");
        }
    }

    fn carry_out_end(&mut self) {
        self.clients.clear();
        self.carry_out(&mut Dice(1));
        assert!(self.cluster.streams.is_empty(), "a stream that nobody needs");
        let hub = &self.hub;
        assert_eq!((hub.watchers.len(), hub.sources.len(), hub.groups.len(), hub.streams.len()), (0, 0, 0, 0));
        assert_eq!((hub.identities.len(), hub.questions.len(), hub.tags.len()), (0, 0, 0));
    }
}

proptest! {
    #[test]
    fn every_client_gets_every_event_once_and_in_order(config: u8, ops in prop::collection::vec(any::<u64>(), 0..400)) {
        let mut world = World::new(config);
        for op in ops {
            world.step(op);
        }
        world.end();
    }
}
