//! `run --mode tunnel`: this program itself carries the connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Permission, WatchOptions};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::load::{self, Load};
use crate::pki::{Authority, Pair, write};
use crate::support::{
    Cluster, Process, Security, etcdproxy, eventually, fails_with, finish, free_addr, free_addrs, goes_on, lives,
    own_host, wait_ready, web_server,
};

fn tunnel(endpoints: &str, addr: &str) -> Command {
    let mut command = etcdproxy(["run", "--mode", "tunnel", "--endpoints", endpoints, "--listen-addr", addr]);
    command.stderr(Stdio::piped());
    command
}

/// Ends it and gives its log.
fn log_of(mut tunnel: Process) -> String {
    tunnel.kill();
    tunnel.stderr_text()
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of one line of the metrics.
fn metric(addr: &str, line: &str) -> u64 {
    let answer = get(addr, "/metrics");
    let value = answer.lines().find_map(|one| one.strip_prefix(&format!("etcdproxy_tunnel_{line} ")));
    value.unwrap_or_else(|| panic!("{line}: {answer}")).parse().unwrap()
}

/// It may be open to others, and the cluster not.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_the_metrics_leads_to_no_member() {
    let cluster = Cluster::start(1);
    let addrs = free_addrs(&own_host(), 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let _tunnel = Process::start(tunnel(&cluster.endpoints(), addr).args(["--metrics-addr", metrics]));
    wait_ready(addr);
    assert!(get(addr, "/version").contains("etcdserver"));
    assert!(get(metrics, "/metrics").contains("etcdproxy_tunnel_member_up"));
    assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 OK"));
    assert!(get(metrics, "/version").starts_with("HTTP/1.1 404 Not Found"));
    let read = async { Client::connect([metrics], None).await?.get("a", None).await };
    assert!(!matches!(tokio::time::timeout(Duration::from_secs(2), read).await, Ok(Ok(_))));
    let mut client = Client::connect([addr], None).await.unwrap();
    client.get("a", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_leaders_and_hung_members_are_left_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3);
    let addr = free_addr(&own_host());
    let tunnel = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    let load = Load::start(&addr, "/load/").await.unwrap();
    goes_on(&load).await;

    let follower = (cluster.leader().await + 1) % 3;
    cluster.kill_member(follower);
    goes_on(&load).await;
    cluster.start_member(follower);
    cluster.wait_member(follower);

    let leader = cluster.leader().await;
    cluster.kill_member(leader);
    goes_on(&load).await;
    cluster.start_member(leader);
    cluster.wait_member(leader);
    goes_on(&load).await;

    let leader = cluster.leader().await;
    cluster.signal_member(leader, Signal::SIGSTOP);
    goes_on(&load).await;
    cluster.signal_member(leader, Signal::SIGCONT);
    goes_on(&load).await;

    let report = load.stop().await.unwrap();
    let log = log_of(tunnel);
    assert!(report.nothing_lost(), "{report}\n{log}");
    for words in [
        "is down: the connection is refused",
        "is down: it accepts the connection but does not answer within 1.5 s",
        "is up",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_may_be_down_and_come_back() {
    let mut cluster = Cluster::start(3);
    let addr = free_addr(&own_host());
    let tunnel = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    let load = Load::start(&addr, "/load/").await.unwrap();
    goes_on(&load).await;
    (0..3).for_each(|n| cluster.kill_member(n));
    eventually("nobody is up", || finish(&mut etcdproxy(["health", "--listen-addr", &addr])).0 == 69);
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.contains("the cluster does not answer: ") && line.contains("is refused"), "{line}");
    (0..3).for_each(|n| cluster.start_member(n));
    goes_on(&load).await;
    let report = load.stop().await.unwrap();
    assert!(report.nothing_lost(), "{report}\n{}", log_of(tunnel));
}

/// A cluster that knows its clients by the common names of their certificates.
struct Site {
    host: String,
    authority: Authority,
    cluster: Cluster,
}

impl Site {
    fn new() -> Self {
        let (host, authority) = (own_host(), Authority::new("ca"));
        let server = authority.server(&[&host], 365);
        let clients = Some(authority.pem.clone());
        let cluster = Cluster::start_on(&host, 1, Some(Security { server, clients }));
        Self { host, authority, cluster }
    }

    /// Starts the proxy as the user whose certificate this is, in the mode that is right for it.
    fn as_client(&self, client: &Pair) -> (Process, String) {
        let addr = free_addr(&self.host);
        let mut command = etcdproxy(["run", "--endpoints", &self.cluster.endpoints(), "--listen-addr", &addr]);
        command.env("ETCDPROXY_CACERT", &self.authority.pem).stderr(Stdio::piped());
        command.env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", &client.key);
        let process = Process::start(&mut command);
        wait_ready(&addr);
        (process, addr)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_common_name_the_application_is_that_user() {
    let site = Site::new();
    let (_root_tunnel, root_addr) = site.as_client(&site.authority.client(Some("root")));
    let root = load::connect(&root_addr).await.unwrap();
    let mut auth = root.auth_client();
    for user in ["root", "app"] {
        auth.user_add(user, "a password that nobody uses", None).await.unwrap();
    }
    auth.role_add("app").await.unwrap();
    auth.role_grant_permission("app", Permission::read_write("app/").with_prefix()).await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.user_grant_role("app", "app").await.unwrap();
    auth.auth_enable().await.unwrap();
    root.kv_client().put("other/secret", "x", None).await.unwrap();

    let (app_tunnel, addr) = site.as_client(&site.authority.client(Some("app")));
    let app = load::connect(&addr).await.unwrap();
    app.kv_client().put("app/key", "value", None).await.unwrap();
    assert_eq!(app.kv_client().get("app/key", None).await.unwrap().kvs()[0].value(), b"value");
    let refused = app.kv_client().get("other/secret", None).await.unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "{refused}");
    let log = log_of(app_tunnel);
    let why =
        "etcdproxy: mode tunnel: etcd's grpc-proxy does not accept a client certificate with a common name (\"app\")\n";
    assert!(log.starts_with(why) && log.contains("the tunnel (pid "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_outlive_the_tokens_of_passwords() {
    let cluster = Cluster::start_with(&["--auth-token-ttl", "5"]);
    let admin = load::connect(cluster.client_addr(0)).await.unwrap();
    let mut auth = admin.auth_client();
    auth.user_add("root", "r00t", None).await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.auth_enable().await.unwrap();

    let addr = free_addr(&own_host());
    let credentials = json!({"endpoints": cluster.endpoints(), "username": "root", "password": "r00t"});
    let services = json!({"etcd": [{"name": "e", "credentials": credentials}]}).to_string();
    let mut command = etcdproxy(["run", "--listen-addr", &addr]);
    let tunnel = Process::start(command.env("VCAP_SERVICES", services).stderr(Stdio::piped()));
    wait_ready(&addr);
    let client =
        || async { Client::connect([&addr], Some(ConnectOptions::new().with_user("root", "r00t"))).await.unwrap() };
    let mut watch = client().await.watch_client().watch("k", Some(WatchOptions::new())).await.unwrap();
    assert!(watch.message().await.unwrap().unwrap().created());
    for n in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client().await.put("k", n.to_string(), None).await.unwrap();
        let message = tokio::time::timeout(Duration::from_secs(10), watch.message()).await.expect("an event");
        let value = message.unwrap().unwrap().events()[0].kv().unwrap().value().to_vec();
        assert_eq!(value, n.to_string().as_bytes());
    }
    let mut second = client().await.watch_client().watch("k", None).await.unwrap();
    assert!(second.message().await.unwrap().unwrap().created());
    assert!(log_of(tunnel).contains("mode tunnel: with etcd's grpc-proxy, watches stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_followed_when_their_files_change() {
    let site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = site.authority.client(Some("first")).write(dir.path(), "client");
    let ca = write(dir.path(), "ca.pem", &site.authority.pem);
    let addr = free_addr(&site.host);
    let mut command = tunnel(&site.cluster.endpoints(), &addr);
    let log_file = dir.path().join("log");
    command.stderr(std::fs::File::create(&log_file).unwrap());
    let log = || std::fs::read_to_string(&log_file).unwrap();
    let tunnel = Process::start(command.arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key));
    wait_ready(&addr);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("key", "one", None).await.unwrap();

    // A renewal in two steps; between them, certificate and key do not belong together.
    let second = site.authority.client(Some("second"));
    write(dir.path(), "client.crt", &second.cert);
    load::connect(&addr).await.unwrap().kv_client().put("key", "two", None).await.unwrap();
    write(dir.path(), "client.key", &second.key);
    load::connect(&addr).await.unwrap().kv_client().put("key", "three", None).await.unwrap();
    tunnel.signal(Signal::SIGHUP);
    load::connect(&addr).await.unwrap().kv_client().put("key", "four", None).await.unwrap();
    client.kv_client().put("key", "five", None).await.unwrap();
    assert!(log().contains("the previous certificates stay in use: --key: "), "{}", log());
    // At the change of the key, and at SIGHUP, which the tunnel hears in its own time.
    eventually("they were read twice", || log().matches("the certificates were read again").count() >= 2);
}

/// Waits until the tunnel has no member, and gives the reason.
fn reason_at(addr: &str) -> String {
    let mut reason = String::new();
    eventually("nobody is up", || {
        let (code, _, stderr) = finish(&mut etcdproxy(["health", "--listen-addr", addr]));
        reason = stderr;
        code == 69
    });
    reason
}

#[test]
fn certificates_that_no_longer_fit_take_a_member_down_as_soon_as_they_are_there() {
    let site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &site.authority.pem);
    let [cert, key] = site.authority.client(Some("app")).write(dir.path(), "client");
    let addr = free_addr(&site.host);
    let mut command = tunnel(&site.cluster.endpoints(), &addr);
    let tunnel = Process::start(command.arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key));
    wait_ready(&addr);
    let stranger = Authority::new("another");

    // Here, with clients that come and find it out too.
    write(dir.path(), "ca.pem", &stranger.pem);
    let reason = reason_at(&addr);
    assert!(reason.contains(": its certificate is not signed by the authority of --cacert: is this the"), "{reason}");
    for _ in 0..8 {
        let mut client = TcpStream::connect(&addr).unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        assert!(client.read_exact(&mut [0; 9]).is_err());
        std::thread::sleep(Duration::from_millis(300));
    }
    write(dir.path(), "ca.pem", &site.authority.pem);
    wait_ready(&addr);

    // A client certificate that the members do not trust; with TLS 1.3, they say so after the handshake.
    stranger.client(Some("app")).write(dir.path(), "client");
    tunnel.signal(Signal::SIGHUP);
    let reason = reason_at(&addr);
    assert!(reason.contains(": it refuses the client certificate ("), "{reason}");
    site.authority.client(Some("app")).write(dir.path(), "client");
    wait_ready(&addr);

    // On the member.
    site.cluster.renew_member(0, &stranger.server(&[&site.host], 365));
    let reason = reason_at(&addr);
    assert!(reason.contains(": its certificate is not signed by"), "{reason}");
    let log = log_of(tunnel);
    assert_eq!((log.matches("is down").count(), log.matches("is up").count()), (3, 3), "{log}");
}

#[test]
fn a_web_server_is_no_member() {
    let host = own_host();
    let addr = free_addr(&host);
    let _tunnel = Process::start(tunnel(&web_server(&host), &addr).stderr(Stdio::null()));
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr]));
    assert_eq!(code, 0, "{stderr}");
    eventually("it is looked through", || reason_at(&addr).contains("it speaks HTTP/2, but not gRPC"));
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let tunnel = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", tunnel.pid())).unwrap().count();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", tunnel.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let round = |count| {
        for n in 0..count {
            let mut client = TcpStream::connect(&addr).unwrap();
            match n % 4 {
                0 => {} // says nothing
                1 => client.write_all(b"\x16\x03\x01 garbage").unwrap(),
                2 => client.write_all(&preface[..10]).unwrap(),
                _ => {
                    client.write_all(preface).unwrap();
                    client.read_exact(&mut [0; 9]).unwrap();
                }
            }
        }
    };
    round(500);
    let (files_before, memory_before) = (files(), memory());
    round(10_000);
    eventually("all files are closed", || files() <= files_before);
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < 2_000, "{memory_before} kB and {grown} more");
    assert!(metric(&addr, "refused_connections_total{reason=\"garbage\"}") > 2_000);
    let member = format!("{{member=\"{}\"}}", cluster.endpoints());
    eventually("no connection is open", || metric(&addr, &format!("connections{member}")) == 0);
    assert!(metric(&addr, &format!("connections_total{member}")) > 2_000);
    assert_eq!(metric(&addr, &format!("member_up{member}")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_down_nobody_else_and_fills_no_memory() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let tunnel = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("large", vec![b'x'; 1_000_000], None).await.unwrap();
    // Reads of 1 MB each that nobody takes: as JSON, so that one connection can ask for many.
    let mut slow = TcpStream::connect(&addr).unwrap();
    let body = "{\"key\":\"bGFyZ2U=\"}";
    for _ in 0..100 {
        let request = format!("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        slow.write_all(request.as_bytes()).unwrap();
    }
    for n in 0..50 {
        client.kv_client().put("key", n.to_string(), None).await.unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", tunnel.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 20_000, "{peak} kB");
    drop(slow);
}

#[test]
fn over_its_limit_of_files_it_refuses_and_says_so_and_health_still_answers() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let script = "ulimit -n 104; exec \"$0\" run --mode tunnel --endpoints \"$1\" --listen-addr \"$2\"";
    let mut shell = crate::support::command("/bin/bash".as_ref(), ["-c", script]);
    shell.arg(crate::support::binary()).args([&cluster.endpoints(), &addr]).stderr(Stdio::piped());
    let tunnel = Process::start(&mut shell);
    wait_ready(&addr);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let open = || {
        let mut client = TcpStream::connect(&addr).unwrap();
        client.write_all(preface).unwrap();
        let served = client.read_exact(&mut [0; 9]).is_ok();
        (client, served)
    };
    let (clients, served): (Vec<_>, Vec<_>) = (0..30).map(|_| open()).unzip();
    assert_eq!(served.iter().filter(|served| **served).count(), 20, "(104 - 64) / 2");
    assert!(get(&addr, "/health").starts_with("HTTP/1.1 200"));
    drop(clients);
    eventually("there is room again", || open().1);
    let log = log_of(tunnel);
    let words = "a connection is refused: the tunnel serves at most 20 at once, because ulimit -n is 104: raise it";
    assert_eq!(log.matches(words).count(), 1, "{log}");
}

#[test]
fn it_drains_and_obeys_and_its_port_is_not_shared() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut first = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    let mut second = Process::start(&mut tunnel(&cluster.endpoints(), &addr));
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.is_running());
    let mut client = TcpStream::connect(&addr).unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    client.read_exact(&mut [0; 9]).unwrap();
    first.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(500));
    assert!(first.is_running(), "a client is connected");
    assert!(get(&addr, "/health").starts_with("HTTP/1.1 200"));
    drop(client);
    let started = Instant::now();
    assert_eq!(first.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(first.stderr_text().contains("draining for 8s at most"));
    eventually("the second one serves", || finish(&mut etcdproxy(["health", "--listen-addr", &addr])).0 == 0);
    assert!(lives(second.pid()));
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait().code(), Some(0));
}

#[test]
fn a_member_that_offers_no_health_on_its_port_is_pinged() {
    let host = own_host();
    let http = format!("http://{}", free_addr(&host));
    let cluster = Cluster::start_with(&["--listen-client-http-urls", &http]);
    let addr = free_addr(&host);
    let tunnel = Process::start(tunnel(&cluster.endpoints(), &addr).args(["--preflight", "strict"]));
    wait_ready(&addr);
    let is_ready = || finish(&mut etcdproxy(["health", "--listen-addr", &addr])).0 == 0;
    std::thread::sleep(Duration::from_millis(2500)); // two more pings, on the same connection
    assert!(is_ready());
    cluster.signal_member(0, Signal::SIGSTOP);
    eventually("it is down", || !is_ready());
    cluster.signal_member(0, Signal::SIGCONT);
    eventually("it is up", is_ready);
    let log = log_of(tunnel);
    assert_eq!(log.matches("is up").count(), 2, "{log}");
    assert!(log.contains("is down: it accepts the connection but does not answer within 1.5 s"), "{log}");
}

#[test]
fn exec_uses_it_too_and_the_command_has_the_limit_of_files_that_was_there() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let script = "ulimit -Sn 1000; exec \"$0\" exec --mode tunnel --endpoints \"$1\" --listen-addr \"$2\" -- \
        /bin/sh -c '\"$0\" health && ulimit -Sn' \"$0\"";
    let mut shell = crate::support::command("/bin/sh".as_ref(), ["-c", script]);
    let (code, stdout, stderr) = finish(shell.arg(crate::support::binary()).args([&cluster.endpoints(), &addr]));
    assert_eq!((code, stdout), (0, format!("{addr} is ready\n1000\n")), "{stderr}");
}
