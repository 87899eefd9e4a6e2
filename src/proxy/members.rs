//! The cluster's members: how each is, which is next, and whose connections are cut.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::settings::Endpoint;

/// One member, and what goes through the tunnel to it.
#[derive(Debug)]
pub(crate) struct Member {
    pub endpoint: Endpoint,
    /// A change ends the connections that listen to it.
    cut: watch::Sender<()>,
    /// Connections now.
    pub open: AtomicUsize,
    /// Connections so far.
    pub total: AtomicU64,
    /// Bytes to the member.
    pub sent: AtomicU64,
    /// Bytes from the member.
    pub received: AtomicU64,
    /// How often it was left for others.
    pub failovers: AtomicU64,
}

impl Member {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            cut: watch::Sender::new(()),
            open: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            failovers: AtomicU64::new(0),
        }
    }

    /// Changes when this member's connections are to end.
    pub(crate) fn end(&self) -> watch::Receiver<()> {
        self.cut.subscribe()
    }
}

/// How a member is, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Unknown,
    /// The last good answer was to a question that was asked then.
    Up(Instant),
    Down {
        why: String,
        /// When the first question was asked that had no good answer.
        since: Instant,
        /// Its connections have been cut.
        left: bool,
    },
}

/// What a report changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    CameUp(usize),
    WentDown(usize),
    /// With so many connections.
    Left(usize, usize),
}

/// All members.
#[derive(Debug)]
pub(crate) struct Members {
    pub list: Vec<Member>,
    states: Mutex<Vec<State>>,
    turn: AtomicUsize,
}

impl Members {
    /// Those of `failing` are known to be down.
    pub(crate) fn new(endpoints: &[Endpoint], failing: &[Endpoint]) -> Self {
        let list: Vec<Member> = endpoints.iter().cloned().map(Member::new).collect();
        let state = |member: &Member| {
            if failing.contains(&member.endpoint) {
                State::Down { why: "it could not be used".to_owned(), since: Instant::now(), left: false }
            } else {
                State::Unknown
            }
        };
        let states = Mutex::new(list.iter().map(state).collect());
        Self { list, states, turn: AtomicUsize::new(0) }
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, n: usize) -> State {
        self.states()[n].clone()
    }

    /// Whether a member is up; else why the first one is not.
    pub(crate) fn health(&self) -> Result<(), String> {
        let states = self.states();
        if states.iter().any(|state| matches!(state, State::Up(_))) {
            return Ok(());
        }
        let why = |(member, state): (&Member, &State)| match state {
            State::Down { why, .. } => Some(format!("{}: {why}", member.endpoint)),
            _ => None,
        };
        let known: Vec<String> = self.list.iter().zip(states.iter()).filter_map(why).collect();
        Err(if known.is_empty() { "no member has answered yet".to_owned() } else { known.join("; ") })
    }

    /// Takes in what came of a question that member `n` was asked at `asked`.
    pub(crate) fn report(&self, n: usize, asked: Instant, answer: Result<(), String>) -> Vec<Change> {
        let mut states = self.states();
        let mut changes = Vec::new();
        match (answer, &mut states[n]) {
            (Ok(()), State::Up(when)) => *when = asked,
            (Ok(()), state) => {
                *state = State::Up(asked);
                changes.push(Change::CameUp(n));
            }
            (Err(why), State::Down { why: before, .. }) => *before = why,
            (Err(why), state) => {
                *state = State::Down { why, since: asked, left: false };
                changes.push(Change::WentDown(n));
            }
        }
        // A member is left only for one that is better: that was well when this one was not.
        let newest =
            states.iter().filter_map(|state| if let State::Up(when) = state { Some(*when) } else { None }).max();
        for (n, state) in states.iter_mut().enumerate() {
            if let State::Down { since, left, .. } = state
                && !*left
                && newest.is_some_and(|when| when > *since)
            {
                *left = true;
                let member = &self.list[n];
                member.failovers.fetch_add(1, Ordering::Relaxed);
                changes.push(Change::Left(n, member.open.load(Ordering::Relaxed)));
                member.cut.send_replace(());
            }
        }
        changes
    }

    /// The order in which a new connection tries the members: those that are up first, and of them the one with the
    /// fewest connections.
    pub(crate) fn order(&self) -> Vec<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let states = self.states();
        let count = self.list.len();
        let rank = |n: &usize| {
            let state = match states[*n] {
                State::Up(_) => 0,
                State::Unknown => 1,
                State::Down { .. } => 2,
            };
            (state, self.list[*n].open.load(Ordering::Relaxed), (n + count - turn % count) % count)
        };
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(rank);
        order
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn three() -> (Members, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let members = Members::new(&[1, 2, 3].map(Endpoint::loopback), &[]);
        (members, move |second| start + Duration::from_secs(second))
    }

    fn silent() -> Result<(), String> {
        Err("silent".to_owned())
    }

    #[test]
    fn a_member_is_left_as_soon_as_another_was_well_after_it_failed() {
        let (members, at) = three();
        assert_eq!(members.health().unwrap_err(), "no member has answered yet");
        assert_eq!(members.report(0, at(0), Ok(())), [Change::CameUp(0)]);
        assert_eq!(members.report(1, at(0), Ok(())), [Change::CameUp(1)]);
        members.list[0].open.store(7, Ordering::Relaxed);
        let end = members.list[0].end();
        assert_eq!(members.report(0, at(2), silent()), [Change::WentDown(0)], "1 may be no better");
        assert!(!end.has_changed().unwrap());
        assert_eq!(members.report(1, at(3), Ok(())), [Change::Left(0, 7)]);
        assert!(end.has_changed().unwrap());
        assert_eq!(members.report(0, at(3), silent()), []);
        assert_eq!(members.report(0, at(4), Ok(())), [Change::CameUp(0)]);
        assert_eq!(members.list[0].failovers.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nobody_is_left_when_nobody_is_better() {
        let (members, at) = three();
        for n in 0..3 {
            members.report(n, at(0), Ok(()));
        }
        for n in 0..3 {
            assert_eq!(members.report(n, at(1), silent()), [Change::WentDown(n)]);
        }
        let reason = "http://127.0.0.1:1: silent; http://127.0.0.1:2: silent; http://127.0.0.1:3: silent";
        assert_eq!(members.health().unwrap_err(), reason);
        assert_eq!(members.report(2, at(5), Ok(())), [Change::CameUp(2), Change::Left(0, 0), Change::Left(1, 0)]);
    }

    #[test]
    fn new_connections_are_spread_over_those_that_are_up() {
        let (members, at) = three();
        assert_ne!(members.order()[0], members.order()[0], "in turn");
        members.report(0, at(0), Ok(()));
        members.report(1, at(0), silent());
        assert_eq!(members.order(), [0, 2, 1]);
        members.report(2, at(0), Ok(()));
        members.list[0].open.store(3, Ordering::Relaxed);
        assert_eq!(members.order(), [2, 0, 1]);
    }
}
