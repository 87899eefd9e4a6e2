//! Copies bytes from one side to the other, untouched.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadHalf, Ready};
use tokio::net::{tcp, unix};
use tokio::time::timeout;

use crate::net::Stream;

/// Each direction of a connection begins with this buffer, in bytes; most never need more.
const SMALL: usize = 2 * 1024;
/// A direction that fills its buffer gets a larger one, up to this.
const LARGE: usize = 32 * 1024;

/// A connection of which one side has ended, and which transfers no byte for this long, is over. The other side may be
/// hung, and would keep it for ever.
const SILENCE: Duration = Duration::from_secs(30);

/// A side that bytes come from.
pub(super) trait Source: AsyncRead + Unpin {
    /// Whether it has ended, even though bytes before the end have not been read yet.
    fn has_ended(&self) -> bool;
}

impl Source for tcp::ReadHalf<'_> {
    fn has_ended(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }
}

impl Source for unix::ReadHalf<'_> {
    fn has_ended(&self) -> bool {
        is_closed(self.ready(Interest::READABLE))
    }
}

/// A member that has ended is known from its probes, too.
impl Source for ReadHalf<Box<dyn Stream>> {
    fn has_ended(&self) -> bool {
        false
    }
}

/// What the event loop knows already.
fn is_closed(ready: impl Future<Output = io::Result<Ready>>) -> bool {
    let polled = pin!(ready).poll(&mut Context::from_waker(Waker::noop()));
    matches!(polled, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

/// Copies in both directions until both have ended, or one has failed, or nothing more is to be expected. Adds the
/// numbers of bytes to `counts`, first that of the direction from `a` to `b`.
pub(super) async fn copy_both(
    (from_a, to_a): (&mut impl Source, &mut (impl AsyncWrite + Unpin)),
    (from_b, to_b): (&mut impl Source, &mut (impl AsyncWrite + Unpin)),
    counts: [&AtomicU64; 2],
) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let mut there = pin!(copy(from_a, to_b, [counts[0], &moved]));
    let mut back = pin!(copy(from_b, to_a, [counts[1], &moved]));
    tokio::select! {
        ended = &mut there => {
            ended?;
            unless_silent(back, &moved).await
        }
        ended = &mut back => {
            ended?;
            unless_silent(there, &moved).await
        }
    }
}

/// The rest of a connection of which one side has ended.
async fn unless_silent(mut rest: impl Future<Output = io::Result<()>> + Unpin, moved: &AtomicU64) -> io::Result<()> {
    loop {
        let before = moved.load(Ordering::Relaxed);
        match timeout(SILENCE, &mut rest).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) == before => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

/// Copies until `from` ends, and passes the end on. Adds the number of bytes to each of `counts`.
///
/// It reads nothing before it has written what it read last: a slow reader slows its writer down.
async fn copy(from: &mut impl Source, to: &mut (impl AsyncWrite + Unpin), counts: [&AtomicU64; 2]) -> io::Result<()> {
    let mut buffer = vec![0; SMALL];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        write(from, to, &buffer[..read]).await?;
        for count in counts {
            count.fetch_add(read as u64, Ordering::Relaxed);
        }
        if read == buffer.len() && read < LARGE {
            buffer.resize(read * 2, 0);
        }
    }
}

/// Writes what came from `from`, unless that takes long and `from` has ended.
async fn write(from: &impl Source, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let mut written = pin!(async {
        to.write_all(bytes).await?;
        to.flush().await
    });
    // The timer starts only if the write has to wait.
    loop {
        match timeout(SILENCE, &mut written).await {
            Ok(written) => return written,
            Err(_) if from.has_ended() => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A client, a member, and the copying between them.
    fn start() -> (DuplexStream, DuplexStream, JoinHandle<io::Result<()>>) {
        let ((client, a), (member, b)) = (duplex(1000), duplex(1000));
        let copying = tokio::spawn(async move {
            let halves = |stream| split(Box::new(stream) as Box<dyn Stream>);
            let ((mut from_a, mut to_a), (mut from_b, mut to_b)) = (halves(a), halves(b));
            let counts = [&AtomicU64::new(0), &AtomicU64::new(0)];
            copy_both((&mut from_a, &mut to_a), (&mut from_b, &mut to_b), counts).await
        });
        (client, member, copying)
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_connection_may_be_silent_and_a_half_closed_one_for_30_s() {
        for client_ends_first in [true, false] {
            let (client, member, copying) = start();
            let (mut first, mut second) = if client_ends_first { (client, member) } else { (member, client) };
            sleep(Duration::from_hours(1)).await;
            first.shutdown().await.unwrap();
            for _ in 0..3 {
                sleep(SILENCE * 9 / 10).await;
                second.write_all(b"x").await.unwrap();
                first.read_exact(&mut [0]).await.unwrap();
            }
            assert!(!copying.is_finished());
            let silent = Instant::now();
            assert_eq!(copying.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(silent.elapsed() <= 2 * SILENCE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_normally_when_both_sides_have_ended() {
        let (mut client, mut member, copying) = start();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        member.read_to_string(&mut question).await.unwrap();
        member.write_all(b"answer").await.unwrap();
        drop(member);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        copying.await.unwrap().unwrap();
    }

    /// Bytes that the member does not take hide that the client has left.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_noticed_although_its_member_takes_no_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let (_member, b) = duplex(1000);
        let mut copying = tokio::spawn(async move {
            let (mut from_a, mut to_a) = accepted.split();
            let (mut from_b, mut to_b) = split(Box::new(b) as Box<dyn Stream>);
            let counts = [&AtomicU64::new(0), &AtomicU64::new(0)];
            copy_both((&mut from_a, &mut to_a), (&mut from_b, &mut to_b), counts).await
        });
        client.write_all(&vec![0; 20_000]).await.unwrap();
        assert!(timeout(10 * SILENCE, &mut copying).await.is_err(), "the client is connected");
        drop(client);
        let ended = timeout(10 * SILENCE, copying).await.expect("it ends").unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
