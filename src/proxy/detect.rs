//! The first bytes of a connection: gRPC, or a question to the tunnel itself.

/// What every HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods of HTTP/1.1 that etcd's JSON gateway or a probe may be asked with.
const METHODS: [&[u8]; 7] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH "];

/// A request line that is longer is for the member to answer.
pub(crate) const MAX_REQUEST_LINE: usize = 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Not known yet.
    More,
    /// gRPC.
    Http2,
    /// HTTP/1.1 for the member: etcd's JSON gateway, its version.
    Http1,
    /// Is the cluster there?
    Health,
    Metrics,
    /// None of these.
    Garbage,
}

impl Greeting {
    /// From all bytes that came so far.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let common = bytes.len().min(PREFACE.len());
        if bytes[..common] == PREFACE[..common] {
            return if common == PREFACE.len() { Self::Http2 } else { Self::More };
        }
        let begins = |method: &&&[u8]| method.starts_with(bytes) || bytes.starts_with(method);
        let Some(method) = METHODS.iter().find(begins) else { return Self::Garbage };
        let Some(rest) = bytes.strip_prefix(*method) else { return Self::More };
        let Some(end) = rest.iter().position(|byte| b" ?\r\n".contains(byte)) else {
            return if bytes.len() > MAX_REQUEST_LINE { Self::Http1 } else { Self::More };
        };
        match (*method, &rest[..end]) {
            (b"GET ", b"/health" | b"/proxy/health") => Self::Health,
            (b"GET ", b"/metrics" | b"/proxy/metrics") => Self::Metrics,
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
            (&b""[..], Greeting::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Greeting::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Greeting::Http2),
            (b"PRI * HTTP/3", Greeting::Garbage),
            (b"GE", Greeting::More),
            (b"GET /heal", Greeting::More),
            (b"GET /health HTTP/1.1\r\n", Greeting::Health),
            (b"GET /proxy/health HTTP/1.1\r\n", Greeting::Health),
            (b"GET /health?serializable=true HTTP/1.1\r\n", Greeting::Health),
            (b"GET /metrics HTTP/1.0\r\n", Greeting::Metrics),
            (b"GET /version HTTP/1.1\r\n", Greeting::Http1),
            (b"GET /healthy HTTP/1.1\r\n", Greeting::Http1),
            (b"POST /v3/kv/put HTTP/1.1\r\n", Greeting::Http1),
            (b"POST /health HTTP/1.1\r\n", Greeting::Http1),
            (b"\x16\x03\x01\x02", Greeting::Garbage),
            (b"get /health", Greeting::Garbage),
            (b"\0", Greeting::Garbage),
        ] {
            assert_eq!(Greeting::of(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(Greeting::of(&[b"GET /".as_slice(), &[b'x'; MAX_REQUEST_LINE]].concat()), Greeting::Http1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// However the bytes are cut, the answer is the same, and it comes in time.
        #[test]
        fn more_bytes_never_change_a_decision(start in 0..9usize, tail: Vec<u8>) {
            let beginnings: [&[u8]; 9] = [
                b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * ", b"GET ", b"GET /health ", b"POST /", b"G", b"GET /metrics?", b"\x16",
            ];
            let bytes = [beginnings[start], &tail].concat();
            let mut decided = Greeting::More;
            for length in 0..=bytes.len() {
                let now = Greeting::of(&bytes[..length]);
                prop_assert!(decided == Greeting::More || now == decided);
                decided = now;
            }
            prop_assert!(bytes.len() <= MAX_REQUEST_LINE || decided != Greeting::More);
        }
    }
}
