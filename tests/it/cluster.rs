//! The main job: an application's calls go through the proxy, even while members die.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, EventType, PutOptions, Txn, TxnOp, WatchOptions};

use crate::load::{self, Load};
use crate::support::{Cluster, makes_progress, start_proxy, unique_addr};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_works_through_the_proxy() {
    let cluster = Cluster::start(3);
    let addr = unique_addr();
    let _proxy = start_proxy(&cluster.endpoints(), &addr);
    let mut client = load::connect(&addr).await.unwrap();

    let options = WatchOptions::new().with_prefix();
    let mut events = client.watch_client().watch("k", Some(options)).await.unwrap();
    assert!(events.message().await.unwrap().unwrap().created());

    client.put("k1", "one", None).await.unwrap();
    assert_eq!(client.get("k1", None).await.unwrap().kvs()[0].value(), b"one");

    let swap = Txn::new()
        .when([Compare::value("k1", CompareOp::Equal, "one")])
        .and_then([TxnOp::put("k1", "two", None)])
        .or_else([TxnOp::put("k1", "wrong", None)]);
    assert!(client.txn(swap.clone()).await.unwrap().succeeded());
    assert!(!client.txn(swap).await.unwrap().succeeded());
    assert_eq!(client.delete("k1", None).await.unwrap().deleted(), 1);

    let lease = client.lease_grant(2, None).await.unwrap().id();
    client.put("k2", "leased", Some(PutOptions::new().with_lease(lease))).await.unwrap();

    // Put, the puts of both transactions, delete, put, and the delete when the lease expires.
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let message = tokio::time::timeout(Duration::from_secs(20), events.message()).await;
        let message = message.expect("an event within 20 s").unwrap().unwrap();
        seen.extend(message.events().iter().map(|event| {
            let key = String::from_utf8(event.kv().unwrap().key().to_vec()).unwrap();
            (event.event_type(), key)
        }));
    }
    let (put, delete) = (EventType::Put, EventType::Delete);
    let expected = [(put, "k1"), (put, "k1"), (put, "k1"), (delete, "k1"), (put, "k2"), (delete, "k2")];
    assert_eq!(seen, expected.map(|(kind, key)| (kind, key.to_owned())));
    assert!(client.get("k2", None).await.unwrap().kvs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_follower_and_a_leader_die_under_load() {
    let mut cluster = Cluster::start(3);
    let addr = unique_addr();
    let _proxy = start_proxy(&cluster.endpoints(), &addr);
    let load = Load::start(&addr, "/load/").await.unwrap();
    makes_progress(&load).await;

    cluster.kill_follower_for_a_while(&load).await;
    let leader = cluster.leader().await;
    cluster.kill_member(leader);
    makes_progress(&load).await;

    let report = load.stop().await.unwrap();
    println!("{report}");
    assert!(report.nothing_lost(), "{report}");
    assert!(report.puts.done() >= 150, "{report}");
}
