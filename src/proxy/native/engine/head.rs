//! What header blocks say: requests and answers.

use std::rc::Rc;
use std::time::Duration;

use etcdproxy_http2::{Connection, Error, hpack};
use hpack::Field;
use rustc_hash::FxHashMap;

use crate::api::methods::Method;

/// The prefix of a message: a flag for compression, and its length.
pub(super) const PREFIX: usize = 5;

/// More than a cluster's clients use at the same time, in blocks.
const REMEMBERED: usize = 256;

/// Longer blocks are not remembered, in bytes: a block can have 64 kB, and nobody sends a long one twice.
const LONGEST_REMEMBERED: usize = 2048;

/// gRPC's status codes.
pub(super) mod status {
    use etcdproxy_http2::Code;

    pub(crate) const CANCELLED: u32 = 1;
    pub(crate) const UNKNOWN: u32 = 2;
    pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
    pub(crate) const PERMISSION_DENIED: u32 = 7;
    pub(crate) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(crate) const UNIMPLEMENTED: u32 = 12;
    pub(crate) const INTERNAL: u32 = 13;
    pub(crate) const UNAVAILABLE: u32 = 14;
    pub(crate) const UNAUTHENTICATED: u32 = 16;

    /// What gRPC makes of a stream that its peer has given up.
    pub(crate) fn of_reset(code: Code) -> u32 {
        match code {
            Code::REFUSED_STREAM => UNAVAILABLE,
            Code::CANCEL => CANCELLED,
            Code::ENHANCE_YOUR_CALM | Code::FLOW_CONTROL_ERROR => RESOURCE_EXHAUSTED,
            _ => INTERNAL,
        }
    }
}

/// The head of a request.
pub(super) struct Request {
    /// The method; `None` when etcd has none with this path.
    pub method: Option<&'static Method>,
    /// For a member: the method and the path.
    pub first: Vec<u8>,
    /// For a member: everything else but the server's name, the deadline and our token.
    pub rest: Vec<u8>,
    /// How long the client waits, as it says it.
    pub timeout: Option<Vec<u8>>,
    /// The token that it brings.
    pub token: Option<Vec<u8>>,
    /// Its messages may be compressed, so nobody can read them.
    pub is_compressed: bool,
    /// Why it is not forwarded: the status of HTTP.
    pub refused: Option<&'static str>,
}

impl Request {
    fn new(fields: &[Field]) -> Self {
        let value = |wanted: &[u8]| fields.iter().find(|field| field.name == wanted).map(|field| &field.value[..]);
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        let path = value(b":path").unwrap_or_default().to_vec();
        hpack::encode(&mut first, b":method", b"POST");
        hpack::encode(&mut first, b":path", &path);
        for Field { name, value } in fields {
            if !name.starts_with(b":") && !is_of_connection(name) && name != b"grpc-timeout" {
                hpack::encode(&mut rest, name, value);
            }
        }
        let is_grpc = value(b"content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let refused = match value(b":method") {
            _ if !is_grpc => Some("415"),
            Some(b"POST") if path.starts_with(b"/") => None,
            _ => Some("405"),
        };
        let is_compressed = value(b"grpc-encoding").is_some_and(|encoding| encoding != b"identity");
        let timeout = value(b"grpc-timeout").map(<[u8]>::to_vec);
        Self {
            method: Method::find(&path),
            first,
            rest,
            timeout,
            token: value(b"token").map(<[u8]>::to_vec),
            is_compressed,
            refused,
        }
    }

    /// That of a call of our own. It fails when the member knows no leader, and so may be cut off from the others.
    pub(super) fn own(path: &str, token: Option<&[u8]>) -> Self {
        let agent = concat!("etcdproxy/", env!("CARGO_PKG_VERSION"));
        let fields = [
            (":method", "POST".as_bytes()),
            (":path", path.as_bytes()),
            ("te", b"trailers"),
            ("content-type", b"application/grpc"),
            ("user-agent", agent.as_bytes()),
            ("hasleader", b"true"),
        ];
        let fields = fields.into_iter().chain(token.map(|token| ("token", token)));
        let field = |(name, value): (&str, &[u8])| Field { name: name.into(), value: value.into() };
        Self::new(&fields.map(field).collect::<Vec<_>>())
    }

    /// How much memory it takes that no other call shares, in bytes.
    pub(super) fn memory(&self) -> usize {
        let length = self.first.len() + self.rest.len();
        if length > LONGEST_REMEMBERED { length } else { 0 }
    }

    /// How long the client waits.
    pub(super) fn patience(&self) -> Option<Duration> {
        patience(self.timeout.as_deref()?)
    }
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
fn patience(timeout: &[u8]) -> Option<Duration> {
    let (unit, digits) = timeout.split_last()?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A value of `grpc-timeout` that is at least this long.
pub(super) fn timeout_text(left: Duration) -> String {
    let micros = left.as_micros().max(1);
    match micros {
        0..100_000_000 => format!("{micros}u"),
        100_000_000..100_000_000_000 => format!("{}m", micros / 1000),
        _ => format!("{}S", (micros / 1_000_000).min(99_999_999)),
    }
}

/// Fields that HTTP/2 does not have (section 8.2.2), or that we write ourselves.
fn is_of_connection(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" | b"host")
}

/// Headers or trailers of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// For the client.
    pub block: Vec<u8>,
    /// gRPC's status, in trailers.
    pub status: Option<u32>,
    /// What gRPC says about it.
    pub message: Vec<u8>,
    /// It is not the final answer (status 1xx).
    pub is_interim: bool,
}

impl Answer {
    fn new(fields: &[Field]) -> Self {
        let mut answer = Self { block: Vec::new(), status: None, message: Vec::new(), is_interim: false };
        for Field { name, value } in fields {
            match &name[..] {
                b"grpc-status" => answer.status = std::str::from_utf8(value).ok().and_then(|code| code.parse().ok()),
                b"grpc-message" => answer.message.clone_from(value),
                b":status" => answer.is_interim = value.starts_with(b"1"),
                _ => {}
            }
            hpack::encode(&mut answer.block, name, value);
        }
        answer
    }

    /// How much memory it takes that no other call shares, in bytes.
    pub(super) fn memory(&self) -> usize {
        if self.block.len() > LONGEST_REMEMBERED { self.block.len() } else { 0 }
    }

    /// The end of a call that no member has answered.
    pub(super) fn error(status: u32, message: &str, has_headers: bool) -> Self {
        let mut block = Vec::new();
        if !has_headers {
            hpack::encode(&mut block, b":status", b"200");
            hpack::encode(&mut block, b"content-type", b"application/grpc");
        }
        hpack::encode(&mut block, b"grpc-status", status.to_string().as_bytes());
        hpack::encode(&mut block, b"grpc-message", &percent_encoded(message));
        Self { block, status: Some(status), message: message.as_bytes().to_vec(), is_interim: false }
    }
}

/// As gRPC wants messages: printable ASCII without percent signs.
fn percent_encoded(message: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte),
            _ => encoded.extend(format!("%{byte:02X}").bytes()),
        }
    }
    encoded
}

/// Remembers what blocks mean. Clients send few different ones, thousands of times.
#[derive(Debug)]
pub(super) struct Heads<T> {
    known: FxHashMap<Box<[u8]>, Rc<T>>,
    read: fn(&[Field]) -> T,
}

impl Heads<Request> {
    pub(super) fn requests() -> Self {
        Self { known: FxHashMap::default(), read: Request::new }
    }
}

impl Heads<Answer> {
    pub(super) fn answers() -> Self {
        Self { known: FxHashMap::default(), read: Answer::new }
    }
}

impl<T> Heads<T> {
    /// What the next block of this connection says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn get(&mut self, connection: &mut Connection, block: &[u8]) -> Result<Rc<T>, Error> {
        let is_remembered = connection.is_stateless() && block.len() <= LONGEST_REMEMBERED;
        if is_remembered && let Some(head) = self.known.get(block) {
            return Ok(Rc::clone(head));
        }
        let head = Rc::new((self.read)(&connection.decode(block)?));
        if is_remembered {
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
            self.known.insert(block.into(), Rc::clone(&head));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_client_waits() {
        for (text, expected) in [
            (&b"5S"[..], Some(Duration::from_secs(5))),
            (b"99999999H", Some(Duration::from_hours(99_999_999))),
            (b"4998123u", Some(Duration::from_micros(4_998_123))),
            (b"10m", Some(Duration::from_millis(10))),
            (b"123456789S", None),
            (b"-1S", None),
            (b"S", None),
            (b"5", None),
            (b"", None),
        ] {
            assert_eq!(patience(text), expected, "{}", text.escape_ascii());
        }
        for millis in [0, 1, 99_999, 100_000, 99_999_999, 100_000_000, 1 << 40] {
            let text = timeout_text(Duration::from_millis(millis));
            assert!(text.len() <= 9, "{text}");
            let read = patience(text.as_bytes()).unwrap().as_millis();
            assert!(read <= u128::from(millis) && read + 1000 > u128::from(millis).min(99_999_999_000), "{text}");
        }
    }

    #[test]
    fn messages_are_ascii() {
        assert_eq!(percent_encoded("a b%\n\u{e9}"), b"a b%25%0A%C3%A9");
    }
}
