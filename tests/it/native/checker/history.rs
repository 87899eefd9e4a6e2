//! Random actions. The seed chooses them; their timing is the machine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::bytes::Bytes;

use super::messages::{Create, DELETE, PUT as NO_PUT};
use super::truth::call;
use super::watcher::Watching;
use super::{World, is_excused};
use crate::api::status::Header;
use crate::api_calls::{field, number};
use crate::attack::Random;
use crate::grpc::{Outcome, Server};
use crate::native::{COMPACT, DELETE as DELETE_RANGE, GRANT, PUT, TXN, grant, put, range};

const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEYS: usize = 8;
/// Each burst is larger than what a slow reader may owe.
const LARGE: usize = 100_000;
const BURST: usize = 15;

/// What a history is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: usize,
    pub(super) until: Instant,
    /// Some values are large, some clients stop reading.
    pub(super) is_heavy: bool,
    /// Members may fail, so calls may fail.
    pub(super) has_faults: bool,
}

impl Plan {
    fn random(&self, actor: usize) -> Random {
        Random::new(self.seed.wrapping_mul(1000).wrapping_add(actor))
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }
}

fn key(random: &mut Random) -> String {
    let n = random.below(KEYS);
    if random.below(4) == 0 { format!("app/k{n}/sub") } else { format!("app/k{n}") }
}

/// Whether something of this many in a hundred happens.
fn chance(random: &mut Random, percent: usize) -> bool {
    random.below(100) < percent
}

async fn pause(random: &mut Random, most_millis: usize) {
    tokio::time::sleep(Duration::from_millis(random.below(most_millis) as u64)).await;
}

/// Calls; the world counts failures.
async fn send(world: &World, plan: &Plan, server: &Server, path: &str, message: &[u8]) -> Option<Outcome> {
    let call = call(path, message, None).with("grpc-timeout", "15S");
    let outcome = tokio::time::timeout(Duration::from_secs(20), server.send(&call)).await;
    let outcome = outcome.unwrap_or_else(|_| Outcome { broken: Some("no answer".into()), ..Outcome::default() });
    world.tally(|tally| tally.calls += 1);
    if outcome.status == Some(0) {
        return Some(outcome);
    }
    world.tally(|tally| tally.failed_calls += 1);
    // Its lease has expired.
    let is_lost_lease = outcome.message.contains("requested lease not found");
    // Users changed once more between the new login and the repetition.
    if is_excused(&outcome.message) {
        world.tally(|tally| tally.known += 1);
    } else if !plan.has_faults && !is_lost_lease {
        world.problem(format!("a call of {path} failed without a reason: {outcome:?}"));
    }
    None
}

/// Puts; returns the revision.
async fn put_one(world: &World, plan: &Plan, server: &Server, key: &str, message: &[u8]) -> Option<i64> {
    let outcome = send(world, plan, server, PUT, message).await?;
    let revision = Header::of(outcome.messages.first()?).unwrap().revision;
    world.acknowledge(revision, Bytes::copy_from_slice(key.as_bytes()));
    Some(revision)
}

/// Writes until the end of the history.
pub(super) async fn write(world: Arc<World>, plan: Plan, actor: usize, is_direct: bool) {
    let random = &mut plan.random(actor);
    let mut server = None;
    for n in 0.. {
        if !plan.goes_on() {
            return;
        }
        let member = random.below(3);
        let Some(connected) = connected(&world, &plan, &mut server, is_direct.then_some(member)).await else {
            continue;
        };
        write_once(&world, &plan, connected, random, &format!("{actor}.{n}")).await;
        pause(random, 20).await;
    }
}

/// The connection, or a new one.
async fn connected<'a>(
    world: &World,
    plan: &Plan,
    server: &'a mut Option<Server>,
    member: Option<usize>,
) -> Option<&'a Server> {
    if server.as_ref().is_some_and(|server| !server.is_open()) {
        if member.is_none() && !(plan.has_faults && world.is_direct) {
            world.problem("a client's connection to the proxy was cut".to_owned());
        }
        *server = None;
    }
    if server.is_none() {
        let addr = member.map_or(&world.addr, |member| &world.direct.members[member]);
        *server = Server::try_connect(addr).await.ok();
        if server.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.as_ref()
}

async fn write_once(world: &World, plan: &Plan, server: &Server, random: &mut Random, value: &str) {
    let key = key(random);
    match random.below(20) {
        0..=9 => {
            put_one(world, plan, server, &key, &put(&key, value)).await;
        }
        10 | 11 => {
            send(world, plan, server, DELETE_RANGE, &range(&key, "")).await;
        }
        12 => {
            let end = format!("app/k{}", random.below(KEYS) + 1);
            send(world, plan, server, DELETE_RANGE, &range(&key, &end)).await;
        }
        13..=16 => write_txn(world, plan, server, random, value).await,
        17 | 18 => write_leased(world, plan, server, random, value).await,
        _ if plan.is_heavy => {
            for n in 0..BURST {
                let value = format!("{value}.{n}.{}", "x".repeat(LARGE));
                put_one(world, plan, server, "app/k3/large", &put("app/k3/large", &value)).await;
            }
        }
        _ => pause(random, 100).await,
    }
}

/// Several changes with one revision: no key twice, because etcd refuses that.
async fn write_txn(world: &World, plan: &Plan, server: &Server, random: &mut Random, value: &str) {
    let (mut ops, mut puts) = (Vec::new(), Vec::new());
    for n in 0..KEYS {
        let key = format!("app/k{n}");
        match random.below(4) {
            0 => {
                let size = if plan.is_heavy && chance(random, 20) { LARGE } else { 1 };
                let value = format!("{value}.{}", "t".repeat(size));
                ops.push(field(2, field(2, put(&key, &value))));
                puts.push(key);
            }
            1 => ops.push(field(2, field(3, range(&key, "")))),
            _ => {}
        }
    }
    let Some(outcome) = send(world, plan, server, TXN, &ops.concat()).await else { return };
    let revision = Header::of(&outcome.messages[0]).unwrap().revision;
    for key in puts {
        world.acknowledge(revision, key.into());
    }
}

/// Keys with a lease, which expires some time or is revoked soon: deletions with one revision.
async fn write_leased(world: &World, plan: &Plan, server: &Server, random: &mut Random, value: &str) {
    let lease = i64::try_from(random.next() >> 2).unwrap() + 1;
    if send(world, plan, server, GRANT, &grant(lease, 1)).await.is_none() {
        return;
    }
    for _ in 0..=random.below(3) {
        let key = key(random);
        put_one(world, plan, server, &key, &[put(&key, value), number(3, lease)].concat()).await;
    }
    if chance(random, 50) {
        pause(random, 50).await;
        send(world, plan, server, REVOKE, &number(1, lease)).await;
    }
}

/// Compacts at revisions that the truth has seen.
pub(super) async fn compact(world: Arc<World>, plan: Plan, actor: usize) {
    let random = &mut plan.random(actor);
    loop {
        tokio::time::sleep(Duration::from_millis(100 + random.below(500) as u64)).await;
        if !plan.goes_on() {
            return;
        }
        let (first, last) = (world.compacted() + 1, world.truth.position());
        if first >= last {
            continue;
        }
        let revision = first + i64::try_from(random.below(usize::try_from(last - first).unwrap())).unwrap();
        let Some((server, token)) = world.direct.connect(random.below(3)).await else { continue };
        world.begin_compaction(revision);
        let request = call(COMPACT, &number(1, revision), token.as_deref()).with("grpc-timeout", "5S");
        if let Ok(outcome) = tokio::time::timeout(Duration::from_secs(6), server.send(&request)).await
            && outcome.status == Some(0)
        {
            world.end_compaction(revision);
        }
    }
}

/// In a cluster with passwords, users come and go: etcd then refuses the tokens that it gave out before.
pub(super) async fn change_users(world: Arc<World>, plan: Plan, actor: usize) {
    let random = &mut plan.random(actor);
    while plan.goes_on() {
        pause(random, 1500).await;
        let Some((server, token)) = world.direct.connect(random.below(3)).await else { continue };
        let name = format!("r{}", random.next());
        let request = call("/etcdserverpb.Auth/RoleAdd", &field(1, name), token.as_deref());
        if server.send(&request.with("grpc-timeout", "5S")).await.status == Some(0) {
            world.tally(|tally| tally.changes_of_users += 1);
        }
    }
}

/// A client with a connection, and what it watches.
pub(super) struct Client {
    pub(super) streams: Vec<Watching>,
    server: Option<Server>,
}

/// Opens watches, and ends some of them, until the end of the history.
pub(super) async fn watch(world: Arc<World>, plan: Plan, actor: usize) -> Client {
    let random = &mut plan.random(actor);
    let mut client = Client { streams: Vec::new(), server: None };
    while plan.goes_on() {
        let mut server = client.server.take();
        let is_there = connected(&world, &plan, &mut server, None).await.is_some();
        client.server = server;
        if is_there {
            client.step(&world, &plan, random, actor).await;
        }
        pause(random, 40).await;
    }
    client.streams.iter().for_each(|stream| stream.pause(false));
    client
}

impl Client {
    async fn step(&mut self, world: &Arc<World>, plan: &Plan, random: &mut Random, actor: usize) {
        let open: Vec<usize> = (0..self.streams.len()).filter(|n| self.streams[*n].is_open()).collect();
        if open.is_empty() || open.len() < 3 && chance(random, 10) {
            return self.open(world, plan, random, actor).await;
        }
        let place = open[random.below(open.len())];
        let stream = &mut self.streams[place];
        match random.below(40) {
            0..=14 => {
                let create = create(world, random, stream.only.is_none(), &stream.ids());
                let number = stream.create(create, world.truth.position());
                self.put_behind(world, plan, random, place, number).await;
            }
            15..=20 => {
                let ids = stream.ids();
                // Sometimes one that does not exist: etcd does not answer.
                let id = if ids.is_empty() || chance(random, 10) { 999 } else { ids[random.below(ids.len())] };
                stream.cancel(id);
            }
            21..=26 => stream.ask_progress(),
            27 => stream.half_close(),
            28 => stream.give_up(),
            29..=31 if plan.is_heavy => {
                stream.pause(true);
                world.tally(|tally| tally.pauses += 1);
            }
            32..=35 => self.streams.iter().for_each(|stream| stream.pause(false)),
            _ => {}
        }
    }

    async fn open(&mut self, world: &Arc<World>, plan: &Plan, random: &mut Random, actor: usize) {
        let Some(server) = &self.server else { return };
        // Some clients of a cluster with passwords have a token of their own.
        let token = match world.only() {
            Some(_) if chance(random, 20) => {
                let Some((_, token)) = world.direct.connect(random.below(3)).await else { return };
                token
            }
            _ => None,
        };
        let create = create(world, random, token.is_some() || world.only().is_none(), &[]);
        let name = format!("client {actor} stream {}", self.streams.len());
        let is_own = token.is_some();
        if let Ok(mut stream) = Watching::open(world, server, token.as_deref(), name, create).await {
            // A token of the client's own expires, and then etcd refuses more watches.
            if is_own {
                stream.half_close();
            }
            self.streams.push(stream);
            self.put_behind(world, plan, random, self.streams.len() - 1, 0).await;
        }
    }

    /// A put, on the same connection, that does not wait until the watch is created.
    async fn put_behind(&self, world: &World, plan: &Plan, random: &mut Random, place: usize, create: usize) {
        let Some(server) = &self.server else { return };
        if chance(random, 50) {
            return;
        }
        let key = key(random);
        let revision = put_one(world, plan, server, &key, &put(&key, "behind")).await;
        // A member serves the calls of one connection in any order.
        if let Some(revision) = revision.filter(|_| !world.is_direct) {
            self.streams[place].must_see(create, revision);
        }
    }
}

/// A proxy may share watches that are the same apart from their starts: half of all watches are one of these.
const POPULAR: [(&str, &str, bool, bool); 4] = [
    ("app/", "app0", false, false),
    ("app/", "app/z", true, false),
    ("app/k3", "app/k4", false, true),
    ("app/k1", "", true, true),
];

/// Any watch. `live`: the ids that the stream has.
fn create(world: &World, random: &mut Random, may_read_all: bool, live: &[i64]) -> Create {
    let create = any_watch(world, random, may_read_all, live);
    if chance(random, 50) {
        return create;
    }
    let (key, end, prev_kv, progress_notify) = POPULAR[random.below(POPULAR.len())];
    Create { key: key.into(), range_end: end.into(), prev_kv, progress_notify, filters: Vec::new(), ..create }
}

fn any_watch(world: &World, random: &mut Random, may_read_all: bool, live: &[i64]) -> Create {
    let from = key(random);
    let end = match random.below(12) {
        0..=3 => String::new(),
        4..=7 => format!("app/k{}", random.below(KEYS) + 1),
        8 => "app0".to_owned(),
        // To the end of all keys. Without the permission, etcd refuses it.
        9 if may_read_all || chance(random, 20) => "\0".to_owned(),
        _ => "app/z".to_owned(),
    };
    let from = if end.is_empty() || chance(random, 50) { from } else { "app/".to_owned() };
    let filters = match random.below(8) {
        0 => vec![NO_PUT],
        1 => vec![DELETE],
        2 if chance(random, 20) => vec![NO_PUT, DELETE],
        _ => Vec::new(),
    };
    let watch_id = match random.below(10) {
        // One that is there already: etcd refuses it.
        0 if !live.is_empty() && chance(random, 30) => live[random.below(live.len())],
        0 | 1 => 1 + i64::try_from(random.below(1_000_000)).unwrap(),
        _ => 0,
    };
    Create {
        key: from.into(),
        range_end: end.into(),
        start_revision: start(world, random),
        progress_notify: chance(random, 30),
        filters,
        prev_kv: chance(random, 40),
        watch_id,
        fragment: chance(random, 40),
    }
}

/// Most watches show what is new; the others start in the past, in the future, at a compaction or before it.
fn start(world: &World, random: &mut Random) -> i64 {
    let (compacted, now) = (world.compacted(), world.truth.position());
    let start = match random.below(20) {
        0..=8 => 0,
        9..=14 => compacted + i64::try_from(random.below(usize::try_from(now - compacted).unwrap() + 1)).unwrap(),
        15 => now + i64::try_from(random.below(40)).unwrap(),
        16 => compacted,
        17 => compacted + 1,
        18 => now,
        _ => i64::try_from(random.below(usize::try_from(compacted).unwrap() + 1)).unwrap(),
    };
    start.max(0)
}
