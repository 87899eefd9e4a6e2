//! Clients that attack with HTTP/2 itself, while others are served.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::members::{CONTINUATION, DATA, GO_AWAY, HEADERS, PING, RESET, SETTINGS, frame, header};
use super::{Target, cases, check_log, connect_from, figure, number};
use crate::load;
use crate::sidecar::{GREETING, memory_kb, metric, native};
use crate::support::{Cluster, Process, unique_addr, unique_host, wait_ready};

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;

const END: u8 = 1;
const END_HEADERS: u8 = 4;

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A read of the key "a", and a watch of it.
const GET_A: &[u8] = b"\0\0\0\0\x03\x0a\x01a";
const WATCH_A: &[u8] = b"\0\0\0\0\x05\x0a\x03\x0a\x01a";
/// A read of a megabyte.
const GET_BIG: &[u8] = b"\0\0\0\0\x05\x0a\x03big";
const CANCEL: &[u8] = &[0, 0, 0, 8];
const LARGEST_WINDOW: u32 = 0x7fff_ffff;

/// How many streams a client may have.
const STREAMS: u32 = 4096;

/// What the peak of the memory may be, in kB, with a debug build. The proxy lets 32 MB wait.
const MEMORY: u64 = 160_000;

fn head(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    let rest = b"\x01\x01x\x0f\x10\x10application/grpc\0\x02te\x08trailers";
    [b"\x83\x86\x04", &[length][..], path.as_bytes(), rest].concat()
}

fn id(n: usize) -> u32 {
    u32::try_from(2 * n + 1).unwrap()
}

/// A request without its end.
fn opens(n: usize, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id(n), &head(path))
}

fn call(n: usize, path: &str, message: &[u8]) -> Vec<u8> {
    [opens(n, path), frame(DATA, END, id(n), message)].concat()
}

fn setting(name: u8, value: u32) -> Vec<u8> {
    [&[0, name][..], &value.to_be_bytes()].concat()
}

/// An attacker's connection. It reads nothing before `read`.
struct Attacker {
    stream: TcpStream,
    /// Streams that have ended.
    ended: Arc<AtomicUsize>,
    reader: Option<JoinHandle<()>>,
}

impl Attacker {
    fn connect(n: usize, addr: &str) -> Self {
        let mut stream = connect_from(n, addr).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(GREETING).unwrap();
        Self { stream, ended: Arc::default(), reader: None }
    }

    /// One that reads whatever comes.
    fn reading(n: usize, addr: &str) -> Self {
        let mut attacker = Self::connect(n, addr);
        let (mut stream, ended) = (attacker.stream.try_clone().unwrap(), Arc::clone(&attacker.ended));
        attacker.reader = Some(std::thread::spawn(move || {
            let mut header = [0; 9];
            let mut payload = Vec::new();
            while stream.read_exact(&mut header).is_ok() {
                let [a, b, c, kind, flags, ..] = header;
                payload.resize(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c), 0);
                if stream.read_exact(&mut payload).is_err() {
                    return;
                }
                let is_end = kind == RESET || (matches!(kind, DATA | HEADERS) && flags & END != 0);
                ended.fetch_add(usize::from(is_end), Ordering::Relaxed);
            }
        }));
        attacker
    }

    /// Whether the connection takes it.
    fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

/// Lets an attack run. Meanwhile and afterwards others are served, over the one connection to the member. Returns what
/// the attack says about itself, with the figures.
async fn survive(attack: impl FnOnce(&str) -> String + Send + 'static) -> String {
    let target = Target::start(1, &[]).await;
    let mut client = load::connect(&target.addr).await.unwrap();
    client.put("a", "1", None).await.unwrap();
    client.put("big", vec![b'x'; 1 << 20], None).await.unwrap();
    let connections = format!("connections_total{{member=\"{}\"}}", target.cluster.endpoints());
    let before = metric(&target.addr, &connections);
    let addr = target.addr.clone();
    let attack = tokio::task::spawn_blocking(move || attack(&addr));
    let (mut slowest, mut gets) = (Duration::ZERO, 0);
    while !attack.is_finished() {
        let asked = Instant::now();
        // The client gives up after two seconds.
        while let Err(err) = client.get("a", None).await {
            assert!(asked.elapsed() < Duration::from_secs(20), "others are not served: {err}");
        }
        slowest = slowest.max(asked.elapsed());
        gets += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let what = attack.await.unwrap();
    crate::support::makes_progress(&target.load).await;
    load::connect(&target.addr).await.unwrap().get("a", None).await.expect("a new client is served");
    assert_eq!(metric(&target.addr, &connections), before, "the connection to the member has survived");
    let memory = memory_kb(&target.proxy, "VmHWM");
    let end = Box::pin(target.end()).await;
    println!("{what}: {memory} kB, slowest {slowest:?}");
    assert!(memory < MEMORY, "{what}: {memory} kB");
    format!(
        "{what}; slowest of {} gets of others {} ms; {} MB of memory; {end}",
        number(gets),
        slowest.as_millis(),
        memory / 1000,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once() {
    let count = cases(10_000);
    let attack = move |addr: &str| {
        let attack = |attacker: usize, count: usize| {
            let (mut said, mut connections) = (0, 0);
            while said < count {
                connections += 1;
                let mut connection = Attacker::reading(attacker * 100_000 + connections, addr);
                // The proxy leaves a client that resets more at once.
                for batch in 0..60 {
                    let one = |n: usize| {
                        let request = if n.is_multiple_of(2) { opens(n, WATCH) } else { call(n, RANGE, GET_A) };
                        [request, frame(RESET, 0, id(n), CANCEL)].concat()
                    };
                    let bytes: Vec<u8> = (batch * 100..batch * 100 + 100).flat_map(one).collect();
                    if said >= count || !connection.say(&bytes) {
                        break;
                    }
                    said += 100;
                }
                // Until all of it has been looked at.
                let before = connection.ended();
                connection.say(&call(6000, RANGE, GET_A));
                while connection.ended() == before && !connection.reader.as_ref().unwrap().is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            connections
        };
        let one = attack(0, count / 2);
        let many: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4).map(|n| scope.spawn(move || attack(n, count / 8))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        format!("{} streams reset at once, on {one} connections in turn, then on {many} of four clients", number(count))
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_bombs() {
    let count = cases(200);
    let attack = move |addr: &str| {
        let start = |n: usize| [frame(SETTINGS, END, 0, b"\x00\x00\x00\x00\x00\x00"), opens(n, RANGE)].concat();
        // Metadata of 60 kB, of requests that never end.
        let long = |n: usize, path: &str| {
            let block = [head(path), header("x", &vec![b'a' + n.to_le_bytes()[0] % 26; 60_000])].concat();
            let (first, last) = block.split_at(16_000);
            let mut parts = last.chunks(16_000).peekable();
            let mut bytes = frame(HEADERS, 0, id(n), first);
            while let Some(part) = parts.next() {
                bytes.extend(frame(CONTINUATION, if parts.peek().is_none() { END_HEADERS } else { 0 }, id(n), part));
            }
            bytes
        };
        let entry = [&[0x40, 1, b'k', 0x7f, 0x9d, 0x1e][..], &[b'v'; 127 + 0x1d + (0x1e << 7)]].concat();
        let table = |n: usize| {
            let extra = if n == 0 { entry.clone() } else { vec![0xbe; 15] };
            frame(HEADERS, END_HEADERS, id(n), &[head(RANGE), extra].concat())
        };
        let huffman = [&[0x00, 1, b'h', 0xff, 0x81, 0x7d][..], &[0; 16_128]].concat();
        let bombs: Vec<Box<dyn Fn(usize) -> Vec<u8>>> = vec![
            Box::new(move |n| long(n, RANGE)),
            Box::new(move |n| long(n, WATCH)),
            Box::new(move |n| long(n, "/no/Such")),
            Box::new(table),
            Box::new(|n| frame(HEADERS, END_HEADERS, id(n), &[head(RANGE), vec![0x95; 1800]].concat())),
            Box::new(|n| frame(HEADERS, END_HEADERS, id(n), &[head(RANGE), vec![0x95; 16_000]].concat())),
            Box::new(move |n| frame(HEADERS, END_HEADERS, id(n), &huffman)),
            Box::new(|n| frame(if n == 0 { HEADERS } else { CONTINUATION }, 0, 1, &[0; 1000])),
            Box::new(|n| frame(if n == 0 { HEADERS } else { CONTINUATION }, 0, 1, b"")),
            Box::new(move |n| [start(n), frame(HEADERS, END_HEADERS, id(n), b"\xbe")].concat()),
        ];
        let kinds = bombs.len();
        let mut held = Vec::new();
        for bomb in bombs {
            for connection in 0..2 {
                let mut attacker = Attacker::connect(connection, addr);
                let _ = (0..count).all(|n| attacker.say(&bomb(n)));
                held.push(attacker);
            }
        }
        // Parts of blocks, on many connections.
        for n in 0..count {
            let mut attacker = Attacker::connect(n, addr);
            let part = frame(CONTINUATION, 0, 1, &[0; 15_000]);
            attacker.say(&[frame(HEADERS, 0, 1, &[0; 15_000]), part.repeat(3)].concat());
            held.push(attacker);
        }
        std::thread::sleep(Duration::from_millis(500));
        format!("{kinds} kinds of header bombs, {} of each on 2 connections, and parts of blocks", number(count))
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn window_games() {
    let count = cases(200);
    let attack = move |addr: &str| {
        // More of them keep the member busy, not the proxy.
        let megabytes = count.min(200);
        let mut held = Vec::new();
        // Answers that may not be sent, or byte by byte.
        for (n, window) in [0, 1, 255].into_iter().enumerate() {
            let mut attacker = Attacker::reading(n, addr);
            attacker.say(&frame(SETTINGS, 0, 0, &setting(4, window)));
            let _ = (0..megabytes).all(|n| attacker.say(&call(n, RANGE, GET_BIG)));
            let update = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
            let _ = (0..count).all(|_| attacker.say(&update.repeat(10)));
            held.push(attacker);
        }
        // Windows of all streams, changed 2,730 times by each frame.
        let mut attacker = Attacker::reading(3, addr);
        let streams = count.min(STREAMS as usize);
        let _ = (0..streams).all(|n| attacker.say(&opens(n, RANGE)));
        let settings: Vec<u8> = (0..2730).flat_map(|n| setting(4, n % 2 * LARGEST_WINDOW)).collect();
        let _ = (0..count).all(|_| attacker.say(&frame(SETTINGS, 0, 0, &settings)));
        held.push(attacker);
        // A window beyond the largest, of the connection and of a stream.
        for stream in [0, 1] {
            let mut attacker = Attacker::reading(4, addr);
            let most = frame(WINDOW_UPDATE, 0, stream, &LARGEST_WINDOW.to_be_bytes());
            attacker.say(&[opens(0, RANGE), most].concat());
            held.push(attacker);
        }
        std::thread::sleep(Duration::from_millis(500));
        format!(
            "windows of 0, 1 and 255 bytes for {megabytes} megabytes each, {} floods of changes, overflows",
            number(count)
        )
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames() {
    let count = cases(20_000);
    let attack = move |addr: &str| {
        let floods = [
            frame(PING, 0, 0, b"12345678"),
            frame(PING, END, 0, b"12345678"),
            frame(SETTINGS, 0, 0, b""),
            frame(SETTINGS, END, 0, b""),
            frame(PRIORITY, 0, 1, &[0; 5]),
            frame(0x77, 0, 0, b""),
            frame(DATA, 0, 1, b""),
            frame(DATA, 8, 1, &[1, 0]),
            frame(GO_AWAY, 0, 0, &[0; 8]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
            frame(RESET, 0, 1, CANCEL),
        ];
        std::thread::scope(|scope| {
            for (n, flood) in floods.iter().enumerate() {
                scope.spawn(move || {
                    // Those who do not read the answers, and those who do.
                    for mut attacker in [Attacker::connect(n, addr), Attacker::reading(n, addr)] {
                        attacker.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                        attacker.say(&opens(0, WATCH));
                        let _ = (0..count / 100).all(|_| attacker.say(&flood.repeat(100)));
                    }
                });
            }
        });
        // Requests whose answers are not read.
        let mut attacker = Attacker::connect(99, addr);
        attacker.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let get = |n: usize| frame(HEADERS, END | END_HEADERS, id(n), b"\x82\x86\x84");
        let _ = (0..20 * count / 100).all(|n| {
            let bytes: Vec<u8> = (n * 100..n * 100 + 100).flat_map(get).collect();
            attacker.say(&bytes)
        });
        format!(
            "{} frames of each of 12 kinds, with and without a reader; {} requests whose answers are not read",
            number(count),
            number(20 * count)
        )
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_and_writers() {
    let count = cases(100);
    let attack = move |addr: &str| {
        let mut held = Vec::new();
        // Megabytes that are allowed and not read.
        for n in 0..4 {
            let mut attacker = Attacker::connect(n, addr);
            let windows = frame(SETTINGS, 0, 0, &setting(4, LARGEST_WINDOW));
            attacker.say(&[windows, frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes())].concat());
            let _ = (0..count).all(|n| attacker.say(&call(n, RANGE, GET_BIG)));
            held.push(attacker);
        }
        std::thread::sleep(Duration::from_secs(1));
        // Requests of a megabyte that stop after 60 kB.
        for n in 0..4 {
            let mut attacker = Attacker::reading(n, addr);
            let part = frame(DATA, 0, 0, &[&[0, 0, 0x10, 0, 0][..], &[0; 15_000]].concat());
            let _ = (0..count * 4).all(|n| {
                let mut parts = part.clone();
                parts[5..9].copy_from_slice(&id(n).to_be_bytes());
                attacker.say(&[opens(n, RANGE), parts.repeat(4)].concat())
            });
            held.push(attacker);
        }
        // Longer ones are sent on at once, and their member waits.
        let mut attacker = Attacker::reading(9, addr);
        let _ = (0..count).all(|n| {
            let part = frame(DATA, 0, id(n), &[&[0, 0, 0x10, 0, 0][..], &[0; 16_000]].concat());
            attacker.say(&[opens(n, RANGE), part.repeat(10)].concat())
        });
        std::thread::sleep(Duration::from_secs(1));
        format!(
            "4 clients that do not read {} MB, 4 with {} requests that do not end",
            number(count),
            number(4 * count)
        )
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams() {
    let count = cases(4000);
    let attack = move |addr: &str| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || {
                    let mut attacker = Attacker::reading(n, addr);
                    attacker.say(&frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()));
                    for n in 0..count / 4 {
                        assert!(attacker.say(&call(n, RANGE, GET_A)));
                        while n.is_multiple_of(50) && attacker.ended() + 200 < n {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    while attacker.ended() < count / 4 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
        });
        let rate = count * 1000 / usize::try_from(started.elapsed().as_millis()).unwrap();
        // The proxy has room for 65,536 calls.
        let open = (count / 7).clamp(2000, 70_000);
        let mut held = Vec::new();
        for from in (0..open).step_by(4000) {
            let mut attacker = Attacker::reading(from, addr);
            (0..4000.min(open - from)).for_each(|n| assert!(attacker.say(&opens(n, RANGE)) || open > 60_000));
            held.push(attacker);
        }
        std::thread::sleep(Duration::from_millis(500));
        format!("{} reads one after another ({} a second), {} open at once", number(count), number(rate), number(open))
    };
    figure(&Box::pin(survive(attack)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_end_oddly() {
    let count = cases(200);
    let attack = move |addr: &str| {
        let mut buffer = [0; 100];
        for n in 0..count {
            let mut attacker = Attacker::connect(n, addr);
            attacker.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            attacker.stream.read_exact(&mut buffer[..9]).unwrap();
            let watch = [opens(0, WATCH), frame(DATA, u8::from(n % 2 == 0), 1, WATCH_A)].concat();
            attacker.say(&[watch, call(1, RANGE, GET_A)].concat());
            if n % 3 > 0 {
                attacker.stream.read_exact(&mut buffer).unwrap();
            }
            match n % 5 {
                0 => drop(attacker.say(&frame(RESET, 0, 1, CANCEL))),
                1 => drop(attacker.say(&[frame(GO_AWAY, 0, 0, &[0; 8]), call(2, RANGE, GET_A)].concat())),
                2 => attacker.stream.shutdown(Shutdown::Write).unwrap(),
                3 => drop(attacker.say(&[frame(DATA, END, 3, b""), frame(HEADERS, END, 1, b"")].concat())),
                // Half a frame.
                _ => drop(attacker.say(&call(2, RANGE, GET_A)[..20])),
            }
        }
        format!("{} clients that reset, say goodbye, close one side or break off in a call", number(count))
    };
    figure(&Box::pin(survive(attack)).await);
}

/// What a member says on the connection that carries calls; it has answered its probes well. The last
/// field: without an end.
fn answers_of_a_hostile_member() -> Vec<(&'static str, Vec<u8>, bool)> {
    const OK: &[u8] = b"\x88\x0f\x10\x10application/grpc";
    let hello = frame(SETTINGS, 0, 0, b"");
    let after = |frames: Vec<u8>| [hello.clone(), frames].concat();
    let headers = |stream, flags, block: &[u8]| frame(HEADERS, END_HEADERS | flags, stream, block);
    let status = |status: &[u8]| headers(1, END, &[OK, &header("grpc-status", status)].concat());
    vec![
        ("no settings", Vec::new(), false),
        ("no settings, but an answer", status(b"0"), false),
        ("streams that do not exist", after([headers(9, 0, OK), frame(DATA, 0, 11, &[0; 1000])].concat()), false),
        ("a stream of its own", after(headers(2, 0, OK)), false),
        ("no streams", frame(SETTINGS, 0, 0, &setting(3, 0)), false),
        ("one stream", frame(SETTINGS, 0, 0, &setting(3, 1)), false),
        ("no window", frame(SETTINGS, 0, 0, &setting(4, 0)), false),
        ("goodbye", after(frame(GO_AWAY, 0, 0, &[0; 8])), false),
        ("goodbyes", after(frame(GO_AWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])), true),
        ("endless headers", after(headers(1, 0, &[OK, &header("x", &[b'x'; 15_000])].concat())), true),
        ("endless parts", [hello.clone(), frame(HEADERS, 0, 1, OK)].concat(), false),
        ("a huge frame", after(b"\xff\xff\xff\0\0\0\0\0\x01".to_vec()), false),
        ("data before headers", after(frame(DATA, 0, 1, &[0; 1000])), false),
        ("data without end", after([headers(1, 0, OK), frame(DATA, 0, 1, &[0; 10_000])].concat()), true),
        ("interim answers", after(headers(1, 0, b"\x08\x03103")), true),
        ("garbage", after(headers(1, 0, &[0xff; 200])), false),
        ("a bomb", after(headers(1, END, &vec![0x95; 16_000])), false),
        ("a reset", after(frame(RESET, 0, 1, &[0, 0, 0, 7])), false),
        ("a status that is no number", after(status(b"9999999999999999999")), false),
        (
            "a message with line breaks",
            after(headers(
                1,
                END,
                &[OK, &header("grpc-status", b"14"), &header("grpc-message", b"a\nb\x1b[31m")].concat(),
            )),
            false,
        ),
        ("pings", after(frame(PING, 0, 0, b"12345678")), true),
        ("settings", hello.clone(), true),
        ("windows", after(frame(WINDOW_UPDATE, 0, 0, &LARGEST_WINDOW.to_be_bytes())), true),
        (
            "compressed zeros",
            after(
                [
                    headers(1, 0, &[OK, &header("grpc-encoding", b"gzip")].concat()),
                    frame(DATA, END, 1, b"\x01\0\0\0\x04\x1f\x8b\x08\0"),
                ]
                .concat(),
            ),
            false,
        ),
    ]
}

/// A member whose probes go well and whose calls do not. When it has become honest, calls work.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_answer_calls_with_hostility() {
    let cluster = Cluster::start(1);
    let member = cluster.client_addr(0).to_owned();
    let listener = TcpListener::bind((unique_host(), 0)).await.unwrap();
    let hostile = listener.local_addr().unwrap();
    let (tried, kinds) = (Arc::new(AtomicUsize::new(0)), answers_of_a_hostile_member().len());
    // The pauses between connections take a second each.
    let count = cases(6);
    let serve = {
        let tried = Arc::clone(&tried);
        async move {
            let answers = Arc::new(answers_of_a_hostile_member());
            while let Ok((mut stream, _)) = listener.accept().await {
                let (member, answers, tried) = (member.clone(), Arc::clone(&answers), Arc::clone(&tried));
                tokio::spawn(async move {
                    let mut first = Vec::with_capacity(4096);
                    let _ = stream.read_buf(&mut first).await;
                    // Probes bring their request at once. The connection for calls says only its settings, and calls.
                    let is_probe = [&b"etcdproxy"[..], b"Maintenance/Status", b"AreYouThere", b"Members"]
                        .iter()
                        .any(|word| first.windows(word.len()).any(|bytes| bytes == *word));
                    let n = tried.load(Ordering::Relaxed);
                    if is_probe || n >= count || !first.starts_with(b"PRI") {
                        let Ok(mut member) = tokio::net::TcpStream::connect(member).await else { return };
                        if member.write_all(&first).await.is_ok() {
                            let _ = copy_bidirectional(&mut stream, &mut member).await;
                        }
                        return;
                    }
                    tried.store(n + 1, Ordering::Relaxed);
                    let (name, bytes, repeats) = &answers[n * 5 % answers.len()];
                    println!("{name}");
                    // Calls that wait come soon.
                    let mut buffer = [0; 4096];
                    let _ = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await;
                    let (mut read, mut write) = stream.split();
                    let talk = async {
                        let _ = write.write_all(bytes).await;
                        let rest =
                            if bytes.starts_with(&GREETING[24..]) && bytes.len() > 9 { &bytes[9..] } else { bytes };
                        while *repeats && write.write_all(&rest.repeat(1 + 20_000 / rest.len())).await.is_ok() {}
                        while let Ok(1..) = read.read(&mut buffer).await {}
                    };
                    let _ = timeout(Duration::from_millis(400), talk).await;
                });
            }
        }
    };
    tokio::spawn(serve);
    let addr = unique_addr();
    let mut process = Process::start(&mut native(&format!("http://{hostile}"), &addr));
    tokio::task::block_in_place(|| wait_ready(&addr));
    let mut calls = 0;
    let started = Instant::now();
    while tried.load(Ordering::Relaxed) < count {
        assert!(started.elapsed() < Duration::from_mins(5) && process.is_running());
        let Ok(mut client) = load::connect(&addr).await else { continue };
        for _ in 0..5 {
            // What comes of it does not matter.
            let _ = timeout(Duration::from_millis(200), client.get("a", None)).await;
            calls += 1;
        }
    }
    let (took, memory) = (started.elapsed(), memory_kb(&process, "VmHWM"));
    let honest = Instant::now();
    loop {
        let get = async { load::connect(&addr).await?.get("a", None).await };
        if matches!(timeout(Duration::from_secs(3), get).await, Ok(Ok(_))) {
            break;
        }
        assert!(honest.elapsed() < Duration::from_secs(20), "calls work again: {}", process.stderr_text());
    }
    let healed = honest.elapsed();
    assert!(process.is_running());
    let log = process.into_log();
    check_log(&log);
    assert!(memory < MEMORY, "{memory} kB");
    let lines = log.lines().count();
    assert!(lines < 20 + 5 * count, "{log}");
    figure(&format!(
        "{} connections of {kinds} kinds in {:.0} s, {} calls; {} MB of memory, {} lines of log; calls work {} ms later",
        number(count),
        took.as_secs_f64(),
        number(calls),
        memory / 1000,
        number(lines),
        healed.as_millis(),
    ));
}
