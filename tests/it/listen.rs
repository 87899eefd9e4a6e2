//! `--listen-addr`: names, all their addresses, and Unix sockets.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::load;
use crate::support::{
    Cluster, Process, etcdproxy, eventually, fails_with, finish, free_addr, http, http_over, is_ready, start_proxy,
    succeeds, unique_addr, wait_listening, wait_ready,
};

fn run(mode: &str, endpoints: &str, addr: &str) -> Command {
    let mut command = etcdproxy(["run", "--mode", mode, "--endpoints", endpoints, "--listen-addr", addr]);
    command.stderr(Stdio::piped());
    command
}

/// `localhost`, with a port that is free.
fn localhost() -> (String, String) {
    let port = free_addr("127.0.0.1").rsplit(':').next().unwrap().to_owned();
    (format!("localhost:{port}"), port)
}

#[test]
fn the_proxy_listens_on_all_loopback_addresses_of_localhost() {
    let cluster = Cluster::start(1);
    let (addr, port) = localhost();
    let proxy = Process::start(&mut run("native", &cluster.endpoints(), &addr));
    wait_ready(&addr);
    let each = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    for one in &each {
        assert!(http(one, "GET", "/version").contains("etcdserver"));
        assert!(is_ready(one));
        let mut second = Process::start(&mut run("native", &cluster.endpoints(), one));
        let mut lines = BufReader::new(second.stderr()).lines().map_while(Result::ok);
        assert_eq!(lines.next(), Some(format!("etcdproxy: another etcd proxy serves {one}: standing by")));
        let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", one, "--listen-addr", &addr]));
        assert!(line.contains("is the address the proxy itself listens on"), "{line}");
    }
    let log = proxy.into_log();
    assert!(log.contains(&format!("listens on {addr} ({})\n", each.join(", "))), "{log}");
}

#[test]
fn a_program_on_one_address_of_localhost_is_named() {
    let (addr, port) = localhost();
    let other = TcpListener::bind(format!("[::1]:{port}")).unwrap();
    let args = ["run", "--mode", "native", "--endpoints", "h:1", "--listen-addr", &addr];
    let asked = std::thread::spawn(move || drop(other.incoming().flatten().take(3).collect::<Vec<TcpStream>>()));
    let line = fails_with(78, &mut etcdproxy(args));
    assert!(line.starts_with(&format!("etcdproxy: error: [::1]:{port} is in use by ")), "{line}");
    drop(asked);
}

/// etcd would silently do the same with the name (measured with 3.7.2).
#[test]
fn etcd_listens_on_one_address_of_localhost_and_a_line_says_which() {
    let cluster = Cluster::start(1);
    let (addr, port) = localhost();
    let proxy = Process::start(&mut run("grpc-proxy", &cluster.endpoints(), &addr));
    wait_ready(&addr);
    assert!(is_ready(&format!("127.0.0.1:{port}")));
    assert!(TcpStream::connect(format!("[::1]:{port}")).is_err());
    let log = proxy.into_log();
    let line = format!(
        "warning: {addr} means several addresses, and etcd's grpc-proxy listens on one of them, 127.0.0.1:{port}: use \
         127.0.0.1:{port}, or mode native, which listens on all\n"
    );
    assert_eq!(log.matches(&line).count(), 1, "{log}");
}

#[test]
fn a_name_without_an_address_is_waited_for() {
    for mode in ["grpc-proxy", "native"] {
        let mut proxy = Process::start(&mut run(mode, "127.0.0.1:1", "nohost.invalid:2379"));
        let mut lines = BufReader::new(proxy.stderr()).lines().map_while(Result::ok);
        let line = lines.next().unwrap();
        let start = "etcdproxy: warning: cannot listen on nohost.invalid:2379: its name does not resolve";
        assert!(line.starts_with(start) && line.ends_with("; trying again every second"), "{line}");
        assert!(proxy.is_running());
        proxy.signal(Signal::SIGTERM);
        proxy.wait();
    }
    let (code, _, stderr) = finish(&mut etcdproxy(["health", "--listen-addr", "nohost.invalid:2379"]));
    assert!(code == 69 && stderr.contains("its name does not resolve"), "{stderr}");
}

/// A directory for a socket, and the address.
fn socket() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let addr = format!("unix://{}/etcd.sock", dir.path().display());
    (dir, addr)
}

fn file_of(addr: &str) -> &Path {
    Path::new(addr.strip_prefix("unix://").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_reach_the_cluster_through_a_unix_socket() {
    let cluster = Cluster::start(1);
    let (_dir, addr) = socket();
    let mut proxy = Process::start(&mut run("auto", &cluster.endpoints(), &addr));
    wait_ready(&addr);
    let file = fs::symlink_metadata(file_of(&addr)).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o777, 0o660);

    // A gRPC client that knows Unix sockets: etcd.
    let tcp = unique_addr();
    let etcd = start_proxy(&addr, &tcp);
    let client = load::connect(&tcp).await.unwrap();
    client.kv_client().put("key", "value", None).await.unwrap();
    let connect = || UnixStream::connect(file_of(&addr)).unwrap();
    assert!(http_over(connect(), "GET", "/version").contains("etcdserver"));
    assert!(http_over(connect(), "GET", "/metrics").contains("\netcdproxy_member_up{"));

    assert_eq!(succeeds(&mut etcdproxy(["health", "--listen-addr", &addr])), format!("{addr} is ready\n"));
    wait_listening(&addr);
    proxy.signal(Signal::SIGINT);
    drop((client, etcd));
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!file_of(&addr).exists(), "the socket is removed at the end");
    let log = proxy.stderr_text();
    assert!(log.starts_with("etcdproxy: mode native: etcd's grpc-proxy cannot listen on a Unix socket\n"), "{log}");
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.ends_with("is not ready: nothing listens there"), "{line}");
}

#[test]
fn exec_offers_its_command_a_unix_socket() {
    let cluster = Cluster::start(1);
    let (_dir, addr) = socket();
    let script = "echo $ETCDPROXY_LISTEN_ADDR $ETCDCTL_ENDPOINTS";
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
    let (code, stdout, stderr) = finish(command.args(["sh", "-c", script]));
    assert_eq!((code, stdout), (0, format!("{addr} {addr}\n")), "{stderr}");
    assert!(!file_of(&addr).exists());
}

#[test]
fn a_socket_that_somebody_serves_is_left_to_him_and_a_dead_one_is_replaced() {
    let cluster = Cluster::start(1);
    let (_dir, addr) = socket();
    drop(UnixListener::bind(file_of(&addr)).unwrap());
    let mut first = Process::start(&mut run("native", &cluster.endpoints(), &addr));
    wait_ready(&addr);
    let mut second = Process::start(&mut run("native", &cluster.endpoints(), &addr));
    let mut lines = BufReader::new(second.stderr()).lines().map_while(Result::ok);
    assert_eq!(lines.next(), Some(format!("etcdproxy: another etcd proxy serves {addr}: standing by")));
    first.kill();
    assert!(lines.next().unwrap().ends_with(&format!("listens on {addr}")));
    wait_ready(&addr);
}

#[test]
fn a_file_or_socket_of_another_program_is_an_error_and_stays() {
    let (_dir, addr) = socket();
    let error = || fails_with(78, run("native", "127.0.0.1:1", &addr).args(["--preflight", "off"]));
    fs::write(file_of(&addr), "data").unwrap();
    let line = format!(
        "etcdproxy: error: cannot listen on {addr}: this file is not a socket: move it away, or choose another path"
    );
    assert_eq!(error(), line);
    assert_eq!(fs::read(file_of(&addr)).unwrap(), b"data");
    fs::remove_file(file_of(&addr)).unwrap();
    let other = UnixListener::bind(file_of(&addr)).unwrap();
    let closes = std::thread::spawn(move || other.incoming().flatten().take(3).for_each(drop));
    let line = error();
    assert!(line.starts_with(&format!("etcdproxy: error: {addr} is in use by ")), "{line}");
    closes.join().unwrap();
    let line = fails_with(78, run("native", "127.0.0.1:1", "unix:///no/such/dir/s").args(["--preflight", "off"]));
    assert!(line.contains("cannot listen on unix:///no/such/dir/s: No such file or directory"), "{line}");
}

#[test]
fn etcds_proxy_cannot_listen_on_a_unix_socket() {
    let line = fails_with(78, &mut run("grpc-proxy", "h:1", "unix:///run/etcd.sock"));
    assert_eq!(
        line,
        "etcdproxy: error: --listen-addr: etcd's grpc-proxy cannot listen on a Unix socket: use --mode native, or write \
         host:port, as in 127.0.0.1:2379"
    );
}

#[test]
fn the_endpoint_of_the_own_socket_is_refused() {
    let args = ["run", "--endpoints", "unix:///run/e.sock", "--listen-addr", "unix:///run/e.sock"];
    let line = fails_with(78, &mut etcdproxy(args));
    assert!(line.contains("unix:///run/e.sock is the address the proxy itself listens on"), "{line}");
}

mod needs_root {
    use super::*;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use crate::support::{Lines, as_user, binary, child_of, command, unique_host};

    /// In a mount namespace of its own, where `/etc/hosts` is the test's.
    fn with_hosts(hosts: &Path, args: &[&str]) -> Command {
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut unshare = command("unshare".as_ref(), ["--mount", "sh", "-c", script]);
        unshare.arg(hosts).arg(binary()).args(args);
        unshare
    }

    #[test]
    #[ignore = "needs root: it changes /etc/hosts in a mount namespace"]
    fn the_proxy_listens_on_all_addresses_of_any_name() {
        let cluster = Cluster::start(1);
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        let (one, two) = (unique_addr(), unique_host());
        let (ip, port) = one.rsplit_once(':').unwrap();
        fs::write(&hosts, format!("{ip} etcd.internal\n{two} etcd.internal\n192.0.2.1 elsewhere.internal\n")).unwrap();
        let addr = format!("etcd.internal:{port}");
        let endpoints = cluster.endpoints();
        let run = ["run", "--mode", "native", "--endpoints", &endpoints, "--listen-addr"];
        let metrics = format!("etcd.internal:{}", unique_addr().rsplit_once(':').unwrap().1);
        let mut command = with_hosts(&hosts, &[&run[..], &[&addr, "--metrics-addr", &metrics]].concat());
        let proxy = Process::start(command.stderr(Stdio::piped()));
        wait_ready(&one);
        wait_ready(&format!("{two}:{port}"));
        succeeds(&mut with_hosts(&hosts, &["health", "--listen-addr", &addr]));
        assert!(http(&metrics.replace("etcd.internal", &two), "GET", "/health").starts_with("HTTP/1.1 200"));
        let log = proxy.into_log();
        assert!(log.contains(&format!("listens on {addr} (")) && !log.contains("not a loopback address"), "{log}");

        let line = fails_with(78, &mut with_hosts(&hosts, &[&run[..], &["elsewhere.internal:1"]].concat()));
        let expected = "etcdproxy: error: elsewhere.internal:1 is not an address of this host: choose another with ";
        assert!(line.starts_with(expected), "{line}");
        eventually("the port is free", || TcpStream::connect(&one).is_err());
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn process_1_ends_by_sigterm_while_it_waits_to_become_etcd() {
        let cluster = Cluster::start(1);
        let addr = unique_addr();
        let _first = Process::start(&mut run("native", &cluster.endpoints(), &addr));
        wait_ready(&addr);
        for (addr, line) in
            [(addr.as_str(), ": standing by\n"), ("nohost.invalid:2379", "; trying again every second\n")]
        {
            let mut init = command("unshare".as_ref(), ["--pid", "--fork", "--kill-child", "--mount-proc"]);
            init.arg(binary()).args(["run", "--mode", "grpc-proxy", "--drain", "off", "--listen-addr", addr]);
            let mut outer = Process::start(init.args(["--endpoints", &cluster.endpoints()]).stderr(Stdio::piped()));
            Lines::of(&mut outer).wait_for(line);
            let pid = child_of(outer.pid(), "etcdproxy").try_into().unwrap();
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
            assert_eq!(outer.wait().code(), Some(143));
        }
    }

    #[test]
    #[ignore = "needs root: another user holds the name of the address"]
    fn another_user_cannot_reserve_an_address_for_ever() {
        let cluster = Cluster::start(1);
        let addr = unique_addr();
        // It stops while it tries an endpoint that says nothing.
        let silent = TcpListener::bind((unique_host(), 0)).unwrap();
        let mut squatter = as_user(65534, &binary());
        let endpoint = silent.local_addr().unwrap().to_string();
        squatter.args(["run", "--mode", "native", "--endpoints", &endpoint, "--listen-addr", &addr]);
        let squatter = Process::start(squatter.stderr(Stdio::null()));
        let name = format!("@etcdproxy/{addr}");
        eventually("it holds the name", || fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
        squatter.signal(Signal::SIGSTOP);
        let mut proxy = Process::start(&mut run("native", &cluster.endpoints(), &addr));
        let mut lines = BufReader::new(proxy.stderr()).lines().map_while(Result::ok);
        assert_eq!(lines.next(), Some(format!("etcdproxy: another etcd proxy serves {addr}: standing by")));
        let line = format!("another user's program reserves {addr}, but nothing has listened there for 1");
        assert!(lines.next().unwrap().contains(&line));
        wait_ready(&addr);
    }
}
