//! The page of metrics says what has happened: exactly, where that can be known.

use std::time::{Duration, SystemTime};

use super::*;
use crate::api::lease::keep_alive;
use crate::api::watch::cancel;
use crate::grpc::{Call, Server};
use crate::pki::{Authority, write};
use crate::support::{Tls, check_prometheus_text, eventually, http, wait_listening};

/// The page, as text.
fn page(addr: &str) -> String {
    let (_, text) =
        http(addr, "GET", "/metrics").split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    check_prometheus_text(&text);
    text
}

/// The value of a sample, such as `repeats_total{reason="token"}`; `None` if it is not there.
fn value(addr: &str, sample: &str) -> Option<f64> {
    let name = if sample.starts_with("process_") { sample.to_owned() } else { format!("etcdproxy_{sample}") };
    let page = page(addr);
    let line = page.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[track_caller]
fn is(addr: &str, sample: &str, expected: f64) {
    let actual = value(addr, sample);
    assert_eq!(actual, Some(expected), "{sample}: {}", page(addr));
}

#[track_caller]
fn becomes(addr: &str, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || value(addr, sample) == Some(expected));
}

fn calls(method: &str, code: &str) -> String {
    format!("requests_total{{method=\"{method}\",code=\"{code}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    is(&addr, &calls("KV/Range", "OK"), 0.0);
    is(&addr, "request_duration_seconds_count{method=\"KV/Range\"}", 0.0);
    let server = Server::connect(&addr).await;
    for n in 0..7 {
        server.call(PUT, &put(&format!("k{n}"), "v")).await.answer();
    }
    for _ in 0..20 {
        server.call(RANGE, &range("k", "l")).await.answer();
    }
    server.call(GRANT, &grant(7, 60)).await.answer();
    assert_eq!(server.call(GRANT, &grant(7, 60)).await.status, Some(9), "it exists");
    assert_eq!(server.call(COMPACT, &number(1, 1000)).await.status, Some(11), "it is in the future");
    for path in ["/etcdserverpb.KV/AreYouThere", "/no.such.Service/Method"] {
        assert_eq!(server.call(path, b"").await.status, Some(12));
    }
    server.call(LOCK, &[field(1, "l"), number(2, 7)].concat()).await.answer();
    let page = page(&addr);
    let requests = |line: &&str| line.starts_with("etcdproxy_requests_total{");
    let mut requests: Vec<_> =
        page.lines().filter(requests).map(|line| &line["etcdproxy_requests_total".len()..]).collect();
    requests.sort_unstable();
    assert_eq!(
        requests,
        [
            "{method=\"KV/Compact\",code=\"OUT_OF_RANGE\"} 1",
            "{method=\"KV/Put\",code=\"OK\"} 7",
            "{method=\"KV/Range\",code=\"OK\"} 20",
            "{method=\"Lease/LeaseGrant\",code=\"FAILED_PRECONDITION\"} 1",
            "{method=\"Lease/LeaseGrant\",code=\"OK\"} 1",
            "{method=\"Lock/Lock\",code=\"OK\"} 1",
            "{method=\"other\",code=\"UNIMPLEMENTED\"} 2",
        ]
    );
    is(&addr, "request_duration_seconds_count{method=\"KV/Put\"}", 7.0);
    is(&addr, "request_duration_seconds_bucket{method=\"KV/Range\",le=\"+Inf\"}", 20.0);
    is(&addr, "request_duration_seconds_count{method=\"KV/Range\"}", 20.0);
    assert!(value(&addr, "request_duration_seconds_sum{method=\"KV/Put\"}").unwrap() > 0.0);
    assert_eq!(value(&addr, "request_duration_seconds_count{method=\"other\"}"), None);
    // A call that waits, until its client gives it up.
    server.call(GRANT, &grant(8, 60)).await.answer();
    let waiting = server.begin(&Call::new(LOCK, &[field(1, "l"), number(2, 8)].concat()), true).await.unwrap();
    becomes(&addr, "requests_in_flight", 1.0);
    waiting.cancel();
    becomes(&addr, &calls("Lock/Lock", "CANCELLED"), 1.0);
    is(&addr, "requests_in_flight", 0.0);
    // A client that goes gives all of its calls up.
    let waiting = server.begin(&Call::new(LOCK, &[field(1, "l"), number(2, 8)].concat()), true).await.unwrap();
    becomes(&addr, "requests_in_flight", 1.0);
    drop((waiting, server));
    becomes(&addr, &calls("Lock/Lock", "CANCELLED"), 2.0);
    is(&addr, "requests_in_flight", 0.0);
    is(&addr, "repeats_denied_total", 0.0);
    for reason in ["connection_lost", "not_processed", "given_up", "leader_changed", "token"] {
        is(&addr, &format!("repeats_total{{reason=\"{reason}\"}}"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_and_leases_are_counted_on_both_sides() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster, &[]);
    let sides = |name: &str, client: u32, member: u32| {
        becomes(&addr, &format!("{name}{{side=\"client\"}}"), client.into());
        becomes(&addr, &format!("{name}{{side=\"member\"}}"), member.into());
    };
    for name in ["watchers", "watch_streams", "watch_events_total", "lease_streams", "lease_keepalives_total"] {
        sides(name, 0, 0);
    }
    let (one, two) = (Server::connect(&addr).await, Server::connect(&addr).await);
    let mut streams = Vec::new();
    for server in [&one, &two] {
        let mut stream = server.begin(&Call::new(WATCH, &watch("w", "")), false).await.unwrap();
        stream.soon().await.unwrap();
        streams.push(stream);
    }
    sides("watchers", 2, 1);
    sides("watch_streams", 2, 1);
    for n in 0..5 {
        one.call(PUT, &put("w", &n.to_string())).await.answer();
        for stream in &mut streams {
            stream.soon().await.unwrap();
        }
    }
    sides("watch_events_total", 10, 5);
    is(&addr, "watch_resumes_total", 0.0);
    streams[0].send(&cancel(0));
    streams[0].soon().await.unwrap();
    sides("watchers", 1, 1);
    drop(streams);
    sides("watchers", 0, 0);
    sides("watch_streams", 0, 0);
    becomes(&addr, &calls("Watch/Watch", "CANCELLED"), 2.0);

    one.call(GRANT, &grant(7, 60)).await.answer();
    let mut stream = one.begin(&Call::new(KEEP_ALIVE, &keep_alive(7)), false).await.unwrap();
    stream.soon().await.unwrap();
    for _ in 0..3 {
        stream.send(&keep_alive(7));
        stream.soon().await.unwrap();
    }
    sides("lease_keepalives_total", 4, 4);
    sides("lease_streams", 1, 1);
    drop(stream);
    sides("lease_streams", 0, 0);
    is(&addr, "requests_in_flight", 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_what_happens_when_one_dies() {
    let mut cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster, &["--prefer", "leader"]);
    let of = |name: &str, n: usize| format!("{name}{{member=\"http://{}\"}}", cluster.client_addr(n));
    let leader = cluster.leader().await;
    let expected = |n: usize| if n == leader { 1.0 } else { 0.0 };
    let (leaders, currents): (Vec<_>, Vec<_>) =
        (0..3).map(|n| (of("member_leader", n), of("member_current", n))).unzip();
    for n in 0..3 {
        becomes(&addr, &of("member_up", n), 1.0);
        becomes(&addr, &leaders[n], expected(n));
        becomes(&addr, &currents[n], expected(n));
        let probes = format!("probes_total{{member=\"http://{}\",result=\"success\"}}", cluster.client_addr(n));
        assert!(value(&addr, &probes).unwrap() >= 1.0);
        let time = value(&addr, &of("member_round_trip_seconds", n)).unwrap();
        assert!((0.0..10.0).contains(&time), "{time}");
    }
    // A loaded machine may have had another election.
    let changes = value(&addr, "leader_changes_total").unwrap();
    let server = Server::connect(&addr).await;
    let mut watcher = server.begin(&Call::new(WATCH, &watch("w", "")), false).await.unwrap();
    watcher.soon().await.unwrap();
    let failed = format!("probes_total{{member=\"http://{}\",result=\"failure\"}}", cluster.client_addr(leader));
    cluster.kill_member(leader);
    server.call(RANGE, &range("k", "")).await.answer();
    eventually("there is another leader", || value(&addr, "leader_changes_total").unwrap() > changes);
    becomes(&addr, &currents[leader], 0.0);
    // Once more when calls follow the leader.
    eventually("the watcher goes on", || value(&addr, "watch_resumes_total").unwrap() >= 1.0);
    eventually("failed probes are counted", || value(&addr, &failed).unwrap() >= 1.0);
    let used = value(&addr, "process_cpu_seconds_total").unwrap();
    let memory = value(&addr, "process_resident_memory_bytes").unwrap();
    let started = value(&addr, "process_start_time_seconds").unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(used > 0.0 && (1e6..1e9).contains(&memory) && (now - 600.0..now + 1.0).contains(&started));
    assert!(
        value(&addr, "process_open_fds").unwrap() > 5.0 && value(&addr, "process_virtual_memory_bytes") > Some(memory)
    );
    assert!(value(&addr, "process_max_fds").unwrap() > 100.0);
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_tokens() {
    let cluster = Cluster::start_with(&["--auth-token", "simple", "--auth-token-ttl", "2"]);
    let root = crate::load::connect(cluster.client_addr(0)).await.unwrap();
    crate::support::enable_auth(&root, &[("root", "r00t"), ("app", "secret")]).await;
    let dir = tempfile::tempdir().unwrap();
    let run = |password: &str| {
        let (addr, file) = (unique_addr(), write(dir.path(), password, password));
        let mut command = etcdproxy(["run", "--mode", "native", "--endpoints", &cluster.endpoints()]);
        command.args(["--listen-addr", &addr, "--username", "app", "--password-file"]).arg(file);
        let process = Process::start(command.stderr(Stdio::null()));
        wait_listening(&addr);
        (process, addr)
    };
    let (_proxy, addr) = run("secret");
    let server = Server::connect(&addr).await;
    server.call(PUT, &put("app/a", "1")).await.answer();
    is(&addr, "token_renewals_total{result=\"success\"}", 1.0);
    is(&addr, "token_renewals_total{result=\"refused\"}", 0.0);
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.call(PUT, &put("app/a", "2")).await.answer();
    is(&addr, &calls("KV/Put", "OK"), 2.0);
    is(&addr, "repeats_total{reason=\"token\"}", 1.0);
    is(&addr, "token_renewals_total{result=\"success\"}", 2.0);
    let (_proxy, addr) = run("wr0ng");
    let server = Server::connect(&addr).await;
    for _ in 0..3 {
        assert_eq!(server.call(PUT, &put("app/a", "1")).await.status, Some(16));
    }
    is(&addr, &calls("KV/Put", "UNAUTHENTICATED"), 3.0);
    is(&addr, "token_renewals_total{result=\"refused\"}", 1.0);
}

#[test]
fn the_ends_of_certificates() {
    let host = unique_host();
    let authority = Authority::new("the cluster's authority");
    let server = authority.server(&[&host], 20);
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server, client_ca: Some(authority.pem.clone()) }));
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let [cert, key] = authority.client_from(SystemTime::now() - Duration::from_mins(1)).write(dir.path(), "client");
    let addr = unique_addr();
    let mut command = etcdproxy(["run", "--mode", "native", "--endpoints", &cluster.endpoints()]);
    command.args(["--listen-addr", &addr, "--cacert"]).arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
    let _proxy = Process::start(command.stderr(Stdio::null()));
    wait_ready(&addr);
    let days = |labels: &str| {
        let end = value(&addr, &format!("certificate_expiry_timestamp_seconds{{{labels}}}"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        Some((end - now) / 86400.0)
    };
    let member = format!("certificate=\"member\",member=\"https://{}\"", cluster.client_addr(0));
    assert!((19.9..20.1).contains(&days(&member).unwrap()));
    assert!((0.9..1.0).contains(&days("certificate=\"client\"").unwrap()));
    assert!(days("certificate=\"ca\"").unwrap() > 100.0);
}
