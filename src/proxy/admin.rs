//! What the tunnel itself answers on its port: its health, and metrics for Prometheus.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use serde_json::json;

use super::members::{Member, State};
use super::tunnel::Tunnel;

/// An HTTP/1.1 answer after which the connection is closed.
pub(crate) fn response(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// As etcd's proxy answers `/health`, from what the probes found last.
pub(crate) fn health(tunnel: &Tunnel) -> String {
    let (status, health, reason) = match tunnel.members.health() {
        Ok(()) => ("200 OK", "true", String::new()),
        Err(why) => ("503 Service Unavailable", "false", why),
    };
    response(status, "application/json", &json!({"health": health, "reason": reason}).to_string())
}

/// To whoever asks the port of the metrics for more.
pub(crate) fn nothing_else() -> String {
    response("404 Not Found", "text/plain", "only /metrics and /health are here\n")
}

/// The text format of Prometheus, version 0.0.4.
pub(crate) fn metrics(tunnel: &Tunnel) -> String {
    let mut text = Metrics::default();
    let members = &tunnel.members.list;
    let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.by_member("connections", "gauge", "Connections that are open.", members, |member, _| {
        member.open.load(Ordering::Relaxed) as u64
    });
    text.by_member("connections_total", "counter", "Connections that were opened.", members, |member, _| {
        value(&member.total)
    });
    text.by_member("sent_bytes_total", "counter", "Bytes from clients to the member.", members, |member, _| {
        value(&member.sent)
    });
    text.by_member("received_bytes_total", "counter", "Bytes from the member to clients.", members, |member, _| {
        value(&member.received)
    });
    text.by_member("member_up", "gauge", "1 when the last probe was answered well.", members, |_, n| {
        u64::from(matches!(tunnel.members.state(n), State::Up(_)))
    });
    text.by_member("failovers_total", "counter", "How often the member was left for another.", members, |member, _| {
        value(&member.failovers)
    });
    let failures: BTreeMap<_, _> = tunnel.failures().clone();
    text.family("connect_failures_total", "counter", "Connections to members that did not come about.");
    for (kind, count) in failures {
        text.sample("connect_failures_total", "kind", &kind, count);
    }
    text.family("refused_connections_total", "counter", "Connections of clients over the limit, or that were garbage.");
    text.sample("refused_connections_total", "reason", &"limit", value(&tunnel.over_limit));
    text.sample("refused_connections_total", "reason", &"garbage", value(&tunnel.garbage));
    response("200 OK", "text/plain; version=0.0.4", &text.0)
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP etcdproxy_tunnel_{name} {help}\n# TYPE etcdproxy_tunnel_{name} {kind}\n");
    }

    /// Labels here are endpoints and words: nothing that had to be escaped.
    fn sample(&mut self, name: &str, label: &str, of: &dyn Display, value: u64) {
        let _ = writeln!(self.0, "etcdproxy_tunnel_{name}{{{label}=\"{of}\"}} {value}");
    }

    fn by_member(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        members: &[Member],
        value: impl Fn(&Member, usize) -> u64,
    ) {
        self.family(name, kind, help);
        for (n, member) in members.iter().enumerate() {
            self.sample(name, "member", &member.endpoint, value(member, n));
        }
    }
}
