//! What etcd's proxy says, without its chatter, and in words.
//!
//! It has no flag for the level: a normal start is forty lines, each client's connection several, and a member that
//! is down says so twice a second for ever.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::net::etcd_health as health;
use crate::os::log::{Format, Level, Log};

/// The same complaint is repeated after this.
const REPEAT: Duration = Duration::from_secs(30);

/// Complaints that are remembered at once. Beyond it, all are forgotten and may be said again.
const REMEMBERED: usize = 1000;

/// A line that is worth to be shown.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// In our own words.
    Info(String),
    Warn(String),
    /// As etcd has it: a warning, or worse.
    Etcd(Level, String),
}

/// Reads etcd's output to its end; gives its last words, for the case that they say why it ended.
pub(crate) fn relay(output: impl Read, log: Log, thinner: &Mutex<Thinner>) -> String {
    let mut last_words = String::new();
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let said = thinner.lock().unwrap_or_else(PoisonError::into_inner).sort(text, Instant::now());
        match said {
            None => {}
            Some(Said::Info(text)) => log.info(text),
            Some(Said::Warn(text)) => log.warn(text),
            Some(Said::Etcd(level, words)) => {
                if log.format == Format::Json && text.starts_with('{') {
                    Log::verbatim(text);
                } else {
                    log.line(level, format_args!("etcd: {words}"));
                }
                last_words = words;
            }
        }
        line.clear();
    }
    last_words
}

/// Sorts lines into those to be dropped and those to be shown.
#[derive(Debug, Default)]
pub(crate) struct Thinner {
    /// When each complaint was made last, and how often it was held back since.
    made: HashMap<String, (Instant, u32)>,
    /// gRPC's subchannels, by their names in the log, with their addresses.
    subchannels: HashMap<String, String>,
    /// Addresses that were complained about and are not connected yet.
    failing: HashSet<String>,
    in_usage: bool,
}

impl Thinner {
    /// That this address cannot be reached has been said already.
    pub(crate) fn knows(&mut self, address: String) {
        self.made.insert(address.clone(), (Instant::now(), 0));
        self.failing.insert(address);
    }

    fn sort(&mut self, line: &str, now: Instant) -> Option<Said> {
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
                    return Some(Said::Warn(words));
                }
                if message.starts_with("/health error") {
                    return self.unhealthy(text("output"), now);
                }
                let words = words(&entry);
                let times = self.repeated(&without_numbers(&words), now)?;
                Some(Said::Etcd(Level::Warn, format!("{words}{times}")))
            }
            _ => Some(Said::Etcd(Level::Error, words(&entry))),
        }
    }

    /// Whoever asked for the health had the answer; but a member that hangs is seen in nothing else.
    fn unhealthy(&mut self, output: &str, now: Instant) -> Option<Said> {
        if !self.failing.is_empty() {
            return None;
        }
        let output: Value = serde_json::from_str(output).unwrap_or_default();
        let why = output.get("reason").and_then(Value::as_str).unwrap_or_default();
        // With authentication on, that is the answer of a cluster that is well.
        if health::is_refusal(why) {
            return None;
        }
        let times = self.repeated("/health", now)?;
        Some(Said::Warn(format!("the cluster does not answer: {why}{times}")))
    }

    /// A line that is no JSON: an error of etcd's command line, or a stack trace.
    fn plain(&mut self, line: &str) -> Option<Said> {
        // After an unknown flag there are hundreds of lines about all flags, and then the error once more.
        if line.starts_with("Usage:") {
            self.in_usage = true;
        } else if !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':') {
            self.in_usage = false;
        }
        let shown = !self.in_usage && !line.trim().is_empty() && !line.starts_with("Error: ");
        shown.then(|| Said::Etcd(Level::Error, line.to_owned()))
    }

    /// Follows gRPC's subchannels, to say when an address that failed is connected again.
    fn connected(&mut self, message: &str) -> Option<Said> {
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
            self.made.remove(address);
            return Some(Said::Info(format!("the endpoint {address} is connected")));
        }
        None
    }

    /// Nothing when the complaint was made lately; else how often it was not repeated since, in words.
    fn repeated(&mut self, complaint: &str, now: Instant) -> Option<String> {
        if self.made.len() >= REMEMBERED {
            self.made.clear();
        }
        if let Some((last, held_back)) = self.made.get_mut(complaint) {
            if now < *last + REPEAT {
                *held_back += 1;
                return None;
            }
            let count = std::mem::take(held_back);
            *last = now;
            return Some(if count == 0 {
                String::new()
            } else {
                format!(" ({count} more times since it was last said)")
            });
        }
        self.made.insert(complaint.to_owned(), (now, 0));
        Some(String::new())
    }
}

/// Address and reason of a connection to a member that did not come about.
fn failed_connection(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("failed to connect to {")?;
    let (address, rest) = rest.split_once("Err: ")?;
    Some((address.split('"').nth(1)?, rest))
}

/// The core of gRPC's and Go's nested reasons, with what to look at.
fn in_words(reason: &str) -> String {
    const KNOWN: [(&str, &str); 11] = [
        ("connection refused", "the connection is refused: nothing listens there"),
        ("no such host", "its name does not resolve"),
        ("i/o timeout", "no connection in time"),
        ("deadline exceeded", "it does not answer in time"),
        ("certificate signed by unknown authority", "its certificate is signed by an authority that is not trusted"),
        ("certificate has expired", "its certificate has expired, or is not valid yet"),
        ("first record does not look like a TLS handshake", "it does not speak TLS"),
        ("certificate required", "it asks for a client certificate"),
        ("handshake failed: EOF", "it ends the TLS handshake: it may speak plain http"),
        ("error reading server preface", "it does not speak HTTP/2, or only with TLS"),
        ("frame too large", "what answers is not etcd: it does not speak HTTP/2"),
    ];
    let known = KNOWN.iter().find(|(part, _)| reason.contains(part));
    known.map_or_else(|| innermost(reason).to_owned(), |(_, words)| (*words).to_owned())
}

/// What stands behind `desc = "transport: …` and the like.
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

/// Two lines that differ only in numbers, such as times, counts and pointers, are the same complaint; in addresses, not.
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
        let mut thinner = Thinner::default();
        let mut sort = |line: &str| thinner.sort(line, Instant::now());
        for chatter in [
            r#"{"level":"info","ts":"2026","msg":"[core] [Server #2] Server created"}"#,
            r#"{"level":"debug","msg":"x"}"#,
            r#"{"level":"warn","msg":"/health error","output":"{\"reason\":\"etcdserver: user name is empty\"}"}"#,
            "",
        ] {
            assert_eq!(sort(chatter), None, "{chatter}");
        }
        let fatal = r#"{"level":"fatal","ts":"1","caller":"a.go:1","msg":"cannot","error":"so"}"#;
        for _ in 0..3 {
            assert_eq!(sort(fatal), Some(Said::Etcd(Level::Error, "cannot (error: so)".to_owned())));
            assert_eq!(sort("panic: oh"), Some(Said::Etcd(Level::Error, "panic: oh".to_owned())));
        }
    }

    #[test]
    fn a_connection_that_fails_is_said_once_in_thirty_seconds_and_once_when_it_is_there() {
        let mut thinner = Thinner::default();
        let start = Instant::now();
        let mut at = |seconds, line: &str| thinner.sort(line, start + Duration::from_secs(seconds));
        let words = "the endpoint 127.0.0.1:24012 cannot be reached: the connection is refused: nothing listens there";
        at(0, &core("Subchannel picks a new address \"127.0.0.1:24012\" to connect"));
        assert_eq!(at(0, &core("Subchannel Connectivity change to READY")), None, "never failed");
        assert_eq!(at(0, REFUSED), Some(Said::Warn(words.to_owned())));
        assert_eq!((at(1, REFUSED), at(29, REFUSED)), (None, None));
        assert_eq!(at(30, REFUSED), Some(Said::Warn(format!("{words} (2 more times since it was last said)"))));
        let connected = Some(Said::Info("the endpoint 127.0.0.1:24012 is connected".to_owned()));
        assert_eq!(at(31, &core("Subchannel Connectivity change to READY")), connected);
        assert_eq!(at(32, REFUSED), Some(Said::Warn(words.to_owned())), "a new failure");
    }

    #[test]
    fn the_flags_usage_is_dropped_and_the_error_stays() {
        let mut thinner = Thinner::default();
        let output = "Error: unknown flag: --foo\nUsage:\n  etcd grpc-proxy start [flags]\n\nFlags:\n      --cacert string   x\n\nunknown flag: --foo";
        let said: Vec<_> = output.lines().filter_map(|line| thinner.sort(line, Instant::now())).collect();
        assert_eq!(said, [Said::Etcd(Level::Error, "unknown flag: --foo".to_owned())]);
        assert_eq!(relay(output.as_bytes(), Log::default(), &Mutex::default()), "unknown flag: --foo");
    }

    #[test]
    fn other_warnings_are_thinned_whatever_their_numbers() {
        let mut thinner = Thinner::default();
        let mut sort = |line: &str| thinner.sort(line, Instant::now());
        assert!(sort(r#"{"level":"warn","msg":"slow","took":"101ms"}"#).is_some());
        assert!(sort(r#"{"level":"warn","msg":"slow","took":"99ms"}"#).is_none());
        assert!(sort(r#"{"level":"warn","msg":"other"}"#).is_some());
        let endpoint =
            |n| format!(r#"{{"level":"warn","msg":"retrying","target":"etcd-endpoints://0xc0{n}/10.0.0.{n}:1"}}"#);
        assert!(sort(&endpoint(1)).is_some() && sort(&endpoint(2)).is_some() && sort(&endpoint(1)).is_none());
    }
}
