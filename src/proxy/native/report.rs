//! The state of this mode, for people.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use super::front::Front;
use super::stats::{Stats, get};
use crate::proxy::admin::Subject as _;
use crate::proxy::status::{
    self, Calls, Certificate, Clients, Counts, Leases, Member, Method, Report, SAMPLE_INTERVAL, Watches,
};

/// The codes of calls that could not be carried out. The others are answers: the application was wrong, or has given up.
const FAILED: [&str; 5] = ["UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// How many methods to show.
const METHODS: usize = 8;

/// Samples the counts of calls. Never ends.
pub(super) async fn sample(front: Arc<Front>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        front.history.add(counts(&front.stats), Instant::now());
    }
}

/// The state as it is now.
pub(super) fn report(front: &Front) -> Report {
    let Front { stats, members, .. } = front;
    let mut seen: Vec<_> = members.list().iter().map(|it| Member { serves: it.is_current(), ..it.report() }).collect();
    seen.sort_by(|one, other| one.address.cmp(&other.address));
    let clients = Clients { connected: front.clients.load(Ordering::Relaxed), limit: Some(front.limit.clients) };
    Report {
        clients: Some(clients),
        members: seen,
        unresolved: members.unresolved(),
        calls: Some(calls(front)),
        watches: Some(Watches {
            watchers: get(&stats.watchers.client),
            watchers_at_member: get(&stats.watchers.member),
            events: get(&stats.watch_events.client),
            resumed: get(&stats.watch_resumes),
        }),
        leases: Some(Leases { streams: get(&stats.lease_streams.client), keepalives: get(&stats.keepalives.client) }),
        certificates: certificates(front),
        ..front.facts.report(front.health())
    }
}

fn counts(stats: &Stats) -> Counts {
    let mut sum = Counts::default();
    for (_, calls) in stats.calls() {
        let (total, failed) = of_method(calls);
        (sum.total, sum.failed) = (sum.total + total, sum.failed + failed);
        let (durations, _) = calls.durations();
        sum.durations.resize(durations.len(), 0);
        sum.durations.iter_mut().zip(durations).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// How many calls have ended, and how many of them have failed.
fn of_method(calls: &super::stats::Calls) -> (u64, u64) {
    calls.codes().fold((0, 0), |(total, failed), (code, count)| {
        (total + count, failed + if FAILED.contains(&code) { count } else { 0 })
    })
}

fn calls(front: &Front) -> Calls {
    let stats = &front.stats;
    let method = |(name, calls): (&'static str, _)| {
        let (total, failed) = of_method(calls);
        Method { name: name.to_owned(), total, failed }
    };
    let mut methods: Vec<Method> = stats.calls().map(method).filter(|method| method.total > 0).collect();
    methods.sort_by_key(|method| std::cmp::Reverse((method.failed > 0, method.total)));
    let (total, failed) = methods.iter().fold((0, 0), |(total, failed), it| (total + it.total, failed + it.failed));
    methods.truncate(METHODS);
    Calls {
        total,
        failed,
        repeated: stats.repeats().map(|(_, count)| count).sum(),
        in_flight: get(&stats.in_flight),
        history: front.history.points(),
        methods,
    }
}

fn certificates(front: &Front) -> Vec<Certificate> {
    let own = front.relay.dialer.certificate_ends();
    let (client, ca) = own.map_or((None, None), |ends| (ends.client, ends.ca));
    let mut certificates = Vec::new();
    certificates.extend(client.map(|end| status::certificate("the client", front.facts.client.as_deref(), end)));
    certificates.extend(ca.map(|end| status::certificate("the authorities", front.facts.ca.as_deref(), end)));
    for member in front.members.list() {
        let what = member.target.to_string();
        certificates.extend(member.certificate_end().map(|end| status::certificate(&what, None, end)));
    }
    certificates
}
