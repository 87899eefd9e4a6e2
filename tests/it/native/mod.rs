//! `run --mode native`: etcdproxy carries the calls.

mod calls;
mod checker;
mod failover;
mod namespace;
mod passwords;
mod streams;

use std::process::Stdio;

use crate::api_calls::{field, number};
use crate::support::{Cluster, Process, etcdproxy, unique_addr, wait_ready};

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
