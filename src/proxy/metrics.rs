//! Counts of what happens to connections, in the text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::members::{Member, Members};

/// Counts since the start that belong to no member.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Refused, because too many clients were connected.
    pub over_limit: AtomicU64,
    /// Refused, because the first bytes made no sense.
    pub garbage: AtomicU64,
    /// Failed connections to members, by kind.
    connect_failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    /// Counts a failed connection to a member; `kind` is that of its `DialError`.
    pub(super) fn connect_failure(&self, kind: &'static str) {
        *self.connect_failures.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// The text that Prometheus reads.
    pub(super) fn render(&self, members: &Members) -> String {
        let mut text = Text::default();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let list = &members.list();
        text.by_member("connections", "gauge", "Open connections.", list, |member| {
            member.open.load(Ordering::Relaxed) as u64
        });
        text.by_member("connections_total", "counter", "Connections opened so far.", list, |member| {
            count(&member.counters.connections)
        });
        text.by_member("sent_bytes_total", "counter", "Bytes from clients to the member.", list, |member| {
            count(&member.counters.sent)
        });
        text.by_member("received_bytes_total", "counter", "Bytes from the member to clients.", list, |member| {
            count(&member.counters.received)
        });
        text.by_member("member_up", "gauge", "1 if the last health check succeeded.", list, |member| {
            u64::from(member.is_up())
        });
        text.by_member(
            "failovers_total",
            "counter",
            "How often the member's connections were cut in favour of other members.",
            list,
            |member| count(&member.counters.failovers),
        );
        text.family("connect_failures_total", "counter", "Failed connections to members.");
        let failures = self.connect_failures.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in &*failures {
            text.sample("connect_failures_total", "kind", kind, *count);
        }
        text.family("refused_connections_total", "counter", "Clients refused: over the limit, or not understood.");
        text.sample("refused_connections_total", "reason", &"limit", count(&self.over_limit));
        text.sample("refused_connections_total", "reason", &"garbage", count(&self.garbage));
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP etcdproxy_tunnel_{name} {help}\n# TYPE etcdproxy_tunnel_{name} {kind}\n");
    }

    /// Labels are endpoints and words: none needs escaping.
    fn sample(&mut self, name: &str, label: &str, of: &dyn Display, value: u64) {
        let _ = writeln!(self.0, "etcdproxy_tunnel_{name}{{{label}=\"{of}\"}} {value}");
    }

    fn by_member(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        members: &[Arc<Member>],
        value: impl Fn(&Member) -> u64,
    ) {
        self.family(name, kind, help);
        for member in members {
            self.sample(name, "member", &member.target, value(member));
        }
    }
}
