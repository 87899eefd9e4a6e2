//! Keeps leases alive: many clients share a few streams to a member, and theirs outlive the member.
//!
//! It does no I/O: the engine asks for the [`Action`]s and carries them out. No answer is remembered for later: a client
//! that asks shall have its lease renewed, because it may not ask again for a long time.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::identity::Identity;
use crate::api::lease;
use crate::api::wire::Malformed;

/// How many streams clients of one identity share. A member answers the requests of a stream one after the other, and a
/// follower asks the leader for each.
const STREAMS: u64 = 16;

/// A client that has this many requests without an answer must wait with more.
const BUSY: usize = 4096;

/// gRPC's status when there is no member.
const UNAVAILABLE: u32 = 14;

/// How long a request waits for a member.
const WAIT: Duration = Duration::from_secs(6);

/// What the engine shall do. `client` is its tag of a client's stream, `upstream` is ours of a stream to a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Open {
        upstream: u64,
        identity: Identity,
    },
    Forward {
        upstream: u64,
        message: Vec<u8>,
    },
    Close {
        upstream: u64,
    },
    Send {
        client: u64,
        message: Rc<[u8]>,
    },
    /// Ends a client's stream, with gRPC's status.
    End {
        client: u64,
        status: u32,
        why: Rc<str>,
    },
}

/// All streams of `LeaseKeepAlive`.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    clients: FxHashMap<u64, Client>,
    lanes: FxHashMap<(Identity, u64), Lane>,
    /// Which lane a stream to a member belongs to.
    upstreams: FxHashMap<u64, (Identity, u64)>,
    last_upstream: u64,
    asked: u64,
    forwarded: u64,
    actions: VecDeque<Action>,
}

/// Figures for the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Streams of clients, and ours to members.
    pub clients: usize,
    pub streams: usize,
    /// Requests of clients, and those that went to members.
    pub asked: u64,
    pub forwarded: u64,
}

/// A client's stream. Its requests are answered in their order, as a member does.
#[derive(Debug)]
struct Client {
    identity: Identity,
    /// The answers to the requests that are open, as far as they have come.
    answers: VecDeque<Option<Rc<[u8]>>>,
    /// The number of the first of them.
    first: u64,
    /// It sends nothing more: its stream ends with the last answer.
    has_ended: bool,
}

/// A stream to a member, and what it was asked.
#[derive(Debug, Default)]
struct Lane {
    upstream: Option<u64>,
    /// In the order in which they were sent.
    open: VecDeque<Open>,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Open {
    lease: i64,
    since: Instant,
    /// Clients, and the numbers of their requests.
    askers: Vec<(u64, u64)>,
}

impl Keeper {
    /// A client opens a stream.
    pub(super) fn open(&mut self, client: u64, identity: Identity) {
        self.clients.insert(client, Client { identity, answers: VecDeque::new(), first: 0, has_ended: false });
    }

    /// A client asks to keep a lease alive.
    ///
    /// # Errors
    /// When this is no such message.
    pub(super) fn request(&mut self, client: u64, message: &[u8], now: Instant) -> Result<(), Malformed> {
        let lease = lease::id_of_request(message)?;
        let Some(asker) = self.clients.get_mut(&client) else { return Ok(()) };
        self.asked += 1;
        let number = asker.first + asker.answers.len() as u64;
        asker.answers.push_back(None);
        let key = (asker.identity.clone(), lease.cast_unsigned() % STREAMS);
        let lane = self.lanes.entry(key.clone()).or_default();
        if let Some(open) = lane.open.iter_mut().find(|open| open.lease == lease) {
            open.askers.push((client, number));
            return Ok(());
        }
        lane.open.push_back(Open { lease, since: now, askers: vec![(client, number)] });
        match lane.upstream {
            Some(upstream) => {
                self.forwarded += 1;
                self.actions.push_back(forward(upstream, lease));
            }
            // One that was lost is opened again by the next tick, all others here.
            None if lane.open.len() == 1 => self.connect(&key),
            None => {}
        }
        Ok(())
    }

    /// A client sends nothing more on its stream.
    pub(super) fn end(&mut self, client: u64) {
        let Some(asker) = self.clients.get_mut(&client) else { return };
        asker.has_ended = true;
        if asker.answers.is_empty() {
            self.actions.push_back(done(client));
        }
    }

    /// Whether a client has asked so much that it must wait with more.
    pub(super) fn is_busy(&self, client: u64) -> bool {
        self.clients.get(&client).is_some_and(|client| client.answers.len() >= BUSY)
    }

    /// A client's stream has ended.
    pub(super) fn close(&mut self, client: u64) {
        let Some(Client { identity, .. }) = self.clients.remove(&client) else { return };
        if self.clients.values().any(|other| other.identity == identity) {
            return;
        }
        for stream in 0..STREAMS {
            if let Some(upstream) = self.lanes.remove(&(identity.clone(), stream)).and_then(|lane| lane.upstream) {
                self.upstreams.remove(&upstream);
                self.actions.push_back(Action::Close { upstream });
            }
        }
    }

    /// A member answers.
    pub(super) fn answer(&mut self, upstream: u64, message: &[u8]) {
        let Some(lane) = self.upstreams.get(&upstream).and_then(|key| self.lanes.get_mut(key)) else { return };
        let Ok(lease) = lease::id_of_answer(message) else { return };
        let Some(place) = lane.open.iter().position(|open| open.lease == lease) else { return };
        let Some(Open { askers, .. }) = lane.open.remove(place) else { return };
        let message: Rc<[u8]> = message.into();
        for (client, number) in askers {
            let Entry::Occupied(mut entry) = self.clients.entry(client) else { continue };
            let asker = entry.get_mut();
            let place = usize::try_from(number - asker.first).unwrap_or(usize::MAX);
            if let Some(answer) = asker.answers.get_mut(place) {
                *answer = Some(Rc::clone(&message));
            }
            while let Some(Some(message)) = asker.answers.front_mut().map(Option::take) {
                asker.answers.pop_front();
                asker.first += 1;
                self.actions.push_back(Action::Send { client, message });
            }
            if asker.has_ended && asker.answers.is_empty() {
                self.actions.push_back(done(client));
            }
        }
    }

    /// A stream to a member has ended: what it was asked is asked again.
    pub(super) fn lost(&mut self, upstream: u64) {
        if let Some(lane) = self.upstreams.remove(&upstream).and_then(|key| self.lanes.get_mut(&key)) {
            lane.upstream = None;
        }
    }

    /// A member, or whoever gives tokens, refuses a stream to all of its identity.
    pub(super) fn refused(&mut self, upstream: u64, status: u32, why: &str) {
        let Some(lane) = self.upstreams.remove(&upstream).and_then(|key| self.lanes.get_mut(&key)) else { return };
        lane.upstream = None;
        let why: Rc<str> = why.into();
        for open in lane.open.drain(..) {
            self.actions.extend(open.ends(status, &why));
        }
    }

    /// Opens what was lost. Clients that have waited for too long while there was no member are given up.
    pub(super) fn tick(&mut self, now: Instant, has_member: bool) {
        let lost = |lane: &Lane| lane.upstream.is_none() && !lane.open.is_empty();
        let keys: Vec<_> = self.lanes.iter().filter(|(_, lane)| lost(lane)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.connect(&key);
        }
        if has_member {
            return;
        }
        let why: Rc<str> = "etcdproxy: no member can be reached".into();
        for lane in self.lanes.values_mut() {
            while lane.open.front().is_some_and(|open| now.duration_since(open.since) >= WAIT)
                && let Some(open) = lane.open.pop_front()
            {
                self.actions.extend(open.ends(UNAVAILABLE, &why));
            }
        }
    }

    /// Whether somebody waits for an answer, so that [`Self::tick`] has something to do.
    pub(super) fn is_waiting(&self) -> bool {
        self.lanes.values().any(|lane| !lane.open.is_empty())
    }

    pub(super) fn counts(&self) -> Counts {
        let (clients, streams) = (self.clients.len(), self.upstreams.len());
        Counts { clients, streams, asked: self.asked, forwarded: self.forwarded }
    }

    /// What shall be done next.
    pub(super) fn next(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn connect(&mut self, key: &(Identity, u64)) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        self.last_upstream += 1;
        let upstream = self.last_upstream;
        lane.upstream = Some(upstream);
        self.upstreams.insert(upstream, key.clone());
        self.actions.push_back(Action::Open { upstream, identity: key.0.clone() });
        self.forwarded += lane.open.len() as u64;
        self.actions.extend(lane.open.iter().map(|open| forward(upstream, open.lease)));
    }
}

/// A stream ends well.
fn done(client: u64) -> Action {
    Action::End { client, status: 0, why: "".into() }
}

impl Open {
    /// What becomes of its clients when it gets no answer.
    fn ends(self, status: u32, why: &Rc<str>) -> impl Iterator<Item = Action> {
        self.askers.into_iter().map(move |(client, _)| Action::End { client, status, why: Rc::clone(why) })
    }
}

fn forward(upstream: u64, lease: i64) -> Action {
    Action::Forward { upstream, message: lease::keep_alive(lease) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(lease: i64, ttl: u8) -> Vec<u8> {
        [lease::with_id(2, lease), vec![0x18, ttl]].concat()
    }

    fn actions(keeper: &mut Keeper) -> Vec<Action> {
        std::iter::from_fn(|| keeper.next()).collect()
    }

    fn anybody() -> Identity {
        Identity::Sidecar
    }

    fn ask(keeper: &mut Keeper, client: u64, lease: i64) -> Vec<Action> {
        keeper.request(client, &lease::keep_alive(lease), Instant::now()).unwrap();
        actions(keeper)
    }

    #[test]
    fn clients_of_one_lease_share_a_request_that_has_no_answer_yet() {
        let mut keeper = Keeper::default();
        keeper.open(1, anybody());
        keeper.open(2, anybody());
        let open = Action::Open { upstream: 1, identity: anybody() };
        assert_eq!(ask(&mut keeper, 1, 7), [open, forward(1, 7)]);
        assert_eq!(ask(&mut keeper, 2, 7), []);
        keeper.answer(1, &answer(7, 5));
        let send = |client| Action::Send { client, message: answer(7, 5).into() };
        assert_eq!(actions(&mut keeper), [send(1), send(2)]);
        // The next one is asked again.
        assert_eq!(ask(&mut keeper, 2, 7), [forward(1, 7)]);
        // Whoever sends nothing more gets the last answer, and the end.
        keeper.end(2);
        assert_eq!(actions(&mut keeper), []);
        keeper.answer(1, &answer(7, 5));
        assert_eq!(actions(&mut keeper), [send(2), done(2)]);
        keeper.end(1);
        assert_eq!(actions(&mut keeper), [done(1)]);
    }

    #[test]
    fn identities_share_nothing() {
        let mut keeper = Keeper::default();
        let user = Identity::of(Some(b"token"));
        keeper.open(1, anybody());
        keeper.open(2, user.clone());
        ask(&mut keeper, 1, 7);
        assert_eq!(ask(&mut keeper, 2, 7), [Action::Open { upstream: 2, identity: user }, forward(2, 7)]);
        keeper.close(2);
        assert_eq!(actions(&mut keeper), [Action::Close { upstream: 2 }]);
    }

    #[test]
    fn a_request_without_an_answer_is_sent_to_the_next_member() {
        let mut keeper = Keeper::default();
        keeper.open(1, anybody());
        ask(&mut keeper, 1, 7);
        keeper.lost(1);
        // A stream that ends at once is not opened again at once.
        assert_eq!(actions(&mut keeper), []);
        keeper.tick(Instant::now(), true);
        let open = Action::Open { upstream: 2, identity: anybody() };
        assert_eq!(actions(&mut keeper), [open, forward(2, 7)]);
        keeper.answer(1, &answer(7, 5));
        assert_eq!(actions(&mut keeper), [], "of a stream that is gone");
        keeper.answer(2, &answer(7, 5));
        assert_eq!(actions(&mut keeper).len(), 1);
        assert!(!keeper.is_waiting());
    }

    #[test]
    fn a_client_waits_only_so_long_for_a_member() {
        let mut keeper = Keeper::default();
        keeper.open(1, anybody());
        ask(&mut keeper, 1, 7);
        let later = Instant::now() + WAIT;
        keeper.tick(later, true);
        assert_eq!(actions(&mut keeper), [], "the member may be slow");
        keeper.tick(later, false);
        let why = "etcdproxy: no member can be reached".into();
        assert_eq!(actions(&mut keeper), [Action::End { client: 1, status: UNAVAILABLE, why }]);
        ask(&mut keeper, 1, 8);
        keeper.refused(2, 7, "no");
        assert_eq!(actions(&mut keeper), [Action::End { client: 1, status: 7, why: "no".into() }]);
    }

    proptest! {
        /// Whatever happens to streams, each client gets one answer to each request, in their order.
        #[test]
        fn answers_come_in_order_and_none_twice(steps: Vec<(u8, u8)>) {
            let mut keeper = Keeper::default();
            let mut asked: FxHashMap<u64, VecDeque<i64>> = FxHashMap::default();
            let mut upstreams: FxHashMap<u64, VecDeque<i64>> = FxHashMap::default();
            for client in 0..4 {
                keeper.open(client, anybody());
            }
            let carry_out = |keeper: &mut Keeper, upstreams: &mut FxHashMap<u64, VecDeque<i64>>,
                                 asked: &mut FxHashMap<u64, VecDeque<i64>>| {
                while let Some(action) = keeper.next() {
                    match action {
                        Action::Open { upstream, .. } => drop(upstreams.insert(upstream, VecDeque::new())),
                        Action::Forward { upstream, message } => {
                            upstreams.get_mut(&upstream).unwrap().push_back(lease::id_of_request(&message).unwrap());
                        }
                        Action::Send { client, message } => {
                            let expected = asked.get_mut(&client).unwrap().pop_front();
                            assert_eq!(expected, Some(lease::id_of_answer(&message).unwrap()));
                        }
                        Action::Close { .. } | Action::End { .. } => unreachable!("{action:?}"),
                    }
                }
            };
            let answer_one = |keeper: &mut Keeper, upstreams: &mut FxHashMap<u64, VecDeque<i64>>| {
                let next = upstreams.iter_mut().find_map(|(upstream, open)| Some((*upstream, open.pop_front()?)));
                if let Some((upstream, lease)) = next {
                    keeper.answer(upstream, &answer(lease, 5));
                }
                next.is_some()
            };
            for (what, which) in steps {
                match what % 4 {
                    0 | 1 => {
                        let (client, lease) = (u64::from(which % 4), i64::from(which / 4 % 8));
                        asked.entry(client).or_default().push_back(lease);
                        keeper.request(client, &lease::keep_alive(lease), Instant::now()).unwrap();
                    }
                    2 => drop(answer_one(&mut keeper, &mut upstreams)),
                    _ => {
                        let lost = upstreams.keys().nth(usize::from(which) % upstreams.len().max(1)).copied();
                        if let Some(lost) = lost {
                            upstreams.remove(&lost);
                            keeper.lost(lost);
                        }
                    }
                }
                carry_out(&mut keeper, &mut upstreams, &mut asked);
            }
            keeper.tick(Instant::now(), true);
            carry_out(&mut keeper, &mut upstreams, &mut asked);
            while answer_one(&mut keeper, &mut upstreams) {
                carry_out(&mut keeper, &mut upstreams, &mut asked);
            }
            prop_assert!(asked.values().all(VecDeque::is_empty), "{:?}", asked);
            prop_assert!(!keeper.is_waiting());
        }
    }
}
