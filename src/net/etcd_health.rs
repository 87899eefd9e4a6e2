//! The health of a proxy or a member, from its `/health`.

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::error::is_refusal;
use super::{block_on, get, local};
use crate::settings::ListenAddr;

/// etcd allows its own check of the cluster 1 s, and answers after that in any case.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

/// etcd's answers have a few hundred bytes; anything longer is not from etcd.
const MAX_ANSWER: usize = 64 * 1024;

/// What we know about the health of a proxy or a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    /// Something accepts connections.
    pub listening: bool,
    /// The cluster answers through it.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    fn not_listening(err: &io::Error) -> Self {
        let reason = match err.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => "nothing listens there".to_owned(),
            _ => err.to_string(),
        };
        Self { listening: false, ready: false, reason: Some(reason) }
    }

    fn not_ready(reason: impl Into<String>) -> Self {
        Self { listening: true, ready: false, reason: Some(reason.into()) }
    }
}

/// The proxy is not in the wanted state.
#[derive(Debug, thiserror::Error)]
#[error("{addr} is not {wanted}{after}: {reason}")]
pub(crate) struct Unreachable {
    pub addr: ListenAddr,
    pub wanted: &'static str,
    /// How long we waited, as ` after 30s`; empty after a single check.
    pub after: String,
    pub reason: String,
}

/// Asks once and blocks, for `timeout` at most. etcd itself answers within about 1 s, even if the cluster is not
/// healthy.
pub(crate) fn check(addr: &ListenAddr, timeout: Duration) -> Health {
    match ask(addr, Some("/health"), timeout) {
        Asked::NotListening(err) => Health::not_listening(&err),
        Asked::Answered((status, body)) => judge(status, &body),
        Asked::Silent => Health::not_ready("it does not answer"),
        Asked::Garbled(err) => Health::not_ready(format!("it does not answer as etcd does: {err}")),
    }
}

/// Whether something accepts connections. Blocks, for `timeout` at most.
pub(crate) fn check_listening(addr: &ListenAddr, timeout: Duration) -> Health {
    match ask(addr, None, timeout) {
        Asked::NotListening(err) => Health::not_listening(&err),
        _ => Health { listening: true, ready: false, reason: None },
    }
}

/// Who listens on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupant {
    Nobody,
    Proxy,
    /// Something that accepts and does not answer, as a proxy with a hung cluster can be.
    Silent,
    Other,
}

/// Finds out who listens, by a path that only etcd's proxy serves. Returns at once when nobody listens; blocks for 3 s at
/// most otherwise.
pub(crate) fn occupant(addr: &ListenAddr) -> Occupant {
    match ask(addr, Some("/proxy/health"), TIMEOUT) {
        Asked::NotListening(_) => Occupant::Nobody,
        Asked::Answered((_, body))
            if serde_json::from_slice::<Answer>(&body).is_ok_and(|answer| !answer.health.is_empty()) =>
        {
            Occupant::Proxy
        }
        Asked::Silent => Occupant::Silent,
        Asked::Answered(_) | Asked::Garbled(_) => Occupant::Other,
    }
}

/// The outcome of a request.
enum Asked {
    NotListening(io::Error),
    Silent,
    /// The answer is not HTTP.
    Garbled(io::Error),
    /// Status and body; 0 and nothing when there was no request.
    Answered((u16, Vec<u8>)),
}

/// Connects and requests `path`, if there is one.
fn ask(addr: &ListenAddr, path: Option<&str>, timeout: Duration) -> Asked {
    let asked = block_on(async {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut stream = match timeout_at(deadline, local::connect(addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(err)) => return Asked::NotListening(err),
            Err(_) => return Asked::NotListening(io::ErrorKind::TimedOut.into()),
        };
        let Some(path) = path else { return Asked::Answered((0, Vec::new())) };
        match timeout_at(deadline, get(&mut stream, path, MAX_ANSWER)).await {
            Ok(Ok(answer)) => Asked::Answered(answer),
            Ok(Err(err)) => Asked::Garbled(err),
            Err(_) => Asked::Silent,
        }
    });
    asked.unwrap_or_else(Asked::NotListening)
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The port accepts connections.
    Listening,
    /// The cluster answers.
    Ready,
}

/// Waits until the proxy at `addr` is in the wanted state.
///
/// # Errors
/// When it does not get there within `timeout`.
pub(crate) fn wait(addr: &ListenAddr, wanted: Wanted, timeout: Duration) -> Result<(), Unreachable> {
    let mut waiting = Waiting::new(timeout);
    loop {
        let health = waiting.ask(|timeout| match wanted {
            Wanted::Listening => check_listening(addr, timeout),
            Wanted::Ready => check(addr, timeout),
        });
        let (done, state) = match wanted {
            Wanted::Listening => (health.listening, "listening"),
            Wanted::Ready => (health.ready, "ready"),
        };
        if done {
            return Ok(());
        }
        // A port opens within milliseconds, a cluster comes up within seconds.
        let pause = Duration::from_millis(if health.listening { 100 } else { 10 });
        if pause >= waiting.left() {
            return Err(waiting.failed(addr, state));
        }
        std::thread::sleep(pause);
    }
}

/// Asks again and again, up to a deadline.
#[derive(Debug)]
pub(crate) struct Waiting {
    timeout: Duration,
    deadline: Instant,
    last: Option<Health>,
}

impl Waiting {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now() + timeout, last: None }
    }

    /// The time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Asks once, within the time that is left.
    pub(crate) fn ask(&mut self, check: impl FnOnce(Duration) -> Health) -> &Health {
        let left = self.left();
        let health = check(left.clamp(Duration::from_millis(100), TIMEOUT));
        // The last request may get less time than etcd needs to find out what is wrong: keep an earlier answer.
        let keep = left < TIMEOUT && !health.ready && health.listening;
        let kept = self.last.take().filter(|last| keep && last.listening);
        self.last.insert(kept.unwrap_or(health))
    }

    /// The error for when the time is over; `wanted` is the state that we waited for.
    pub(crate) fn failed(self, addr: &ListenAddr, wanted: &'static str) -> Unreachable {
        let after = format!(" after {}", humantime::format_duration(self.timeout));
        let reason = self.last.and_then(|health| health.reason).unwrap_or_default();
        Unreachable { addr: addr.clone(), wanted, after, reason }
    }
}

/// etcd's answer. `health` is a string, in etcd's proxy and in members.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    health: String,
    #[serde(default)]
    reason: String,
}

/// What an answer of `/health` means.
pub(crate) fn judge(status: u16, body: &[u8]) -> Health {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    match (status, answer) {
        (200, Some(answer)) if answer.health == "true" => Health { listening: true, ready: true, reason: None },
        // With authentication on, the cluster refuses the anonymous read behind `/health`, so it does answer.
        (503, Some(answer)) if is_refusal(&answer.reason) => Health { listening: true, ready: true, reason: None },
        (503, Some(answer)) => Health::not_ready(format!("the cluster does not answer: {}", answer.reason)),
        (status, _) => Health::not_ready(format!("it is not etcd: /health answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: u16, body: &str) -> Option<String> {
        let health = judge(status, body.as_bytes());
        assert!(health.listening && health.ready == health.reason.is_none());
        health.reason
    }

    #[test]
    fn what_etcd_answers() {
        assert_eq!(reason(200, r#"{"health":"true","reason":""}"#), None);
        assert_eq!(reason(503, r#"{"health":"false","reason":"RANGE ERROR:etcdserver: user name is empty"}"#), None);
        assert_eq!(reason(503, r#"{"health":"false","reason":"etcdserver: permission denied"}"#), None);
        assert_eq!(
            reason(503, r#"{"health":"false","reason":"context deadline exceeded"}"#).unwrap(),
            "the cluster does not answer: context deadline exceeded"
        );
    }

    #[test]
    fn what_others_answer() {
        assert_eq!(reason(200, "hello").unwrap(), "it is not etcd: /health answers 200");
        assert_eq!(reason(404, "").unwrap(), "it is not etcd: /health answers 404");
    }
}
