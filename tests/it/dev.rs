//! `etcdproxy dev`

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::load;
use crate::support::{Process, etcdproxy, eventually, fails_with, finish, lives};

/// A `dev` that is ready, the pids of its parts, and the address to connect to.
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
fn a_command_finds_the_cluster_and_its_code_is_passed_on() {
    let temp = tempfile::tempdir().unwrap();
    let script =
        r#"test "$ETCDPROXY_LISTEN_ADDR" = "$ETCDCTL_ENDPOINTS" && "$0" health && echo "$ETCDPROXY_ENDPOINTS"; exit 7"#;
    let binary = crate::support::binary();
    let (code, stdout, stderr) = finish(&mut dev(temp.path(), &["--", "sh", "-c", script, binary.to_str().unwrap()]));
    assert_eq!(code, 7, "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].ends_with(" is ready") && lines[1].starts_with("http://127.0.0.1:"), "{stdout}");
    assert!(is_empty(&temp));
}

#[test]
fn a_command_ended_by_a_signal_has_the_code_a_shell_gives_it() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(finish(&mut dev(temp.path(), &["--", "sh", "-c", "kill -9 $$"])).0, 137);
    let (code, _, stderr) = finish(&mut dev(temp.path(), &["--", "/no/such/command"]));
    assert_eq!(code, 127, "{stderr}");
    assert!(is_empty(&temp));
}

#[test]
fn ctrl_c_and_sigterm_leave_no_process_and_no_file() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let temp = tempfile::tempdir().unwrap();
        let mut dev = start(temp.path(), &["--nodes", "3"]);
        assert_eq!(dev.pids.len(), 4);
        dev.process.signal(signal);
        assert_eq!(dev.process.wait().code(), Some(0));
        assert!(!dev.pids.iter().any(|pid| lives(*pid)));
        assert!(is_empty(&temp));
    }
}

#[test]
fn a_signal_while_it_starts_leaves_nothing_either() {
    let temp = tempfile::tempdir().unwrap();
    let mut process = Process::start(&mut dev(temp.path(), &["--nodes", "3"]));
    eventually("the data directory is there", || !is_empty(&temp));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(is_empty(&temp));
}

#[test]
fn kill_9_leaves_no_process() {
    let temp = tempfile::tempdir().unwrap();
    let mut dev = start(temp.path(), &[]);
    dev.process.kill();
    eventually("its parts have ended", || !dev.pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn the_command_is_told_of_sigterm() {
    let temp = tempfile::tempdir().unwrap();
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let mut process = Process::start(dev(temp.path(), &["--", "sh", "-c", script]).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(process.stdout()).read_line(&mut line).unwrap();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(9));
    assert!(is_empty(&temp));
}

#[test]
fn it_ends_when_it_can_serve_no_more() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = dev(temp.path(), &[]);
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(process.stdout()).lines().map_while(Result::ok);
    let member: i32 = lines.next().unwrap().split_once(" pid ").unwrap().1.parse().unwrap();
    lines.find(|line| line.starts_with("Ready")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(member), Signal::SIGKILL).unwrap();
    assert_eq!(process.wait().code(), Some(1));
    let stderr = process.stderr_text();
    assert!(stderr.contains("m1 (pid ") && stderr.contains("too few parts are left to serve"), "{stderr}");
    assert!(is_empty(&temp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_kept_and_used_by_one_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let args = ["--nodes", "3", "--data-dir", data.to_str().unwrap()];
    let mut first = start(temp.path(), &args);
    load::connect(&first.addr).await.unwrap().put("k", "kept", None).await.unwrap();
    let line = fails_with(1, &mut dev(temp.path(), &args));
    assert!(line.ends_with("is in use by another etcdproxy dev: end it, or name another --data-dir"), "{line}");
    first.process.signal(Signal::SIGTERM);
    first.process.wait();

    let mut second = start(temp.path(), &args);
    let got = load::connect(&second.addr).await.unwrap().get("k", None).await.unwrap();
    assert_eq!(got.kvs()[0].value(), b"kept");
    second.process.signal(Signal::SIGTERM);
    second.process.wait();

    let line = fails_with(1, &mut dev(temp.path(), &args[2..]));
    assert!(line.ends_with("holds a cluster of 3 members, not 1: use --nodes 3, or another --data-dir"), "{line}");
}
