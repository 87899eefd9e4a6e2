//! The checker: random histories go through `run --mode native` against three real members. What each watch hears is
//! compared with the truth, which is read from the members.
//!
//! These variables make it longer and harder; `scripts/check.sh` sets them:
//! - `ETCDPROXY_CHECK_SECONDS`: how long it tries histories
//! - `ETCDPROXY_CHECK_SEED`: the seed of the first history; each next one has the next number
//! - `ETCDPROXY_CHECK_FAULTS`: `all`, or some of `kill,stop,cut,reset`
//! - `ETCDPROXY_CHECK_STRICT`: nothing is excused that etcd does on a busy machine
//! - `ETCDPROXY_CHECK_DIRECT`: clients talk to a member instead of the proxy, to check the checker

mod faults;
mod history;
mod ids;
mod messages;
mod moments;
mod sabotage;
mod tally;
mod truth;
mod verdict;
mod verdict_tests;
mod watch;
mod watcher;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Client, ConnectOptions};
use prost::bytes::Bytes;

use self::faults::{Fault, Relay};
use self::history::Plan;
use self::moments::Rules;
use self::sabotage::spoil;
use self::tally::Tally;
use self::truth::{Direct, Truth, call};
use self::verdict::{Violation, judge};
use self::watcher::Watching;
use super::{PUT, put};
use crate::api::status::Header;
use crate::attack::{Random, figure};
use crate::load;
use crate::support::{Cluster, Process, etcdproxy, unique_addr, wait_listening};

/// In the test suite.
const SECONDS: u64 = 7;
/// How many clients write, and how many watch.
const WRITERS: usize = 3;
const WATCHERS: usize = 6;
/// A run that finds so many violations ends.
const ENOUGH: usize = 20;

/// What etcd itself does when the machine is so busy that a stream waits: then a compaction may be quicker than an event.
const UNDER_LOAD: [&str; 1] = [verdict::NEW_IS_COMPACTED];

/// What all actors of the histories share.
struct World {
    /// Where clients connect: the proxy, unless the checker itself is checked.
    addr: String,
    is_direct: bool,
    direct: Direct,
    truth: Truth,
    /// The highest revision of a compaction that has begun, and of one that is done.
    compacting: AtomicI64,
    compacted: AtomicI64,
    acknowledged: Mutex<Vec<(i64, Bytes)>>,
    problems: Mutex<Vec<String>>,
    tally: Mutex<Tally>,
}

impl World {
    /// What the user of the sidecar may read.
    fn only(&self) -> Option<&'static str> {
        self.direct.root.map(|_| "app/")
    }

    fn compacted(&self) -> i64 {
        self.compacting.load(Ordering::SeqCst)
    }

    fn begin_compaction(&self, revision: i64) {
        self.compacting.fetch_max(revision, Ordering::SeqCst);
    }

    fn end_compaction(&self, revision: i64) {
        self.compacted.fetch_max(revision, Ordering::SeqCst);
    }

    fn acknowledge(&self, revision: i64, key: Bytes) {
        self.acknowledged.lock().unwrap().push((revision, key));
    }

    fn problem(&self, problem: String) {
        self.problems.lock().unwrap().push(problem);
    }

    fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap());
    }
}

/// The cluster, the proxy, and the histories.
struct Checker {
    world: Arc<World>,
    cluster: Cluster,
    relays: Vec<Relay>,
    proxy: Process,
    faults: Vec<Fault>,
    /// How long it tries histories.
    seconds: u64,
    /// No watch of the next history shows what was before this revision.
    forget: i64,
    _dir: tempfile::TempDir,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_excused(what: &str) -> bool {
    UNDER_LOAD.contains(&what) && variable("ETCDPROXY_CHECK_STRICT").is_none()
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    variable(name).map(|value| value.parse().unwrap_or_else(|_| panic!("invalid {name} {value:?}: expected a number")))
}

impl Checker {
    async fn start(root: Option<&'static str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut flags = vec!["--watch-progress-notify-interval".to_owned(), "300ms".to_owned()];
        if root.is_some() {
            // Tokens end for certain after 3 s, also in use.
            let secret = crate::pki::write(dir.path(), "jwt", "a secret of the members");
            let token = format!("jwt,sign-method=HS256,ttl=3s,priv-key={}", secret.display());
            flags.extend(["--auth-token".to_owned(), token, "--bcrypt-cost".to_owned(), "4".to_owned()]);
        }
        let cluster = Cluster::start_many_with(3, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        let members: Vec<String> = (0..3).map(|n| cluster.client_addr(n).to_owned()).collect();
        let mut relays = Vec::new();
        for member in &members {
            relays.push(Relay::start(member.clone()).await);
        }
        let endpoints: Vec<String> = relays.iter().map(|relay| format!("http://{}", relay.addr)).collect();
        let is_direct = variable("ETCDPROXY_CHECK_DIRECT").is_some();
        let addr = unique_addr();
        let mut command =
            etcdproxy(["run", "--mode", "native", "--endpoints", &endpoints.join(","), "--listen-addr", &addr]);
        if let Some(password) = root {
            let client = load::connect(&members[0]).await.unwrap();
            crate::support::enable_auth(&client, &[("root", password), ("app", "secret")]).await;
            let file = crate::pki::write(dir.path(), "password", "secret");
            command.args(["--username", "app", "--password-file"]).arg(file);
            // Before the truth begins.
            let options = ConnectOptions::new().with_user("root", password);
            Client::connect([&members[0]], Some(options)).await.unwrap().put("app/first", "1", None).await.unwrap();
        }
        let proxy = Process::start(&mut command);
        wait_listening(&addr);
        let direct = Direct { members, root };
        let world = World {
            addr: if is_direct { direct.members[0].clone() } else { addr },
            is_direct,
            truth: Truth::watch(direct.clone()),
            direct,
            compacting: AtomicI64::new(0),
            compacted: AtomicI64::new(0),
            acknowledged: Mutex::default(),
            problems: Mutex::default(),
            tally: Mutex::default(),
        };
        let faults = Fault::list(&variable("ETCDPROXY_CHECK_FAULTS").unwrap_or_default());
        Self { world: Arc::new(world), cluster, relays, proxy, faults, seconds: 0, forget: 0, _dir: dir }
    }

    /// One history after another, as long as there is time.
    async fn run(mut self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let first = setting("ETCDPROXY_CHECK_SEED").unwrap_or(usize::try_from(now.as_millis()).unwrap() % 100_000_000);
        self.seconds = setting("ETCDPROXY_CHECK_SECONDS").unwrap_or(SECONDS);
        let end = Instant::now() + Duration::from_secs(self.seconds);
        println!("the first seed is {first}");
        let mut violations = 0;
        for seed in first.. {
            for violation in self.history(seed).await {
                violations += 1;
                println!("VIOLATION in the history of ETCDPROXY_CHECK_SEED={seed}: {violation}\n");
            }
            assert!(self.proxy.is_running(), "seed {seed}: the proxy has ended");
            if violations >= ENOUGH || Instant::now() >= end {
                break;
            }
        }
        let (events, resumed) = self.world.truth.counts();
        let tally = std::mem::take(&mut *self.world.tally.lock().unwrap());
        figure(&Tally { violations, ..tally }.to_string());
        println!("the truth has {events} events and changed the member {resumed} times");
        assert_eq!(violations, 0, "see above");
    }

    async fn history(&mut self, seed: usize) -> Vec<String> {
        let random = &mut Random::new(seed);
        // A member may be late with the last compaction.
        let compacted = self.world.compacted.load(Ordering::SeqCst);
        self.world.truth.forget_before(std::mem::replace(&mut self.forget, compacted));
        let is_long = random.below(40) == 0 && self.seconds >= 60;
        let length = Duration::from_millis(if is_long { 12_000 } else { 500 + random.below(1500) as u64 });
        let until = Instant::now() + length;
        let plan = Plan { seed, until, is_heavy: random.below(4) == 0, has_faults: !self.faults.is_empty() };
        let mut others = Vec::new();
        for actor in 0..WRITERS {
            let is_direct = actor == 0 && self.world.only().is_none();
            others.push(tokio::spawn(history::write(Arc::clone(&self.world), plan, actor, is_direct)));
        }
        others.push(tokio::spawn(history::compact(Arc::clone(&self.world), plan, 100)));
        if self.world.only().is_some() {
            others.push(tokio::spawn(history::change_users(Arc::clone(&self.world), plan, 101)));
        }
        let watchers: Vec<_> =
            (0..WATCHERS).map(|n| tokio::spawn(history::watch(Arc::clone(&self.world), plan, 200 + n))).collect();
        // Some histories are without faults.
        while plan.has_faults && random.below(4) > 0 && Instant::now() < until {
            let fault = self.faults[random.below(self.faults.len())];
            tokio::time::sleep(Duration::from_millis(random.below(700) as u64)).await;
            faults::happen(fault, &mut self.cluster, &self.relays, random).await;
            self.world.tally(|tally| tally.faults += 1);
        }
        for other in others {
            other.await.unwrap();
        }
        let mut streams = Vec::new();
        let mut clients = Vec::new();
        for watcher in watchers {
            let mut client = watcher.await.unwrap();
            streams.append(&mut client.streams);
            clients.push(client);
        }
        self.world.tally(|tally| tally.histories += 1);
        self.settle(&plan, streams).await
    }

    /// Waits until everybody has heard everything, and returns what was wrong.
    async fn settle(&self, plan: &Plan, mut streams: Vec<Watching>) -> Vec<String> {
        let world = &self.world;
        let end = self.mark().await;
        let rules = |stream: &Watching| Rules {
            only: stream.only,
            may_refuse: stream.has_token,
            has_faults: plan.has_faults,
            is_slow: plan.is_heavy,
            end: Some(end).filter(|_| !stream.is_given_up()),
        };
        let look =
            |stream: &Watching| world.truth.with(|past| stream.with(|moments| judge(moments, past, rules(stream))));
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(if plan.has_faults { 40 } else { 20 });
        let mut open: Vec<usize> = (0..streams.len()).collect();
        while !open.is_empty() && Instant::now() < deadline {
            for place in &open {
                if streams[*place].is_open() {
                    streams[*place].ask_progress();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            open.retain(|place| {
                let verdict = look(&streams[*place]);
                verdict.early > 0 || !verdict.late.is_empty()
            });
        }
        let settled = begin.elapsed();
        if settled > Duration::from_secs(5) {
            println!("seed {}: {} streams waited for {settled:?}", plan.seed, streams.len());
        }
        // What comes twice may come later.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut problems = world.truth.problems(&std::mem::take(&mut *world.acknowledged.lock().unwrap()));
        problems.append(&mut world.problems.lock().unwrap());
        let random = &mut Random::new(plan.seed);
        for stream in &streams {
            let verdict = look(stream);
            world.tally(|tally| tally.add(&verdict));
            if verdict.violations.is_empty()
                && verdict.late.is_empty()
                && let Some((what, spoilt)) = stream.with(|moments| spoil(moments, end, random))
            {
                let verdict = world.truth.with(|past| judge(&spoilt, past, rules(stream)));
                world.tally(|tally| tally.sabotaged += 1);
                if verdict.violations.is_empty() && verdict.late.is_empty() {
                    problems.push(format!("{}, the verdict does not notice: {what}", stream.name));
                }
            }
            let describe = |violation: &Violation| format!("{}, {violation}", stream.name);
            let (known, new): (Vec<_>, Vec<_>) =
                verdict.violations.iter().chain(&verdict.late).partition(|found| is_excused(found.what));
            world.tally(|tally| tally.known += known.len());
            problems.extend(new.into_iter().map(describe));
        }
        problems
    }

    /// The last change of a history.
    async fn mark(&self) -> i64 {
        let begin = Instant::now();
        let soon = |what| assert!(begin.elapsed() < Duration::from_mins(1), "no {what} within 60 s");
        let revision = 'put: {
            for n in 0.. {
                soon("put");
                if let Some((server, token)) = self.world.direct.connect(n).await {
                    let mark = call(PUT, &put("app/mark", "x"), token.as_deref()).with("grpc-timeout", "5S");
                    if let Ok(outcome) = tokio::time::timeout(Duration::from_secs(5), server.send(&mark)).await
                        && outcome.status == Some(0)
                    {
                        break 'put Header::of(&outcome.messages[0]).unwrap().revision;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            unreachable!()
        };
        while self.world.truth.position() < revision {
            soon("truth");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        revision
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories() {
    Checker::start(None).await.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_with_passwords() {
    Checker::start(Some("r00t")).await.run().await;
}
