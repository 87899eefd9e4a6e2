//! How a member is, asked every second.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::members::State;
use super::preflight::Problem;
use super::tunnel::Tunnel;
use crate::net::dial::{Failure, Protocol, Stream};
use crate::net::etcd_health as health;
use crate::net::http2::{self, Frame, Kind};
use crate::settings::Endpoint;

const EVERY: Duration = Duration::from_secs(1);
/// A member that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A member that does not offer `/health` is asked for it again after so many pings.
const ASK_AGAIN: u32 = 60;
/// For so many probes a connection is kept at most.
const KEEP: u32 = 10;
/// etcd's answers are a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Probes member `n` for ever.
pub(crate) async fn run(tunnel: Arc<Tunnel>, n: usize) {
    let mut probe = Probe { tunnel, n, kept: None, age: 0, readings: 0, pings: 0 };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        probe.renew();
        let answer = tokio::time::timeout(PATIENCE, probe.ask()).await.unwrap_or_else(|_| {
            probe.kept = None;
            Err(format!("it is silent for {} s", PATIENCE.as_secs_f32()))
        });
        probe.tunnel.report(n, asked, answer);
    }
}

struct Probe {
    tunnel: Arc<Tunnel>,
    n: usize,
    /// The connection of the last probe.
    kept: Option<Box<dyn Stream>>,
    /// How many probes it has served.
    age: u32,
    /// Of the certificates, when it was made.
    readings: u32,
    /// While above 0, the member is pinged instead.
    pings: u32,
}

/// What came of one question.
enum Answer {
    Well,
    Ill(String),
    /// There is no `/health` on this port.
    NotOffered,
}

impl Probe {
    /// A connection that is kept must not go on to work where new ones do not: with other certificates, on either side.
    fn renew(&mut self) {
        let readings = self.tunnel.upstream.readings();
        let is_down = matches!(self.tunnel.members.state(self.n), State::Down { .. });
        self.age += 1;
        if is_down || self.age >= KEEP || self.readings != readings {
            (self.kept, self.age) = (None, 0);
        }
        self.readings = readings;
    }

    async fn ask(&mut self) -> Result<(), String> {
        if self.pings == 0 {
            match self.ask_health().await? {
                Answer::Well => return Ok(()),
                Answer::Ill(why) => return Err(why),
                Answer::NotOffered => {
                    self.kept = None;
                    self.pings = ASK_AGAIN;
                }
            }
        }
        self.pings -= 1;
        let pinged = self.ping().await;
        if pinged.is_err() {
            self.pings = 0;
        }
        if self.pings == 0 {
            self.kept = None;
        }
        pinged
    }

    async fn ask_health(&mut self) -> Result<Answer, String> {
        // A connection that was kept may have been closed meanwhile: that says nothing of the member.
        if let Some(mut stream) = self.kept.take()
            && let Some(answer) = get_health(&mut stream).await
        {
            self.kept = Some(stream);
            return Ok(answer);
        }
        let mut stream = self.connect(Protocol::Http1).await?;
        match get_health(&mut stream).await {
            Some(answer) => {
                self.kept = Some(stream);
                Ok(answer)
            }
            None => Ok(Answer::NotOffered),
        }
    }

    async fn ping(&mut self) -> Result<(), String> {
        if let Some(mut stream) = self.kept.take()
            && ping(&mut stream).await.is_ok()
        {
            self.kept = Some(stream);
            return Ok(());
        }
        let mut stream = self.connect(Protocol::Http2).await?;
        match is_grpc(&mut stream, &self.tunnel.members.list[self.n].endpoint).await {
            Ok(true) => {
                self.kept = Some(stream);
                Ok(())
            }
            Ok(false) => Err(Problem::NotGrpc.to_string()),
            Err(err) => Err(match self.tunnel.upstream.failure(&err) {
                Failure { kind: "tls", words } => words,
                _ => Problem::NotHttp2.to_string(),
            }),
        }
    }

    async fn connect(&self, protocol: Protocol) -> Result<Box<dyn Stream>, String> {
        let endpoint = &self.tunnel.members.list[self.n].endpoint;
        self.tunnel.upstream.connect(endpoint, protocol).await.map_err(|failure| failure.words)
    }
}

/// One question on a connection that stays open; `None` when what comes is no answer to it.
async fn get_health(stream: &mut Box<dyn Stream>) -> Option<Answer> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\n\r\n").await.ok()?;
    stream.flush().await.ok()?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        match parse(&bytes) {
            Parsed::More if bytes.len() < MAX_ANSWER => {}
            Parsed::More | Parsed::Nonsense => return None,
            Parsed::Answer(status @ (200 | 503), body) => {
                return Some(health::judge(status, body).reason.map_or(Answer::Well, Answer::Ill));
            }
            Parsed::Answer(..) => return Some(Answer::NotOffered),
        }
    }
}

/// An HTTP/1.1 answer with a length.
#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    More,
    Nonsense,
    Answer(u16, &'a [u8]),
}

fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Parsed::More,
        Err(_) => return Parsed::Nonsense,
    };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    match (head.code, length) {
        (Some(code), Some(length)) if length <= MAX_ANSWER => match bytes[start..].get(..length) {
            Some(body) => Parsed::Answer(code, body),
            None => Parsed::More,
        },
        _ => Parsed::Nonsense,
    }
}

/// The next frame that is no matter of course.
async fn next_frame(stream: &mut Box<dyn Stream>) -> io::Result<Frame> {
    loop {
        let mut header = [0; http2::HEADER];
        stream.read_exact(&mut header).await?;
        let mut frame = Frame::new(header)?;
        stream.read_exact(&mut frame.payload).await?;
        if frame.kind != Kind::Settings {
            return Ok(frame);
        }
        if !frame.ack {
            stream.write_all(http2::SETTINGS_ACK).await?;
            stream.flush().await?;
        }
    }
}

/// Asks for gRPC, as the first thing on a connection.
async fn is_grpc(stream: &mut Box<dyn Stream>, endpoint: &Endpoint) -> io::Result<bool> {
    stream.write_all(&http2::question(endpoint)).await?;
    stream.flush().await?;
    loop {
        if let Some(is_grpc) = next_frame(stream).await?.is_grpc() {
            return Ok(is_grpc);
        }
    }
}

/// Asks for a sign of life.
async fn ping(stream: &mut Box<dyn Stream>) -> io::Result<()> {
    stream.write_all(http2::PING).await?;
    stream.flush().await?;
    loop {
        match next_frame(stream).await? {
            Frame { kind: Kind::Ping, ack: true, .. } => return Ok(()),
            Frame { kind: Kind::GoAway, .. } => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(ok), Parsed::Answer(200, b"{}"));
        assert_eq!(parse(&ok[..ok.len() - 1]), Parsed::More);
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), Parsed::Answer(404, b""));
        for nonsense in [
            &b"SSH-2.0"[..],
            b"\0\0\x12\x04",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert_eq!(parse(nonsense), Parsed::Nonsense, "{}", nonsense.escape_ascii());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_answer_is_a_panic(start in 0..3usize, tail: Vec<u8>) {
            let beginnings: [&[u8]; 3] = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 x\r\nContent-Length: 5\r\n\r\n"];
            let bytes = [beginnings[start], &tail].concat();
            if let Parsed::Answer(status, body) = parse(&bytes) {
                crate::net::etcd_health::judge(status, body);
            }
        }
    }
}
