//! Streams that keep leases alive, and outlive their member.

use std::time::{Duration, Instant};

use super::*;
use crate::api::lease::{id_of_answer, keep_alive};
use crate::api::status::Header;
use crate::grpc::{Call, Server, Stream};

const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// How long leases live, in seconds. An election takes 1 to 2 s of that.
const TTL: i64 = 6;

/// The lease and its time to live in an answer to a keepalive.
fn kept(answer: &[u8]) -> (i64, i64) {
    let ttl = crate::api::wire::fields(answer).map(Result::unwrap).find(|field| field.number == 3);
    let ttl = match ttl.map(|field| field.value) {
        Some(crate::api::wire::Value::Varint(ttl)) => ttl.cast_signed(),
        _ => 0,
    };
    (id_of_answer(answer).unwrap(), ttl)
}

/// Asks for all of these leases, and reads the answers, which come in the same order.
async fn keep(stream: &mut Stream, leases: &[i64]) -> Vec<i64> {
    for lease in leases {
        stream.send(&keep_alive(*lease));
    }
    let mut times = Vec::new();
    for lease in leases {
        let (id, ttl) = kept(&stream.soon().await.expect("the stream goes on"));
        assert_eq!(id, *lease);
        times.push(ttl);
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_kept_alive_while_members_die() {
    let mut cluster = Cluster::start_durable(3);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    let clients = i64::from(effort(10));
    let mut keepers = Vec::new();
    for client in 0..clients {
        let leases: Vec<i64> = (1..=50).map(|n| client * 100 + n).collect();
        for lease in &leases {
            server.call(GRANT, &grant(*lease, TTL)).await.answer();
        }
        let addr = addr.clone();
        keepers.push(tokio::spawn(async move {
            let server = Server::connect(&addr).await;
            let mut stream = server.begin(&Call::new(KEEP_ALIVE, &keep_alive(leases[0])), false).await.unwrap();
            let (_, ttl) = kept(&stream.soon().await.unwrap());
            assert_eq!(ttl, TTL);
            let (begin, mut longest) = (Instant::now(), Duration::ZERO);
            while begin.elapsed() < Duration::from_secs(14) {
                let asked = Instant::now();
                let times = keep(&mut stream, &leases).await;
                assert!(times.iter().all(|ttl| *ttl == TTL), "a lease has expired: {times:?}");
                longest = longest.max(asked.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            longest
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = cluster.leader().await;
    cluster.kill_member(leader);
    let mut longest = Duration::ZERO;
    for keeper in keepers {
        longest = longest.max(keeper.await.unwrap());
    }
    println!("{clients} clients with 50 leases each; the longest wait was {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lease_has_no_time_to_live_and_a_stream_that_is_half_closed_goes_on() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    server.call(GRANT, &grant(7, 60)).await.answer();
    // Several libraries send one request and close their side.
    for _ in 0..2 {
        let outcome = server.call(KEEP_ALIVE, &keep_alive(7)).await;
        assert_eq!(kept(&outcome.messages[0]), (7, 60), "{outcome:?}");
        assert!(Header::of(&outcome.messages[0]).unwrap().member_id != 0);
    }
    let mut stream = server.begin(&Call::new(KEEP_ALIVE, &keep_alive(7)), false).await.unwrap();
    assert_eq!(kept(&stream.soon().await.unwrap()), (7, 60));
    server.call(REVOKE, &number(1, 7)).await.answer();
    assert_eq!(keep(&mut stream, &[7, 8]).await, [0, 0], "dead, and never there");
    let left = server.call(TIME_TO_LIVE, &number(1, 7)).await.answer();
    assert!(!left.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_member_a_keepalive_fails_and_does_not_hang() {
    let mut cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let server = Server::connect(&addr).await;
    server.call(GRANT, &grant(7, 60)).await.answer();
    let mut stream = server.begin(&Call::new(KEEP_ALIVE, &keep_alive(7)), false).await.unwrap();
    assert_eq!(kept(&stream.soon().await.unwrap()), (7, 60));
    cluster.kill_member(0);
    stream.send(&keep_alive(7));
    let outcome = tokio::time::timeout(Duration::from_secs(20), stream.outcome()).await.unwrap();
    assert_eq!((outcome.status, &*outcome.message), (Some(14), "etcdproxy: no member can be reached"), "{outcome:?}");
}
