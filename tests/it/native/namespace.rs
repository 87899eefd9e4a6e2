//! Under a namespace, nothing outside of it is read, changed or shown.

use std::collections::BTreeMap;

use super::*;
use crate::api::methods::{METHODS, Namespaced, Shape};
use crate::api::wire::{Value, fields};
use crate::grpc::{Call, Server, framed};
use crate::support::http;

const OUTSIDE: [&str; 7] = ["\0", "a", "app", "app.", "app0", "b", "\u{7f}"];
const SECRET: &str = "outside";

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The pairs of the whole cluster.
async fn store(direct: &Server) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let answer = direct.call(RANGE, &range("\0", "\0")).await.answer();
    let bytes = |message: &[u8], number: u32| {
        let field = fields(message).map(Result::unwrap).find(|field| field.number == number);
        field.and_then(|field| if let Value::Bytes(bytes) = field.value { Some(bytes.to_vec()) } else { None })
    };
    let pairs = fields(&answer).map(Result::unwrap).filter(|field| field.number == 2);
    pairs
        .map(|pair| {
            let Value::Bytes(pair) = pair.value else { panic!("{pair:?}") };
            (bytes(pair, 1).unwrap(), bytes(pair, 5).unwrap_or_default())
        })
        .collect()
}

/// A cluster with keys on both sides of the namespace, and a proxy with it.
async fn site(args: &[&str]) -> (Cluster, Server, (Process, String), Server) {
    let cluster = Cluster::start(1);
    let direct = Server::connect(cluster.client_addr(0)).await;
    for key in OUTSIDE {
        direct.call(PUT, &put(key, SECRET)).await.answer();
    }
    direct.call(GRANT, &grant(5, 600)).await.answer();
    direct.call(PUT, &[put("app0", SECRET), number(3, 5)].concat()).await.answer();
    for key in ["app/", "app/k", "app/k2", "app/\u{7f}"] {
        direct.call(PUT, &put(key, "inside")).await.answer();
    }
    let proxy = start(&cluster, &[&["--namespace", "app/"], args].concat());
    let through = Server::connect(&proxy.1).await;
    (cluster, direct, proxy, through)
}

/// Messages for any method: names and keys at both ends, alone and in each other.
fn messages(is_txn: bool) -> Vec<Vec<u8>> {
    let keys: [&[u8]; 12] =
        [b"", b"\0", b"a", b"app", b"app/", b"app0", b"k", b"..", b"../a", b"\xff", b"\xff\xff", b"/5"];
    let mut messages =
        vec![Vec::new(), number(1, 5), [number(1, 5), number(2, 1)].concat(), number(1, 0), vec![0xff], number(100, 1)];
    for key in keys {
        for end in keys {
            let pair = [field(1, key), field(2, end)].concat();
            let prev = [&*pair, &number(3, 1), &number(4, 1)].concat();
            let compare = [number(1, 1), number(2, 0), field(3, key), field(64, end), number(4, 0)].concat();
            let ops = [field(1, &*pair), field(2, &*prev), field(3, &*prev)];
            if is_txn {
                let ops = ops.iter().flat_map(|op| [field(2, &**op), field(3, &**op)]);
                for txn in ops.map(|op| [field(1, &*compare), op].concat()) {
                    messages.push(field(2, field(4, &*txn)));
                    messages.push(txn);
                }
            }
            messages.push([field(1, [&*pair, &number(3, 1), &number(6, 1), &number(8, 1)].concat())].concat());
            // A field that comes twice: the last one counts, or they are merged.
            messages.push([&*pair, &field(1, b"z"), &pair].concat());
            messages.extend([pair, prev]);
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_read_changed_or_shown() {
    let (_cluster, direct, _proxy, through) = site(&[]).await;
    let before = store(&direct).await;
    let outside = |store: &BTreeMap<Vec<u8>, Vec<u8>>| {
        store
            .iter()
            .filter(|(key, _)| !key.starts_with(b"app/"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    let mut served = 0;
    for method in &METHODS {
        let refused = matches!(method.namespaced, Namespaced::Refuse);
        // Revoking somebody's lease is how leases work: they have no keys, and no owner.
        if method.path.ends_with("LeaseRevoke") {
            continue;
        }
        // Some wait until their deadline.
        let waits = method.shape != Shape::Unary || method.path.starts_with("/v3");
        for message in messages(method.path == TXN).into_iter().step_by(if waits { 37 } else { 5 }) {
            let call = Call::new(method.path, &message).with("grpc-timeout", "30m");
            let outcome = if method.shape == Shape::Unary || refused {
                through.send(&call).await
            } else {
                let stream = through.begin(&call, false).await.unwrap();
                tokio::time::timeout(std::time::Duration::from_millis(300), stream.outcome()).await.unwrap_or_default()
            };
            let what = || format!("{} {message:?}: {outcome:?}", method.path);
            if refused {
                assert_eq!(outcome.status, Some(7), "{}", what());
                break;
            }
            served += usize::from(outcome.status == Some(0));
            assert!(!outcome.messages.iter().any(|answer| contains(answer, SECRET)), "{}", what());
            let asks_for_keys = method.path.ends_with("LeaseTimeToLive");
            assert!(!(asks_for_keys && outcome.messages.iter().any(|answer| contains(answer, "app0"))), "{}", what());
        }
        let after = store(&direct).await;
        assert_eq!(outside(&after), outside(&before), "{}", method.path);
        for (key, value) in before.iter().filter(|(key, _)| key.starts_with(b"app/")) {
            direct.call(PUT, &[field(1, &**key), field(2, &**value)].concat()).await.answer();
        }
    }
    println!("{served} calls were served");
    for unknown in ["/etcdserverpb.KV/Unknown", "/a.B/C", "/"] {
        assert_eq!(through.call(unknown, b"").await.status, Some(7), "{unknown}");
    }
    for activate in [number(1, 1), number(1, 2)] {
        assert_eq!(through.call(ALARM, &activate).await.status, Some(7));
    }
    assert_eq!(through.call(ALARM, b"").await.status, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_the_namespace_only() {
    let (_cluster, direct, _proxy, through) = site(&[]).await;
    let mut watches = Vec::new();
    for (key, end) in [("", "\0"), ("\0", "\0"), ("", ""), ("a", "\u{7f}"), ("k", "")] {
        // From the first revision, with previous values, in fragments.
        let create = [range(key, end), number(3, 1), number(6, 1), number(8, 1)].concat();
        watches.push(through.begin(&Call::new(WATCH, &field(1, create)), false).await.unwrap());
    }
    for watch in &mut watches {
        assert!(watch.soon().await.is_some());
    }
    for key in OUTSIDE {
        direct.call(PUT, &put(key, SECRET)).await.answer();
    }
    direct.call(DELETE, &range("app0", "")).await.answer();
    let large = "x".repeat(1_000_000);
    let puts = ["k", "k2"].map(|key| field(2, field(2, put(&format!("app/{key}"), &large[..700_000]))));
    direct.call(TXN, &puts.concat()).await.answer();
    direct.call(PUT, &put("app/k", "last")).await.answer();
    for (n, mut watch) in watches.into_iter().enumerate() {
        if n == 2 {
            continue; // "app/" alone: no more events.
        }
        loop {
            let Some(events) = watch.soon().await else { panic!("{n}: {:?}", watch.outcome().await) };
            assert!(!contains(&events, SECRET) && !contains(&events, "app/"), "{n}: {}", events.len());
            if contains(&events, "last") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_and_json_do_not_lead_out_and_an_administrator_may_leave() {
    let (_cluster, direct, (_process, addr), through) = site(&[]).await;
    for encoding in ["gzip", "snappy"] {
        let mut call = Call::new(RANGE, b"").with("grpc-encoding", encoding);
        call.body = framed(&range("a", ""));
        assert_eq!(through.send(&call).await.status, Some(12));
        call.body[0] = 1;
        assert_eq!(through.send(&call).await.status, Some(12));
    }
    let mut call = Call::new(RANGE, &range("a", ""));
    call.body[0] = 1;
    assert_ne!(through.send(&call).await.status, Some(0));
    for path in ["/v3/kv/range", "/v3/cluster/member/list", "/version"] {
        let answer = http(&addr, "POST", path);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    // A whole call, in pieces as small as they can be.
    let call = Call::new(RANGE, &range("app0", ""));
    let outcome = through.send(&call).await.answer();
    assert!(!contains(&outcome, SECRET));
    drop(through);

    let (cluster, _, (_process, addr), admin) = site(&["--namespace-admin"]).await;
    for path in ["/etcdserverpb.Maintenance/Hash", "/etcdserverpb.Lease/LeaseLeases", "/etcdserverpb.Auth/AuthStatus"] {
        admin.call(path, b"").await.answer();
    }
    admin.call(COMPACT, &number(1, 3)).await.answer();
    assert_eq!(admin.call("/a.B/C", b"").await.status, Some(12));
    let read = admin.call(RANGE, &range("\0", "\0")).await.answer();
    assert!(!contains(&read, SECRET) && contains(&read, "inside"), "keys stay in the namespace");
    drop((direct, cluster, addr));
}
