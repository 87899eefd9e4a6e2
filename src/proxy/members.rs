//! The cluster's members: the state of each, which one is next, and whose connections are cut.
//!
//! Probes decide whose connections are cut; failed connections of clients only make a member the last choice. Nothing
//! that happens to one member, to DNS or to this process alone cuts the connections of a healthy member.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use super::preflight::{Subject, Tried};
use super::status;
use crate::net::{DialError, Step, Target};
use crate::os::clock::unix;
use crate::os::log::Throttle;
use crate::settings::{Endpoint, Prefer};

/// A member that answers with an error is asked again for this long before other members take its connections: an
/// election is over by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// A member that was asked before another one answered, and is silent for this long after that, has had its chance.
const CHANCE: Duration = Duration::from_millis(250);

/// After a stall of all members, each may answer this much later than the first one.
const RECOVERY: Duration = Duration::from_secs(2);

/// Connections to an address that answers no packets are cut after this time, even if no other member is better.
const VANISHED: Duration = Duration::from_secs(4);

/// What comes of a probe: the member serves, it does not, or this host could not ask.
pub(super) const PROBES: [&str; 3] = ["success", "failure", "local"];

/// One address of a member, and its connections.
#[derive(Debug)]
pub(super) struct Member {
    pub target: Target,
    state: Mutex<State>,
    /// Why new connections fail although probes on the old one succeed.
    trouble: Mutex<Option<String>>,
    /// What its alarms say.
    alarms: Mutex<Vec<String>>,
    /// No name leads to it any more.
    retired: AtomicBool,
    /// A change cuts the connections that watch it.
    cut: watch::Sender<()>,
    /// It leads the others, as far as we know.
    leads: AtomicBool,
    /// Calls go to it.
    is_current: AtomicBool,
    /// When the certificate that it showed last ends, in seconds since 1970; 0 if it has shown none.
    certificate_end: AtomicI64,
    /// How long the last good answer took, in microseconds; at first the longest time.
    round_trip: AtomicU64,
    story: Mutex<Story>,
    /// Wakes the next probe.
    pub wake: Notify,
    /// Open connections.
    pub open: AtomicUsize,
    pub counters: Counters,
}

/// What people want to know about a member, and nobody else.
#[derive(Debug, Clone)]
struct Story {
    /// When its state was last another one.
    since: SystemTime,
    last_error: Option<(SystemTime, String)>,
    /// The version of its etcd.
    version: Option<String>,
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    /// Bytes to the member.
    pub sent: AtomicU64,
    /// Bytes from the member.
    pub received: AtomicU64,
    /// Probes, by their result: in the order of [`PROBES`].
    pub probes: [AtomicU64; PROBES.len()],
    /// How often its connections were cut in favour of other members.
    pub failovers: AtomicU64,
    /// Failed connections to it, by the kind of error.
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(super) fn count_failure(&self, err: &DialError) {
        *lock(&self.failures).entry(err.kind()).or_default() += 1;
    }

    pub(super) fn failures(&self, kind: &str) -> u64 {
        lock(&self.failures).get(kind).copied().unwrap_or_default()
    }
}

/// What is wrong with a member. The order is the one in which members are tried when none is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// It answers with an error.
    Ill,
    /// It lives, but a read gets no answer: it cannot reach the others, or they have no leader.
    Stuck,
    /// It accepts connections and does not answer.
    Silent,
    /// It takes no connections, or none that we can use.
    Unusable,
    /// Its host does not answer.
    Vanished,
}

impl Fault {
    fn of(err: &DialError) -> Self {
        match err {
            DialError::Ill(_) => Self::Ill,
            DialError::Stuck(_) => Self::Stuck,
            DialError::TimedOut(Step::Handshake | Step::Answer, _) => Self::Silent,
            DialError::TimedOut(Step::Connect, _) | DialError::Unreachable(_) => Self::Vanished,
            _ => Self::Unusable,
        }
    }
}

/// The state of a member, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unknown,
    Up {
        /// When the last probe that it passed was sent.
        asked: Instant,
    },
    Down {
        fault: Fault,
        why: String,
        /// When the first probe that it failed was sent.
        since: Instant,
        /// Since when it has failed with this fault.
        fault_since: Instant,
        /// When another member passed a probe that was sent after `since`.
        better_at: Option<Instant>,
        /// All members were silent at the same time: the host or the network stalled.
        in_stall: bool,
        /// Its connections have been cut at least once.
        is_cut: bool,
    },
}

impl Member {
    fn new(target: Target, state: State) -> Self {
        Self {
            target,
            state: Mutex::new(state),
            trouble: Mutex::default(),
            alarms: Mutex::default(),
            story: Mutex::new(Story { since: SystemTime::now(), last_error: None, version: None }),
            retired: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            is_current: AtomicBool::new(false),
            certificate_end: AtomicI64::new(0),
            round_trip: AtomicU64::new(u64::MAX),
            cut: watch::Sender::new(()),
            wake: Notify::new(),
            open: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// Changes when this member's connections are to be cut.
    pub(super) fn cut(&self) -> watch::Receiver<()> {
        self.cut.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether it passed its last probe.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state(), State::Up { .. })
    }

    /// Whether it has passed a probe that was sent at this time or later.
    pub(super) fn has_passed_since(&self, time: Instant) -> bool {
        matches!(*self.state(), State::Up { asked } if asked >= time)
    }

    /// Whether it failed its last probe.
    pub(super) fn is_down(&self) -> bool {
        matches!(*self.state(), State::Down { .. })
    }

    /// Whether new connections fail although it is up.
    pub(super) fn is_in_trouble(&self) -> bool {
        lock(&self.trouble).is_some()
    }

    /// Whether new connections to it can be expected to work.
    pub(super) fn is_usable(&self) -> bool {
        self.is_up() && !self.is_in_trouble()
    }

    /// Whether it leads the others, as far as we know.
    pub(super) fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Whether calls go to it.
    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// Calls go to it, or no longer.
    pub(super) fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
    }

    /// It has shown a certificate that ends then, in seconds since 1970; `None` without TLS.
    pub(super) fn showed_certificate(&self, end: Option<i64>) {
        if let Some(end) = end {
            self.certificate_end.store(end, Ordering::Relaxed);
        }
    }

    /// When the certificate that it showed last ends, in seconds since 1970.
    pub(super) fn certificate_end(&self) -> Option<i64> {
        Some(self.certificate_end.load(Ordering::Relaxed)).filter(|end| *end != 0)
    }

    /// Whether no name leads to it any more.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// How little can be expected of it: the place among the members that a new connection tries; the first is 0.
    pub(super) fn rank(&self) -> usize {
        match *self.state() {
            State::Up { .. } if self.is_in_trouble() => 2,
            State::Up { .. } => 0,
            State::Unknown => 1,
            State::Down { fault, .. } => 3 + fault as usize,
        }
    }

    /// Why it cannot be used; `None` if it can, or if that is not known.
    fn problem(&self) -> Option<String> {
        let why = match &*self.state() {
            State::Down { why, .. } => Some(why.clone()),
            _ => lock(&self.trouble).as_ref().map(|why| format!("new connections fail: {why}")),
        };
        Some(format!("{}: {}", self.target, why?))
    }

    fn passes(&self, asked: Instant) -> bool {
        let mut state = self.state();
        let came_up = !matches!(*state, State::Up { .. });
        *state = State::Up { asked };
        drop(state);
        if came_up {
            self.state_is_new();
        }
        came_up
    }

    /// Returns whether it went down.
    fn fails(&self, asked: Instant, err: &DialError) -> bool {
        let (new, text) = (Fault::of(err), err.to_string());
        let went_down = self.record_failure(asked, new, &text);
        if went_down {
            self.state_is_new();
        }
        if self.is_down() {
            self.went_wrong(text);
        }
        went_down
    }

    fn record_failure(&self, asked: Instant, new: Fault, text: &str) -> bool {
        match &mut *self.state() {
            State::Up { asked: last } if asked < *last => false,
            State::Down { fault, why, fault_since, .. } => {
                if *fault != new {
                    *fault_since = asked;
                }
                (*fault, *why) = (new, text.to_owned());
                false
            }
            state => {
                let (since, fault_since) = (asked, asked);
                *state = State::Down {
                    fault: new,
                    why: text.to_owned(),
                    since,
                    fault_since,
                    better_at: None,
                    in_stall: false,
                    is_cut: false,
                };
                true
            }
        }
    }

    fn is_silent(&self) -> bool {
        matches!(*self.state(), State::Down { fault, .. } if fault >= Fault::Silent)
    }

    fn is_in_stall(&self) {
        if let State::Down { in_stall, .. } = &mut *self.state() {
            *in_stall = true;
        }
    }

    /// Another member passed a probe that was sent at `asked`. Returns whether this member must now prove itself.
    fn must_prove_itself(&self, asked: Instant, now: Instant) -> bool {
        match &mut *self.state() {
            State::Down { since, better_at: better_at @ None, .. } if asked > *since => {
                *better_at = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Whether its connections must be cut now that it has failed a probe that was sent at `asked`.
    fn must_be_cut(&self, asked: Instant, now: Instant, another_is_up: bool) -> bool {
        let State::Down { fault, since, fault_since, better_at, in_stall, is_cut, .. } = &mut *self.state() else {
            return false;
        };
        let has_vanished = *fault == Fault::Vanished && now.duration_since(*fault_since) >= VANISHED;
        // It had the chance to answer after the other member did.
        let is_silent = *fault >= Fault::Silent;
        let had_chance = |at| {
            if *in_stall { asked >= at + RECOVERY } else { asked >= at || (is_silent && now >= at + CHANCE) }
        };
        let is_worse = another_is_up && better_at.is_some_and(had_chance);
        let is_out_of_patience = *fault > Fault::Ill || now.duration_since(*since) >= PATIENCE;
        let cut = has_vanished || (is_worse && is_out_of_patience);
        // Clients may have come back to it, while no other member was better.
        let is_news = !*is_cut || self.open.load(Ordering::Relaxed) > 0;
        *is_cut |= cut;
        cut && is_news
    }
}

/// All members.
pub(super) struct Members {
    list: Mutex<Vec<Arc<Member>>>,
    /// Changes with the list.
    changed: watch::Sender<()>,
    /// Names that do not resolve now, and why.
    unresolved: Mutex<BTreeMap<String, String>>,
    /// A member has said that it leads; and how often another one did after that.
    has_leader: AtomicBool,
    pub leader_changes: AtomicU64,
    /// Something has changed in what we know about a member.
    news: Notify,
    /// Random for each process.
    dice: RandomState,
    warnings: Throttle,
}

impl Members {
    /// With what is known about some of them.
    pub(super) fn new(tried: &[Tried]) -> Self {
        let now = Instant::now();
        let mut list = Vec::new();
        let mut unresolved = BTreeMap::new();
        for (tried, result) in tried {
            match (tried, result) {
                (Subject::Target(target), result) => {
                    let member = Member::new(target.clone(), State::Unknown);
                    if let Err(err) = result {
                        member.fails(now, err);
                    }
                    list.push(Arc::new(member));
                }
                (name, Err(err)) => drop(unresolved.insert(name.to_string(), err.to_string())),
                (_, Ok(())) => {}
            }
        }
        Self {
            list: Mutex::new(list),
            changed: watch::Sender::new(()),
            unresolved: Mutex::new(unresolved),
            has_leader: AtomicBool::new(false),
            leader_changes: AtomicU64::new(0),
            news: Notify::new(),
            dice: RandomState::new(),
            warnings: Throttle::default(),
        }
    }

    /// All of them, those that retire too.
    pub(super) fn list(&self) -> Vec<Arc<Member>> {
        lock(&self.list).clone()
    }

    /// Changes when members come or go.
    pub(super) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until something changes in what we know about a member.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// The addresses of `endpoint` are now `targets`. Returns the members that are new.
    pub(super) fn replace(&self, endpoint: &Endpoint, targets: &[Target]) -> Vec<Arc<Member>> {
        lock(&self.unresolved).remove(&endpoint.to_string());
        let mut list = lock(&self.list);
        let had_any = list.iter().any(|member| member.target.endpoint == *endpoint);
        for member in list.iter().filter(|member| member.target.endpoint == *endpoint) {
            let is_gone = !targets.contains(&member.target);
            if member.retired.swap(is_gone, Ordering::Relaxed) != is_gone {
                let what = if is_gone { "is no longer an address" } else { "is an address again" };
                log::info!("{} {what} of this name", member.target);
                member.wake.notify_one();
            }
        }
        let is_known = |target: &&Target| list.iter().any(|member| member.target == **target);
        let new: Vec<_> = targets
            .iter()
            .filter(|target| !is_known(target))
            .map(|target| Arc::new(Member::new(target.clone(), State::Unknown)))
            .collect();
        for member in new.iter().filter(|_| had_any) {
            log::info!("{} is a new address of this name", member.target);
        }
        list.extend(new.iter().cloned());
        drop(list);
        self.changed.send_replace(());
        new
    }

    /// A member that has retired and has no connection left goes.
    pub(super) fn remove(&self, member: &Arc<Member>) {
        lock(&self.list).retain(|other| !Arc::ptr_eq(other, member));
        self.changed.send_replace(());
    }

    /// The name of an endpoint, or an SRV domain, does not resolve. What was found before stays in use.
    pub(super) fn not_resolved(&self, name: &str, err: &DialError) {
        let is_new = lock(&self.unresolved).insert(name.to_owned(), err.to_string()).is_none();
        let stays = if self.list().is_empty() { "" } else { "; the addresses that were found before stay in use" };
        if is_new {
            log::warn!("{name}: {err}{stays}");
        }
    }

    /// A look-up that failed before succeeds again.
    pub(super) fn resolved(&self, name: &str) {
        if lock(&self.unresolved).remove(name).is_some() {
            log::info!("{name} resolves again");
        }
    }

    /// Whether a member can be used; if none can, why each cannot.
    pub(super) fn health(&self) -> Result<(), String> {
        let list = self.offered();
        if list.iter().any(|member| member.is_usable()) {
            return Ok(());
        }
        let mut known: Vec<String> = list.iter().filter_map(|member| member.problem()).collect();
        known.extend(lock(&self.unresolved).iter().map(|(name, why)| format!("{name}: {why}")));
        Err(if known.is_empty() { "no member has answered yet".to_owned() } else { known.join("; ") })
    }

    /// What people may see of the names that do not resolve.
    pub(super) fn unresolved(&self) -> Vec<status::Unresolved> {
        let names = lock(&self.unresolved);
        names.iter().map(|(name, error)| status::Unresolved { name: name.clone(), error: error.clone() }).collect()
    }

    /// The alarms of all members, as in `NOSPACE`.
    pub(super) fn alarms(&self) -> Vec<String> {
        let mut alarms: Vec<_> = self.list().iter().flat_map(|member| lock(&member.alarms).clone()).collect();
        alarms.sort();
        alarms.dedup();
        alarms
    }

    /// Records the answer to a probe of `member` that was sent at `asked`, and logs what it changes.
    pub(super) fn report(&self, member: &Arc<Member>, asked: Instant, answer: &Result<(), DialError>) {
        let result = match answer {
            Ok(()) => 0,
            Err(DialError::Local(_)) => 2,
            Err(_) => 1,
        };
        member.counters.probes[result].fetch_add(1, Ordering::Relaxed);
        if let Err(err @ DialError::Local(_)) = answer {
            self.warnings.warn(format_args!("{}: {err}", member.target));
            return;
        }
        let changes = self.record(member, asked, answer, Instant::now());
        if !changes.is_empty() {
            self.news.notify_one();
        }
        for (member, change) in changes {
            let target = &member.target;
            match change {
                Change::CameUp => log::info!("{target} is up"),
                Change::WentDown if self.is_spare(&member) => {}
                Change::WentDown => {
                    let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                    log::warn!("{target} is down: {why}");
                }
                Change::Cut(0) => {}
                Change::Cut(connections) if member.has_vanished() => {
                    log::warn!("{target}: its host does not answer; connections cut now: {connections}");
                }
                Change::Cut(connections) => {
                    log::warn!("{target}: other members take over its connections; cut now: {connections}");
                }
            }
        }
    }

    /// Records whether a member says that it leads.
    pub(super) fn report_leader(&self, member: &Arc<Member>, leads: bool) {
        if leads {
            if !member.is_leader() && self.has_leader.swap(true, Ordering::Relaxed) {
                self.leader_changes.fetch_add(1, Ordering::Relaxed);
            }
            self.list().iter().for_each(|other| other.leads.store(false, Ordering::Relaxed));
        }
        if member.leads.swap(leads, Ordering::Relaxed) != leads {
            self.news.notify_one();
        }
    }

    /// Records why a client's connection, or a probe's new one, could not be made.
    pub(super) fn report_failed_connection(&self, member: &Member, asked: Instant, err: &DialError) {
        if matches!(err, DialError::Local(_)) {
            self.warnings.warn(format_args!("{}: {err}", member.target));
            return;
        }
        // An error that is older than the last good answer says nothing.
        let is_news = matches!(*member.state(), State::Up { asked: last } if asked >= last);
        if is_news {
            member.went_wrong(err.to_string());
        }
        if is_news && lock(&member.trouble).replace(err.to_string()).is_none() {
            member.state_is_new();
            log::warn!("{}: new connections fail: {err}", member.target);
            member.wake.notify_one();
        }
    }

    /// Whether its host has another address, of the other kind (IPv4, IPv6), that works.
    fn is_spare(&self, member: &Member) -> bool {
        self.list().iter().any(|other| other.target.is_other_kind_of(&member.target) && !other.is_down())
    }

    fn record(
        &self,
        member: &Arc<Member>,
        asked: Instant,
        answer: &Result<(), DialError>,
        now: Instant,
    ) -> Vec<(Arc<Member>, Change)> {
        let mut changes = Vec::new();
        let list = self.list();
        let others = || list.iter().filter(|other| !Arc::ptr_eq(other, member));
        match answer {
            Ok(()) => {
                if member.passes(asked) {
                    changes.push((Arc::clone(member), Change::CameUp));
                }
                for other in others().filter(|other| other.must_prove_itself(asked, now)) {
                    other.wake.notify_one();
                }
            }
            Err(err) => {
                if member.fails(asked, err) {
                    changes.push((Arc::clone(member), Change::WentDown));
                    // Are the others better?
                    others().for_each(|other| other.wake.notify_one());
                }
                if list.len() > 1 && list.iter().all(|member| member.is_silent()) {
                    for member in &list {
                        member.is_in_stall();
                    }
                }
                let offered = self.offered();
                let another_is_up = offered.iter().any(|other| !Arc::ptr_eq(other, member) && other.is_usable());
                if member.must_be_cut(asked, now, another_is_up) {
                    member.counters.failovers.fetch_add(1, Ordering::Relaxed);
                    changes.push((Arc::clone(member), Change::Cut(member.open.load(Ordering::Relaxed))));
                    member.cut.send_replace(());
                }
            }
        }
        changes
    }

    /// The members for new connections: those that names lead to, if there are any.
    fn offered(&self) -> Vec<Arc<Member>> {
        let mut list = self.list();
        if list.iter().any(|member| !member.is_retired()) {
            list.retain(|member| !member.is_retired());
        }
        list
    }

    /// The members in the order in which they are to be used. Of those that are equally healthy, the preferred one is the
    /// first.
    pub(super) fn order(&self, prefer: Prefer) -> Vec<Arc<Member>> {
        let mut order = self.offered();
        order.sort_by_cached_key(|member| {
            let place = match prefer {
                Prefer::Leader => u64::from(!member.is_leader()),
                Prefer::Nearest => member.round_trip(),
                Prefer::Spread => 0,
            };
            // Sidecars without a preference choose different members, and each one stays with its own.
            (member.rank(), place, self.dice.hash_one(member.target.to_string()))
        });
        order
    }
}

impl Member {
    /// A probe took this long. The last few count, so that a single slow answer changes little.
    pub(super) fn measured(&self, time: Duration) {
        let now = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let smooth = |before: u64| Some(if before == u64::MAX { now } else { before / 4 * 3 + now / 4 });
        let _ = self.round_trip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smooth);
    }

    /// The time that a probe takes, in microseconds; the maximum if none has been answered.
    pub(super) fn round_trip(&self) -> u64 {
        self.round_trip.load(Ordering::Relaxed)
    }

    /// Whether it answers in less than half of the time that the other one takes.
    pub(super) fn is_much_nearer_than(&self, other: &Self) -> bool {
        /// Differences within a machine or a rack are noise, in microseconds.
        const NOISE: u64 = 1000;
        self.round_trip().saturating_mul(2).saturating_add(NOISE) < other.round_trip()
    }

    /// A probe has made a new connection.
    pub(super) fn accepts_connections(&self) {
        if lock(&self.trouble).take().is_some() {
            self.state_is_new();
            log::info!("{}: new connections succeed again", self.target);
        }
    }

    /// Records the version of its etcd.
    pub(super) fn report_version(&self, version: &str) {
        lock(&self.story).version = (!version.is_empty()).then(|| version.to_owned());
    }

    fn state_is_new(&self) {
        lock(&self.story).since = SystemTime::now();
    }

    fn went_wrong(&self, why: String) {
        lock(&self.story).last_error = Some((SystemTime::now(), why));
    }

    /// What people may see.
    pub(super) fn report(&self) -> status::Member {
        let (state, error) = match &*self.state() {
            State::Unknown => ("unknown", None),
            State::Up { .. } => ("up", None),
            State::Down { why, .. } => ("down", Some(why.clone())),
        };
        let trouble = lock(&self.trouble).clone().filter(|_| state == "up");
        let state = if trouble.is_some() { "failing" } else { state };
        let Story { since, last_error, version } = lock(&self.story).clone();
        let (last_error_at, last_error) = last_error.map(|(at, why)| (unix(at), why)).unzip();
        let round_trip = self.round_trip();
        status::Member {
            address: self.target.to_string(),
            state: state.to_owned(),
            since: unix(since),
            error: error.or_else(|| trouble.map(|why| format!("new connections fail: {why}"))),
            last_error,
            last_error_at,
            leads: state != "down" && self.is_leader(),
            serves: false,
            retired: self.is_retired(),
            version,
            alarms: lock(&self.alarms).clone(),
            round_trip: (state != "down" && round_trip != u64::MAX)
                .then(|| Duration::from_micros(round_trip).as_secs_f64()),
            connections: self.open.load(Ordering::Relaxed),
            failovers: self.counters.failovers.load(Ordering::Relaxed),
        }
    }

    /// Records what it says about alarms.
    pub(super) fn report_alarms(&self, now: Vec<String>) {
        let mut known = lock(&self.alarms);
        for alarm in now.iter().filter(|alarm| !known.contains(alarm)) {
            let meaning = match alarm.as_str() {
                "NOSPACE" => ": its database is full, so writes fail; reads and deletes work",
                "CORRUPT" => ": the data of the members differ",
                _ => "",
            };
            log::warn!("{}: alarm {alarm}{meaning}", self.target);
        }
        for alarm in known.iter().filter(|alarm| !now.contains(alarm)) {
            log::info!("{}: the alarm {alarm} is over", self.target);
        }
        *known = now;
    }

    fn has_vanished(&self) -> bool {
        matches!(*self.state(), State::Down { fault: Fault::Vanished, .. })
    }
}

/// What a report changes.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    CameUp,
    WentDown,
    /// This many connections were cut.
    Cut(usize),
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three members, known by their positions.
    struct Three(Members, Instant);

    impl Three {
        fn new() -> Self {
            let tried = [1, 2, 3].map(|port| (Subject::Target(Target::of(&Endpoint::loopback(port)).unwrap()), Ok(())));
            Self(Members::new(&tried), Instant::now())
        }

        /// The answer comes 100 ms after the question.
        fn report(
            &self,
            n: usize,
            ms: u64,
            answer: impl std::borrow::Borrow<Result<(), DialError>>,
        ) -> Vec<(usize, Change)> {
            let asked = self.1 + Duration::from_millis(ms);
            let changes = self.0.record(&self.member(n), asked, answer.borrow(), asked + Duration::from_millis(100));
            changes.into_iter().map(|(member, change)| (self.position(&member), change)).collect()
        }

        fn member(&self, n: usize) -> Arc<Member> {
            Arc::clone(&self.0.list()[n])
        }

        fn order(&self) -> Vec<usize> {
            self.0.order(Prefer::Leader).iter().map(|member| self.position(member)).collect()
        }

        fn position(&self, member: &Arc<Member>) -> usize {
            self.0.list().iter().position(|other| Arc::ptr_eq(other, member)).unwrap()
        }
    }

    fn silent() -> Result<(), DialError> {
        Err(DialError::TimedOut(Step::Answer, Duration::from_secs(1)))
    }

    fn ill() -> Result<(), DialError> {
        Err(DialError::Ill("etcdserver: leader changed".to_owned()))
    }

    fn vanished() -> Result<(), DialError> {
        Err(DialError::TimedOut(Step::Connect, Duration::from_secs(1)))
    }

    #[test]
    fn a_silent_member_is_left_when_it_stays_silent_after_another_has_answered() {
        let three = Three::new();
        assert_eq!(three.0.health().unwrap_err(), "no member has answered yet");
        assert_eq!(three.report(0, 0, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.report(1, 0, Ok(())), [(1, Change::CameUp)]);
        three.member(0).open.store(7, Ordering::Relaxed);
        let cut = three.member(0).cut();
        assert_eq!(three.report(0, 1000, silent()), [(0, Change::WentDown)], "1 may be no better");
        assert_eq!(three.report(1, 2000, Ok(())), []);
        assert_eq!(three.report(0, 2050, silent()), [], "it was asked before 1 answered");
        assert!(!cut.has_changed().unwrap());
        assert_eq!(three.report(0, 2100, silent()), [(0, Change::Cut(7))]);
        assert!(cut.has_changed().unwrap());
        three.member(0).open.store(0, Ordering::Relaxed);
        assert_eq!(three.report(0, 3000, silent()), [], "once");
        three.member(0).open.store(2, Ordering::Relaxed);
        assert_eq!(three.report(0, 3100, silent()), [(0, Change::Cut(2))], "unless clients come back to it");
        assert_eq!(three.report(0, 4000, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.member(0).counters.failovers.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_question_that_is_open_when_another_member_answers_counts_too() {
        let three = Three::new();
        three.report(0, 0, Ok(()));
        three.report(1, 0, Ok(()));
        three.report(0, 1000, silent());
        three.report(1, 1200, Ok(()));
        let at = |ms| three.1 + Duration::from_millis(ms);
        let fails = |now, answer| three.0.record(&three.member(0), at(1150), &answer, at(now));
        assert!(fails(1540, silent()).is_empty(), "the other one answered 240 ms ago");
        assert!(fails(1560, Err(DialError::Stuck(Duration::ZERO))).is_empty(), "it answers");
        assert!(matches!(fails(1560, silent())[..], [(_, Change::Cut(0))]));
    }

    #[test]
    fn a_stall_of_all_members_cuts_nothing() {
        let three = Three::new();
        for n in 0..3 {
            three.report(n, 0, Ok(()));
        }
        for second in 1..10 {
            for n in 0..3 {
                let expected: &[_] = if second == 1 { &[(n, Change::WentDown)] } else { &[] };
                assert_eq!(three.report(n, second * 1000, silent()), expected);
            }
        }
        let reason = three.0.health().unwrap_err();
        assert!(reason.starts_with("http://127.0.0.1:1: it accepts the connection but") && reason.contains("; http"));
        // The first one answers a little earlier than the others.
        assert_eq!(three.report(2, 10_000, Ok(())), [(2, Change::CameUp)]);
        assert_eq!(three.report(0, 10_050, silent()), []);
        assert_eq!(three.report(0, 10_200, silent()), []);
        assert_eq!(three.report(0, 11_000, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.report(1, 11_200, silent()), []);
        assert_eq!(three.report(1, 12_200, silent()), [(1, Change::Cut(0))], "it had its time");
    }

    #[test]
    fn a_member_that_answers_gets_more_time() {
        let three = Three::new();
        for n in 0..3 {
            three.report(n, 0, Ok(()));
        }
        assert_eq!(three.report(0, 1000, ill()), [(0, Change::WentDown)]);
        three.report(1, 1500, Ok(()));
        for ms in [1700, 2700] {
            assert_eq!(three.report(0, ms, ill()), []);
        }
        assert_eq!(three.report(0, 2900, ill()), [(0, Change::Cut(0))]);
        assert_eq!(three.report(2, 3600, Err(DialError::Stuck(Duration::ZERO))), [(2, Change::WentDown)]);
        three.report(1, 3700, Ok(()));
        let stuck = three.report(2, 3900, Err(DialError::Stuck(Duration::ZERO)));
        assert_eq!(stuck, [(2, Change::Cut(0))], "a member that others do not reach gets no more time");
        assert_eq!(three.report(1, 4000, ill()), [(1, Change::WentDown)]);
        three.report(2, 4500, Ok(()));
        assert_eq!(three.report(1, 4700, silent()), [(1, Change::Cut(0))], "now it does not answer");
    }

    #[test]
    fn an_address_that_vanishes_is_left_even_if_no_other_is_better() {
        let three = Three::new();
        assert_eq!(three.report(0, 0, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.report(0, 1000, silent()), [(0, Change::WentDown)]);
        assert_eq!(three.report(0, 2000, vanished()), []);
        assert_eq!(three.report(0, 5000, vanished()), []);
        assert_eq!(three.report(0, 6000, vanished()), [(0, Change::Cut(0))]);
    }

    #[test]
    fn a_failed_connection_is_no_failed_probe() {
        let three = Three::new();
        three.report(0, 1000, Ok(()));
        three.report(1, 1000, Ok(()));
        let at = |ms| three.1 + Duration::from_millis(ms);
        three.0.report_failed_connection(&three.member(0), at(900), &DialError::Refused);
        assert!(three.member(0).is_usable(), "that is older than the last answer");
        three.0.report_failed_connection(
            &three.member(0),
            at(1100),
            &DialError::Local("Too many open files".to_owned()),
        );
        assert!(three.member(0).is_usable(), "that is not the member's fault");
        three.0.report_failed_connection(&three.member(0), at(1200), &DialError::Refused);
        assert!(three.member(0).is_up() && !three.member(0).is_usable());
        assert_eq!(three.order()[2], 0);
        three.0.report_failed_connection(&three.member(1), at(1200), &DialError::Refused);
        let reason = three.0.health().unwrap_err();
        assert!(reason.starts_with("http://127.0.0.1:1: new connections fail: the connection is refused"), "{reason}");
        three.member(0).accepts_connections();
        assert!(three.0.health().is_ok());
    }

    #[test]
    fn the_leader_is_the_first_of_those_that_are_up() {
        let three = Three::new();
        three.report(0, 0, Ok(()));
        three.report(1, 0, silent());
        assert_eq!(three.order(), [0, 2, 1]);
        three.report(2, 0, Ok(()));
        three.0.report_leader(&three.member(2), true);
        assert_eq!(three.order(), [2, 0, 1]);
        three.0.report_leader(&three.member(0), true);
        assert_eq!(three.order(), [0, 2, 1]);
        three.report(0, 100, vanished());
        three.report(2, 100, ill());
        assert_eq!(three.order(), [2, 1, 0], "one that answers comes before a silent one");
    }

    #[test]
    fn addresses_come_and_go() {
        let members = Members::new(&[]);
        let endpoint = Endpoint::loopback(1);
        let address = |n: u8| Target { endpoint: endpoint.clone(), addr: Some(([127, 0, 0, n], 1).into()) };
        let count = || (members.list().len(), members.order(Prefer::Leader).len());
        assert_eq!(members.replace(&endpoint, &[address(1), address(2)]).len(), 2);
        assert_eq!(members.replace(&endpoint, &[address(2), address(3)]).len(), 1);
        assert_eq!(count(), (3, 2), "the first one keeps its connections, and gets no new ones");
        assert!(members.replace(&endpoint, &[address(1), address(2), address(3)]).is_empty());
        assert_eq!(count(), (3, 3));
        members.replace(&endpoint, &[]);
        assert_eq!(count(), (3, 3), "a bad address is better than none");
        members.replace(&endpoint, &[address(1)]);
        let retired = Arc::clone(&members.list()[1]);
        members.report(&retired, Instant::now(), &Ok(()));
        assert!(members.health().is_err(), "new connections do not go to an address that has no name");
        members.remove(&members.list()[0]);
        assert_eq!(count(), (2, 2));
    }
}
