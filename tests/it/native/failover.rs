//! Members die and hang while calls are in flight. They write to the disk, as in production.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::*;
use crate::api::status::Header;
use crate::grpc::{Call, Server};

/// How many calls of each kind are in flight.
const WORKERS: usize = 4;

/// Reads, or writes, all the time.
struct Calls {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Seen>>,
}

#[derive(Default, Debug)]
struct Seen {
    done: usize,
    failed: Vec<(Option<u32>, String, Option<String>)>,
    longest_gap: Duration,
    longest_call: Duration,
}

impl Calls {
    fn start(addr: &str, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |n: usize| {
            let (stop, addr) = (Arc::clone(&stop), addr.to_owned());
            tokio::spawn(async move {
                let server = Server::connect(&addr).await;
                let mut seen = Seen::default();
                let mut last = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let message = if path == PUT { put(&format!("w{n}"), "v") } else { range("a", "z") };
                    let began = Instant::now();
                    let outcome = server.send(&Call::new(path, &message).with("grpc-timeout", "20S")).await;
                    seen.longest_call = seen.longest_call.max(began.elapsed());
                    if outcome.status == Some(0) {
                        seen.done += 1;
                        seen.longest_gap = seen.longest_gap.max(last.elapsed());
                        last = Instant::now();
                    } else {
                        seen.failed.push((outcome.status, outcome.message, outcome.broken));
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                assert!(server.is_open(), "the client's connection was cut");
                seen
            })
        };
        Self { workers: (0..WORKERS).map(worker).collect(), stop }
    }

    async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for worker in self.workers {
            let seen = worker.await.unwrap();
            all.done += seen.done;
            all.failed.extend(seen.failed);
            all.longest_gap = all.longest_gap.max(seen.longest_gap);
            all.longest_call = all.longest_call.max(seen.longest_call);
        }
        all
    }
}

/// What the two kinds of calls met while something happened.
async fn under_load(addr: &str, what: &str, happens: impl AsyncFnOnce()) {
    let (reads, writes) = (Calls::start(addr, RANGE), Calls::start(addr, PUT));
    tokio::time::sleep(Duration::from_millis(300)).await;
    happens().await;
    let (reads, writes) = (reads.stop().await, writes.stop().await);
    println!("{what}: reads {reads:?}\n{what}: writes {writes:?}");
    assert!(reads.failed.is_empty() && reads.done > 20, "{what}: {reads:?}");
    // Without a leader, a member would take writes, and fail them some seconds later.
    assert!(writes.failed.len() <= WORKERS && writes.done > 20, "{what}: {writes:?}");
}

/// On a connection of its own each, because etcd's JSON gateway answers no more calls on one that has met a fault.
#[tokio::test(flavor = "multi_thread")]
async fn json_clients_wait_for_a_leader_too() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    let put = || {
        let began = Instant::now();
        let stream = std::net::TcpStream::connect(&addr).unwrap();
        let answer = post(stream, "/v3/kv/put", r#"{"key":"eg==","value":"MQ=="}"#);
        (began.elapsed(), answer)
    };
    assert!(put().1.contains("200 OK"));
    let leader = cluster.leader().await;
    cluster.kill_member(leader);
    for _ in 0..5 {
        let (took, answer) = put();
        // The first one may reach the leader while it dies. etcd itself would hold a call for 7 s.
        assert!(answer.contains("200 OK") || answer.is_empty(), "{answer}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert!(put().1.contains("200 OK"));
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// The member that serves a client's calls now.
async fn serving(cluster: &Cluster, addr: &str) -> usize {
    let through = Header::of(&Server::connect(addr).await.call(RANGE, &range("a", "")).await.answer()).unwrap();
    for n in 0..3 {
        let Ok(member) = Server::try_connect(cluster.client_addr(n)).await else { continue };
        if Header::of(&member.call(RANGE, &range("a", "")).await.answer()).unwrap().member_id == through.member_id {
            return n;
        }
    }
    panic!("no member of the cluster answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_never_fail_and_writes_only_while_in_flight_when_members_are_killed() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    for what in ["another member", "the serving member", "the leader"] {
        let serves = serving(&cluster, &addr).await;
        let victim = match what {
            "another member" => (serves + 1) % 3,
            "the leader" => cluster.leader().await,
            _ => serves,
        };
        under_load(&addr, &format!("kill -9 of {what}"), async || {
            cluster.kill_member(victim);
            pause(3500).await;
        })
        .await;
        cluster.start_member(victim);
        cluster.wait_member(victim);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_never_fail_and_writes_only_while_in_flight_when_members_hang() {
    let cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    for what in ["another member", "the serving member"] {
        let victim = (serving(&cluster, &addr).await + usize::from(what == "another member")) % 3;
        under_load(&addr, &format!("SIGSTOP of {what}"), async || {
            cluster.signal_member(victim, Signal::SIGSTOP);
            pause(6000).await;
        })
        .await;
        cluster.signal_member(victim, Signal::SIGCONT);
        cluster.wait_member(victim);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_again_when_all_members_come_back() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    server.call(PUT, &put("a", "1")).await.answer();
    (0..3).for_each(|n| cluster.kill_member(n));
    let late = Call::new(RANGE, &range("a", "")).with("grpc-timeout", "300m");
    assert_eq!(server.send(&late).await.status, Some(4));
    let lost = server.call(PUT, &put("a", "2")).await;
    assert_eq!(lost.status, Some(14), "{lost:?}");
    (0..3).for_each(|n| cluster.start_member(n));
    (0..3).for_each(|n| cluster.wait_member(n));
    let begin = Instant::now();
    while server.call(PUT, &put("a", "3")).await.status != Some(0) {
        assert!(begin.elapsed() < Duration::from_secs(20));
        pause(50).await;
    }
    println!("back after {:?}", begin.elapsed());
    assert!(server.is_open());
}

/// It has no position to go on from, so its client must know.
#[tokio::test(flavor = "multi_thread")]
async fn observe_ends_when_its_member_dies() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    let victim = serving(&cluster, &addr).await;
    let server = Server::connect(&addr).await;
    server.call(GRANT, &grant(1, 60)).await.answer();
    let campaign = [field(1, "e"), number(2, 1), field(3, "leads")].concat();
    server.call("/v3electionpb.Election/Campaign", &campaign).await.answer();
    let observe = Call::new("/v3electionpb.Election/Observe", &field(1, "e"));
    let mut stream = server.begin(&observe, true).await.unwrap();
    let first = stream.soon().await.unwrap();
    assert!(first.windows(5).any(|bytes| bytes == b"leads"), "{first:?}");
    cluster.kill_member(victim);
    assert_eq!(stream.soon().await, None);
    assert_eq!(stream.so_far().status, Some(14), "{:?}", stream.so_far());
    // Without a leader, etcd ends it with OK and no message.
    let begin = Instant::now();
    while server.begin(&observe, true).await.unwrap().soon().await.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        pause(50).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_about_a_member_end_when_it_dies() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    let victim = serving(&cluster, &addr).await;
    let server = Server::connect(&addr).await;
    // It has taken the call, and cannot answer.
    cluster.signal_member(victim, Signal::SIGSTOP);
    let status = server.begin(&Call::new(STATUS, b""), true).await.unwrap();
    pause(200).await;
    cluster.kill_member(victim);
    let outcome = status.outcome().await;
    assert_eq!((outcome.status, outcome.messages.len()), (Some(14), 0), "{outcome:?}");
    server.call(RANGE, &range("a", "")).await.answer();
}
