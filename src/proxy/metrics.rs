//! Counts of what happens to connections, for Prometheus. Every sample exists from the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::members::{Member, Members};
use crate::net::DialError;
use crate::release::RELEASE;

/// Names and values of the labels of one sample. The encoder escapes the values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// One page of metrics, made for each request: most of the numbers are counted elsewhere.
#[derive(Debug)]
pub(super) struct Sheet(Registry);

impl Sheet {
    /// What every page has. `mode` is the mode's name.
    pub(super) fn new(mode: &str) -> Self {
        let mut sheet = Self(Registry::with_prefix("etcdproxy"));
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("etcd_version", RELEASE.version), ("mode", mode)];
        let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
        sheet.gauge("build_info", "Always 1. The labels say what runs", [(labels, 1)]);
        sheet
    }

    /// Adds numbers that can fall. `name` is without the prefix `etcdproxy_`, `help` without the full stop.
    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    /// Adds numbers that only grow. `name` is without the prefix `etcdproxy_` and the suffix `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in samples {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// The text that Prometheus reads.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let _ = encode(&mut text, &self.0); // writing to a string cannot fail
        text
    }
}

/// Counts since the start that belong to no member.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Refused, because too many clients were connected.
    pub over_limit: AtomicU64,
    /// Refused, because the first bytes made no sense.
    pub garbage: AtomicU64,
    /// Refused, because the client spoke TLS.
    pub tls: AtomicU64,
    /// Closed before they had said anything, because too many others came after them.
    pub evicted: AtomicU64,
}

impl Metrics {
    /// The page. `clients` are connected now.
    pub(super) fn render(&self, members: &Members, clients: usize) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_member = |value: &dyn Fn(&Member) -> u64| -> Vec<(Labels, u64)> {
            let sample = |member: &Member| (vec![("member", member.target.to_string())], value(member));
            members.list().iter().map(|member| sample(member)).collect()
        };
        let mut sheet = Sheet::new("native");
        sheet.gauge("clients", "Clients that are connected now", [(vec![], clients as u64)]);
        sheet.gauge(
            "open_connections",
            "Connections to the member that are open now",
            by_member(&|member| member.open.load(Ordering::Relaxed) as u64),
        );
        sheet.counter(
            "connections",
            "Connections to the member since the start",
            by_member(&|member| count(&member.counters.connections)),
        );
        sheet.counter(
            "sent_bytes",
            "Bytes from clients to the member",
            by_member(&|member| count(&member.counters.sent)),
        );
        sheet.counter(
            "received_bytes",
            "Bytes from the member to clients",
            by_member(&|member| count(&member.counters.received)),
        );
        sheet.gauge(
            "member_up",
            "1 if the last health check succeeded",
            by_member(&|member| u64::from(member.is_up())),
        );
        sheet.counter(
            "failovers",
            "How often the member's connections were cut in favour of other members",
            by_member(&|member| count(&member.counters.failovers)),
        );
        sheet.counter("connect_failures", "Failed connections to the member", failures(members));
        let reasons =
            [("limit", &self.over_limit), ("garbage", &self.garbage), ("tls", &self.tls), ("silent", &self.evicted)];
        let reasons = reasons.map(|(reason, counter)| (vec![("reason", reason.to_owned())], count(counter)));
        sheet.counter(
            "refused_connections",
            "Clients refused: over the limit, not understood, with TLS, or silent while others came",
            reasons,
        );
        sheet.render()
    }
}

/// One sample for each member and kind of error.
fn failures(members: &Members) -> Vec<(Labels, u64)> {
    let list = members.list();
    let all = list.iter().flat_map(|member| DialError::KINDS.map(|kind| (member, kind)));
    let sample = |(member, kind): (&Arc<Member>, &'static str)| {
        let labels = vec![("member", member.target.to_string()), ("kind", kind.to_owned())];
        (labels, member.counters.failures(kind))
    };
    all.map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_families_have_their_types() {
        let mut sheet = Sheet::new("m\"1\"\\\n");
        sheet.counter("x", "Help", [(vec![], 0)]);
        let text = sheet.render();
        assert!(text.contains("mode=\"m\\\"1\\\"\\\\\\n\"} 1\n"), "{text}");
        assert!(text.ends_with("# TYPE etcdproxy_x_total counter\netcdproxy_x_total 0\n"), "{text}");
        assert!(text.starts_with("# HELP etcdproxy_build_info Always 1. The labels say what runs.\n"), "{text}");
    }
}
