//! Tells from its first bytes what a connection is: gRPC, HTTP/1.1, TLS, or a request to the proxy itself.

/// The first bytes of every HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of every TLS client: the type handshake, and the major version (RFC 8446, section 5.1).
const TLS: &[u8] = b"\x16\x03";

/// The HTTP/1.1 methods of etcd's JSON gateway and of probes.
const METHODS: [&[u8]; 7] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH "];

/// In bytes. A connection with a longer request line goes to the member.
pub(super) const MAX_REQUEST_LINE: usize = 1024;

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detection {
    /// These bytes do not tell yet.
    NeedMore,
    /// gRPC.
    Http2,
    /// HTTP/1.1 for the member: etcd's JSON gateway, or its version.
    Http1,
    /// A request (GET or HEAD) to the proxy itself.
    Own(Page),
    /// TLS, which this port does not speak.
    Tls,
    /// None of these.
    Garbage,
}

/// What the proxy itself serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Health,
    Metrics,
    /// For people.
    Status,
    /// The same as JSON.
    StatusJson,
}

impl Page {
    /// Whether it says more than a health check needs to know.
    pub(super) fn is_status(self) -> bool {
        matches!(self, Self::Status | Self::StatusJson)
    }
}

impl Detection {
    /// Judges all bytes that have come so far.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] == PREFACE[..common] {
            return if common == PREFACE.len() { Self::Http2 } else { Self::NeedMore };
        }
        if bytes.starts_with(TLS) {
            return Self::Tls;
        }
        if TLS.starts_with(bytes) {
            return Self::NeedMore;
        }
        let begins = |method: &&&[u8]| method.starts_with(bytes) || bytes.starts_with(method);
        let Some(method) = METHODS.iter().find(begins) else { return Self::Garbage };
        let Some(rest) = bytes.strip_prefix(*method) else { return Self::NeedMore };
        let Some(end) = rest.iter().position(|byte| b" ?\r\n".contains(byte)) else {
            return if bytes.len() > MAX_REQUEST_LINE { Self::Http1 } else { Self::NeedMore };
        };
        match (*method, &rest[..end]) {
            (b"GET " | b"HEAD ", b"/health" | b"/proxy/health") => Self::Own(Page::Health),
            (b"GET " | b"HEAD ", b"/metrics" | b"/proxy/metrics") => Self::Own(Page::Metrics),
            (b"GET " | b"HEAD ", b"/") => Self::Own(Page::Status),
            (b"GET " | b"HEAD ", b"/status.json") => Self::Own(Page::StatusJson),
            _ => Self::Http1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_connection_is_for() {
        for (bytes, expected) in [
            (&b""[..], Detection::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Detection::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Detection::Http2),
            (b"PRI * HTTP/3", Detection::Garbage),
            (b"GE", Detection::NeedMore),
            (b"GET /heal", Detection::NeedMore),
            (b"GET /health HTTP/1.1\r\n", Detection::Own(Page::Health)),
            (b"GET /proxy/health HTTP/1.1\r\n", Detection::Own(Page::Health)),
            (b"GET /health?serializable=true HTTP/1.1\r\n", Detection::Own(Page::Health)),
            (b"HEAD /health HTTP/1.1\r\n", Detection::Own(Page::Health)),
            (b"GET /metrics HTTP/1.0\r\n", Detection::Own(Page::Metrics)),
            (b"HEAD /metrics HTTP/1.1\r\n", Detection::Own(Page::Metrics)),
            (b"GET / HTTP/1.1\r\n", Detection::Own(Page::Status)),
            (b"HEAD /?x HTTP/1.1\r\n", Detection::Own(Page::Status)),
            (b"GET /status.json HTTP/1.1\r\n", Detection::Own(Page::StatusJson)),
            (b"POST / HTTP/1.1\r\n", Detection::Http1),
            (b"GET // HTTP/1.1\r\n", Detection::Http1),
            (b"GET /version HTTP/1.1\r\n", Detection::Http1),
            (b"GET /healthy HTTP/1.1\r\n", Detection::Http1),
            (b"POST /v3/kv/put HTTP/1.1\r\n", Detection::Http1),
            (b"POST /health HTTP/1.1\r\n", Detection::Http1),
            (b"\x16", Detection::NeedMore),
            (b"\x16\x03\x01\x02", Detection::Tls),
            (b"\x16\x16", Detection::Garbage),
            (b"get /health", Detection::Garbage),
            (b"\0", Detection::Garbage),
        ] {
            assert_eq!(Detection::of(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(Detection::of(&[b"GET /".as_slice(), &[b'x'; MAX_REQUEST_LINE]].concat()), Detection::Http1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// However the bytes are split, the decision is the same, and it comes in time.
        #[test]
        fn more_bytes_never_change_a_decision(start in 0..9usize, tail: Vec<u8>) {
            let beginnings: [&[u8]; 9] = [
                b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * ", b"GET ", b"GET /health ", b"POST /", b"G", b"GET /metrics?", b"\x16",
            ];
            let bytes = [beginnings[start], &tail].concat();
            let mut decided = Detection::NeedMore;
            for length in 0..=bytes.len() {
                let now = Detection::of(&bytes[..length]);
                prop_assert!(decided == Detection::NeedMore || now == decided);
                decided = now;
            }
            prop_assert!(bytes.len() <= MAX_REQUEST_LINE || decided != Detection::NeedMore);
        }
    }
}
