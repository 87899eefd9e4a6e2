//! `run --drain`: etcdproxy supervises etcd.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load;
use crate::support::{
    Cluster, Process, binary, check_prometheus_text, child_of, command, enable_auth, etcdproxy, eventually, fails_with,
    finish, free_addr, free_addrs, http, is_alive, is_ready, link, manifest_value, unique_addr, unique_host,
    wait_listening, wait_ready,
};

fn run(endpoints: &str, addr: &str, drain: &str) -> Command {
    let mut command = etcdproxy(["run", "--endpoints", endpoints, "--listen-addr", addr, "--drain", drain]);
    command.stderr(Stdio::piped());
    command
}

/// A proxy through which the cluster answers, and its address.
fn start(cluster: &Cluster, drain: &str) -> (Process, String) {
    let addr = unique_addr();
    let proxy = Process::start(&mut run(&cluster.endpoints(), &addr, drain));
    wait_ready(&addr);
    (proxy, addr)
}

/// The etcd that a proxy supervises.
fn etcd_of(proxy: &Process) -> u32 {
    child_of(proxy.pid(), "etcd")
}

fn kill_etcd_of(proxy: &Process) -> u32 {
    let pid = etcd_of(proxy);
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_the_proxy_serves_until_its_client_disconnects() {
    let cluster = Cluster::start(1);
    let (mut proxy, addr) = start(&cluster, "60s");
    let client = load::connect(&addr).await.unwrap();
    let mut kv = client.kv_client();
    kv.put("key", "before", None).await.unwrap();

    proxy.signal(Signal::SIGTERM);
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kv.put("key", n.to_string(), None).await.unwrap();
    }
    assert!(proxy.is_running());
    drop((client, kv));
    let started = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "it kept waiting without a client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stays_is_cut_off_when_the_time_is_up_or_a_second_signal_arrives() {
    let cluster = Cluster::start(1);
    for (drain, second_signal) in [("1s", false), ("60s", true)] {
        let (mut proxy, addr) = start(&cluster, drain);
        let client = load::connect(&addr).await.unwrap();
        client.kv_client().put("key", "value", None).await.unwrap();
        let etcd = etcd_of(&proxy);
        proxy.signal(Signal::SIGTERM);
        if second_signal {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(proxy.is_running());
            proxy.signal(Signal::SIGINT);
        }
        assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.stderr_text());
        assert!(!is_alive(etcd));
    }
}

#[test]
fn etcd_is_restarted_when_it_ends_and_never_outlives_the_proxy() {
    let cluster = Cluster::start(1);
    let (mut proxy, addr) = start(&cluster, "0s");
    for _ in 0..3 {
        let dead = kill_etcd_of(&proxy);
        eventually("another etcd runs", || etcd_of(&proxy) != dead);
        wait_ready(&addr);
    }
    let etcd = etcd_of(&proxy);
    proxy.kill();
    eventually("etcd has ended with the proxy", || !is_alive(etcd));
    let log = proxy.stderr_text();
    let restarts: Vec<&str> = log.lines().filter(|line| line.contains("etcd's proxy ended (SIGKILL)")).collect();
    assert_eq!(restarts.len(), 3, "{log}");
    for (line, pause) in restarts.iter().zip(["200ms", "400ms", "800ms"]) {
        assert!(line.ends_with(&format!("starting it again in {pause}")), "{line}");
    }
}

#[test]
fn etcd_is_not_restarted_with_a_setting_that_it_rejects() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let mut command = etcdproxy(["run", "--preflight", "off", "--endpoints", &closed, "--listen-addr", &addr]);
    command.args(["--mode", "grpc-proxy", "--drain", "1s", "--", "--no-such-flag"]);
    let (code, _, stderr) = finish(&mut command);
    assert_eq!(code, 78, "{stderr}");
    assert_eq!(
        stderr,
        "etcdproxy: error: etcd: unknown flag: --no-such-flag\n\
         etcdproxy: error: etcd does not start (exit code 1): unknown flag: --no-such-flag: change the setting, or \
         the flags after --\n"
    );
}

#[test]
fn etcd_is_not_restarted_when_it_rejects_a_setting_after_opening_its_port() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let mut command = etcdproxy(["run", "--preflight", "off", "--endpoints", &closed, "--listen-addr", &addr]);
    command.args(["--drain", "1s", "--", "--cert-file=/no/such.crt", "--key-file=/no/such.key"]);
    let (code, _, stderr) = finish(&mut command);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("open /no/such.crt: no such file or directory"), "{stderr}");
}

#[test]
fn an_earlier_health_check_does_not_delay_the_end() {
    let cluster = Cluster::start(1);
    let (mut proxy, addr) = start(&cluster, "60s");
    let mut client = std::net::TcpStream::connect(&addr).unwrap();
    client.write_all(b"GET /proxy/health HTTP/1.0\r\n\r\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    let started = Instant::now();
    assert_eq!(proxy.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "etcd's connection to itself was counted as a client");
}

#[test]
fn a_proxy_that_stands_by_or_checks_its_endpoints_ends_at_once() {
    let cluster = Cluster::start(1);
    let host = unique_host();
    let addr = free_addr(&host);
    let _first = Process::start(run(&cluster.endpoints(), &addr, "0s").stderr(Stdio::null()));
    wait_ready(&addr);
    cluster.signal_member(0, Signal::SIGSTOP);
    for addr in [addr, free_addr(&host)] {
        let mut second = Process::start(&mut run(&cluster.endpoints(), &addr, "60s"));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(second.terminate().code(), Some(0), "{}", second.stderr_text());
    }
}

#[test]
fn sighup_is_ignored_if_it_was_ignored_at_the_start() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let script = "trap '' HUP; exec \"$0\" run --endpoints \"$1\" --listen-addr \"$2\" --drain 0s";
    let mut shell = command("/bin/sh".as_ref(), ["-c", script]);
    shell.arg(binary()).args([&cluster.endpoints(), &addr]).stderr(Stdio::null());
    let mut proxy = Process::start(&mut shell);
    wait_ready(&addr);
    proxy.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    assert!(proxy.is_running());
    assert_eq!(proxy.terminate().code(), Some(0));
}

#[test]
fn a_normal_start_logs_one_line_and_a_lasting_failure_is_logged_once() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let args = ["--mode", "grpc-proxy", "--preflight", "off"]; // auto would say why
    let mut proxy = Process::start(run(&closed, &addr, "0s").args(args));
    wait_listening(&addr);
    fails_with(69, &mut etcdproxy(["wait", "--timeout", "3s", "--listen-addr", &addr]));
    assert_eq!(proxy.terminate().code(), Some(0));
    let log = proxy.stderr_text();
    let (failures, rest): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.contains("cannot be reached"));
    let failure = format!(
        "etcdproxy: warning: the endpoint {closed} cannot be reached: the connection is refused: nothing listens there"
    );
    assert_eq!(failures, [failure], "{log}");
    assert_eq!(rest.len(), 1, "{log}");
    assert!(rest[0].starts_with("etcdproxy: etcd's proxy (pid ") && rest[0].ends_with(&format!("listens on {addr}")));
}

#[test]
fn the_return_of_an_endpoint_is_logged() {
    let mut cluster = Cluster::start(1);
    let (mut proxy, addr) = start(&cluster, "0s");
    cluster.kill_member(0);
    fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    cluster.start_member(0);
    wait_ready(&addr);
    proxy.kill();
    let log = proxy.stderr_text();
    let endpoint = cluster.client_addr(0);
    let failed = log.find(&format!("the endpoint {endpoint} cannot be reached")).unwrap_or_else(|| panic!("{log}"));
    assert!(log[failed..].contains(&format!("the endpoint {endpoint} is connected")), "{log}");
}

#[test]
fn logs_can_be_json_or_unchanged() {
    let host = unique_host();
    let closed = free_addr(&host);
    let log = |format: &str| {
        let addr = free_addr(&host);
        let mut proxy = Process::start(run(&closed, &addr, "0s").args(["--log-format", format]));
        wait_listening(&addr);
        assert_eq!(proxy.terminate().code(), Some(0));
        proxy.stderr_text()
    };
    let json = log("json");
    for line in json.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(["info", "warn"].contains(&entry["level"].as_str().unwrap()) && entry["ts"].is_string(), "{line}");
        assert!(entry["msg"].is_string() && entry["logger"] == "etcdproxy", "{line}");
    }
    assert!(json.contains("the connection is refused"), "{json}");
    assert!(log("raw").contains("\"msg\":\"started gRPC proxy\""));
    let args = ["run", "--endpoints", "h", "--log-format", "json"];
    let line = fails_with(2, &mut etcdproxy(args));
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().starts_with("--endpoints: \"h\" has no port"), "{line}");
}

#[test]
fn a_second_proxy_stands_by_and_takes_over() {
    let cluster = Cluster::start(1);
    let (mut first, addr) = start(&cluster, "0s");
    let mut second = Process::start(&mut run(&cluster.endpoints(), &addr, "0s"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(second.is_running());
    first.kill();
    eventually("the second proxy serves", || is_ready(&addr) && etcd_of(&second) > 0);
    second.kill();
    assert!(second.stderr_text().contains(&format!("another etcd proxy serves {addr}: standing by")));
}

/// The metrics of a supervised etcd: the launcher's own, and those of etcd's proxy.
#[test]
fn the_metrics_port_of_a_supervised_etcd_shows_its_state_and_its_restarts() {
    let cluster = Cluster::start(1);
    let addrs = free_addrs(&unique_host(), 2);
    let [addr, metrics] = &addrs[..] else { unreachable!() };
    let mut proxy = Process::start(run(&cluster.endpoints(), addr, "8s").args(["--metrics-addr", metrics]));
    wait_ready(addr);
    let page = || http(metrics, "GET", "/metrics");
    let labels = format!("version=\"{}\",etcd_version=\"{}\"", env!("CARGO_PKG_VERSION"), manifest_value("  version:"));
    eventually("etcd is healthy", || page().contains("\netcdproxy_etcd_healthy 1\n"));
    let text = page();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    for sample in [
        &format!("etcdproxy_build_info{{{labels},mode=\"grpc-proxy\"}} 1"),
        "etcdproxy_etcd_up 1",
        "etcdproxy_etcd_restarts_total{reason=\"ended\"} 0",
        "etcdproxy_etcd_restarts_total{reason=\"stuck\"} 0",
        "etcdproxy_etcd_clients 0",
    ] {
        assert!(text.contains(&format!("\n{sample}\n")), "{sample}: {text}");
    }
    assert!(
        text.contains("\ngo_goroutines ") && text.contains("\netcd_grpc_proxy_"),
        "no metrics of etcd's proxy: {text}"
    );
    check_prometheus_text(text.split_once("\r\n\r\n").unwrap().1);
    assert!(http(metrics, "GET", "/health").starts_with("HTTP/1.1 200 OK"));
    let head = http(metrics, "HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");

    kill_etcd_of(&proxy);
    eventually("the restart is counted", || page().contains("\netcdproxy_etcd_restarts_total{reason=\"ended\"} 1\n"));
    wait_ready(addr);
    // Nobody can keep others out, or hold up the end, with connections that say nothing.
    let idle: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(metrics).unwrap()).collect();
    eventually("etcd is up", || page().contains("\netcdproxy_etcd_up 1\n"));
    let started = Instant::now();
    assert_eq!(proxy.terminate().code(), Some(0), "{}", proxy.stderr_text());
    assert!(started.elapsed() < Duration::from_secs(6), "it drained for connections to the metrics port");
    drop(idle);
}

#[test]
fn an_address_for_metrics_that_is_in_use_is_an_error_that_names_it() {
    let host = unique_host();
    let other = std::net::TcpListener::bind((host.as_str(), 0)).unwrap();
    let metrics = other.local_addr().unwrap().to_string();
    for mode in ["grpc-proxy", "native"] {
        let mut command = run(&free_addr(&host), &free_addr(&host), "1s");
        let command = command.args(["--preflight", "off", "--mode", mode, "--metrics-addr", &metrics]);
        let line = fails_with(78, command);
        let holder = std::process::id();
        assert!(line.starts_with(&format!("etcdproxy: error: {metrics} is in use by ")), "{line}");
        assert!(line.contains(&format!("(pid {holder}), which is not etcd's proxy")), "{line}");
    }
}

/// etcd's own pause between two attempts to connect is 10 s after a quarter of a minute, and grows up to two minutes.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_started_again_when_it_does_not_find_back_to_its_member() {
    let mut cluster = Cluster::start(1);
    let addr = unique_addr();
    let dir = tempfile::tempdir().unwrap();
    let log_file = dir.path().join("log");
    let log = || std::fs::read_to_string(&log_file).unwrap();
    let mut command = run(&cluster.endpoints(), &addr, "0s");
    command.args(["--log-format", "raw"]).stderr(std::fs::File::create(&log_file).unwrap());
    let _proxy = Process::start(&mut command);
    wait_ready(&addr);
    cluster.kill_member(0);
    let attempts = || log().matches("createTransport failed to connect").count();
    eventually("etcd has tried six times to connect", || attempts() >= 6);
    cluster.start_member(0);
    cluster.wait_member(0);
    let client = load::connect(&addr).await.unwrap();
    let put = async { while client.kv_client().put("key", "value", None).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), put).await.expect("calls work again");
    let log = log();
    let message = "a member serves again, and etcd's proxy has not noticed for 3 s: starting it again";
    assert_eq!(log.matches(message).count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_left_alone_while_a_new_start_would_not_help() {
    let mut cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster, "0s");
    let etcd = etcd_of(&proxy);
    // One member of three answers, and says that there is no leader.
    (0..2).for_each(|n| cluster.kill_member(n));
    eventually("the cluster does not answer", || !is_ready(&addr));
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(etcd_of(&proxy), etcd);
    (0..2).for_each(|n| cluster.start_member(n));
    wait_ready(&addr);
    // The cluster refuses the anonymous read behind /health.
    let client = load::connect(&addr).await.unwrap();
    enable_auth(&client, &[("root", "r00t")]).await;
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(etcd_of(&proxy), etcd);
    assert!(!proxy.into_log().contains("starting it again"));
}

#[test]
fn usr1_and_usr2_do_not_end_a_launcher() {
    let cluster = Cluster::start(1);
    for mode in ["grpc-proxy", "native"] {
        let addr = unique_addr();
        let mut proxy = Process::start(run(&cluster.endpoints(), &addr, "0s").args(["--mode", mode]));
        wait_ready(&addr);
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
            proxy.signal(signal);
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(proxy.is_running() && is_ready(&addr));
        assert_eq!(proxy.terminate().code(), Some(0));
    }
}

/// A proxy of the application's own, as in a manifest for the 2019 buildpack, logs what is asked of it.
#[test]
fn standing_by_for_another_program_asks_it_nothing() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let dir = tempfile::tempdir().unwrap();
    let log_file = dir.path().join("log");
    let args = ["grpc-proxy", "start", "--endpoints", &closed, "--listen-addr", &addr, "--advertise-client-url", &addr];
    let mut etcd = command(&link(dir.path(), "etcd"), args);
    let mut etcd = Process::start(etcd.stdout(Stdio::null()).stderr(std::fs::File::create(&log_file).unwrap()));
    wait_listening(&addr);
    let mut second = Process::start(run(&closed, &addr, "0s").args(["--preflight", "off"]));
    let mut lines = BufReader::new(second.stderr()).lines().map_while(Result::ok);
    assert_eq!(lines.next(), Some(format!("etcdproxy: another etcd proxy serves {addr}: standing by")));
    let asked = || std::fs::read_to_string(&log_file).unwrap().matches("health error").count();
    let before = asked();
    assert!(before <= 1, "it needs one question to find out what listens there");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(asked(), before);
    etcd.kill();
    assert!(lines.any(|line| line.ends_with(&format!("listens on {addr}"))));
}

#[test]
fn the_service_manager_learns_of_start_and_stop() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = run(&cluster.endpoints(), &addr, "0s");
    let mut proxy = Process::start(command.env("NOTIFY_SOCKET", dir.path().join("notify")));
    let message = || {
        let mut text = [0; 100];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(message(), "READY=1");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(message(), "STOPPING=1");
    assert_eq!(proxy.wait().code(), Some(0));
}
