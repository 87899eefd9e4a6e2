//! As much of HTTP/1.1 as it takes to ask etcd for its health.

use std::io;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Sends one GET request and returns the status and the body, of `longest` bytes at most. The server closes the connection.
///
/// # Errors
/// `InvalidData` when the answer is not HTTP/1.1 with a usable length; `UnexpectedEof` when it is cut short.
pub(crate) async fn get(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
    longest: usize,
) -> io::Result<(u16, Vec<u8>)> {
    request(stream, path).await?;
    let mut bytes = Vec::new();
    loop {
        let at_end = stream.read_buf(&mut bytes).await? == 0;
        match parse(&bytes, longest) {
            Parsed::Answer(status, body) => return Ok((status, body.to_vec())),
            Parsed::UntilEnd(status, body) if at_end || bytes.len() >= longest => {
                return Ok((status, body.to_vec()));
            }
            Parsed::UntilEnd(..) => {}
            Parsed::Incomplete if at_end => return Err(io::ErrorKind::UnexpectedEof.into()),
            Parsed::Incomplete if bytes.len() < longest => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 answer")),
        }
    }
}

async fn request(stream: &mut (impl AsyncWrite + Unpin), path: &str) -> io::Result<()> {
    // In one piece: a server may close once it has seen enough.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.flush().await
}

/// The time that an answer of the server gives; `None` if it gives none.
///
/// # Errors
/// When the connection ends before the answer has begun.
pub(crate) async fn date(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Option<SystemTime>> {
    const LONGEST: usize = 8 * 1024;
    request(stream, "/version").await?;
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        match head.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => {
                let date = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("date"));
                let text = date.and_then(|date| std::str::from_utf8(date.value).ok());
                return Ok(text.and_then(|text| httpdate::parse_http_date(text).ok()));
            }
            Ok(httparse::Status::Partial) => {}
            Err(_) => break,
        }
    }
    Ok(None)
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    Incomplete,
    Invalid,
    /// Status and body.
    Answer(u16, &'a [u8]),
    /// The end of the connection ends the body; this much has come.
    UntilEnd(u16, &'a [u8]),
}

fn parse(bytes: &[u8], longest: usize) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Parsed::Incomplete,
        Err(_) => return Parsed::Invalid,
    };
    let Some(code) = head.code else { return Parsed::Invalid };
    let Some(length) = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")) else {
        return Parsed::UntilEnd(code, &bytes[start..]);
    };
    match std::str::from_utf8(length.value).ok().and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) if length <= longest => match bytes[start..].get(..length) {
            Some(body) => Parsed::Answer(code, body),
            None => Parsed::Incomplete,
        },
        _ => Parsed::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: usize = 1024;

    #[test]
    fn answers() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(ok, LONGEST), Parsed::Answer(200, b"{}"));
        assert_eq!(parse(&ok[..ok.len() - 1], LONGEST), Parsed::Incomplete);
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", LONGEST), Parsed::Answer(404, b""));
        assert_eq!(parse(b"HTTP/1.1 503 x\r\nA: b\r\n\r\n{}", LONGEST), Parsed::UntilEnd(503, b"{}"));
        for incomplete in [&b""[..], b"HTTP/1.1 200"] {
            assert_eq!(parse(incomplete, LONGEST), Parsed::Incomplete);
        }
        for invalid in
            [&b"SSH-2.0-OpenSSH_9\r\n"[..], b"\0\0\x12\x04", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"]
        {
            assert_eq!(parse(invalid, LONGEST), Parsed::Invalid, "{}", invalid.escape_ascii());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_answer_causes_a_panic(start in 0..3usize, tail: Vec<u8>) {
            let beginnings: [&[u8]; 3] = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 x\r\nContent-Length: 5\r\n\r\n"];
            let bytes = [beginnings[start], &tail].concat();
            if let Parsed::Answer(status, body) | Parsed::UntilEnd(status, body) = parse(&bytes, LONGEST) {
                crate::net::etcd_health::judge(status, body);
            }
        }
    }
}
