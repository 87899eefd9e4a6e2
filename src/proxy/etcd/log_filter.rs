//! The output of etcd's proxy, without its chatter and in plain words.
//!
//! etcd's proxy has no flag for the log level. A normal start writes forty lines, each client's connection several, and a
//! member that is down two a second for ever.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;
use serde_json::{Map, Value};

use crate::net::{DialError, is_refusal};
use crate::os::log::{Format, To, copy_line, format};
use crate::settings::Endpoint;

/// The same complaint is logged again after this.
const REPEAT: Duration = Duration::from_secs(30);

/// How many complaints to remember. Beyond that, all are forgotten and may be logged again.
const REMEMBERED: usize = 1000;

/// The longest line that is read, in bytes. etcd's own are far shorter.
const MAX_LINE: u64 = 64 * 1024;

/// A line worth showing.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// In our own words.
    Info(String),
    Warn(String),
    /// In etcd's words: a warning, or worse.
    Etcd(Level, String),
}

/// Where etcd's output goes: through one filter, which lasts from start to start.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Output(Arc<Mutex<LogFilter>>);

impl Output {
    /// The log already says that the endpoints in `failing` cannot be reached.
    pub(in crate::proxy) fn new(failing: &[Endpoint]) -> Self {
        let mut filter = LogFilter::default();
        for endpoint in failing {
            filter.mark_reported(endpoint.address());
        }
        Self(Arc::new(Mutex::new(filter)))
    }

    /// Logs what is wrong with an endpoint, so that etcd's own complaint need not be.
    pub(in crate::proxy) fn report(&self, endpoint: &Endpoint, problem: &str) {
        self.filter().mark_reported(endpoint.address());
        log::warn!("{problem}");
    }

    /// Reads etcd's output to its end, from its stdout or stderr. Returns its last words, which may say why it ended.
    pub(super) fn relay(&self, from: impl Read, stream: To) -> String {
        if format() == Format::Raw {
            each_line(from, |text| copy_line(stream, text));
            return "see its output above".to_owned();
        }
        let mut last_words = String::new();
        each_line(from, |text| {
            let classified = self.filter().classify(text, Instant::now());
            match classified {
                None => {}
                Some(Line::Info(text)) => log::info!("{text}"),
                Some(Line::Warn(text)) => log::warn!("{text}"),
                Some(Line::Etcd(level, words)) => {
                    if format() == Format::Json && text.starts_with('{') && text.ends_with('}') {
                        copy_line(To::Stderr, text);
                    } else {
                        log::log!(level, "etcd: {words}");
                    }
                    last_words = words;
                }
            }
        });
        last_words
    }

    fn filter(&self) -> MutexGuard<'_, LogFilter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes each line to `take`, without its end; of a very long one, only the beginning.
fn each_line(from: impl Read, mut take: impl FnMut(&str)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    let mut is_rest = false;
    while reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if !is_rest {
            take(String::from_utf8_lossy(&line).trim_end());
        }
        is_rest = !line.ends_with(b"\n");
        line.clear();
    }
}

/// Decides which lines to drop and which to show.
#[derive(Debug, Default)]
struct LogFilter {
    /// When each complaint was logged last, and how often it was held back since.
    complaints: HashMap<String, (Instant, u32)>,
    /// The address of each of gRPC's subchannels, by its name in the log.
    subchannels: HashMap<String, String>,
    /// Addresses with a logged complaint that are not connected yet.
    failing: HashSet<String>,
    in_usage: bool,
}

impl LogFilter {
    /// The log already says that this address cannot be reached.
    fn mark_reported(&mut self, address: String) {
        self.complaints.insert(address.clone(), (Instant::now(), 0));
        self.failing.insert(address);
    }

    fn classify(&mut self, line: &str, now: Instant) -> Option<Line> {
        let Ok(Value::Object(entry)) = serde_json::from_str(line) else { return self.plain(line) };
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let (level, message) = (text("level"), text("msg"));
        match level {
            "debug" => None,
            "info" => self.connected(message),
            "warn" => {
                if let Some((address, why)) = failed_connection(message) {
                    self.failing.insert(address.to_owned());
                    let times = self.repeated(address, now)?;
                    let words = format!("the endpoint {address} cannot be reached: {}{times}", in_words(why));
                    return Some(Line::Warn(words));
                }
                if message.starts_with("/health error") {
                    return self.unhealthy(text("output"), now);
                }
                let words = words(&entry);
                let times = self.repeated(&without_numbers(&words), now)?;
                Some(Line::Etcd(Level::Warn, format!("{words}{times}")))
            }
            _ => Some(Line::Etcd(Level::Error, words(&entry))),
        }
    }

    /// The caller of `/health` has got this answer already, but nothing else in the log shows a hung member.
    fn unhealthy(&mut self, output: &str, now: Instant) -> Option<Line> {
        if !self.failing.is_empty() {
            return None;
        }
        let output: Value = serde_json::from_str(output).unwrap_or_default();
        let why = output.get("reason").and_then(Value::as_str).unwrap_or_default();
        // With authentication on, a healthy cluster answers this.
        if is_refusal(why) {
            return None;
        }
        let times = self.repeated("/health", now)?;
        Some(Line::Warn(format!("the cluster does not answer: {why}{times}")))
    }

    /// A line that is not JSON: an error about etcd's command line, or a stack trace.
    fn plain(&mut self, line: &str) -> Option<Line> {
        // After an unknown flag come hundreds of lines about all flags, and then the error once more.
        if line.starts_with("Usage:") {
            self.in_usage = true;
        } else if !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':') {
            self.in_usage = false;
        }
        let shown = !self.in_usage && !line.trim().is_empty() && !line.starts_with("Error: ");
        shown.then(|| Line::Etcd(Level::Error, line.to_owned()))
    }

    /// Follows gRPC's subchannels to notice when a failed address is connected again.
    fn connected(&mut self, message: &str) -> Option<Line> {
        let (_, rest) = message.split_once("SubChannel #")?;
        let (subchannel, rest) = rest.split_once(']')?;
        if let Some(address) = rest.strip_prefix(" Subchannel picks a new address ") {
            if self.subchannels.len() >= REMEMBERED {
                self.subchannels.clear();
            }
            let address = address.split('"').nth(1)?;
            self.subchannels.insert(subchannel.to_owned(), address.to_owned());
        } else if rest.starts_with(" Subchannel Connectivity change to READY") {
            let address = self.subchannels.get(subchannel)?;
            if !self.failing.remove(address) {
                return None;
            }
            self.complaints.remove(address);
            return Some(Line::Info(format!("the endpoint {address} is connected")));
        }
        None
    }

    /// `None` when the complaint was logged lately; else how often it was held back since, in words.
    fn repeated(&mut self, complaint: &str, now: Instant) -> Option<String> {
        if self.complaints.len() >= REMEMBERED {
            self.complaints.clear();
        }
        if let Some((last, held_back)) = self.complaints.get_mut(complaint) {
            if now < *last + REPEAT {
                *held_back += 1;
                return None;
            }
            let count = std::mem::take(held_back);
            *last = now;
            return Some(if count == 0 {
                String::new()
            } else {
                format!(" ({count} more times since it was last logged)")
            });
        }
        self.complaints.insert(complaint.to_owned(), (now, 0));
        Some(String::new())
    }
}

/// Address and reason of a failed connection to a member.
fn failed_connection(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("failed to connect to {")?;
    let (address, rest) = rest.split_once("Err: ")?;
    Some((address.split('"').nth(1)?, rest))
}

/// The core of gRPC's and Go's nested reasons, in plain words.
fn in_words(reason: &str) -> String {
    let known = [
        ("connection refused", DialError::Refused.to_string()),
        ("no such host", DialError::Unresolved("no such host".to_owned()).to_string()),
        ("i/o timeout", "no connection in time".to_owned()),
        ("deadline exceeded", "it does not answer in time".to_owned()),
        (
            "certificate signed by unknown authority",
            "its certificate is signed by an authority that is not trusted".to_owned(),
        ),
        ("certificate has expired", "its certificate has expired, or is not valid yet".to_owned()),
        ("first record does not look like a TLS handshake", DialError::NotTls.to_string()),
        ("certificate required", DialError::ClientCertificateRequired.to_string()),
        ("handshake failed: EOF", "it ends the TLS handshake: it may speak plain http".to_owned()),
        ("error reading server preface", "it does not speak HTTP/2, or only with TLS".to_owned()),
        ("frame too large", DialError::NotHttp2.to_string()),
    ];
    let words = known.into_iter().find(|(part, _)| reason.contains(part)).map(|(_, words)| words);
    words.unwrap_or_else(|| innermost(reason).to_owned())
}

/// The text after `desc = "transport: …` and the like.
fn innermost(reason: &str) -> &str {
    let inner = |reason: &'_ str, mark: &str| reason.rfind(mark).map_or(0, |at| at + mark.len());
    let reason = &reason[inner(reason, "desc = \"").max(inner(reason, "transport: "))..];
    reason.trim_end_matches(['"', '\\'])
}

/// Message and fields of a log entry in one line, as in `message (key: value)`.
fn words(entry: &Map<String, Value>) -> String {
    let mut words = entry.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned();
    let known = ["level", "ts", "caller", "msg", "logger", "stacktrace"];
    let mut separator = " (";
    for (key, value) in entry.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let _ = write!(words, "{separator}{key}: {value}");
        separator = ", ";
    }
    if separator == ", " {
        words.push(')');
    }
    words.replace('\n', " ")
}

/// Lines that differ only in numbers, such as times, counts and pointers, are the same complaint; lines that differ in
/// addresses are not.
fn without_numbers(text: &str) -> String {
    let is_number = |word: &&str| {
        let is_address = word.contains(':') || word.matches('.').count() > 1;
        word.contains(|c: char| c.is_ascii_digit()) && !is_address
    };
    text.split([' ', '"', '(', ')', '/', ',']).filter(|word| !is_number(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = r#"{"level":"warn","ts":"2026-11-23T12:58:34.522705Z","caller":"zapgrpc/zapgrpc.go:193","msg":"[core] [Channel #1 SubChannel #5] grpc: addrConn.createTransport failed to connect to {Addr: \"127.0.0.1:24012\", ServerName: \"127.0.0.1:24012\", }. Err: connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:24012: connect: connection refused\""}"#;

    fn core(message: &str) -> String {
        let message = format!("[core] [Channel #1 SubChannel #5] {message}");
        serde_json::json!({"level": "info", "msg": message}).to_string()
    }

    #[test]
    fn chatter_is_dropped_and_errors_never() {
        let mut filter = LogFilter::default();
        let mut classify = |line: &str| filter.classify(line, Instant::now());
        for chatter in [
            r#"{"level":"info","ts":"2026","msg":"[core] [Server #2] Server created"}"#,
            r#"{"level":"debug","msg":"x"}"#,
            r#"{"level":"warn","msg":"/health error","output":"{\"reason\":\"etcdserver: user name is empty\"}"}"#,
            "",
        ] {
            assert_eq!(classify(chatter), None, "{chatter}");
        }
        let fatal = r#"{"level":"fatal","ts":"1","caller":"a.go:1","msg":"cannot","error":"so"}"#;
        for _ in 0..3 {
            assert_eq!(classify(fatal), Some(Line::Etcd(Level::Error, "cannot (error: so)".to_owned())));
            assert_eq!(classify("panic: oh"), Some(Line::Etcd(Level::Error, "panic: oh".to_owned())));
        }
    }

    #[test]
    fn a_failed_connection_is_logged_once_in_thirty_seconds_and_its_return_once() {
        let mut filter = LogFilter::default();
        let start = Instant::now();
        let mut at = |seconds, line: &str| filter.classify(line, start + Duration::from_secs(seconds));
        let words = "the endpoint 127.0.0.1:24012 cannot be reached: the connection is refused: nothing listens there";
        at(0, &core("Subchannel picks a new address \"127.0.0.1:24012\" to connect"));
        assert_eq!(at(0, &core("Subchannel Connectivity change to READY")), None, "never failed");
        assert_eq!(at(0, REFUSED), Some(Line::Warn(words.to_owned())));
        assert_eq!((at(1, REFUSED), at(29, REFUSED)), (None, None));
        assert_eq!(at(30, REFUSED), Some(Line::Warn(format!("{words} (2 more times since it was last logged)"))));
        let connected = Some(Line::Info("the endpoint 127.0.0.1:24012 is connected".to_owned()));
        assert_eq!(at(31, &core("Subchannel Connectivity change to READY")), connected);
        assert_eq!(at(32, REFUSED), Some(Line::Warn(words.to_owned())), "a new failure");
    }

    #[test]
    fn the_flags_usage_is_dropped_and_the_error_stays() {
        let mut filter = LogFilter::default();
        let output = "Error: unknown flag: --foo\nUsage:\n  etcd grpc-proxy start [flags]\n\nFlags:\n      --cacert string   x\n\nunknown flag: --foo";
        let shown: Vec<_> = output.lines().filter_map(|line| filter.classify(line, Instant::now())).collect();
        assert_eq!(shown, [Line::Etcd(Level::Error, "unknown flag: --foo".to_owned())]);
        assert_eq!(Output::new(&[]).relay(output.as_bytes(), To::Stderr), "unknown flag: --foo");
    }

    #[test]
    fn other_warnings_are_held_back_whatever_their_numbers() {
        let mut filter = LogFilter::default();
        let mut classify = |line: &str| filter.classify(line, Instant::now());
        assert!(classify(r#"{"level":"warn","msg":"slow","took":"101ms"}"#).is_some());
        assert!(classify(r#"{"level":"warn","msg":"slow","took":"99ms"}"#).is_none());
        assert!(classify(r#"{"level":"warn","msg":"other"}"#).is_some());
        let endpoint =
            |n| format!(r#"{{"level":"warn","msg":"retrying","target":"etcd-endpoints://0xc0{n}/10.0.0.{n}:1"}}"#);
        assert!(
            classify(&endpoint(1)).is_some() && classify(&endpoint(2)).is_some() && classify(&endpoint(1)).is_none()
        );
    }
}
