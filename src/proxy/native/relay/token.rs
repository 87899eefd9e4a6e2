//! Requests to etcd's JSON gateway, which come as HTTP/1.1 and are forwarded byte for byte.

/// The longest head of a request, in bytes.
pub(crate) const LONGEST_HEAD: usize = 16 * 1024;

/// The beginning of an answer that shows its status, in bytes.
pub(crate) const STATUS_LINE: usize = 12;

/// What becomes of a head when the call shall carry our token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// More bytes must come first.
    Incomplete,
    /// It has a token of its own, or is no head: it goes on as it is.
    Unchanged,
    /// With our token. The connection ends with the answer, because nobody looks at a second request.
    Changed {
        bytes: Vec<u8>,
        /// The whole request has come, so it can be sent again.
        is_complete: bool,
    },
}

/// Puts our token into the head of a request; `bytes` may go on after it.
pub(crate) fn with_token(bytes: &[u8], token: &str) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Head::Incomplete,
        _ => return Head::Unchanged,
    };
    if request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("authorization")) {
        return Head::Unchanged;
    }
    let (Some(method), Some(path)) = (request.method, request.path) else { return Head::Unchanged };
    let mut changed = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    for header in request.headers.iter().filter(|header| !is_of_connection(header.name)) {
        changed.extend_from_slice(header.name.as_bytes());
        changed.extend_from_slice(b": ");
        changed.extend_from_slice(header.value);
        changed.extend_from_slice(b"\r\n");
    }
    changed.extend_from_slice(format!("Authorization: {token}\r\nConnection: close\r\n\r\n").as_bytes());
    changed.extend_from_slice(&bytes[length..]);
    let value = |name: &str| request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let body = value("content-length").map_or(Some(0), |header| str::from_utf8(header.value).ok()?.trim().parse().ok());
    let is_complete =
        value("transfer-encoding").is_none() && body.is_some_and(|body: usize| bytes.len() - length >= body);
    Head::Changed { bytes: changed, is_complete }
}

/// Whether an answer that begins like this refuses the token.
pub(crate) fn refuses_token(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 401")
}

fn is_of_connection(name: &str) -> bool {
    ["connection", "keep-alive", "proxy-connection"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_without_a_token_gets_ours() {
        let request = b"POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
        let changed = b"POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nAuthorization: t.1\r\n\
            Connection: close\r\n\r\n{}";
        let complete = Head::Changed { bytes: changed.to_vec(), is_complete: true };
        assert_eq!(with_token(request, "t.1"), complete);
        let part = Head::Changed { bytes: changed[..changed.len() - 1].to_vec(), is_complete: false };
        assert_eq!(with_token(&request[..request.len() - 1], "t.1"), part);
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(matches!(with_token(chunked, "t.1"), Head::Changed { is_complete: false, .. }));
        for length in 0..request.len() - 2 {
            assert_eq!(with_token(&request[..length], "t.1"), Head::Incomplete);
        }
        let own = b"POST /v3/kv/put HTTP/1.1\r\nauthorization: mine\r\n\r\n";
        assert_eq!(with_token(own, "t.1"), Head::Unchanged);
        assert_eq!(with_token(&[b"GET /".as_slice(), &[b'x'; LONGEST_HEAD]].concat(), "t.1"), Head::Unchanged);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = with_token(&bytes, "t.1");
        }
    }
}
