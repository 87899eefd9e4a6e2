//! The cluster's members: the state of each, which one is next, and whose connections are cut.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::settings::Endpoint;

/// One member and its connections.
#[derive(Debug)]
pub(super) struct Member {
    pub endpoint: Endpoint,
    state: Mutex<State>,
    /// A change cuts the connections that watch it.
    cut: watch::Sender<()>,
    /// Open connections.
    pub open: AtomicUsize,
    pub counters: Counters,
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    /// Bytes to the member.
    pub sent: AtomicU64,
    /// Bytes from the member.
    pub received: AtomicU64,
    /// How often its connections were cut in favour of other members.
    pub failovers: AtomicU64,
}

/// The state of a member, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unknown,
    Up {
        /// When the last check that it passed was sent.
        asked: Instant,
    },
    Down {
        why: String,
        /// When the first check that it failed was sent.
        since: Instant,
        /// Its connections have been cut in favour of other members.
        failed_over: bool,
    },
}

impl Member {
    fn new(endpoint: Endpoint, state: State) -> Self {
        let state = Mutex::new(state);
        Self { endpoint, state, cut: watch::Sender::new(()), open: AtomicUsize::new(0), counters: Counters::default() }
    }

    /// Changes when this member's connections are to be cut.
    pub(super) fn cut(&self) -> watch::Receiver<()> {
        self.cut.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state(), State::Up { .. })
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(*self.state(), State::Down { .. })
    }
}

/// What a report changes.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    CameUp,
    WentDown,
    /// This many connections were cut in favour of other members.
    FailedOver(usize),
}

/// All members.
#[derive(Debug)]
pub(super) struct Members {
    pub list: Vec<Arc<Member>>,
    /// Grows with each connection, so that members of equal rank take turns.
    turn: AtomicUsize,
}

impl Members {
    /// The members in `failing` are known to be down.
    pub(super) fn new(endpoints: &[Endpoint], failing: &[Endpoint]) -> Self {
        let down = || State::Down { why: "it could not be used".to_owned(), since: Instant::now(), failed_over: false };
        let state = |endpoint: &Endpoint| if failing.contains(endpoint) { down() } else { State::Unknown };
        let member = |endpoint: &Endpoint| Arc::new(Member::new(endpoint.clone(), state(endpoint)));
        Self { list: endpoints.iter().map(member).collect(), turn: AtomicUsize::new(0) }
    }

    /// Whether a member is up; if none is, why each is not.
    pub(super) fn health(&self) -> Result<(), String> {
        if self.list.iter().any(|member| member.is_up()) {
            return Ok(());
        }
        let why = |member: &Arc<Member>| match &*member.state() {
            State::Down { why, .. } => Some(format!("{}: {why}", member.endpoint)),
            _ => None,
        };
        let known: Vec<String> = self.list.iter().filter_map(why).collect();
        Err(if known.is_empty() { "no member has answered yet".to_owned() } else { known.join("; ") })
    }

    /// Records the answer to a check of `member` that was sent at `asked`, and logs what it changes.
    pub(super) fn report(&self, member: &Arc<Member>, asked: Instant, answer: Result<(), String>) {
        let why = answer.as_ref().err().cloned().unwrap_or_default();
        for (member, change) in self.record(member, asked, answer) {
            let endpoint = &member.endpoint;
            match change {
                Change::CameUp => log::info!("{endpoint} is up"),
                Change::WentDown => log::warn!("{endpoint} is down: {why}"),
                Change::FailedOver(0) => {}
                Change::FailedOver(connections) => {
                    log::warn!("{endpoint}: other members take over its connections; cut now: {connections}");
                }
            }
        }
    }

    fn record(&self, member: &Arc<Member>, asked: Instant, answer: Result<(), String>) -> Vec<(Arc<Member>, Change)> {
        let mut changes = Vec::new();
        match (answer, &mut *member.state()) {
            (Ok(()), State::Up { asked: last }) => *last = asked,
            (Ok(()), state) => {
                *state = State::Up { asked };
                changes.push((Arc::clone(member), Change::CameUp));
            }
            (Err(why), State::Down { why: last, .. }) => *last = why,
            (Err(why), state) => {
                *state = State::Down { why, since: asked, failed_over: false };
                changes.push((Arc::clone(member), Change::WentDown));
            }
        }
        // A member's connections are cut only if another member passed a check after this one failed.
        let last_success = |member: &Arc<Member>| match *member.state() {
            State::Up { asked } => Some(asked),
            _ => None,
        };
        let newest = self.list.iter().filter_map(last_success).max();
        for member in &self.list {
            if let State::Down { since, failed_over, .. } = &mut *member.state()
                && !*failed_over
                && newest.is_some_and(|asked| asked > *since)
            {
                *failed_over = true;
                member.counters.failovers.fetch_add(1, Ordering::Relaxed);
                changes.push((Arc::clone(member), Change::FailedOver(member.open.load(Ordering::Relaxed))));
                member.cut.send_replace(());
            }
        }
        changes
    }

    /// The order in which a new connection tries the members: first those that are up, and of these the one with the
    /// fewest connections.
    pub(super) fn order(&self) -> Vec<Arc<Member>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.list.len();
        let rank = |(n, member): &(usize, &Arc<Member>)| {
            let state = match *member.state() {
                State::Up { .. } => 0,
                State::Unknown => 1,
                State::Down { .. } => 2,
            };
            (state, member.open.load(Ordering::Relaxed), (n + count - turn % count) % count)
        };
        let mut order: Vec<_> = self.list.iter().enumerate().collect();
        order.sort_by_cached_key(rank);
        order.into_iter().map(|(_, member)| Arc::clone(member)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Three members, known by their positions.
    struct Three(Members, Instant);

    impl Three {
        fn new() -> Self {
            Self(Members::new(&[1, 2, 3].map(Endpoint::loopback), &[]), Instant::now())
        }

        fn report(&self, n: usize, second: u64, answer: Result<(), String>) -> Vec<(usize, Change)> {
            let changes = self.0.record(&self.0.list[n], self.1 + Duration::from_secs(second), answer);
            changes.into_iter().map(|(member, change)| (self.position(&member), change)).collect()
        }

        fn order(&self) -> Vec<usize> {
            self.0.order().iter().map(|member| self.position(member)).collect()
        }

        fn position(&self, member: &Arc<Member>) -> usize {
            self.0.list.iter().position(|other| Arc::ptr_eq(other, member)).unwrap()
        }
    }

    fn silent() -> Result<(), String> {
        Err("silent".to_owned())
    }

    #[test]
    fn connections_fail_over_as_soon_as_another_member_passes_a_later_check() {
        let three = Three::new();
        assert_eq!(three.0.health().unwrap_err(), "no member has answered yet");
        assert_eq!(three.report(0, 0, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.report(1, 0, Ok(())), [(1, Change::CameUp)]);
        three.0.list[0].open.store(7, Ordering::Relaxed);
        let cut = three.0.list[0].cut();
        assert_eq!(three.report(0, 2, silent()), [(0, Change::WentDown)], "1 may be no better");
        assert!(!cut.has_changed().unwrap());
        assert_eq!(three.report(1, 3, Ok(())), [(0, Change::FailedOver(7))]);
        assert!(cut.has_changed().unwrap());
        assert_eq!(three.report(0, 3, silent()), []);
        assert_eq!(three.report(0, 4, Ok(())), [(0, Change::CameUp)]);
        assert_eq!(three.0.list[0].counters.failovers.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_fails_over_while_no_member_is_better() {
        let three = Three::new();
        for n in 0..3 {
            three.report(n, 0, Ok(()));
        }
        for n in 0..3 {
            assert_eq!(three.report(n, 1, silent()), [(n, Change::WentDown)]);
        }
        let reason = "http://127.0.0.1:1: silent; http://127.0.0.1:2: silent; http://127.0.0.1:3: silent";
        assert_eq!(three.0.health().unwrap_err(), reason);
        assert_eq!(
            three.report(2, 5, Ok(())),
            [(2, Change::CameUp), (0, Change::FailedOver(0)), (1, Change::FailedOver(0))]
        );
    }

    #[test]
    fn new_connections_are_spread_over_those_that_are_up() {
        let three = Three::new();
        assert_ne!(three.order()[0], three.order()[0], "in turn");
        three.report(0, 0, Ok(()));
        three.report(1, 0, silent());
        assert_eq!(three.order(), [0, 2, 1]);
        three.report(2, 0, Ok(()));
        three.0.list[0].open.store(3, Ordering::Relaxed);
        assert_eq!(three.order(), [2, 0, 1]);
    }
}
