//! Figures about calls, which the engine counts and pages show.
//!
//! Each is an atomic of its own, so nobody waits for anybody, and figures that are read together may differ by the calls
//! that end at that moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::methods::{METHODS, Method};

/// gRPC's names for its status codes, in their order.
pub(in crate::proxy) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A code that is none of gRPC's counts as `UNKNOWN`, as gRPC's own libraries see it.
const UNKNOWN: usize = 2;

/// The upper bounds of the buckets for durations, in seconds. What takes longer is only in the sum and the count.
pub(in crate::proxy) const BOUNDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Since the start, or now. Shared by the engine, which counts, and the pages.
#[derive(Debug)]
pub(in crate::proxy) struct Stats {
    /// One for each of [`METHODS`], and the last one for all other methods.
    calls: [Calls; METHODS.len() + 1],
    /// Calls that wait for their answer now. Streams of watches and leases do not count.
    pub in_flight: AtomicU64,
    /// Calls of clients that were sent again.
    repeats: [AtomicU64; Repeat::ALL.len()],
    /// Calls that might have been sent again, if there had not been so many already.
    pub repeats_denied: AtomicU64,
    /// Now.
    pub watchers: Sides,
    pub watch_streams: Sides,
    pub lease_streams: Sides,
    /// Events that came from members, and that went to clients: once for each watcher.
    pub watch_events: Sides,
    /// Watchers that were opened again at a member.
    pub watch_resumes: AtomicU64,
    /// Requests to keep a lease alive.
    pub keepalives: Sides,
    logins: [AtomicU64; Login::ALL.len()],
    /// Clients that were refused.
    pub refused: Refused,
}

/// The calls of one method.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Calls {
    codes: [AtomicU64; CODES.len()],
    /// How many took as long as this bucket says; the last one is beyond all bounds.
    durations: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

/// One figure on the side of clients, and one on the side of members.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Sides {
    pub client: AtomicU64,
    pub member: AtomicU64,
}

/// Connections of clients that were refused.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Refused {
    /// Too many clients were connected.
    pub over_limit: AtomicU64,
    /// The first bytes made no sense.
    pub garbage: AtomicU64,
    /// The client spoke TLS.
    pub tls: AtomicU64,
    /// Closed before they had said anything, because too many others came after them.
    pub silent: AtomicU64,
}

/// Why a call was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Repeat {
    /// The connection to the member was lost. Only reads are sent again then.
    Lost,
    /// The member has not looked at the call.
    NotProcessed,
    /// The member has given a read up.
    GivenUp,
    /// The member lost its leader while it carried out a read.
    LeaderChanged,
    /// The member did not accept our token.
    Token,
}

impl Repeat {
    pub(in crate::proxy) const ALL: [(Self, &str); 5] = [
        (Self::Lost, "connection_lost"),
        (Self::NotProcessed, "not_processed"),
        (Self::GivenUp, "given_up"),
        (Self::LeaderChanged, "leader_changed"),
        (Self::Token, "token"),
    ];
}

/// What became of a log-in of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Login {
    Succeeded,
    /// The cluster does not accept the user and the password.
    Refused,
    /// A member did not answer, or with something else.
    Failed,
}

impl Login {
    pub(in crate::proxy) const ALL: [(Self, &str); 3] =
        [(Self::Succeeded, "success"), (Self::Refused, "refused"), (Self::Failed, "failure")];
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            calls: std::array::from_fn(|_| Calls::default()),
            in_flight: AtomicU64::default(),
            repeats: Default::default(),
            repeats_denied: AtomicU64::default(),
            watchers: Sides::default(),
            watch_streams: Sides::default(),
            lease_streams: Sides::default(),
            watch_events: Sides::default(),
            watch_resumes: AtomicU64::default(),
            keepalives: Sides::default(),
            logins: Default::default(),
            refused: Refused::default(),
        }
    }
}

impl Stats {
    /// A call of a client has ended. `took`: since its head came, if it has one answer; streams take as long as they
    /// are needed.
    pub(super) fn ended(&self, method: Option<&'static Method>, code: u32, took: Option<Duration>) {
        let Some(calls) = self.calls.get(method.map_or(METHODS.len(), Method::index)) else { return };
        let code = usize::try_from(code).unwrap_or(UNKNOWN);
        add(calls.codes.get(code).unwrap_or(&calls.codes[UNKNOWN]), 1);
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
            add(&calls.durations[bucket], 1);
            add(&calls.sum, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// A call of a client is sent again, or the budget does not allow it.
    pub(super) fn repeated(&self, why: Repeat, is_allowed: bool) {
        add(if is_allowed { &self.repeats[why as usize] } else { &self.repeats_denied }, 1);
    }

    pub(super) fn logged_in(&self, result: Login) {
        add(&self.logins[result as usize], 1);
    }

    /// The name of each method, such as `KV/Range`, and its calls. What is no method of etcd's is `other`.
    pub(in crate::proxy) fn calls(&self) -> impl Iterator<Item = (&'static str, &Calls)> {
        let names = METHODS.iter().map(Method::name).chain(std::iter::once("other"));
        names.zip(&self.calls)
    }

    /// Calls that were sent again, by the reason.
    pub(in crate::proxy) fn repeats(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Repeat::ALL.into_iter().map(|(why, name)| (name, get(&self.repeats[why as usize])))
    }

    /// Our own log-ins, by their result.
    pub(in crate::proxy) fn logins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Login::ALL.into_iter().map(|(result, name)| (name, get(&self.logins[result as usize])))
    }
}

impl Calls {
    /// How many calls have ended with each code. Those that never came are left out.
    pub(in crate::proxy) fn codes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.into_iter().zip(self.codes.iter().map(get)).filter(|(_, count)| *count > 0)
    }

    /// How many calls took as long as each of [`BOUNDS`] says, and longer; and all of them together, in seconds.
    pub(in crate::proxy) fn durations(&self) -> ([u64; BOUNDS.len() + 1], f64) {
        let counts = std::array::from_fn(|bucket| get(&self.durations[bucket]));
        (counts, Duration::from_micros(get(&self.sum)).as_secs_f64())
    }
}

/// Adds to a figure.
pub(super) fn add(figure: &AtomicU64, more: u64) {
    figure.fetch_add(more, Ordering::Relaxed);
}

/// Sets a figure that somebody else counts.
pub(super) fn set(figure: &AtomicU64, now: u64) {
    figure.store(now, Ordering::Relaxed);
}

/// Reads a figure.
pub(in crate::proxy) fn get(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_counts_once() {
        let stats = Stats::default();
        let range = Method::find(b"/etcdserverpb.KV/Range");
        for (code, micros) in [(0, 500), (0, 501), (14, 20_000_000), (17, 1), (u32::MAX, 2)] {
            stats.ended(range, code, Some(Duration::from_micros(micros)));
        }
        stats.ended(None, 12, None);
        let (name, range) = stats.calls().find(|(name, _)| *name == "KV/Range").unwrap();
        assert_eq!(range.codes().collect::<Vec<_>>(), [("OK", 2), ("UNKNOWN", 2), ("UNAVAILABLE", 1)], "{name}");
        let (counts, sum) = range.durations();
        assert_eq!((counts[0], counts[1], counts[11], counts.iter().sum::<u64>()), (3, 1, 1, 5));
        assert!((sum - 20.001_004).abs() < 1e-9, "{sum}");
        let (name, other) = stats.calls().last().unwrap();
        assert_eq!((name, other.codes().collect::<Vec<_>>()), ("other", vec![("UNIMPLEMENTED", 1)]));
        assert_eq!(other.durations().0, [0; 12]);
    }

    #[test]
    fn reasons_and_results_are_in_their_order() {
        assert!(Repeat::ALL.iter().enumerate().all(|(n, (why, _))| *why as usize == n));
        assert!(Login::ALL.iter().enumerate().all(|(n, (result, _))| *result as usize == n));
        assert!(BOUNDS.is_sorted());
    }
}
