//! `run --mode native`: etcdproxy carries the calls.

mod calls;
mod checker;
mod failover;
mod leases;
mod metrics;
mod namespace;
mod passwords;
mod streams;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use crate::api_calls::{field, number};
use crate::support::{Cluster, Lines, Process, etcdproxy, unique_addr, unique_host, wait_ready};

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(crate) const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
pub(crate) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
pub(crate) const LOCK: &str = "/v3lockpb.Lock/Lock";

/// A proxy through which the cluster answers, and its address.
fn start(cluster: &Cluster, args: &[&str]) -> (Process, String) {
    let addr = unique_addr();
    let mut command = etcdproxy(["run", "--mode", "native", "--endpoints", &cluster.endpoints()]);
    command.args(["--listen-addr", &addr]).args(args).stderr(Stdio::piped());
    let process = Process::start(&mut command);
    wait_ready(&addr);
    (process, addr)
}

fn put(key: &str, value: &str) -> Vec<u8> {
    [field(1, key), field(2, value)].concat()
}

fn range(key: &str, end: &str) -> Vec<u8> {
    [field(1, key), field(2, end)].concat()
}

/// The answer to a request of HTTP/1.1, which has the connection to itself.
fn post(mut stream: TcpStream, path: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close");
    let mut answer = String::new();
    // A connection that breaks has no answer.
    let _ = write!(stream, "{head}\r\n\r\n{body}").and_then(|()| stream.read_to_string(&mut answer));
    answer
}

fn grant(id: i64, ttl: i64) -> Vec<u8> {
    [number(1, ttl), number(2, id)].concat()
}

fn watch(key: &str, end: &str) -> Vec<u8> {
    field(1, range(key, end))
}

/// How much a long test does: 1 unless `ETCDPROXY_TEST_CASES` says more.
fn effort(default: u32) -> u32 {
    std::env::var("ETCDPROXY_TEST_CASES").map_or(default, |cases| cases.parse().unwrap())
}

/// A proxy with this preference.
fn start_preferring(endpoints: &str, prefer: &str) -> Process {
    let addr = unique_addr();
    let args = ["run", "--endpoints", endpoints, "--listen-addr", &addr, "--prefer", prefer];
    let process = Process::start(etcdproxy(args).stderr(Stdio::piped()));
    wait_ready(&addr);
    process
}

/// With thousands of sidecars, one member would have all the work.
#[test]
fn sidecars_that_spread_choose_different_members() {
    let cluster = Cluster::start(3);
    let processes: Vec<Process> = (0..12).map(|_| start_preferring(&cluster.endpoints(), "spread")).collect();
    let chosen = |process: Process| {
        let log = process.into_log();
        log.lines().find_map(|line| line.strip_prefix("etcdproxy: calls go to ")).map(ToOwned::to_owned).unwrap()
    };
    let chosen: BTreeSet<String> = processes.into_iter().map(chosen).collect();
    assert!(chosen.len() > 1, "all 12 chose {chosen:?}");
}

/// Forwards to this address, and takes its time.
fn slow_way_to(member: &str) -> String {
    let listener = TcpListener::bind((unique_host(), 0)).unwrap();
    let (addr, member) = (listener.local_addr().unwrap().to_string(), member.to_owned());
    let slowly = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                std::thread::sleep(Duration::from_millis(20));
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&member).unwrap();
            slowly(client.try_clone().unwrap(), server.try_clone().unwrap());
            slowly(server, client);
        }
    });
    addr
}

#[test]
fn nearest_is_the_member_that_answers_fastest() {
    let cluster = Cluster::start(3);
    let slow = [0, 2].map(|n| slow_way_to(cluster.client_addr(n)));
    let near = cluster.client_addr(1);
    let mut process = start_preferring(&[&slow[0], near, &slow[1]].join(","), "nearest");
    // By its first probes, or a moment later.
    Lines::of(&mut process).wait_for(&format!("calls go to http://{near}"));
}
