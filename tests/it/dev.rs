//! `etcdproxy dev`

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};

use crate::load;
use crate::support::{
    Cluster, Process, binary, etcdproxy, eventually, fails_with, finish, is_alive, start_proxy, unique_addr,
    unique_host,
};

/// A `dev` that is ready, the pids of its processes, and the address to connect to.
struct Dev {
    process: Process,
    pids: Vec<u32>,
    addr: String,
}

fn dev(temp: &Path, args: &[&str]) -> Command {
    let mut command = etcdproxy([&["dev"], args].concat());
    command.env("TMPDIR", temp);
    command
}

fn start(temp: &Path, args: &[&str]) -> Dev {
    let mut process = Process::start(dev(temp, args).stdout(Stdio::piped()));
    let mut pids = Vec::new();
    for line in BufReader::new(process.stdout()).lines() {
        let line = line.unwrap();
        if let Some((_, pid)) = line.split_once(" pid ") {
            pids.push(pid.parse().unwrap());
        }
        if let Some(rest) = line.strip_prefix("Ready: connect to ") {
            let addr = rest.split(". ").next().unwrap().to_owned();
            return Dev { process, pids, addr };
        }
    }
    panic!("dev ended before it was ready");
}

fn is_empty(dir: &TempDir) -> bool {
    fs::read_dir(dir.path()).unwrap().next().is_none()
}

#[test]
fn a_command_finds_the_cluster_and_its_exit_code_is_returned() {
    let temp = tempfile::tempdir().unwrap();
    let script =
        r#"test "$ETCDPROXY_LISTEN_ADDR" = "$ETCDCTL_ENDPOINTS" && "$0" health && echo "$ETCDPROXY_ENDPOINTS"; exit 7"#;
    let binary = binary();
    let (code, stdout, stderr) = finish(&mut dev(temp.path(), &["--", "sh", "-c", script, binary.to_str().unwrap()]));
    assert_eq!(code, 7, "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].ends_with(" is ready") && lines[1].starts_with("http://127.0.0.1:"), "{stdout}");
    assert!(is_empty(&temp));
}

#[test]
fn the_exit_code_after_a_signal_is_that_of_a_shell() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(finish(&mut dev(temp.path(), &["--", "sh", "-c", "kill -9 $$"])).0, 137);
    let (code, _, stderr) = finish(&mut dev(temp.path(), &["--", "/no/such/command"]));
    assert_eq!(code, 127, "{stderr}");
    assert!(is_empty(&temp));
}

/// A command that writes a file when it runs.
const COMMAND: [&str; 4] = ["--", "sh", "-c", ": >\"$TMPDIR/ran\""];

#[test]
fn a_port_in_use_is_an_error_before_anything_starts() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let line = fails_with(78, &mut dev(temp.path(), &[&["--listen-addr", &addr], &COMMAND[..]].concat()));
    let holder = format!("etcd (pid {}), an etcd proxy", proxy.pid());
    let remedy = "end it, or choose another address with --listen-addr or ETCDPROXY_LISTEN_ADDR";
    assert_eq!(line, format!("etcdproxy: error: {addr} is in use by {holder}: {remedy}"));
    assert!(is_empty(&temp) && proxy.is_running());

    let other = cluster.client_addr(0);
    let error_of_run = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", other]));
    let line = fails_with(78, dev(temp.path(), &COMMAND).env("ETCDPROXY_LISTEN_ADDR", other));
    assert_eq!(line, error_of_run);
    assert!(line.contains(&format!("{other} is in use by etcd (pid ")), "{line}");
    let line = fails_with(78, dev(temp.path(), &COMMAND).env("ETCDPROXY_LISTEN_ADDR", "h"));
    assert!(line.starts_with("etcdproxy: error: ETCDPROXY_LISTEN_ADDR: \"h\" has no port"), "{line}");
    assert!(is_empty(&temp));
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_does_not_mistake_another_cluster_on_its_port_for_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1);
    // A port that is bound but has no listener looks free, but cannot be used.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{}:0", unique_host()).parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let mut command = dev(temp.path(), &[&["--listen-addr", &addr], &COMMAND[..]].concat());
    let mut dev = Process::start(command.stderr(Stdio::piped()));
    eventually("dev has checked the port", || !is_empty(&temp));
    let listener = socket.listen(16).unwrap();
    let member = cluster.client_addr(0).to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut upstream = TcpStream::connect(&member).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    assert_eq!(dev.wait().code(), Some(1));
    let stderr = dev.stderr_text();
    assert!(stderr.contains("proxy ended while starting (") && stderr.contains("address already in use"), "{stderr}");
    assert!(is_empty(&temp), "the command ran");
}

#[test]
fn ctrl_c_and_sigterm_leave_no_process_and_no_file_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let temp = tempfile::tempdir().unwrap();
        let mut dev = start(temp.path(), &["--nodes", "3"]);
        assert_eq!(dev.pids.len(), 4);
        dev.process.signal(signal);
        assert_eq!(dev.process.wait().code(), Some(0));
        assert!(!dev.pids.iter().any(|pid| is_alive(*pid)));
        assert!(is_empty(&temp));
    }
}

#[test]
fn a_signal_during_the_start_leaves_nothing_behind_either() {
    let temp = tempfile::tempdir().unwrap();
    let mut process = Process::start(&mut dev(temp.path(), &["--nodes", "3"]));
    eventually("the data directory exists", || !is_empty(&temp));
    assert_eq!(process.terminate().code(), Some(0));
    assert!(is_empty(&temp));

    let mut process = Process::start(&mut dev(temp.path(), &["--nodes", "3", "--", "sleep", "60"]));
    eventually("the data directory is there", || !is_empty(&temp));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(143), "a command that did not run has not succeeded");
    assert!(is_empty(&temp));
}

#[test]
fn kill_9_leaves_no_process_behind() {
    let temp = tempfile::tempdir().unwrap();
    let mut dev = start(temp.path(), &[]);
    dev.process.kill();
    eventually("its processes have ended", || !dev.pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn the_command_receives_sigterm() {
    let temp = tempfile::tempdir().unwrap();
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let mut process = Process::start(dev(temp.path(), &["--", "sh", "-c", script]).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(process.stdout()).read_line(&mut line).unwrap();
    assert_eq!(process.terminate().code(), Some(9));
    assert!(is_empty(&temp));
}

#[test]
fn dev_ends_when_too_few_members_are_left() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = dev(temp.path(), &[]);
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(process.stdout()).lines().map_while(Result::ok);
    let member: i32 = lines.next().unwrap().split_once(" pid ").unwrap().1.parse().unwrap();
    lines.find(|line| line.starts_with("Ready")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(member), Signal::SIGKILL).unwrap();
    assert_eq!(process.wait().code(), Some(1));
    let stderr = process.stderr_text();
    assert!(stderr.contains("m1 (pid ") && stderr.contains("the proxy or too many members have ended"), "{stderr}");
    assert!(is_empty(&temp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_kept_and_only_one_dev_uses_it_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let args = ["--nodes", "3", "--data-dir", data.to_str().unwrap()];
    let mut first = start(temp.path(), &args);
    load::connect(&first.addr).await.unwrap().put("k", "kept", None).await.unwrap();
    let line = fails_with(73, &mut dev(temp.path(), &args));
    assert!(line.ends_with("is in use by another etcdproxy dev: end it, or name another --data-dir"), "{line}");
    first.process.terminate();

    let mut second = start(temp.path(), &args);
    let got = load::connect(&second.addr).await.unwrap().get("k", None).await.unwrap();
    assert_eq!(got.kvs()[0].value(), b"kept");
    second.process.terminate();

    let line = fails_with(1, &mut dev(temp.path(), &args[2..]));
    assert!(line.ends_with("holds a cluster of 3 members, not 1: use --nodes 3, or another --data-dir"), "{line}");
}
