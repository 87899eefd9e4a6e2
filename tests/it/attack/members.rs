//! Members that attack the proxy, or cannot help it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Random, cases, check_log, figure, nothing_lost, number};
use crate::load::{self, Load};
use crate::sidecar::{GREETING, memory_kb, native};
use crate::support::{Cluster, Process, free_addrs, makes_progress, unique_addr, unique_host, wait_ready};

/// HTTP/2 frames: DATA, HEADERS, `RST_STREAM`, SETTINGS, PING, GOAWAY, CONTINUATION.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GO_AWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// What the read of a probe contains, and nothing else does: the name of its key.
const PROBE: &[u8] = b"\x0a\x09etcdproxy";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A header with a name and a value that are not in HPACK's table. Both may be long.
pub(super) fn header(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |length: usize| {
        if length < 127 {
            return vec![u8::try_from(length).unwrap()];
        }
        let (mut bytes, mut rest) = (vec![127], length - 127);
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
        bytes
    };
    [&[0][..], &length(name.len()), name.as_bytes(), &length(value.len()), value].concat()
}

/// What a real member answers to a probe.
async fn real_answer(member: &str) -> Vec<u8> {
    let path = "/etcdserverpb.KV/Range";
    let headers =
        [b"\x83\x86\x04\x16".as_slice(), path.as_bytes(), b"\x01\x01x\x0f\x10\x10application/grpc\0\x02te\x08trailers"]
            .concat();
    let message = [&[0, 0, 0, 0, 13][..], PROBE, b"\x48\x01"].concat();
    let mut stream = TcpStream::connect(member).await.unwrap();
    stream
        .write_all(&[GREETING, &frame(HEADERS, 4, 1, &headers), &frame(DATA, 1, 1, &message)].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_millis(500), stream.read_buf(&mut answer)).await {}
    assert!(answer.windows(11).any(|bytes| bytes == b"grpc-status") || answer.len() > 60, "{}", answer.escape_ascii());
    answer
}

/// Answer number `n`: the bytes, how often they are repeated, and the pause after each time.
fn answer(n: usize, real: &[u8]) -> (Vec<u8>, usize, Duration) {
    const OK: &[u8] = b"\x88\x0f\x10\x10application/grpc";
    let mut random = Random::new(n);
    let hello = frame(SETTINGS, 0, 0, b"");
    let once = |bytes: Vec<u8>| (bytes, 1, Duration::ZERO);
    let flood = |bytes: Vec<u8>| (bytes.repeat(1 + 16_000 / bytes.len()), 200, Duration::ZERO);
    let after_hello = |frames: &[u8]| [&hello, frames].concat();
    match n % 50 {
        // Any bytes.
        0..8 => {
            let length = 1 + random.below(2000);
            once(random.bytes(length))
        }
        // Any frames.
        8..16 => {
            let mut frames = hello.clone();
            for _ in 0..random.below(20) {
                let length = random.below(300);
                let payload = random.bytes(length);
                let [kind, flags, stream, ..] = random.next().to_le_bytes();
                frames.extend(frame(kind % 12, flags, u32::from(stream % 4), &payload));
            }
            once(frames)
        }
        16 => once(after_hello(&frame(
            HEADERS,
            5,
            1,
            &[OK, &header("grpc-status", b"14"), &header("grpc-message", &b"a\nb\x1b[31m\0\r".repeat(1500))].concat(),
        ))),
        17 => once(after_hello(&frame(HEADERS, 5, 1, &[OK, &header("grpc-status", b"99999999999999999999")].concat()))),
        // Headers without an end, in one frame and in many.
        18 => once(after_hello(&frame(HEADERS, 4, 1, &header("x", &[b'x'; 15_000]).repeat(1)))),
        19 => flood(frame(CONTINUATION, 0, 1, b"")),
        20 => flood(frame(CONTINUATION, 0, 1, &[0; 1000])),
        21 => flood([frame(HEADERS, 0, 1, b""), frame(HEADERS, 4, 1, OK)].concat()),
        22 => flood(frame(PING, 0, 0, b"12345678")),
        23 => flood(frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\0")),
        24 => flood(frame(RESET, 0, 1, b"\0\0\0\x08")),
        25 => flood(frame(DATA, 0, 99, &[0; 1000])),
        26 => once(after_hello(&frame(GO_AWAY, 0, 0, &[0; 16_000]))),
        // A frame that claims 16 MB, and one that claims to be padded with more than it has.
        27 => once(after_hello(&[b"\xff\xff\xff\0\0\0\0\0\x01".as_slice(), &vec![0; 40_000]].concat())),
        28 => once(after_hello(&frame(DATA, 8, 1, b"\xff"))),
        // HPACK: numbers that do not end, indexes that do not exist, a Huffman code of ones only.
        29 => once(after_hello(&frame(HEADERS, 4, 1, &[0xff; 200]))),
        30 => once(after_hello(&frame(HEADERS, 4, 1, &[&[0x00, 0xff][..], &[0xff; 300]].concat()))),
        // A thousand alarms, and one with a name of 9 kB; a body without an end.
        31 => once(after_hello(&alarms(&"memberID:1 alarm:AAAAAAAA ".repeat(500)))),
        32 => once(after_hello(&alarms(&format!("memberID:1 alarm:{}", "B".repeat(9000))))),
        33 => flood([frame(HEADERS, 4, 1, OK), frame(DATA, 0, 1, &[0; 8000])].concat()),
        // Slowly, or never.
        34 => (b"\0".to_vec(), 3, Duration::from_secs(1)),
        35 => (Vec::new(), 3, Duration::from_secs(1)),
        36 => once(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{".to_vec()),
        37 => once(b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
        38 => once(Vec::new()),
        // The real answer with some bytes changed, lost or repeated.
        _ => {
            let mut bytes = real.to_vec();
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = random.next().to_le_bytes()[0],
                    1 => bytes[at] ^= 1 << random.below(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.splice(at..at, random.bytes(3)).for_each(drop),
                }
            }
            once(bytes)
        }
    }
}

/// A good answer to the read, and one to the question for alarms, which is the next call.
fn alarms(text: &str) -> Vec<u8> {
    const OK: &[u8] = b"\x88\x0f\x10\x10application/grpc";
    let length = u16::try_from(text.len()).unwrap();
    let field =
        [&[0x42, 0x80 | length.to_le_bytes()[0] & 0x7f, u8::try_from(length >> 7).unwrap()], text.as_bytes()].concat();
    let trailers = header("grpc-status", b"0");
    [
        frame(HEADERS, 4, 1, OK),
        frame(HEADERS, 5, 1, &trailers),
        frame(HEADERS, 4, 3, OK),
        frame(DATA, 0, 3, &[b"\0\0\0\0\0".as_slice(), &field].concat()),
        frame(HEADERS, 5, 3, &trailers),
    ]
    .concat()
}

/// Answers probes with what is not an answer, and passes clients of the cluster on to a real member.
async fn attack(mut stream: TcpStream, member: &str, real: &[u8], next: &AtomicUsize) {
    let mut request = Vec::with_capacity(4096);
    // A probe comes in one piece.
    if !matches!(timeout(Duration::from_secs(2), stream.read_buf(&mut request)).await, Ok(Ok(1..))) {
        return;
    }
    if !request.windows(PROBE.len()).any(|bytes| bytes == PROBE) && !request.starts_with(b"\x16") {
        let Ok(mut member) = TcpStream::connect(member).await else { return };
        if member.write_all(&request).await.is_ok() {
            let _ = copy_bidirectional(&mut stream, &mut member).await;
        }
        return;
    }
    let n = next.fetch_add(1, Ordering::Relaxed);
    let (bytes, times, pause) = answer(n, real);
    let send = async {
        for _ in 0..times {
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        // A moment to read it; and to ask again.
        let _ = timeout(Duration::from_millis(100), stream.read(&mut [0; 1000])).await;
    };
    let _ = timeout(Duration::from_secs(4), send).await;
}

/// Time that the process has used, in seconds.
fn cpu_seconds(process: &Process) -> f64 {
    let pid = process.pid().try_into().unwrap();
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
    let ticks = (stat.utime + stat.stime) as f64;
    ticks / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_members_harm_nobody_else() {
    let count = cases(400);
    let hostile = (count / 100).clamp(20, 300);
    let cluster = Cluster::start(1);
    let real: Arc<[u8]> = real_answer(cluster.client_addr(0)).await.into();
    let answers = Arc::new(AtomicUsize::new(0));
    let mut endpoints = vec![cluster.endpoints()];
    for addr in free_addrs(&unique_host(), hostile) {
        endpoints.push(format!("http://{addr}"));
        let listener = TcpListener::bind(&addr).await.unwrap();
        let (member, real, answers) = (cluster.client_addr(0).to_owned(), Arc::clone(&real), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (member, real, answers) = (member.clone(), Arc::clone(&real), Arc::clone(&answers));
                tokio::spawn(async move { attack(stream, &member, &real, &answers).await });
            }
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let log_file = dir.path().join("log");
    let addr = unique_addr();
    let mut command = native(&endpoints.join(","), &addr);
    command.stderr(std::fs::File::create(&log_file).unwrap());
    let mut process = Process::start(&mut command);
    tokio::task::block_in_place(|| wait_ready(&addr));
    let load = Load::start(&addr, "/attack/").await.unwrap();
    let started = Instant::now();
    while answers.load(Ordering::Relaxed) < count {
        assert!(started.elapsed() < Duration::from_mins(10), "{} of {count} answers", answers.load(Ordering::Relaxed));
        makes_progress(&load).await;
        assert!(process.is_running());
    }
    let tried = answers.load(Ordering::Relaxed);
    let cpu = 100.0 * cpu_seconds(&process) / started.elapsed().as_secs_f64();
    let memory = memory_kb(&process, "VmHWM");
    let mut first = 0;
    for _ in 0..20 {
        // As an application does, again after a failure.
        let mut attempts = 0;
        loop {
            attempts += 1;
            let get = async { load::connect(&addr).await?.get("a", None).await };
            let got = timeout(Duration::from_secs(3), get).await;
            if matches!(got, Ok(Ok(_))) {
                break;
            }
            println!("a new client: attempt {attempts}: {got:?}");
            assert!(attempts < 10, "a new client is not served: {}", std::fs::read_to_string(&log_file).unwrap());
        }
        first += usize::from(attempts == 1);
    }
    let report = load.stop().await.unwrap();
    assert!(process.is_running());
    process.kill();
    let log = std::fs::read_to_string(&log_file).unwrap();
    check_log(&log);
    let end = nothing_lost(&report, "");
    assert!(memory < 60_000 + 300 * hostile as u64, "{memory} kB");
    figure(&format!(
        "{} answers of {hostile} members; 20 of 20 new clients served, {first} of them at the first try; {} MB of memory, {cpu:.0}% of a CPU, {} lines \
         of log in {:.0} s; {end}",
        number(tried),
        memory / 1000,
        number(log.lines().count()),
        started.elapsed().as_secs_f64(),
    ));
}

/// Members that send what nobody has asked for, as fast as they can and without an end.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_members_leave_time_for_clients() {
    let cluster = Cluster::start(1);
    let mut endpoints = vec![cluster.endpoints()];
    let sent = Arc::new(AtomicUsize::new(0));
    let floods = [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, b""),
        frame(DATA, 0, 99, b""),
        frame(CONTINUATION, 0, 1, b""),
        frame(RESET, 0, 99, b"\0\0\0\x08"),
    ];
    for flood in floods {
        let listener = TcpListener::bind((unique_host(), 0)).await.unwrap();
        endpoints.push(format!("http://{}", listener.local_addr().unwrap()));
        let (bytes, sent) = ([frame(SETTINGS, 0, 0, b""), flood.repeat(1000)].concat(), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (bytes, sent) = (bytes.clone(), Arc::clone(&sent));
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    // What comes back must not fill the buffers.
                    tokio::spawn(async move { while let Ok(1..) = read.read(&mut [0; 4096]).await {} });
                    while write.write_all(&bytes).await.is_ok() {
                        sent.fetch_add(1000, Ordering::Relaxed);
                    }
                });
            }
        });
    }
    let addr = unique_addr();
    let process = Process::start(&mut native(&endpoints.join(","), &addr));
    tokio::task::block_in_place(|| wait_ready(&addr));
    let load = Load::start(&addr, "/attack/").await.unwrap();
    let (started, before) = (Instant::now(), cpu_seconds(&process));
    // While the good member is slow, a new connection may go to another one.
    let mut client = loop {
        let connected = async {
            let mut client = load::connect(&addr).await?;
            client.get("a", None).await?;
            Ok::<_, etcd_client::Error>(client)
        };
        if let Ok(Ok(client)) = timeout(Duration::from_secs(3), connected).await {
            break client;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "no client is served");
    };
    let (mut slowest, mut late) = (Duration::ZERO, 0);
    let goal = cases(150);
    for _ in 0..goal {
        let asked = Instant::now();
        // A busy machine may make a call late; a connection that ends would fail all that follow.
        late += usize::from(client.get("a", None).await.is_err());
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(late <= goal / 50, "{late} of {goal} calls failed on an open connection");
    let cpu = 100.0 * (cpu_seconds(&process) - before) / started.elapsed().as_secs_f64();
    let memory = memory_kb(&process, "VmHWM");
    let report = load.stop().await.unwrap();
    let log = process.into_log();
    check_log(&log);
    let end = nothing_lost(&report, &log);
    assert!(memory < 60_000, "{memory} kB");
    assert!(cpu < 60.0, "{cpu:.0}% of a CPU");
    figure(&format!(
        "5 members send {} frames without an end; slowest of {} calls {} ms; {} MB of memory, {cpu:.0}% of a CPU; {end}",
        number(sent.load(Ordering::Relaxed)),
        number(goal),
        slowest.as_millis(),
        memory / 1000,
    ));
}

/// A port in front of a member. While `accepts` is false, connections to it wait, and the kernel lets only two wait.
fn relay(member: String, accepts: watch::Receiver<bool>) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::new(unique_host().parse().unwrap(), 0).into()).unwrap();
    socket.listen(1).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut accepts = accepts;
        loop {
            if accepts.wait_for(|accepts| *accepts).await.is_err() {
                return;
            }
            let Ok(Ok((mut client, _))) = timeout(Duration::from_millis(50), listener.accept()).await else { continue };
            let member = member.clone();
            tokio::spawn(async move {
                let Ok(mut member) = TcpStream::connect(member).await else { return };
                let _ = copy_bidirectional(&mut client, &mut member).await;
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_takes_no_new_connections_keeps_its_old_ones() {
    let cluster = Cluster::start(1);
    let (accept, accepts) = watch::channel(true);
    let full = relay(cluster.client_addr(0).to_owned(), accepts);
    let (_always, accepts) = watch::channel(true);
    let good = relay(cluster.client_addr(0).to_owned(), accepts);
    let addr = unique_addr();
    let process = Process::start(&mut native(&format!("{full},{good}"), &addr));
    tokio::task::block_in_place(|| wait_ready(&addr));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = load::connect(&addr).await.unwrap();
        client.get("a", None).await.unwrap();
        clients.push(client);
    }
    accept.send_replace(false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Fill the queue.
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.extend(timeout(Duration::from_millis(200), TcpStream::connect(&full)).await.into_iter().flatten());
    }
    assert!(waiting.len() < 5, "the queue never fills");
    let new = cases(8);
    let mut served = 0;
    for _ in 0..new {
        let get = async { load::connect(&addr).await?.get("a", None).await };
        served += usize::from(matches!(timeout(Duration::from_secs(3), get).await, Ok(Ok(_))));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for client in &mut clients {
        client.get("a", None).await.expect("an open connection goes on");
    }
    let log = process.into_log();
    check_log(&log);
    assert!(!log.contains("cut now") && !log.contains("is down: "), "{log}");
    assert_eq!(served, new, "{log}");
    figure(&format!("20 open connections live; {served} of {new} new clients served by the other member; none cut"));
}
