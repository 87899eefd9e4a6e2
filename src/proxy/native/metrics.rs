//! The page of metrics.
//!
//! Only what has happened has samples, but calls: `KV/Range` with `OK` is there from the start, so that rules and
//! dashboards find something.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stats::{BOUNDS, Sides, Stats, get};
use crate::net::{DialError, Dialer};
use crate::os::usage::Usage;
use crate::proxy::members::{Member, Members, PROBES};
use crate::proxy::metrics::{Durations, Labels, Sheet};

/// The method whose samples are always there.
const ALWAYS: &str = "KV/Range";

/// What the page shows.
pub(super) struct Figures<'a> {
    /// Clients that are connected now, and how many may be.
    pub clients: usize,
    pub clients_limit: usize,
    pub stats: &'a Stats,
    pub members: &'a Members,
    pub dialer: &'a Dialer,
}

/// The page as it is now.
pub(super) fn render(figures: &Figures<'_>) -> String {
    let Figures { clients, clients_limit, stats, members, dialer } = *figures;
    let mut sheet = Sheet::new("native");
    sheet.gauge("clients", "Clients that are connected now", one(clients as u64));
    sheet.gauge("clients_limit", "How many clients may be connected", one(clients_limit as u64));
    refused(&mut sheet, stats);
    calls(&mut sheet, stats);
    shared(&mut sheet, stats);
    of_members(&mut sheet, members);
    certificates(&mut sheet, members, dialer);
    if let Some(usage) = Usage::now() {
        sheet.process(&usage);
    }
    sheet.render()
}

fn one<T>(value: T) -> [(Labels, T); 1] {
    [(vec![], value)]
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn refused(sheet: &mut Sheet, stats: &Stats) {
    let refused = &stats.refused;
    let reasons = [
        ("limit", &refused.over_limit),
        ("garbage", &refused.garbage),
        ("tls", &refused.tls),
        ("silent", &refused.silent),
    ];
    sheet.counter(
        "refused_connections",
        "Clients refused: over the limit, not understood, with TLS, or silent while others came",
        reasons.map(|(reason, count)| (label("reason", reason), get(count))),
    );
}

fn calls(sheet: &mut Sheet, stats: &Stats) {
    let (mut ended, mut took) = (Vec::new(), Vec::new());
    for (method, calls) in stats.calls() {
        let codes: Vec<_> = calls.codes().collect();
        let is_missing = method == ALWAYS && !codes.iter().any(|(code, _)| *code == "OK");
        for (code, count) in codes.into_iter().chain(is_missing.then_some(("OK", 0))) {
            ended.push((vec![("method", method.to_owned()), ("code", code.to_owned())], count));
        }
        let (counts, sum) = calls.durations();
        if method == ALWAYS || counts.iter().any(|count| *count > 0) {
            let buckets = BOUNDS.into_iter().chain([f64::INFINITY]).zip(counts).collect();
            took.push((label("method", method), Durations { sum, buckets }));
        }
    }
    sheet.counter("requests", "Calls of clients that have ended, by gRPC's status", ended);
    sheet.histogram(
        "request_duration_seconds",
        "From the head of a call with one answer to the end of its answer, in seconds",
        took,
    );
    sheet.gauge(
        "requests_in_flight",
        "Calls that wait for their answer now, without streams of watches and leases",
        one(get(&stats.in_flight)),
    );
    sheet.counter(
        "repeats",
        "Calls sent again, so that the client does not see that the first attempt failed",
        stats.repeats().map(|(reason, count)| (label("reason", reason), count)),
    );
    sheet.counter(
        "repeats_denied",
        "Calls not sent again, because too many others were",
        one(get(&stats.repeats_denied)),
    );
    sheet.counter(
        "token_renewals",
        "Log-ins of the proxy as its own user",
        stats.logins().map(|(result, count)| (label("result", result), count)),
    );
}

/// What clients share.
fn shared(sheet: &mut Sheet, stats: &Stats) {
    let sides = |Sides { client, member }: &Sides| {
        [(label("side", "client"), get(client)), (label("side", "member"), get(member))]
    };
    sheet.gauge("watchers", "Watchers of clients, and ours at members, now", sides(&stats.watchers));
    sheet.gauge("watch_streams", "Streams of watchers that are open now", sides(&stats.watch_streams));
    sheet.counter("watch_events", "Events that came from members, and went to clients", sides(&stats.watch_events));
    sheet.counter("watch_resumes", "Watchers opened again at a member", one(get(&stats.watch_resumes)));
    sheet.gauge("lease_streams", "Streams for leases that are open now", sides(&stats.lease_streams));
    sheet.counter("lease_keepalives", "Requests to keep a lease alive", sides(&stats.keepalives));
}

fn of_members(sheet: &mut Sheet, members: &Members) {
    let list = members.list();
    let by_member = |value: &dyn Fn(&Member) -> u64| -> Vec<(Labels, u64)> {
        list.iter().map(|member| (of(member), value(member))).collect()
    };
    sheet.gauge(
        "open_connections",
        "Connections to the member that are open now",
        by_member(&|member| member.open.load(Ordering::Relaxed) as u64),
    );
    sheet.counter(
        "connections",
        "Connections to the member since the start",
        by_member(&|member| get(&member.counters.connections)),
    );
    sheet.counter("sent_bytes", "Bytes from clients to the member", by_member(&|member| get(&member.counters.sent)));
    sheet.counter(
        "received_bytes",
        "Bytes from the member to clients",
        by_member(&|member| get(&member.counters.received)),
    );
    sheet.gauge("member_up", "1 if the last health check succeeded", by_member(&|member| u64::from(member.is_up())));
    sheet.gauge(
        "member_leader",
        "1 if the member said last that it leads",
        by_member(&|member| u64::from(member.is_leader())),
    );
    sheet.gauge(
        "member_current",
        "1 if new calls go to the member",
        by_member(&|member| u64::from(member.is_current())),
    );
    // Unknown before the first answer.
    let measured = list.iter().filter(|member| member.round_trip() != u64::MAX);
    sheet.float_gauge(
        "member_round_trip_seconds",
        "How long health checks took lately, in seconds",
        measured.map(|member| (of(member), Duration::from_micros(member.round_trip()).as_secs_f64())),
    );
    let probes =
        list.iter().flat_map(|member| PROBES.into_iter().zip(&member.counters.probes).map(move |it| (member, it)));
    sheet.counter(
        "probes",
        "Health checks of the member",
        probes.map(|(member, (result, count))| {
            (vec![("member", member.target.to_string()), ("result", result.to_owned())], get(count))
        }),
    );
    sheet.counter("leader_changes", "How often another member said that it leads", one(get(&members.leader_changes)));
    sheet.counter(
        "failovers",
        "How often the member's connections were cut in favour of other members",
        by_member(&|member| get(&member.counters.failovers)),
    );
    let failures = list.iter().flat_map(|member| DialError::KINDS.map(|kind| failures(member, kind)));
    sheet.counter("connect_failures", "Failed connections to the member", failures);
}

fn certificates(sheet: &mut Sheet, members: &Members, dialer: &Dialer) {
    let own = dialer.certificate_ends();
    let own = [("client", own.and_then(|ends| ends.client)), ("ca", own.and_then(|ends| ends.ca))];
    let own = own.into_iter().filter_map(|(which, end)| Some((label("certificate", which), end?)));
    let list = members.list();
    let of_member = |member: &Arc<Member>| {
        let labels = vec![("certificate", "member".to_owned()), ("member", member.target.to_string())];
        Some((labels, member.certificate_end()?))
    };
    let ends = own.chain(list.iter().filter_map(of_member));
    sheet.gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate expires, in seconds since 1970: the first of ours and its chain, the last of the authorities, \
         and the one that the member showed last",
        ends.map(|(labels, end)| (labels, u64::try_from(end).unwrap_or_default())),
    );
}

fn of(member: &Member) -> Labels {
    label("member", &member.target.to_string())
}

fn failures(member: &Arc<Member>, kind: &'static str) -> (Labels, u64) {
    let labels = vec![("member", member.target.to_string()), ("kind", kind.to_owned())];
    (labels, member.counters.failures(kind))
}
