//! What `src/api/` knows of etcd's API, tried with a real etcd.

use std::process::Stdio;

use prost::bytes::{Buf as _, BufMut as _};
use prost::encoding::{bytes, int64};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{StreamExt as _, once, pending};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::api::auth::{self, AUTHENTICATE, Refusal};
use crate::api::member_list::replace_client_urls;
use crate::api::methods::{METHODS, Method, Namespaced};
use crate::api::namespace::Namespace;
use crate::api::status::{self, Header};
use crate::api::wire::{Error, Field, Rule, Schema, Value, fields, rewrite};
use crate::support::{Cluster, Process, enable_auth, etcdproxy, unique_addr, wait_ready};

const PREFIX: &str = "ns/";
const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining()).to_vec()))
    }
}

async fn connect(addr: &str) -> Grpc<Channel> {
    Grpc::new(Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap())
}

async fn call(server: &mut Grpc<Channel>, path: &'static str, request: Vec<u8>) -> Result<Vec<u8>, Status> {
    server.ready().await.unwrap();
    let answer = server.unary(Request::new(request), PathAndQuery::from_static(path), Raw).await?;
    Ok(answer.into_inner())
}

/// Calls a member, with the prefix put on the request and taken off the answer.
async fn call_in_namespace(member: &mut Grpc<Channel>, path: &'static str, request: &[u8]) -> Result<Vec<u8>, Status> {
    let namespace = Namespace::new(PREFIX);
    let Namespaced::Rewrite { request: on, answer: off } = Method::find(path.as_bytes()).unwrap().namespaced else {
        panic!("{path} has no keys");
    };
    let answer = call(member, path, namespace.put_on(on, request).unwrap()).await?;
    Ok(namespace.take_off(off, &answer).unwrap())
}

/// An answer without its header, which names its cluster.
fn without_header(answer: &[u8]) -> Vec<u8> {
    rewrite(answer, &Schema(&[(1, Rule::Edit(()))]), &|_| Ok(None)).unwrap()
}

pub(crate) fn field(number: u32, content: impl Into<Vec<u8>>) -> Vec<u8> {
    let mut field = Vec::new();
    bytes::encode(number, &content.into(), &mut field);
    field
}

pub(crate) fn number(number: u32, value: i64) -> Vec<u8> {
    let mut field = Vec::new();
    int64::encode(number, &value, &mut field);
    field
}

fn range(key: &str, end: &str) -> Vec<u8> {
    [field(1, key), field(2, end)].concat()
}

fn put(key: &str, value: &str) -> Vec<u8> {
    [field(1, key), field(2, value)].concat()
}

/// Puts keys on both sides of the namespace.
async fn put_neighbours(member: &mut Grpc<Channel>) {
    for key in ["a", "ns", "ns.", "ns0", "z"] {
        call(member, PUT, put(key, "outside")).await.unwrap();
    }
}

#[tokio::test]
async fn etcd_has_every_method() {
    let cluster = Cluster::start(1);
    let member = &mut connect(cluster.client_addr(0)).await;
    for method in &METHODS {
        // Not protobuf, so nothing is carried out.
        let refused = call(member, method.path, vec![0xff]).await.unwrap_err();
        assert_ne!(refused.code(), Code::Unimplemented, "{}", method.path);
    }
    let unknown = call(member, "/etcdserverpb.KV/Unknown", vec![0xff]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_a_member_says_of_itself() {
    let cluster = Cluster::start(1);
    let member = &mut connect(cluster.client_addr(0)).await;
    let put = Header::of(&call(member, PUT, put("a", "1")).await.unwrap()).unwrap();
    assert_eq!(put.revision, 2);
    let status = status::Status::of(&call(member, status::STATUS, Vec::new()).await.unwrap()).unwrap();
    assert!(status.is_leader() && !status.is_learner && status.alarms().is_empty(), "{status:?}");
    assert_eq!((status.header, status.raft_term), (put, put.raft_term));

    let list = call(member, "/etcdserverpb.Cluster/MemberList", Vec::new()).await.unwrap();
    let has = |list: &[u8], text: &str| list.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has(&list, cluster.client_addr(0)) && has(&list, "m1"));
    let replaced = replace_client_urls(&list, "http://localhost:2379").unwrap();
    assert!(!has(&replaced, cluster.client_addr(0)) && has(&replaced, "m1") && has(&replaced, "localhost:2379"));
    assert_eq!(replace_client_urls(&replaced, &cluster.endpoints()).unwrap(), list);

    // An alarm that a person has set.
    let no_space = [number(1, 1), number(3, 1)].concat();
    call(member, "/etcdserverpb.Maintenance/Alarm", no_space).await.unwrap();
    let status = status::Status::of(&call(member, status::STATUS, Vec::new()).await.unwrap()).unwrap();
    assert_eq!(status.alarms(), ["NOSPACE"]);
}

#[tokio::test]
async fn logging_in() {
    let cluster = Cluster::start(1);
    let client = etcd_client::Client::connect([cluster.endpoints()], None).await.unwrap();
    enable_auth(&client, &[("root", "r"), ("app", "secret")]).await;
    let member = &mut connect(cluster.client_addr(0)).await;
    let refusal = |refused: Status| Refusal::recognise(refused.code() as u32, refused.message()).unwrap();

    let anonymous = call(member, PUT, put("app/a", "1")).await.unwrap_err();
    assert_eq!(refusal(anonymous), Refusal::NoUser);
    let wrong = call(member, AUTHENTICATE, auth::request("app", "wrong")).await.unwrap_err();
    assert_eq!(refusal(wrong), Refusal::LoginFailed);
    let answer = call(member, AUTHENTICATE, auth::request("app", "secret")).await.unwrap();
    let token = auth::token(&answer).unwrap();
    for (token, key, expected) in [
        (token, "app/a", None),
        (token, "a", Some(Refusal::PermissionDenied)),
        ("bad.1", "app/a", Some(Refusal::InvalidToken)),
    ] {
        let mut request = Request::new(put(key, "1"));
        request.metadata_mut().insert("token", token.parse().unwrap());
        member.ready().await.unwrap();
        let answer = member.unary(request, PathAndQuery::from_static(PUT), Raw).await;
        assert_eq!(answer.err().map(refusal), expected, "{key}");
    }
}

#[tokio::test]
async fn a_namespace_is_that_of_etcds_proxy() {
    let (theirs, ours) = (Cluster::start(1), Cluster::start(1));
    let addr = unique_addr();
    let args = ["--endpoints", &theirs.endpoints(), "--listen-addr", &addr, "--namespace", PREFIX];
    let _proxy = Process::start(
        etcdproxy(["run", "--mode", "grpc-proxy"]).args(args).stdout(Stdio::null()).stderr(Stdio::null()),
    );
    wait_ready(&addr);
    let mut proxy = connect(&addr).await;
    let (mut theirs, mut ours) = (connect(theirs.client_addr(0)).await, connect(ours.client_addr(0)).await);
    put_neighbours(&mut theirs).await;
    put_neighbours(&mut ours).await;

    let with_previous = |request: Vec<u8>, field| [request, number(field, 1)].concat();
    let compare = |key: &str| [number(1, 1), number(2, 0), field(3, key), number(4, 0)].concat();
    let compare_range = |key: &str, end: &str| [compare(key), field(64, end)].concat();
    let (get_all, get_a) = (field(1, range("\0", "\0")), field(1, range("a", "")));
    let nested = [field(1, compare("a")), field(2, &*get_all), field(2, field(2, put("n", "1")))].concat();
    let txn = |compare: Vec<u8>| {
        let success = [get_a.clone(), field(4, &*nested), field(3, with_previous(range("d", ""), 3))];
        let [get, txn, delete] = success.map(|op| field(2, op));
        [field(1, compare), get, txn, delete, field(3, &*get_all)].concat()
    };
    let mut calls = Vec::new();
    calls.extend(["a", "b", "c", "d", "d/1", "\u{ff}"].map(|key| (PUT, put(key, key))));
    calls.push((PUT, with_previous(put("a", "2"), 4)));
    for (key, end) in
        [("a", ""), ("a", "c"), ("b", "\0"), ("\0", "\0"), ("c", "a"), ("d", "e"), ("z", ""), ("b", "zzz")]
    {
        calls.push((RANGE, range(key, end)));
    }
    calls.extend([txn(compare("a")), txn(compare("zz")), txn(compare_range("a", "c"))].map(|txn| (TXN, txn)));
    calls.extend([txn(compare_range("b", "\0")), Vec::new()].map(|txn| (TXN, txn)));
    calls.push((DELETE, with_previous(range("b", "d"), 3)));
    calls.push((RANGE, range("\0", "\0")));
    calls.push((DELETE, with_previous(range("d", "\0"), 3)));

    for (path, request) in calls {
        let expected = call(&mut proxy, path, request.clone()).await.unwrap();
        let answer = call_in_namespace(&mut ours, path, &request).await.unwrap();
        assert_eq!(without_header(&answer), without_header(&expected), "{path} {request:?}");
    }
    let [expected, stored] = [&mut theirs, &mut ours].map(|member| call(member, RANGE, range("\0", "\0")));
    assert_eq!(without_header(&stored.await.unwrap()), without_header(&expected.await.unwrap()));

    // etcd answers a missing key as we do.
    for (path, request) in [(RANGE, range("", "\0")), (PUT, field(2, "v")), (DELETE, Vec::new())] {
        let refused = call(&mut ours, path, request.clone()).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, &*Error::EmptyKey.to_string()));
        assert_eq!(refused.code() as u32, Error::EmptyKey.status());
    }
}

#[tokio::test]
async fn locks_elections_leases_and_watches_stay_inside() {
    let cluster = Cluster::start(1);
    let member = &mut connect(cluster.client_addr(0)).await;
    put_neighbours(member).await;
    let lease = 0x1234;
    call(member, "/etcdserverpb.Lease/LeaseGrant", [number(1, 600), number(2, lease)].concat()).await.unwrap();

    let locked = call_in_namespace(member, "/v3lockpb.Lock/Lock", &[field(1, "l"), number(2, lease)].concat()).await;
    assert_eq!(without_header(&locked.unwrap()), field(2, "l/1234"));
    assert_eq!(keys(member).await, ["a", "ns", "ns.", "ns/l/1234", "ns0", "z"]);
    call_in_namespace(member, "/v3lockpb.Lock/Unlock", &field(1, "l/1234")).await.unwrap();
    assert_eq!(keys(member).await, ["a", "ns", "ns.", "ns0", "z"]);

    let campaign = [field(1, "e"), number(2, lease), field(3, "me")].concat();
    let won = call_in_namespace(member, "/v3electionpb.Election/Campaign", &campaign).await.unwrap();
    let leader = only_field(&without_header(&won));
    assert!(leader.starts_with(&[field(1, "e"), field(2, "e/1234")].concat()), "{leader:?}");
    assert_eq!(keys(member).await, ["a", "ns", "ns.", "ns/e/1234", "ns0", "z"]);
    let proclaim = [field(1, &*leader), field(2, "still me")].concat();
    call_in_namespace(member, "/v3electionpb.Election/Proclaim", &proclaim).await.unwrap();
    let led = call_in_namespace(member, "/v3electionpb.Election/Leader", &field(1, "e")).await.unwrap();
    let pair = only_field(&without_header(&led));
    assert!(pair.starts_with(&field(1, "e/1234")), "{pair:?}");
    assert!(pair.windows(8).any(|value| value == b"still me"), "{pair:?}");

    call(member, PUT, [put("ns0", "outside"), number(3, lease)].concat()).await.unwrap();
    let ask = [number(1, lease), number(2, 1)].concat();
    let attached = call_in_namespace(member, "/etcdserverpb.Lease/LeaseTimeToLive", &ask).await.unwrap();
    assert!(attached.ends_with(&field(5, "e/1234")), "{attached:?}");
    assert!(!attached.windows(3).any(|key| key == b"ns0"), "{attached:?}");

    call_in_namespace(member, "/v3electionpb.Election/Resign", &field(1, &*leader)).await.unwrap();
    assert_eq!(keys(member).await, ["a", "ns", "ns.", "ns0", "z"]);

    // A watch of everything, from the first revision on.
    let method = Method::find(b"/etcdserverpb.Watch/Watch").unwrap();
    let Namespaced::Rewrite { request, answer } = method.namespaced else { panic!("it has keys") };
    let namespace = Namespace::new(PREFIX);
    let create = field(1, [field(2, "\0"), number(3, 1)].concat());
    let create = once(namespace.put_on(request, &create).unwrap()).chain(pending());
    member.ready().await.unwrap();
    let path = PathAndQuery::from_static(method.path);
    let mut answers = member.streaming(Request::new(create), path, Raw).await.unwrap().into_inner();
    let created = answers.message().await.unwrap().unwrap();
    assert_eq!(namespace.take_off(answer, &created).unwrap(), created);
    let events = namespace.take_off(answer, &answers.message().await.unwrap().unwrap()).unwrap();
    for (text, is_there) in [("l/1234", true), ("e/1234", true), ("ns/", false), ("outside", false)] {
        assert_eq!(events.windows(text.len()).any(|part| part == text.as_bytes()), is_there, "{text} {events:?}");
    }
}

/// All keys of the store.
async fn keys(member: &mut Grpc<Channel>) -> Vec<String> {
    let answer = call(member, RANGE, [range("\0", "\0"), number(8, 1)].concat()).await.unwrap();
    let pairs = fields(&answer).map(Result::unwrap).filter(|field| field.number == 2);
    pairs.map(|pair| String::from_utf8(contents(pair).remove(0)).unwrap()).collect()
}

/// The content of the only field of a message.
fn only_field(message: &[u8]) -> Vec<u8> {
    let mut found = values(message);
    assert_eq!(found.len(), 1, "{message:?}");
    found.remove(0)
}

fn contents(field: Field<'_>) -> Vec<Vec<u8>> {
    match field.value {
        Value::Bytes(message) => values(message),
        other => panic!("{other:?}"),
    }
}

/// The values of a message's fields that are bytes.
pub(crate) fn values(message: &[u8]) -> Vec<Vec<u8>> {
    let bytes = |field: Field<'_>| match field.value {
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    fields(message).map(Result::unwrap).filter_map(bytes).collect()
}
