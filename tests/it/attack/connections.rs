//! Clients that attack the proxy.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Random, Target, cases, check_log, connect_from, figure, nothing_lost, number, raise_files};
use crate::load::{self, Load};
use crate::sidecar::{GREETING, connect_http2, memory_kb, metric, native};
use crate::support::{Cluster, Process, eventually, free_addrs, http, makes_progress, unique_host, wait_ready};

/// Threads that attack at the same time.
const ATTACKERS: usize = 4;

fn open_files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

/// Opens a connection, says something or nothing, and closes it in one of several ways.
fn short_connection(n: usize, addr: &str) {
    let mut stream = connect_from(n, addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match n % 6 {
        0 => {}
        1 => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        2 => drop(stream.write_all(&GREETING[..=n % 30])),
        3 => drop(stream.write_all(&Random::new(n).bytes(100))),
        4 => {
            stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        _ => {
            stream.write_all(GREETING).unwrap();
            stream.read_exact(&mut [0; 9]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_connections_leave_nothing_behind() {
    let target = Target::start(1, &[]).await;
    let attack = |from: usize, count: usize| {
        std::thread::scope(|scope| {
            for attacker in 0..ATTACKERS {
                let addr = &target.addr;
                scope.spawn(move || {
                    (from + attacker..from + count).step_by(ATTACKERS).for_each(|n| short_connection(n, addr));
                });
            }
        });
    };
    tokio::task::block_in_place(|| attack(0, 300));
    let (files, memory) = (open_files(&target.proxy), memory_kb(&target.proxy, "VmRSS"));
    let count = cases(3000);
    let started = Instant::now();
    tokio::task::block_in_place(|| attack(300, count));
    let took = started.elapsed().as_secs_f64();
    eventually("all files are closed", || open_files(&target.proxy) <= files);
    let growth = memory_kb(&target.proxy, "VmRSS").saturating_sub(memory);
    assert!(growth < 4000, "{memory} kB, then {growth} kB more");
    let end = Box::pin(target.end()).await;
    figure(&format!("{} connections in {took:.1} s; no file left open, {growth} kB more memory; {end}", number(count)));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_slow_nobody_down() {
    let count = cases(600).min(raise_files().saturating_sub(1000));
    // The proxy serves 4,096 clients.
    let clients = (count / 3).min(3000);
    let target = Target::start(1, &[]).await;
    let (greeted, silent) = tokio::task::block_in_place(|| {
        let greeted: Vec<TcpStream> = (0..clients)
            .map(|n| {
                let mut stream = connect_from(n, &target.addr).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.write_all(GREETING).unwrap();
                stream.read_exact(&mut [0; 9]).unwrap();
                stream
            })
            .collect();
        let silent: Vec<TcpStream> = (clients..count).map(|n| connect_from(n, &target.addr).unwrap()).collect();
        (greeted, silent)
    });
    makes_progress(&target.load).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let started = Instant::now();
        load::connect(&target.addr).await.unwrap().get("a", None).await.expect("a new client is served");
        slowest = slowest.max(started.elapsed());
    }
    let is_alive = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1000];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(err) => return err.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    };
    let alive = greeted.iter().filter(|stream| is_alive(stream)).count();
    let waiting = silent.iter().filter(|stream| is_alive(stream)).count();
    let memory = memory_kb(&target.proxy, "VmRSS") / 1000;
    assert_eq!(alive, clients, "clients that have greeted stay");
    drop((greeted, silent));
    let end = Box::pin(target.end()).await;
    figure(&format!(
        "{} connections opened: all {} clients held, {} silent ones held; 50 new clients served, the slowest in {} ms; \
         {memory} MB of memory; {end}",
        number(count),
        number(alive),
        number(waiting),
        slowest.as_millis(),
    ));
}

/// What a client that does not behave does, until the attack is over.
fn misbehave(n: usize, addr: &str, end: Instant) -> std::io::Result<()> {
    const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut random = Random::new(n);
    let mut stream = connect_from(n, addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let pause = || {
        std::thread::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
        Instant::now() < end
    };
    match n % 10 {
        // A byte a second: a greeting, then a request.
        0 | 1 => {
            let text: &[u8] = if n.is_multiple_of(2) { GREETING } else { b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" };
            text.iter().take_while(|_| pause()).try_for_each(|byte| stream.write_all(&[*byte]))
        }
        // Nothing at all.
        2 => {
            while pause() {}
            Ok(())
        }
        // Half of a greeting, of a TLS handshake; and then silence, or an end in one direction.
        3 => {
            stream.write_all(&GREETING[..12])?;
            stream.shutdown(Shutdown::Write)?;
            while pause() {}
            Ok(())
        }
        4 => {
            stream.write_all(TLS_HELLO)?;
            stream.read(&mut [0; 100]).map(drop)
        }
        // A request to a member with headers that do not end.
        5 => {
            stream.write_all(b"GET /version HTTP/1.1\r\n")?;
            (0..2000).try_for_each(|n| write!(stream, "X-{n}: {}\r\n", "x".repeat(1000)))
        }
        // A line that does not end.
        6 => stream.write_all(&[b"GET /", "x".repeat(1_000_000).as_bytes()].concat()),
        // HTTP/1.1 for a member.
        7 => {
            stream.write_all(b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")?;
            stream.read(&mut [0; 100]).map(drop)
        }
        // A greeting, then garbage.
        8 => {
            stream.write_all(GREETING)?;
            stream.write_all(&random.bytes(10_000))
        }
        _ => {
            let length = 1 + random.below(3000);
            stream.write_all(&random.bytes(length))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_behave_harm_only_themselves() {
    let target = Target::start(1, &[]).await;
    let count = cases(200);
    let end = Instant::now() + Duration::from_secs(if count > 200 { 40 } else { 5 });
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for n in 0..count {
                let addr = &target.addr;
                let attacker = std::thread::Builder::new().stack_size(128 * 1024);
                // What they get for it does not matter.
                attacker.spawn_scoped(scope, move || drop(misbehave(n, addr, end))).unwrap();
            }
        });
    });
    let refused = |reason: &str| metric(&target.addr, &format!("refused_connections_total{{reason=\"{reason}\"}}"));
    let (tls, garbage) = (refused("tls"), refused("garbage"));
    assert!(tls >= count as u64 / 10 && garbage > 0, "{tls} {garbage}");
    let end = Box::pin(target.end()).await;
    figure(&format!(
        "{} clients: a byte a second, silence, half a handshake, endless headers, garbage; {tls} with TLS and {garbage} \
         with garbage counted; {end}",
        number(count)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_port_for_metrics_keeps_no_client_out() {
    raise_files();
    let cluster = Cluster::start(1);
    let addrs = free_addrs(&unique_host(), 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let flags = ["--metrics-addr", metrics, "--drain", "8s"];
    let mut process = Process::start(native(&cluster.endpoints(), addr).args(flags).stderr(Stdio::piped()));
    wait_ready(addr);
    let load = Load::start(addr, "/attack/").await.unwrap();
    let count = cases(300);
    let idle: Vec<TcpStream> = (0..count).map(|n| connect_from(n, metrics).unwrap()).collect();
    makes_progress(&load).await;
    let clients: Vec<TcpStream> = (0..20).map(|_| connect_http2(addr).unwrap()).collect();
    assert!(http(metrics, "GET", "/metrics").contains("\netcdproxy_clients 2"));
    drop(clients);
    let report = load.stop().await.unwrap();
    let started = Instant::now();
    assert_eq!(process.terminate().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(7), "it drained for the port for metrics: {took:?}");
    drop(idle);
    let log = process.stderr_text();
    check_log(&log);
    let end = nothing_lost(&report, &log);
    figure(&format!(
        "{} idle connections to the port for metrics; 20 new clients served, the page too; end in {:.1} s; {end}",
        number(count),
        took.as_secs_f64()
    ));
}
