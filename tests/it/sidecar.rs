//! `run --mode native`: a proxy's life, its clients, its certificates and what it shows.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, WatchOptions};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::load::{self, Load};
use crate::pki::{Authority, Pair, write};
use crate::support::{
    Cluster, Process, Tls, binary, check_prometheus_text, command, enable_auth, etcdproxy, eventually, fails_with,
    finish, free_addr, free_addrs, http, is_ready, makes_progress, open_files, unique_addr, unique_host,
    wait_listening, wait_ready, web_server,
};

/// The command that starts a proxy in mode native.
pub(crate) fn native(endpoints: &str, addr: &str) -> Command {
    let mut command = etcdproxy(["run", "--mode", "native", "--endpoints", endpoints, "--listen-addr", addr]);
    command.stderr(Stdio::piped());
    command
}

/// A proxy through which the cluster answers, and its address.
pub(crate) fn start(cluster: &Cluster) -> (Process, String) {
    let addr = unique_addr();
    let process = Process::start(&mut native(&cluster.endpoints(), &addr));
    wait_ready(&addr);
    (process, addr)
}

/// What a client of HTTP/2 sends first: the preface and empty SETTINGS.
pub(crate) const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Connects to a member through the proxy, up to the header of its SETTINGS.
pub(crate) fn connect_http2(addr: &str) -> io::Result<TcpStream> {
    greet(TcpStream::connect(addr).unwrap())
}

/// The same over any connection.
pub(crate) fn greet(mut client: TcpStream) -> io::Result<TcpStream> {
    client.write_all(GREETING)?;
    client.read_exact(&mut [0; 9])?;
    Ok(client)
}

/// Asks a member something in HTTP/1.1: each such client has its own connection to a member. Up to the status.
pub(crate) fn ask_member(mut client: TcpStream) -> io::Result<TcpStream> {
    client.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")?;
    client.read_exact(&mut [0; 12])?;
    Ok(client)
}

pub(crate) fn get(addr: &str, path: &str) -> String {
    http(addr, "GET", path)
}

/// The value of a metric. `name` includes its labels.
pub(crate) fn metric(addr: &str, name: &str) -> u64 {
    let answer = get(addr, "/metrics");
    let value = answer.lines().find_map(|line| line.strip_prefix(&format!("etcdproxy_{name} ")));
    value.unwrap_or_else(|| panic!("{name}: {answer}")).parse().unwrap()
}

/// A field of `/proc/PID/status`, in kB.
pub(crate) fn memory_kb(process: &Process, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The metrics may be open to people who must not reach the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_for_metrics_does_not_lead_to_the_cluster() {
    let cluster = Cluster::start(1);
    let addrs = free_addrs(&unique_host(), 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let _proxy = Process::start(native(&cluster.endpoints(), addr).args(["--metrics-addr", metrics]));
    wait_ready(addr);
    assert!(get(addr, "/version").contains("etcdserver"));
    assert!(get(metrics, "/metrics").contains("etcdproxy_member_up"));
    assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 OK"));
    assert!(get(metrics, "/version").starts_with("HTTP/1.1 404 Not Found"));
    let read = async { Client::connect([metrics], None).await?.get("a", None).await };
    assert!(!matches!(tokio::time::timeout(Duration::from_secs(2), read).await, Ok(Ok(_))));
    let mut client = Client::connect([addr], None).await.unwrap();
    client.get("a", None).await.unwrap();
}

/// Three members, a proxy to them, its address, and a load that goes through it.
async fn under_load() -> (Cluster, Process, String, Load) {
    let cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster);
    let load = Load::start(&addr, "/load/").await.unwrap();
    makes_progress(&load).await;
    (cluster, proxy, addr, load)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_members_die_and_hang_under_load() {
    let (mut cluster, proxy, _, load) = under_load().await;
    cluster.kill_follower_for_a_while(&load).await;

    let leader = cluster.leader().await;
    cluster.kill_member(leader);
    makes_progress(&load).await;
    cluster.start_member(leader);
    cluster.wait_member(leader);
    makes_progress(&load).await;

    let leader = cluster.leader().await;
    cluster.signal_member(leader, Signal::SIGSTOP);
    makes_progress(&load).await;
    cluster.signal_member(leader, Signal::SIGCONT);
    makes_progress(&load).await;

    let report = load.stop().await.unwrap();
    let log = proxy.into_log();
    assert!(report.nothing_lost(), "{report}\n{log}");
    for message in [
        "is down: the connection is refused",
        "is down: it accepts the connection but does not answer within 0.75 s",
        "is up",
    ] {
        assert!(log.contains(message), "{message}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_all_members_are_down_for_a_while() {
    let (mut cluster, proxy, addr, load) = under_load().await;
    (0..3).for_each(|n| cluster.kill_member(n));
    eventually("no member is up", || finish(&mut etcdproxy(["health", "--listen-addr", &addr])).0 == 69);
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.contains("the cluster does not answer: ") && line.contains("is refused"), "{line}");
    (0..3).for_each(|n| cluster.start_member(n));
    makes_progress(&load).await;
    let report = load.stop().await.unwrap();
    assert!(report.nothing_lost(), "{report}\n{}", proxy.into_log());
}

/// A cluster that identifies users by the common name in their certificate.
struct Site {
    host: String,
    authority: Authority,
    cluster: Cluster,
}

impl Site {
    fn new() -> Self {
        let (host, authority) = (unique_host(), Authority::new("ca"));
        let server = authority.server(&[&host], 365);
        let client_ca = Some(authority.pem.clone());
        let cluster = Cluster::start_on(&host, 1, Some(Tls { server, client_ca }));
        Self { host, authority, cluster }
    }

    /// Starts the proxy with a client certificate, which decides the mode. Also returns its address.
    fn proxy_for(&self, client: &Pair) -> (Process, String) {
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
async fn the_application_is_the_user_named_in_the_client_certificate() {
    let site = Site::new();
    let (_root_proxy, root_addr) = site.proxy_for(&site.authority.client(Some("root")));
    let root = load::connect(&root_addr).await.unwrap();
    enable_auth(&root, &[("root", "unused password"), ("app", "unused password")]).await;
    root.kv_client().put("other/secret", "x", None).await.unwrap();

    let (app_proxy, addr) = site.proxy_for(&site.authority.client(Some("app")));
    let app = load::connect(&addr).await.unwrap();
    app.kv_client().put("app/key", "value", None).await.unwrap();
    assert_eq!(app.kv_client().get("app/key", None).await.unwrap().kvs()[0].value(), b"value");
    let refused = app.kv_client().get("other/secret", None).await.unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "{refused}");
    let log = app_proxy.into_log();
    let reason =
        "etcdproxy: mode native: etcd's grpc-proxy does not accept a client certificate with a common name (\"app\")\n";
    assert!(log.starts_with(reason) && log.contains("the proxy (pid "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_outlive_the_tokens_of_a_login() {
    let cluster = Cluster::start_with(&["--auth-token-ttl", "5"]);
    let admin = load::connect(cluster.client_addr(0)).await.unwrap();
    enable_auth(&admin, &[("root", "r00t")]).await;

    let addr = unique_addr();
    let credentials = json!({"endpoints": cluster.endpoints(), "username": "root", "password": "r00t"});
    let services = json!({"etcd": [{"name": "e", "credentials": credentials}]}).to_string();
    let mut command = etcdproxy(["run", "--listen-addr", &addr]);
    let proxy = Process::start(command.env("VCAP_SERVICES", services).stderr(Stdio::piped()));
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
    assert!(proxy.into_log().contains("mode native: with etcd's grpc-proxy, watches stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_reread_when_their_files_change() {
    let site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = site.authority.client(Some("first")).write(dir.path(), "client");
    let ca = write(dir.path(), "ca.pem", &site.authority.pem);
    let addr = free_addr(&site.host);
    let mut command = native(&site.cluster.endpoints(), &addr);
    let log_file = dir.path().join("log");
    command.stderr(std::fs::File::create(&log_file).unwrap());
    let log = || std::fs::read_to_string(&log_file).unwrap();
    let proxy = Process::start(command.arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key));
    wait_ready(&addr);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("key", "one", None).await.unwrap();

    // A renewal in two steps. Between them, the key does not match the certificate.
    let second = site.authority.client(Some("second"));
    write(dir.path(), "client.crt", &second.cert);
    eventually("the proxy has seen it", || log().contains("the previous certificates stay in use: --key: "));
    load::connect(&addr).await.unwrap().kv_client().put("key", "two", None).await.unwrap();
    write(dir.path(), "client.key", &second.key);
    eventually("the new pair is in use", || log().contains("the certificates were read again"));
    load::connect(&addr).await.unwrap().kv_client().put("key", "three", None).await.unwrap();
    proxy.signal(Signal::SIGHUP);
    load::connect(&addr).await.unwrap().kv_client().put("key", "four", None).await.unwrap();
    client.kv_client().put("key", "five", None).await.unwrap();
    // Once when the key changed, and once after SIGHUP, which the proxy handles some time later.
    eventually("the certificates were read twice", || log().matches("the certificates were read again").count() >= 2);
}

/// A FIFO without a writer blocks its reader, as a hung mount does.
#[test]
fn sighup_while_a_certificate_cannot_be_read_stops_nothing() {
    let site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &site.authority.pem);
    let addr = free_addr(&site.host);
    let mut command = native(&site.cluster.endpoints(), &addr);
    let [cert, key] = site.authority.client(Some("app")).write(dir.path(), "client");
    command.arg("--cacert").arg(&ca).arg("--cert").arg(cert).arg("--key").arg(key);
    let mut proxy = Process::start(command.args(["--drain", "0s"]));
    wait_ready(&addr);
    std::fs::remove_file(&ca).unwrap();
    nix::unistd::mkfifo(&ca, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for _ in 0..3 {
        proxy.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(100));
        wait_ready(&addr);
    }
    assert_eq!(proxy.terminate().code(), Some(0));
}

/// Waits until the proxy has no usable member, and returns the reason.
fn reason_when_down(addr: &str) -> String {
    let mut reason = String::new();
    eventually("no member is up", || {
        let (code, _, stderr) = finish(&mut etcdproxy(["health", "--listen-addr", addr]));
        reason = stderr;
        code == 69
    });
    reason
}

#[test]
fn a_member_cannot_be_used_as_soon_as_certificates_no_longer_match() {
    let site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &site.authority.pem);
    let [cert, key] = site.authority.client(Some("app")).write(dir.path(), "client");
    let addr = free_addr(&site.host);
    let mut command = native(&site.cluster.endpoints(), &addr);
    let proxy = Process::start(command.arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key));
    wait_ready(&addr);
    let stranger = Authority::new("another");

    // The proxy has another CA; connections of clients find that out, too.
    write(dir.path(), "ca.pem", &stranger.pem);
    let reason = reason_when_down(&addr);
    assert!(reason.contains(": its certificate is not signed by the authority of --cacert: is this the"), "{reason}");
    write(dir.path(), "ca.pem", &site.authority.pem);
    wait_ready(&addr);

    // The proxy has a client certificate that the member does not trust. With TLS 1.3, it says so after the handshake.
    stranger.client(Some("app")).write(dir.path(), "client");
    proxy.signal(Signal::SIGHUP);
    let reason = reason_when_down(&addr);
    assert!(reason.contains(": it refuses the client certificate ("), "{reason}");
    site.authority.client(Some("app")).write(dir.path(), "client");
    wait_ready(&addr);

    // The member has a certificate of another CA.
    site.cluster.renew_member(0, &stranger.server(&[&site.host], 365));
    let reason = reason_when_down(&addr);
    assert!(reason.contains(": its certificate is not signed by"), "{reason}");
    let log = proxy.into_log();
    let count = |words: &str| log.matches(words).count();
    assert_eq!((count("new connections fail"), count("new connections succeed again")), (3, 2), "{log}");
    assert_eq!((count("is down"), count("is up")), (0, 1), "the connection of the first probe still works: {log}");
}

#[test]
fn a_web_server_is_not_a_member() {
    let host = unique_host();
    let addr = free_addr(&host);
    let _proxy = Process::start(native(&web_server(&host), &addr).stderr(Stdio::null()));
    wait_listening(&addr);
    eventually("the proxy knows what it is", || reason_when_down(&addr).contains("it speaks HTTP/2, but not gRPC"));
}

#[test]
fn connections_leave_no_file_and_no_memory_behind() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster);
    let files = || open_files(proxy.pid());
    let memory = || memory_kb(&proxy, "VmRSS");
    let open_and_close = |count| {
        for n in 0..count {
            let sent: &[u8] = match n % 4 {
                0 => b"",
                1 => b"\x01\x03\x01 garbage",
                2 => &GREETING[..10],
                _ => {
                    connect_http2(&addr).unwrap();
                    continue;
                }
            };
            TcpStream::connect(&addr).unwrap().write_all(sent).unwrap();
        }
    };
    open_and_close(500);
    let (files_before, memory_before) = (files(), memory());
    open_and_close(10_000);
    eventually("all files are closed", || files() <= files_before);
    let growth = memory().saturating_sub(memory_before);
    assert!(growth < 2_000, "{memory_before} kB, then {growth} kB more");
    assert!(metric(&addr, "refused_connections_total{reason=\"garbage\"}") > 2_000);
    let member = format!("{{member=\"{}\"}}", cluster.endpoints());
    assert_eq!(metric(&addr, &format!("open_connections{member}")), 1, "all clients share it");
    assert_eq!(metric(&addr, &format!("member_up{member}")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_slows_nobody_down_and_uses_no_memory() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("large", vec![b'x'; 1_000_000], None).await.unwrap();
    // Responses of 1 MB each that the client never reads. With JSON, one connection can ask for many.
    let mut slow = TcpStream::connect(&addr).unwrap();
    let body = "{\"key\":\"bGFyZ2U=\"}";
    for _ in 0..100 {
        let request = format!("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        slow.write_all(request.as_bytes()).unwrap();
    }
    for n in 0..50 {
        client.kv_client().put("key", n.to_string(), None).await.unwrap();
    }
    let peak = memory_kb(&proxy, "VmHWM");
    assert!(peak < 20_000, "{peak} kB");
    drop(slow);
}

#[test]
fn at_its_limit_of_open_files_the_proxy_refuses_connections_but_still_reports_health() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let script = "ulimit -n 136; exec \"$0\" run --mode native --endpoints \"$1\" --listen-addr \"$2\"";
    let mut shell = command("/bin/bash".as_ref(), ["-c", script]);
    shell.arg(binary()).args([&cluster.endpoints(), &addr]).stderr(Stdio::piped());
    let proxy = Process::start(&mut shell);
    wait_ready(&addr);
    let clients: Vec<TcpStream> = (0..30).filter_map(|_| connect_http2(&addr).ok()).collect();
    assert_eq!(clients.len(), 20, "(136 - 96) / 2");
    assert!(get(&addr, "/health").starts_with("HTTP/1.1 200"));
    drop(clients);
    eventually("the proxy accepts connections again", || connect_http2(&addr).is_ok());
    let log = proxy.into_log();
    let message = "a connection is refused: the proxy serves at most 20 at once, because ulimit -n is 136: raise it";
    assert_eq!(log.matches(message).count(), 1, "{log}");
}

#[test]
fn the_proxy_drains_and_then_the_proxy_that_stood_by_serves() {
    let cluster = Cluster::start(1);
    let (mut first, addr) = start(&cluster);
    let mut second = Process::start(&mut native(&cluster.endpoints(), &addr));
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.is_running());
    let client = connect_http2(&addr).unwrap();
    first.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(500));
    assert!(first.is_running(), "it ended although a client is connected");
    assert!(get(&addr, "/health").starts_with("HTTP/1.1 200"));
    drop(client);
    let started = Instant::now();
    assert_eq!(first.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(first.stderr_text().contains("draining for 8s at most"));
    eventually("the second proxy serves", || is_ready(&addr));
    assert!(second.is_running());
    assert_eq!(second.terminate().code(), Some(0));
}

#[test]
fn a_member_whose_port_serves_no_health_page_is_probed() {
    let host = unique_host();
    let http = format!("http://{}", free_addr(&host));
    let cluster = Cluster::start_with(&["--listen-client-http-urls", &http]);
    let addr = free_addr(&host);
    let proxy = Process::start(native(&cluster.endpoints(), &addr).args(["--preflight", "strict"]));
    wait_ready(&addr);
    std::thread::sleep(Duration::from_millis(2500)); // two more pings on the same connection
    assert!(is_ready(&addr));
    cluster.signal_member(0, Signal::SIGSTOP);
    eventually("the member is down", || !is_ready(&addr));
    cluster.signal_member(0, Signal::SIGCONT);
    eventually("the member is up", || is_ready(&addr));
    let log = proxy.into_log();
    assert_eq!(log.matches("is up").count(), 2, "{log}");
    assert!(log.contains("is down: it accepts the connection but does not answer within 0.75 s"), "{log}");
}

#[test]
fn exec_can_use_the_proxy_and_its_command_keeps_the_limit_of_open_files() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let script = "ulimit -Sn 1000; exec \"$0\" exec --mode native --endpoints \"$1\" --listen-addr \"$2\" -- \
        /bin/sh -c '\"$0\" health && ulimit -Sn' \"$0\"";
    let mut shell = command("/bin/sh".as_ref(), ["-c", script]);
    let (code, stdout, stderr) = finish(shell.arg(binary()).args([&cluster.endpoints(), &addr]));
    assert_eq!((code, stdout), (0, format!("{addr} is ready\n1000\n")), "{stderr}");
}

#[test]
fn every_sample_exists_from_the_start_and_the_page_is_what_prometheus_reads() {
    let host = unique_host();
    let endpoints = free_addrs(&host, 2).join(",http://");
    let addrs = free_addrs(&host, 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let mut command = native(&endpoints, addr);
    let _proxy = Process::start(command.args(["--preflight", "off", "--metrics-addr", metrics]));
    wait_listening(addr);
    for addr in [addr, metrics] {
        let page = get(addr, "/metrics");
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{page}"
        );
        let (head, text) = page.split_once("\r\n\r\n").unwrap();
        check_prometheus_text(text);
        for member in endpoints.split(",http://") {
            let member = format!("member=\"http://{member}\"");
            for sample in ["open_connections", "connections_total", "sent_bytes_total", "failovers_total", "member_up"]
            {
                assert!(text.contains(&format!("\netcdproxy_{sample}{{{member}}} 0\n")), "{sample}: {text}");
            }
            for kind in ["dns", "refused", "timeout", "unreachable", "protocol", "own_address", "tls"] {
                let sample = format!("etcdproxy_connect_failures_total{{{member},kind=\"{kind}\"}}");
                assert!(text.contains(&sample), "{sample}: {text}");
            }
        }
        for reason in ["limit", "garbage", "tls", "silent"] {
            assert!(
                text.contains(&format!("refused_connections_total{{reason=\"{reason}\"}} 0\n")),
                "{reason}: {text}"
            );
        }
        assert!(text.contains("mode=\"native\"} 1\n") && text.contains("\netcdproxy_clients 0\n"), "{text}");
        // HEAD has the same head, and no body.
        let headers = |head: &str| head.lines().filter(|line| !line.starts_with("Content-Length")).count();
        let answer = http(addr, "HEAD", "/metrics");
        let (head_of_head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!((headers(head_of_head), body), (headers(head), ""));
        assert!(http(addr, "HEAD", "/health").starts_with("HTTP/1.1 503 "));
    }
}

#[test]
fn a_failed_connection_is_counted_with_its_member() {
    let mut cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster);
    cluster.kill_member(0);
    let _ = connect_http2(&addr);
    let labels = format!("{{member=\"{}\",kind=\"refused\"}}", cluster.endpoints());
    eventually("it is counted", || metric(&addr, &format!("connect_failures_total{labels}")) > 0);
}

/// The port for metrics may be open to others. They must not take the application's places, or hold up the end.
#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let cluster = Cluster::start(1);
    let addrs = free_addrs(&unique_host(), 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let script =
        "ulimit -n 136; exec \"$0\" run --mode native --endpoints \"$1\" --listen-addr \"$2\" --metrics-addr \"$3\"";
    let mut shell = command("/bin/bash".as_ref(), ["-c", script]);
    let mut proxy =
        Process::start(shell.arg(binary()).args([&cluster.endpoints(), addr, metrics]).stderr(Stdio::piped()));
    wait_ready(addr);
    let connect = |addr: &String| TcpStream::connect(addr).unwrap();
    let idle: Vec<_> = (0..300).flat_map(|_| [connect(metrics), connect(addr)]).collect();
    let clients: Vec<TcpStream> = (0..20).map(|_| connect_http2(addr).unwrap()).collect();
    assert!(get(metrics, "/metrics").contains("\netcdproxy_clients 20\n"));
    assert!(metric(metrics, "refused_connections_total{reason=\"silent\"}") > 400);
    drop(clients);
    let started = Instant::now();
    assert_eq!(proxy.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(6), "it drained for connections that say nothing");
    assert!(!proxy.stderr_text().contains("cannot accept"));
    drop(idle);
}

#[test]
fn a_client_that_speaks_tls_gets_a_line_in_the_log() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster);
    for _ in 0..3 {
        let mut client = TcpStream::connect(&addr).unwrap();
        client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
        let _ = client.read(&mut [0]);
    }
    assert_eq!(metric(&addr, "refused_connections_total{reason=\"tls\"}"), 3);
    let log = proxy.into_log();
    let line = format!("warning: a client spoke TLS to {addr}, which is plain text: use http://\n");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
}

/// With the usual backlog of 128, the others would try again after a second.
#[test]
fn a_thousand_clients_can_connect_at_once() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster);
    proxy.signal(Signal::SIGSTOP);
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_secs(10));
    let started = Instant::now();
    let clients: Result<Vec<TcpStream>, _> = (0..1000).map(connect).collect();
    assert_eq!(clients.unwrap().len(), 1000);
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    proxy.signal(Signal::SIGCONT);
}
