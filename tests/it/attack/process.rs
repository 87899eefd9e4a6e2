//! Attacks on the process itself: signals, and a reader of its log that reads nothing.

use std::fs::File;
use std::io::{PipeReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use super::{Random, cases, check_log, figure, nothing_lost, number};
use crate::load::{self, Load};
use crate::pki::{Authority, write};
use crate::sidecar::{connect_http2, native};
use crate::support::{
    Cluster, Process, Tls, etcdproxy, finish, free_addr, makes_progress, unique_addr, unique_host, wait_ready,
};

#[tokio::test(flavor = "multi_thread")]
async fn signals_at_any_moment_end_as_documented() {
    let cluster = Cluster::start(1);
    let mut random = Random::new(0);
    let rounds = cases(8);
    let (mut early, mut puts, mut drained) = (0, 0, 0);
    for round in 0..rounds {
        let mode = ["native", "grpc-proxy"][round % 2];
        let addr = unique_addr();
        let args =
            ["run", "--mode", mode, "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--drain", "1s"];
        let mut process = Process::start(etcdproxy(args).stderr(Stdio::piped()));
        if round % 4 < 2 {
            // Before, while and after it starts: the system ends a process that does not handle signals yet.
            tokio::time::sleep(Duration::from_millis(random.next() % 150)).await;
            let signal = [Signal::SIGTERM, Signal::SIGINT][random.below(2)];
            process.signal(signal);
            let status = process.wait();
            let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(signal as i32);
            let log = process.stderr_text();
            check_log(&log);
            assert!(status.code() == Some(0) || by_signal, "{mode}: {signal} during the start: {status:?}: {log}");
            early += 1;
            continue;
        }
        tokio::task::block_in_place(|| wait_ready(&addr));
        let load = Load::start(&addr, &format!("/attack/{round}/")).await.unwrap();
        for _ in 0..random.below(12) {
            let harmless = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP];
            // Only the proxy has certificates to read again.
            let signal = harmless[random.below(if mode == "native" { 3 } else { 2 })];
            process.signal(signal);
            tokio::time::sleep(Duration::from_millis(random.next() % 50)).await;
        }
        makes_progress(&load).await;
        let client: Option<TcpStream> = (mode == "native").then(|| connect_http2(&addr).unwrap());
        let started = Instant::now();
        process.signal(Signal::SIGTERM);
        // While it drains, what is under way goes on.
        let before = load.writes();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(load.writes() > before, "{mode}: calls fail while it drains");
        for _ in 0..random.below(4) {
            process.signal([Signal::SIGUSR1, Signal::SIGUSR2][random.below(2)]);
        }
        let code = process.wait().code();
        let took = started.elapsed();
        let log = process.stderr_text();
        check_log(&log);
        assert_eq!(code, Some(0), "{mode}: {log}");
        assert!(took > Duration::from_millis(900), "{mode}: it did not drain: {took:?}: {log}");
        drop(client);
        drained += 1;
        // The writes are read from the next proxy at the same address.
        let _next = Process::start(etcdproxy(args).stderr(Stdio::null()));
        tokio::task::block_in_place(|| wait_ready(&addr));
        let report = load.stop().await.unwrap();
        puts += report.puts.done();
        nothing_lost(&report, &log);
    }
    figure(&format!(
        "{} ends: {early} during the start, {drained} under load with a drain of 1 s, after SIGUSR1, SIGUSR2 and SIGHUP; \
         every exit code 0 or the signal's; {} puts, none lost",
        number(rounds),
        number(puts)
    ));
}

/// The reading end of a pipe with little room, and a file for the other end.
fn small_pipe() -> (PipeReader, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_is_stuck_stops_nothing() {
    let (host, authority) = (unique_host(), Authority::new("ca"));
    let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
    let cluster = Cluster::start_on(&host, 1, Some(tls));
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let [cert, key] = authority.client(Some("app")).write(dir.path(), "client");
    let addr = free_addr(&host);
    let (mut reader, writer) = small_pipe();
    let mut command = native(&cluster.endpoints(), &addr);
    command.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key).args(["--drain", "1s"]);
    let mut process = Process::start(command.stderr(writer));
    drop(command);
    wait_ready(&addr);
    let load = Load::start(&addr, "/attack/").await.unwrap();
    // Each signal has a line as its result.
    let count = cases(200);
    for _ in 0..count {
        process.signal(Signal::SIGHUP);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // And so has this one, which another thread writes.
    let mut client = TcpStream::connect(&addr).unwrap();
    client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    makes_progress(&load).await;
    load::connect(&addr).await.unwrap().get("a", None).await.expect("a new client is served");
    let report = load.stop().await.unwrap();
    let started = Instant::now();
    assert_eq!(process.terminate().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    check_log(&log);
    let end = nothing_lost(&report, &log);
    figure(&format!("{} lines to a log that nobody reads; end in {:.1} s; {end}", number(count), took.as_secs_f64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_etcds_log_that_is_stuck_stops_nothing() {
    let mut cluster = Cluster::start(1);
    let addr = unique_addr();
    let (reader, writer) = small_pipe();
    let args = ["run", "--mode", "grpc-proxy", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
    let mut command = etcdproxy(args);
    let mut process = Process::start(command.args(["--drain", "0s", "--log-format", "raw"]).stderr(writer));
    drop(command);
    wait_ready(&addr);
    // While its member is away, etcd logs each question about its health.
    cluster.kill_member(0);
    // Each takes a second. The lines of the start alone fill the pipe.
    let count = cases(5).min(60);
    for _ in 0..count {
        let _ = finish(&mut etcdproxy(["health", "--listen-addr", &addr]));
    }
    cluster.start_member(0);
    cluster.wait_member(0);
    wait_ready(&addr);
    let started = Instant::now();
    assert_eq!(process.terminate().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(reader);
    figure(&format!(
        "{} failures in etcd's log that nobody reads; served again; end in {:.1} s",
        number(count),
        took.as_secs_f64()
    ));
}
