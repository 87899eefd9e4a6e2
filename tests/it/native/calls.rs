//! Any call has the same outcome through the proxy as direct.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::api::methods::METHODS;
use crate::api::status::Header;
use crate::api::wire::{Value, fields};
use crate::grpc::{Call, Outcome, Server, framed};

/// etcd accepts requests of 1.5 MiB, and messages that are half a MiB longer.
const LARGE: [usize; 5] = [1_400_000, 1_570_000, 1_573_000, 2_096_000, 2_300_000];

/// For calls that may wait for ever.
const DEADLINE: &str = "150m";

fn key() -> impl Strategy<Value = Vec<u8>> {
    const KEYS: [&[u8]; 8] = [b"", b"\0", b"a", b"ab", b"b", b"c/1", b"c/2", b"\xff"];
    select(&KEYS[..]).prop_map(<[u8]>::to_vec)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let large = select(&LARGE[..]).prop_map(|size| vec![b'x'; size]);
    prop_oneof![60 => prop::collection::vec(any::<u8>(), 0..20), 1 => large]
}

fn small() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0_i64), 8 => 1..30_i64, 1 => Just(-1), 1 => Just(i64::MAX)]
}

/// Some of these fields, each with one of its values.
fn some(numbers: &'static [(u32, i64)]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::subsequence(numbers, 0..=numbers.len().min(4)).prop_flat_map(|chosen| {
        let field = |(field, most): (u32, i64)| {
            if most > 0 { (0..=most).boxed() } else { small().boxed() }.prop_map(move |value| number(field, value))
        };
        chosen.into_iter().map(field).collect::<Vec<_>>().prop_map(|fields| fields.concat())
    })
}

fn range_request() -> impl Strategy<Value = Vec<u8>> {
    const OPTIONS: &[(u32, i64)] =
        &[(3, 0), (4, 0), (5, 3), (6, 5), (7, 1), (8, 1), (9, 1), (10, 0), (11, 0), (12, 0), (13, 0)];
    (key(), key(), some(OPTIONS)).prop_map(|(key, end, options)| [field(1, key), field(2, end), options].concat())
}

/// `lease` and `prev_kv`. In a transaction, `ignore_value` and `ignore_lease` end etcd 3.7.2 itself, when an operation
/// before them deletes the key.
const OPTIONS_IN_TXN: &[(u32, i64)] = &[(3, 3), (4, 1)];
const PUT_OPTIONS: &[(u32, i64)] = &[(3, 3), (4, 1), (5, 1), (6, 1)];

fn put_request(options: &'static [(u32, i64)]) -> impl Strategy<Value = Vec<u8>> {
    (key(), value(), some(options)).prop_map(|(key, value, options)| [field(1, key), field(2, value), options].concat())
}

fn delete_request() -> impl Strategy<Value = Vec<u8>> {
    (key(), key(), 0..2_i64).prop_map(|(key, end, prev)| [field(1, key), field(2, end), number(3, prev)].concat())
}

fn compare() -> impl Strategy<Value = Vec<u8>> {
    let target = (0..5_i64).prop_flat_map(|target| {
        let what = if target == 3 {
            prop::collection::vec(any::<u8>(), 0..3).prop_map(|value| field(7, value)).boxed()
        } else {
            let tag = [4, 5, 6, 0, 8][usize::try_from(target).unwrap()];
            small().prop_map(move |value| number(tag, value)).boxed()
        };
        what.prop_map(move |what| [number(2, target), what].concat())
    });
    (0..4_i64, target, key(), key()).prop_map(|(result, target, key, end)| {
        let end = if end.is_empty() { end } else { field(64, end) };
        [number(1, result), target, field(3, key), end].concat()
    })
}

fn txn_request() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![
        range_request().prop_map(|request| field(1, request)),
        put_request(OPTIONS_IN_TXN).prop_map(|request| field(2, request)),
        delete_request().prop_map(|request| field(3, request)),
    ];
    let of = |op: BoxedStrategy<Vec<u8>>| {
        let ops = |number| prop::collection::vec(op.clone(), 0..3).prop_map(move |ops| repeated(number, ops));
        (prop::collection::vec(compare(), 0..3), ops(2), ops(3))
            .prop_map(|(compare, success, failure)| [repeated(1, compare), success, failure].concat())
    };
    of(op.boxed()).prop_recursive(3, 12, 3, move |inner| of(inner.prop_map(|txn| field(4, txn)).boxed()))
}

fn repeated(number: u32, messages: Vec<Vec<u8>>) -> Vec<u8> {
    messages.into_iter().map(|message| field(number, message)).collect::<Vec<_>>().concat()
}

/// Locks and elections, which wait for each other: for a short time only.
fn concurrency() -> impl Strategy<Value = Call> {
    let name = || select(&["", "l", "l/1"][..]);
    let lease = 1..4_i64;
    let lock = (name(), lease.clone()).prop_map(|(name, lease)| (LOCK, [field(1, name), number(2, lease)].concat()));
    let campaign = (name(), lease.clone()).prop_map(|(name, lease)| {
        ("/v3electionpb.Election/Campaign", [field(1, name), number(2, lease), field(3, "me")].concat())
    });
    let unlock = (name(), lease.clone())
        .prop_map(|(name, lease)| ("/v3lockpb.Lock/Unlock", field(1, format!("{name}/{lease:x}"))));
    let leader = name().prop_map(|name| ("/v3electionpb.Election/Leader", field(1, name)));
    let owned = (name(), lease, small(), any::<bool>()).prop_map(|(name, lease, revision, resigns)| {
        let key = field(2, format!("{name}/{lease:x}"));
        let leader = field(1, [field(1, name), key, number(3, revision), number(4, lease)].concat());
        if resigns {
            ("/v3electionpb.Election/Resign", leader)
        } else {
            ("/v3electionpb.Election/Proclaim", [leader, field(2, "still me")].concat())
        }
    });
    prop_oneof![lock, campaign, unlock, leader, owned]
        .prop_map(|(path, message)| Call::new(path, &message).with("grpc-timeout", DEADLINE))
}

fn other_request() -> impl Strategy<Value = Call> {
    let id = || 0..4_i64;
    let call = |path: &'static str| move |message: Vec<u8>| Call::new(path, &message);
    let nothing = [
        "/etcdserverpb.Lease/LeaseLeases",
        MEMBER_LIST,
        STATUS,
        ALARM,
        "/etcdserverpb.Auth/AuthStatus",
        "/etcdserverpb.Auth/UserList",
        "/etcdserverpb.Auth/RoleList",
        "/etcdserverpb.Auth/Authenticate",
        "/grpc.health.v1.Health/Check",
        "/etcdserverpb.KV/Unknown",
        "/no.such.Service/Call",
        "/",
    ];
    prop_oneof![
        (small(), 0..2_i64).prop_map(|(at, now)| [number(1, at), number(2, now)].concat()).prop_map(call(COMPACT)),
        (1..4_i64, select(&[0, -1, 600, 9_000_000_001][..]))
            .prop_map(|(id, ttl)| grant(id, if ttl == 0 { 601 } else { ttl }))
            .prop_map(call(GRANT)),
        id().prop_map(|id| number(1, id)).prop_map(call("/etcdserverpb.Lease/LeaseRevoke")),
        (id(), 0..2_i64)
            .prop_map(|(id, keys)| [number(1, id), number(2, keys)].concat())
            .prop_map(call("/etcdserverpb.Lease/LeaseTimeToLive")),
        select(&["r", ""][..]).prop_map(|name| field(1, name)).prop_map(call("/etcdserverpb.Auth/RoleAdd")),
        select(&["r", "x"][..]).prop_map(|name| field(1, name)).prop_map(call("/etcdserverpb.Auth/RoleGet")),
        // NOSPACE is set and, more often, taken back.
        select(&[1_i64, 2, 2, 2][..])
            .prop_map(|action| [number(1, action), number(3, 1)].concat())
            .prop_map(call(ALARM)),
        select(nothing.to_vec()).prop_map(|path| Call::new(path, b"")),
    ]
}

/// What no client sends, or only a strange one.
fn odd_request() -> impl Strategy<Value = Call> {
    // A stray AddMember would cost the cluster its majority.
    let paths: Vec<&str> = METHODS.iter().map(|method| method.path).collect();
    let malformed = select(paths).prop_map(|path| Call::new(path, b"\xff\xff"));
    // A lock without a lease would get one with a random number.
    let random = (select(&[RANGE, TXN, DELETE][..]), prop::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(path, message)| Call::new(path, &message).with("grpc-timeout", DEADLINE));
    let framing = (
        select(&[RANGE, PUT, WATCH, "/etcdserverpb.KV/Unknown"][..]),
        prop_oneof![
            Just(Vec::new()),
            Just(vec![0]),
            Just(b"\0\0\0\0\x09abc".to_vec()),
            Just(b"\x01\0\0\0\x03\x0a\x01a".to_vec()),
            Just(b"\x02\0\0\0\x03\x0a\x01a".to_vec()),
            Just(b"\0\xff\xff\xff\xff\x0a\x01a".to_vec()),
            Just([framed(&field(1, "a")), framed(&field(1, "b"))].concat()),
            Just([framed(&field(1, "a")), vec![0, 0, 0]].concat()),
        ],
    )
        .prop_map(|(path, body)| Call { body, ..Call::new(path, b"").with("grpc-timeout", DEADLINE) });
    let compressed = (put_request(PUT_OPTIONS), select(&["gzip", "identity", "snappy"][..]), any::<bool>()).prop_map(
        |(message, encoding, is_compressed)| {
            let mut call = Call::new(PUT, &message).with("grpc-encoding", encoding);
            if is_compressed && message.len() < 60_000 {
                call.body = framed(&gzip(&message));
                call.body[0] = 1;
            }
            call
        },
    );
    let metadata = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| ("x-bin", base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes))),
        Just(("x-bin", "no base64!".to_owned())),
        Just(("hasleader", "true".to_owned())),
        Just(("token", "no.such".to_owned())),
        Just(("authorization", "Basic x".to_owned())),
        Just(("grpc-timeout", "forever".to_owned())),
        Just(("grpc-timeout", "5S".to_owned())),
        Just(("grpc-accept-encoding", "gzip,identity".to_owned())),
        Just(("user-agent", "a/1 grpc-test".to_owned())),
        Just(("x-long", "y".repeat(20_000))),
        "[ -~]{0,20}".prop_map(|text| ("x-text", text.trim().to_owned())),
    ]
    .prop_map(|(name, value)| Call::new(RANGE, &field(1, "a")).with(name, value));
    let http = (select(&["GET", "PUT", "POST"][..]), select(&["application/grpc+proto", "text/plain", ""][..]))
        .prop_map(|(http_method, content_type)| Call { http_method, content_type, ..Call::new(RANGE, &field(1, "a")) });
    prop_oneof![3 => malformed, 3 => random, 3 => framing, 3 => compressed, 3 => metadata, 1 => http]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => range_request().prop_map(|message| Call::new(RANGE, &message)),
        4 => put_request(PUT_OPTIONS).prop_map(|message| Call::new(PUT, &message)),
        2 => delete_request().prop_map(|message| Call::new(DELETE, &message)),
        4 => txn_request().prop_map(|message| Call::new(TXN, &message)),
        4 => other_request(),
        1 => concurrency(),
        4 => odd_request(),
    ]
}

/// gzip, without making it smaller.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".to_vec();
    out.extend([length.to_le_bytes(), (!length).to_le_bytes()].as_flattened());
    out.extend(bytes);
    out.extend([(!crc).to_le_bytes(), u32::from(length).to_le_bytes()].as_flattened());
    out
}

/// An answer without what differs between two clusters.
fn comparable(path: &str, message: &[u8]) -> Vec<String> {
    let of_member = [STATUS, MEMBER_LIST].contains(&path) || path.contains("/Hash");
    let mut parts: Vec<String> = Vec::new();
    for field in fields(message) {
        let Ok(field) = field else { return vec![format!("{message:?}")] };
        match field.number_and_value() {
            (1, Value::Bytes(header)) if !path.contains("Health") => {
                for field in fields(header).map(Result::unwrap).filter(|field| [3, 4].contains(&field.number)) {
                    parts.push(format!("header {} {:?}", field.number, field.value));
                }
            }
            // The time that is left.
            (3, Value::Varint(_)) if path.ends_with("LeaseTimeToLive") => {}
            (number, _) if of_member => parts.push(number.to_string()),
            (number, Value::Bytes(bytes)) if bytes.len() > 1000 => parts.push(format!("{number} {}", bytes.len())),
            (number, value) => parts.push(format!("{number} {value:?}")),
        }
    }
    if path.ends_with("LeaseTimeToLive") {
        parts.sort();
    }
    parts
}

fn without_messages(outcome: &Outcome) -> Outcome {
    Outcome { messages: Vec::new(), ..outcome.clone() }
}

async fn revision(server: &Server) -> i64 {
    Header::of(&server.call(RANGE, &field(1, "a")).await.answer()).unwrap().revision
}

async fn compare_outcomes(call: &Call, direct: &Server, native: &Server) -> Result<(), TestCaseError> {
    let (expected, actual) = (direct.send(call).await, native.send(call).await);
    let shown = |outcome: &Outcome| outcome.messages.iter().map(|m| comparable(&call.path, m)).collect::<Vec<_>>();
    prop_assert!(direct.is_open() && native.is_open(), "{:?} {:?}", expected, actual);
    if call.headers.contains(&("grpc-timeout", DEADLINE.to_owned())) {
        // The member says it, or just ends the call.
        let is_late = |outcome: &Outcome| outcome.status == Some(4) || outcome.broken.as_deref() == Some("CANCEL");
        // It goes on for a moment, for example to give up its place in a queue, which it may not have had yet.
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut equal = None;
        loop {
            let (theirs, ours) = (revision(direct).await, revision(native).await);
            if theirs == ours && (!is_late(&expected) || equal == Some(theirs)) {
                break;
            }
            if theirs == ours {
                // Still the same a moment later? A busy member may take its time to leave a queue.
                equal = Some(theirs);
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            prop_assert!(is_late(&expected) || Instant::now() < deadline, "{} {}: {:?}", theirs, ours, expected);
            if Instant::now() > deadline {
                (if theirs < ours { direct } else { native }).call(PUT, &put("z", "")).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if is_late(&expected) {
            prop_assert_eq!(actual.status, Some(4), "{:?} {:?}", actual, expected);
            return Ok(());
        }
    }
    if expected.http != 200 {
        prop_assert_eq!(actual.http, expected.http, "{:?} {:?}", actual, expected);
        return Ok(());
    }
    // What is wrong with a message, Go's library says in its own words.
    if expected.status == Some(13) && expected.message.starts_with("grpc: ") && actual.message.starts_with("grpc: ") {
        prop_assert_eq!(actual.status, expected.status);
        return Ok(());
    }
    prop_assert_eq!(without_messages(&actual), without_messages(&expected));
    // An answer of a gzip request is compressed.
    if !actual.headers.contains("grpc-encoding") {
        prop_assert_eq!(shown(&actual), shown(&expected));
    }
    Ok(())
}

#[test]
fn every_call_has_the_same_outcome_as_without_the_proxy() {
    let (theirs, ours) = (Cluster::start(1), Cluster::start(1));
    let (proxy, addr) = start(&ours, &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (direct, native) = runtime.block_on(async {
        let (direct, native) = (Server::connect(theirs.client_addr(0)).await, Server::connect(&addr).await);
        for lease in 1..3 {
            let call = Call::new(GRANT, &grant(lease, 600));
            compare_outcomes(&call, &direct, &native).await.unwrap();
        }
        (direct, native)
    });
    let config = Config { cases: effort(60), failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut seen = std::cell::RefCell::new(BTreeSet::new());
    let result = TestRunner::new(config).run(&prop::collection::vec(any_call(), 1..20), |calls| {
        runtime.block_on(async {
            for call in &calls {
                seen.borrow_mut().insert(call.path.clone());
                let mut shown = format!("{call:?}");
                shown.truncate(2000);
                compare_outcomes(call, &direct, &native).await.map_err(|err| err_with(err, &shown))?;
            }
            Ok(())
        })
    });
    println!("{} methods", seen.get_mut().len());
    if let Err(err) = result {
        let mut err = err.to_string();
        err.truncate(4000);
        panic!("{err}\n{}", proxy.into_log());
    }
}

fn err_with(err: TestCaseError, call: &str) -> TestCaseError {
    match err {
        TestCaseError::Fail(why) => TestCaseError::fail(format!("{call}: {why}")),
        err @ TestCaseError::Reject(_) => err,
    }
}
