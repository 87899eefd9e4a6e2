//! Connections: many calls, large values, slow readers, calls that are given up, and the end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::*;
use crate::api::status::Header;
use crate::api::wire::fields;
use crate::grpc::{Call, Server};
use crate::support::{eventually, http};

/// Calls of this kind that a member has ended with this code.
fn handled(cluster: &Cluster, method: &str, code: &str) -> f64 {
    let page = http(cluster.health_addr(0), "GET", "/metrics");
    let is_it = |line: &&str| {
        let has = |label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
        line.starts_with("grpc_server_handled_total{") && has("grpc_method", method) && has("grpc_code", code)
    };
    page.lines().filter(is_it).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn watchers(cluster: &Cluster) -> f64 {
    let page = http(cluster.health_addr(0), "GET", "/metrics");
    let line = page.lines().find(|line| line.starts_with("etcd_debugging_mvcc_watcher_total "));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// The memory of a process now, in MB.
fn memory(proxy: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A lock that is held, so that others wait for it.
async fn hold(server: &Server) {
    for lease in [1, 2] {
        server.call(GRANT, &grant(lease, 600)).await.answer();
    }
    server.call(LOCK, &[field(1, "l"), number(2, 1)].concat()).await.answer();
}

fn wait_for_lock() -> Call {
    Call::new(LOCK, &[field(1, "l"), number(2, 2)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_as_large_as_etcd_takes_them() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    let value = "v".repeat(1_400_000);
    for n in 0..15 {
        server.call(PUT, &put(&format!("k{n}"), &value)).await.answer();
    }
    let before = memory(&proxy);
    let answer = server.call(RANGE, &range("k", "l")).await.answer();
    assert!(answer.len() > 20_000_000, "{}", answer.len());
    println!("{before} MB before the answer of 21 MB, {} MB after", memory(&proxy));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_on_one_connection() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    let gets = (0..10_000).map(|n| {
        let server = &server;
        async move {
            let key = format!("k{}", n % 100);
            let (path, message) = if n % 10 == 0 { (PUT, put(&key, "v")) } else { (RANGE, range(&key, "")) };
            server.call(path, &message).await.status
        }
    });
    let done = futures(gets).await;
    assert!(done.iter().all(|status| *status == Some(0)));
    assert!(server.is_open());
}

/// All of them at once.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (one, result) in &mut all {
            if result.is_none() {
                match one.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *result = Some(done),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    all.into_iter().map(|(_, result)| result.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_end_at_the_member() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    hold(&server).await;
    let waiting = server.begin(&wait_for_lock(), true).await.unwrap();
    let watching = server.begin(&Call::new(WATCH, &watch("a", "")), false).await.unwrap();
    let mut watching = watching;
    assert!(watching.soon().await.is_some());
    assert!(watchers(&cluster) > 0.0);
    let before = handled(&cluster, "Lock", "Canceled");
    waiting.cancel();
    watching.cancel();
    eventually("the member has ended the calls", || {
        handled(&cluster, "Lock", "Canceled") > before && watchers(&cluster) < 0.5
    });
    // A deadline travels with the call.
    let late = wait_for_lock().with("grpc-timeout", "100m");
    assert_eq!(server.send(&late).await.status, Some(4));
    // And a whole connection that vanishes.
    let other = Server::connect(&addr).await;
    let mut lost = other.begin(&Call::new(WATCH, &watch("a", "")), false).await.unwrap();
    assert!(lost.soon().await.is_some());
    drop((lost, other));
    eventually("the member has no watcher", || watchers(&cluster) < 0.5);
    assert!(server.is_open());
}

/// An application whose calls all have the same deadline gives them up in one moment.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_calls_may_be_given_up_at_once() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    for _ in 0..2 {
        // Without a majority of one, nothing is answered.
        cluster.signal_member(0, Signal::SIGSTOP);
        let mut calls = Vec::new();
        for _ in 0..4000 {
            calls.push(server.begin(&Call::new(RANGE, &range("a", "")), true).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        calls.into_iter().for_each(crate::grpc::Stream::cancel);
        cluster.signal_member(0, Signal::SIGCONT);
        let outcome = server.call(RANGE, &range("a", "")).await;
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_slows_nobody_and_costs_little() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster, &[]);
    let (slow, quick) = (Server::connect(&addr).await, Server::connect(&addr).await);
    let mut stopped = slow.begin(&Call::new(WATCH, &watch("k", "")), false).await.unwrap();
    let mut reads = quick.begin(&Call::new(WATCH, &watch("k", "")), false).await.unwrap();
    assert!(stopped.soon().await.is_some() && reads.soon().await.is_some());
    let before = memory(&proxy);
    let value = "v".repeat(100_000);
    for n in 0..300 {
        quick.call(PUT, &put("k", &format!("{n} {value}"))).await.answer();
        assert!(reads.soon().await.is_some());
    }
    let grown = memory(&proxy).saturating_sub(before);
    println!("{before} MB, and {grown} MB more for a reader that owes 30 MB");
    assert!(grown < 8, "{grown} MB");
    // Another call of the same connection works, and at last the reader gets everything.
    slow.call(RANGE, &range("k", "")).await.answer();
    let mut seen = 0;
    while seen < 300 {
        let events = stopped.soon().await.unwrap();
        seen +=
            events.windows(value.len() + 1).filter(|part| part[0] == b' ' && part[1..] == *value.as_bytes()).count();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_calls_finish_and_ends_with_the_last_client() {
    let cluster = Cluster::start(1);
    let (mut proxy, addr) = start(&cluster, &["--drain", "60s"]);
    let server = Server::connect(&addr).await;
    hold(&server).await;
    let waiting = server.begin(&wait_for_lock(), true).await.unwrap();
    let mut watching = server.begin(&Call::new(WATCH, &watch("a", "")), false).await.unwrap();
    assert!(watching.soon().await.is_some());
    let idle = Server::connect(&addr).await;
    idle.call(RANGE, &range("a", "")).await.answer();
    proxy.signal(Signal::SIGTERM);
    // One without calls is told to go at once.
    tokio::time::timeout(Duration::from_secs(10), idle.ended()).await.expect("the end").unwrap();
    // The other one takes no new calls as soon as it has heard of it.
    let begin = Instant::now();
    while server.begin(&Call::new(RANGE, &range("a", "")), true).await.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no GOAWAY");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(proxy.is_running());
    // A call in flight, and a watch, go on.
    let direct = Server::connect(cluster.client_addr(0)).await;
    direct.call(PUT, &put("a", "1")).await.answer();
    assert!(watching.soon().await.is_some());
    direct.call("/v3lockpb.Lock/Unlock", &field(1, "l/1")).await.answer();
    waiting.outcome().await.answer();
    watching.cancel();
    let begin = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20));
    drop(server);
}

/// A client asks for watchers one after the other, and does not wait for answers. The answer to one may come together
/// with the request for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_seen_by_the_watcher_that_was_asked_for_before() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let clients = (0..12_u64).map(|n| {
        let addr = addr.clone();
        tokio::spawn(async move {
            let server = Server::connect(&addr).await;
            for round in 0..150 {
                let mut watching = server.begin(&Call::new(WATCH, &watch("a", "")), false).await.unwrap();
                // About as long as the member needs for its answer.
                tokio::time::sleep(Duration::from_micros((n * 397 + round * 61) % 1500)).await;
                watching.send(&watch("a", ""));
                let put = Header::of(&server.call(PUT, &put("a", "1")).await.answer()).unwrap().revision;
                let mut created = Vec::new();
                while created.len() < 2 {
                    let answer = watching.soon().await.expect("an answer");
                    if fields(&answer).any(|field| field.unwrap().number == 3) {
                        created.push(Header::of(&answer).unwrap().revision);
                    }
                }
                assert!(created[1] < put, "client {n}, round {round}: put {put}, the watchers begin after {created:?}");
                watching.cancel();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// Long calls may take all the streams that a member allows on a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_connection_is_not_the_last_one() {
    let cluster = Cluster::start_with(&["--max-concurrent-streams", "8"]);
    let (mut proxy, addr) = start(&cluster, &[]);
    let mut lines = Lines::of(&mut proxy);
    let server = Server::connect(&addr).await;
    for lease in 1..=9 {
        server.call(GRANT, &grant(lease, 60)).await.answer();
    }
    let mut waiting = Vec::new();
    for lease in 2..=9 {
        let lock = |owner: i64| [field(1, format!("l{lease}")), number(2, owner)].concat();
        server.call(LOCK, &lock(1)).await.answer();
        waiting.push(server.begin(&Call::new(LOCK, &lock(lease)), true).await.unwrap());
    }
    let began = Instant::now();
    server.call(PUT, &put("a", "1")).await.answer();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lines.wait_for("takes no more calls on this connection: new ones go on another");
    // The others still wait.
    for (lease, lock) in (2..).zip(waiting) {
        server.call(DELETE, &range(&format!("l{lease}/1"), "")).await.answer();
        lock.outcome().await.answer();
    }
}
