//! Probes a member every second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::members::{Member, Members};
use crate::net::{Deadline, DialError, Dialer, MemberConnection};

const INTERVAL: Duration = Duration::from_millis(950);
/// The pause before that, also when there is reason to probe at once.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// A member that does not answer for this long has failed its probe.
const TIMEOUT: Duration = Duration::from_millis(750);
/// It has this much time, and a few of its usual round trips, to prove itself after another member has answered.
const SHORT_TIMEOUT: Duration = Duration::from_millis(750);
const ROUND_TRIPS: u32 = 4;
const LONGEST_TIMEOUT: Duration = Duration::from_millis(1500);

/// After this many probes on one connection, a new one must prove that new connections work.
const PROBES_PER_CONNECTION: u32 = 10;

/// Probes the member until it has retired and has no connection left; reports the results to `members`.
pub(super) async fn run(members: Arc<Members>, member: Arc<Member>, dialer: Arc<Dialer>) {
    let mut probe = Probe { members, member, dialer, kept: None, age: 0, generation: 0, round_trip: Duration::ZERO };
    while !(probe.member.is_retired() && probe.member.open.load(Ordering::Relaxed) == 0) {
        probe.run_once().await;
        sleep(SHORTEST_INTERVAL).await;
        let _ = timeout(INTERVAL, probe.member.wake.notified()).await;
    }
    probe.members.remove(&probe.member);
}

struct Probe {
    members: Arc<Members>,
    member: Arc<Member>,
    dialer: Arc<Dialer>,
    /// The connection of the last probe.
    kept: Option<MemberConnection>,
    /// How many probes the kept connection has served.
    age: u32,
    /// The generation of the certificates that the kept connection was made with.
    generation: u32,
    /// How long the last good answer took.
    round_trip: Duration,
}

impl Probe {
    async fn run_once(&mut self) {
        let asked = Instant::now();
        self.dialer.refresh().await;
        let was_down = self.member.is_down();
        let time =
            if was_down { (SHORT_TIMEOUT + self.round_trip * ROUND_TRIPS).min(LONGEST_TIMEOUT) } else { TIMEOUT };
        let deadline = Deadline::after(time);
        let answer = if was_down { self.ask_both(deadline).await } else { self.ask(deadline).await };
        if answer.is_ok() {
            self.round_trip = asked.elapsed();
        }
        let is_fine = answer.is_ok();
        self.members.report(&self.member, asked, &answer);
        if is_fine && self.is_kept_too_long() {
            self.renew(asked).await;
        }
    }

    /// Asks on the kept connection, or on a new one if there is none or it has ended: that says nothing about health.
    async fn ask(&mut self, deadline: Deadline) -> Result<(), DialError> {
        if let Some(mut kept) = self.kept.take()
            && let Ok(probed) = kept.probe(deadline).await
        {
            self.kept = Some(kept);
            self.age += 1;
            return probed;
        }
        let (kept, probed) = self.dialer.probe(&self.member.target, deadline).await;
        self.keep(kept);
        probed
    }

    /// Asks a member that has failed on the kept connection and on a new one: a good answer on either counts.
    async fn ask_both(&mut self, deadline: Deadline) -> Result<(), DialError> {
        let Some(mut kept) = self.kept.take() else { return self.ask(deadline).await };
        let (is_old_fine, new) = {
            let old = async { matches!(kept.probe(deadline).await, Ok(Ok(()))) };
            let new = self.dialer.probe(&self.member.target, deadline);
            tokio::pin!(old, new);
            tokio::select! {
                biased;
                is_fine = &mut old => (is_fine, if is_fine { None } else { Some(new.await) }),
                new = &mut new => (new.1.is_err() && old.await, Some(new)),
            }
        };
        match new {
            _ if is_old_fine => {
                self.kept = Some(kept);
                Ok(())
            }
            Some((connection, probed)) => {
                self.keep(connection);
                probed
            }
            None => Ok(()),
        }
    }

    fn keep(&mut self, connection: Option<MemberConnection>) {
        (self.kept, self.age, self.generation) = (connection, 0, self.dialer.generation());
    }

    /// An old connection must not hide that new ones fail, as when certificates change on either side.
    fn is_kept_too_long(&self) -> bool {
        self.age >= PROBES_PER_CONNECTION
            || self.generation != self.dialer.generation()
            || self.member.is_in_trouble()
            || self.age == 0
    }

    /// Makes a new connection; keeps the old one until the new one stands.
    async fn renew(&mut self, asked: Instant) {
        let deadline = Deadline::after(TIMEOUT);
        if self.age > 0 {
            let (connection, probed) = self.dialer.probe(&self.member.target, deadline).await;
            if let Err(err) = probed {
                self.members.report_failed_connection(&self.member, asked, &err);
                // Not again at each probe.
                (self.age, self.generation) = (1, self.dialer.generation());
                return;
            }
            self.keep(connection);
        }
        self.member.accepts_connections();
        if let Some(kept) = &mut self.kept
            && let Some(alarms) = kept.alarms(deadline).await
        {
            self.member.report_alarms(alarms);
        }
    }
}
