//! Asking a proxy or a member how it is.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::settings::ListenAddr;

/// etcd gives its own probe of the cluster 1 s, and answers then in any case.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// An answer is a line of JSON; more than this is not from etcd.
const MAX_ANSWER: usize = 64 * 1024;

/// What `/health` answered, as far as it came.
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
            io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
            _ => err.to_string(),
        };
        Self { listening: false, ready: false, reason: Some(reason) }
    }

    fn not_ready(reason: impl Into<String>) -> Self {
        Self { listening: true, ready: false, reason: Some(reason.into()) }
    }
}

/// Not ready, in the time that was given.
#[derive(Debug, thiserror::Error)]
#[error("{addr} is not {wanted}{after}: {reason}")]
pub(crate) struct Unreachable {
    pub addr: ListenAddr,
    pub wanted: &'static str,
    /// How long was waited, in words, with a leading space; or nothing.
    pub after: String,
    pub reason: String,
}

/// Asks once. etcd itself answers within about 1 s, be the cluster well or not; `patience` bounds the rest.
pub(crate) fn check(addr: &ListenAddr, patience: Duration) -> Health {
    match connect(addr, patience) {
        Err(err) => Health::not_listening(&err),
        Ok(stream) => match get(stream, "/health", patience) {
            Ok((status, body)) => judge(status, &body),
            Err(err) if timed_out(&err) => Health::not_ready("it does not answer"),
            Err(err) => Health::not_ready(format!("it does not answer as etcd does: {err}")),
        },
    }
}

/// Who listens on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupant {
    Nobody,
    Proxy,
    /// Something that accepts and says nothing, as a proxy with a hung cluster can be.
    Silent,
    Other,
}

/// Finds out who listens, by a path that only etcd's proxy serves. Nobody is known at once, the others within 3 s.
pub(crate) fn occupant(addr: &ListenAddr) -> Occupant {
    let Ok(stream) = connect(addr, PATIENCE) else { return Occupant::Nobody };
    match get(stream, "/proxy/health", PATIENCE) {
        Ok((_, body)) if serde_json::from_slice::<Answer>(&body).is_ok_and(|answer| !answer.health.is_empty()) => {
            Occupant::Proxy
        }
        Err(err) if timed_out(&err) => Occupant::Silent,
        _ => Occupant::Other,
    }
}

fn timed_out(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether something accepts connections.
pub(crate) fn check_listening(addr: &ListenAddr, patience: Duration) -> Health {
    match connect(addr, patience) {
        Err(err) => Health::not_listening(&err),
        Ok(_) => Health { listening: true, ready: false, reason: None },
    }
}

/// Asking again and again, up to a deadline.
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

    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Asks once, with what is left as patience.
    pub(crate) fn ask(&mut self, check: impl FnOnce(Duration) -> Health) -> &Health {
        let left = self.left();
        let health = check(left.clamp(Duration::from_millis(100), PATIENCE));
        // The last question has less time than etcd takes to say what is wrong: what it said before is better.
        let keep = left < PATIENCE && !health.ready && health.listening;
        let kept = self.last.take().filter(|last| keep && last.listening);
        self.last.insert(kept.unwrap_or(health))
    }

    /// What is to be said when the time is over; `wanted` is what was waited for.
    pub(crate) fn failed(self, addr: &ListenAddr, wanted: &'static str) -> Unreachable {
        let after = format!(" after {}", humantime::format_duration(self.timeout));
        let reason = self.last.and_then(|health| health.reason).unwrap_or_default();
        Unreachable { addr: addr.clone(), wanted, after, reason }
    }
}

fn connect(addr: &ListenAddr, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it resolves to no address");
    for addr in addr.target().to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, patience) {
            // A free port may be given to this very connection, which then talks to itself.
            Ok(stream) if stream.local_addr().ok() == Some(addr) => last = io::ErrorKind::ConnectionRefused.into(),
            Ok(stream) => return Ok(stream),
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn get(mut stream: TcpStream, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let deadline = Instant::now() + patience;
    stream.set_write_timeout(Some(patience))?;
    // In one piece: a server may close once it has seen enough.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < MAX_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut part)? {
            0 => break,
            _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

/// Status and body of an HTTP/1.1 answer.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => Some((head.code?, answer[length..].to_vec())),
        _ => None,
    }
}

/// etcd's answer. `health` is a string in etcd's proxy and members alike.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    health: String,
    #[serde(default)]
    reason: String,
}

/// Whether the cluster is well and only refuses an unknown user.
pub(crate) fn is_refusal(reason: &str) -> bool {
    ["user name is empty", "permission denied"].iter().any(|refusal| reason.contains(refusal))
}

pub(crate) fn judge(status: u16, body: &[u8]) -> Health {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    match (status, answer) {
        (200, Some(answer)) if answer.health == "true" => Health { listening: true, ready: true, reason: None },
        // With authentication on, the probe is a read without a user: refused, so the cluster did answer.
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

    #[test]
    fn answers_that_are_no_http() {
        for bytes in [&b""[..], b"\x00\x00\x12\x04", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9\r\n"] {
            assert!(parse(bytes).is_none());
        }
        assert_eq!(parse(b"HTTP/1.1 503 x\r\nA: b\r\n\r\n{}"), Some((503, b"{}".to_vec())));
    }
}
