//! Probes a member every second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::members::{Member, Members};
use crate::net::{Deadline, DialError, Dialer, MemberConnection};

const INTERVAL: Duration = Duration::from_millis(950);
/// The pause before that, also when there is reason to probe at once.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// A member that has just failed is asked again soon: an election takes two seconds.
const SOON_INTERVAL: Duration = Duration::from_millis(200);
const SOON_PROBES: u32 = 8;

/// A member nearby that does not answer for this long has failed its probe.
const SHORT_TIMEOUT: Duration = Duration::from_millis(750);
/// The time for members that are far away, and to make a new connection; clients get as much.
const LONG_TIMEOUT: Duration = Duration::from_secs(2);
/// A member whose answers take longer is far away.
const FAR: Duration = Duration::from_millis(100);
/// A member that has failed this often in a row gets the long time: its cluster may have become slow.
const SHORT_PROBES: u32 = 3;

/// After this many probes on one connection, a new one must prove that new connections work.
const PROBES_PER_CONNECTION: u32 = 10;
/// The pause after a new connection has failed doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Probes the member until it has retired and has no connection left; reports the results to `members`.
pub(super) async fn run(members: Arc<Members>, member: Arc<Member>, dialer: Arc<Dialer>) {
    let mut probe = Probe {
        members,
        member,
        dialer,
        kept: None,
        age: 0,
        generation: 0,
        round_trip: Duration::ZERO,
        failures: 0,
        term: 0,
        renew_at: Instant::now(),
        pause: FIRST_PAUSE,
    };
    while !(probe.member.is_retired() && probe.member.open.load(Ordering::Relaxed) == 0) {
        probe.run_once().await;
        sleep(SHORTEST_INTERVAL).await;
        let is_soon = (1..SOON_PROBES).contains(&probe.failures);
        let interval = if is_soon { SOON_INTERVAL } else { INTERVAL };
        let _ = timeout(interval, probe.member.wake.notified()).await;
    }
    probe.members.remove(&probe.member);
}

struct Probe {
    members: Arc<Members>,
    member: Arc<Member>,
    dialer: Arc<Dialer>,
    /// The connection of the last probe.
    kept: Option<MemberConnection>,
    /// How many probes the kept connection has served after its first one.
    age: u32,
    /// The generation of the certificates that the kept connection was made with.
    generation: u32,
    /// How long the last good answer took.
    round_trip: Duration,
    /// How many probes have failed in a row.
    failures: u32,
    /// The term in which the member was last asked who leads.
    term: u64,
    /// When to make a new connection at the earliest, and the next pause before that.
    renew_at: Instant,
    pause: Duration,
}

/// A connection that can be used again, if there is one, and what came of the probe.
type Probed = (Option<MemberConnection>, Result<(), DialError>);

impl Probe {
    async fn run_once(&mut self) {
        let asked = Instant::now();
        self.dialer.refresh().await;
        let answer = if self.failures == 0 { self.ask().await } else { self.ask_on_both().await };
        self.members.report(&self.member, asked, &answer);
        if answer.is_err() {
            self.failures += 1;
            return;
        }
        self.failures = 0;
        self.round_trip = asked.elapsed();
        self.member.measured(self.round_trip);
        if self.age == 0 || self.kept.as_ref().is_some_and(|kept| kept.term() != self.term) {
            self.connection_is_new().await;
        } else if self.must_renew() {
            self.renew(asked).await;
        }
    }

    /// Asks on the kept connection, or on a new one if there is none or it has ended: that says nothing about health.
    async fn ask(&mut self) -> Result<(), DialError> {
        let time = if self.round_trip < FAR { SHORT_TIMEOUT } else { LONG_TIMEOUT };
        if let Some(mut kept) = self.kept.take()
            && let Ok(answer) = kept.probe(Deadline::after(time)).await
        {
            self.kept = Some(kept);
            self.age += 1;
            return answer;
        }
        let (connection, answer) = self.connect(Deadline::after(LONG_TIMEOUT)).await;
        self.keep(connection);
        answer
    }

    /// Asks a member that has failed on the kept connection and on a new one: a good answer on either counts.
    async fn ask_on_both(&mut self) -> Result<(), DialError> {
        let Some(mut kept) = self.kept.take() else { return self.ask().await };
        let is_short = self.round_trip < FAR && self.failures < SHORT_PROBES;
        let deadline = Deadline::after(if is_short { SHORT_TIMEOUT } else { LONG_TIMEOUT });
        let (old, new) = {
            let (old, new) = (kept.probe(deadline), self.connect(deadline));
            tokio::pin!(old, new);
            tokio::select! {
                biased;
                old = &mut old => if matches!(old, Ok(Ok(()))) { (Some(old), None) } else { (Some(old), Some(new.await)) },
                new = &mut new => if new.1.is_ok() { (None, Some(new)) } else { (Some(old.await), Some(new)) },
            }
        };
        self.choose(kept, old, new)
    }

    /// Keeps the connection that works. The old one stays until a new one does, or until it has ended.
    fn choose(
        &mut self,
        kept: MemberConnection,
        old: Option<io::Result<Result<(), DialError>>>,
        new: Option<Probed>,
    ) -> Result<(), DialError> {
        match (old, new) {
            (Some(Ok(Ok(()))), _) => {
                self.kept = Some(kept);
                self.age += 1;
                Ok(())
            }
            (None | Some(Err(_)), Some((connection, answer)))
            | (Some(Ok(Err(_))), Some((connection, answer @ Ok(())))) => {
                self.keep(connection);
                answer
            }
            (Some(Ok(Err(old))), new) => {
                self.kept = Some(kept);
                // A member that answers on its old connection lives, whatever keeps new ones away.
                match new {
                    Some((_, Err(new))) if !matches!(old, DialError::Ill(_) | DialError::Stuck(_)) => Err(new),
                    _ => Err(old),
                }
            }
            (None | Some(Err(_)), None) => Ok(()),
        }
    }

    async fn connect(&self, deadline: Deadline) -> Probed {
        self.dialer.probe(&self.member.target, deadline).await
    }

    fn keep(&mut self, connection: Option<MemberConnection>) {
        self.member.showed_certificate(connection.as_ref().and_then(|connection| connection.certificate_end));
        (self.kept, self.age, self.generation) = (connection, 0, self.dialer.generation());
    }

    /// An old connection must not hide that new ones fail, as when certificates change on either side.
    fn must_renew(&self) -> bool {
        let is_due = self.age >= PROBES_PER_CONNECTION
            || self.generation != self.dialer.generation()
            || self.member.is_in_trouble();
        is_due && Instant::now() >= self.renew_at
    }

    /// Makes a new connection; keeps the old one if that fails.
    async fn renew(&mut self, asked: Instant) {
        match self.connect(Deadline::after(LONG_TIMEOUT)).await {
            (connection, Ok(())) => {
                self.keep(connection);
                self.connection_is_new().await;
            }
            (_, Err(err)) => {
                self.members.report_failed_connection(&self.member, asked, &err);
                self.renew_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn connection_is_new(&mut self) {
        self.member.accepts_connections();
        (self.renew_at, self.pause) = (Instant::now(), FIRST_PAUSE);
        if let Some(kept) = &mut self.kept
            && let Some(status) = kept.status(Deadline::after(SHORT_TIMEOUT)).await
        {
            self.term = kept.term();
            self.member.report_alarms(status.alarms());
            self.member.report_version(&status.version);
            self.members.report_leader(&self.member, status.is_leader());
        }
    }
}
