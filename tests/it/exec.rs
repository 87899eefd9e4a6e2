//! `etcdproxy exec` runs a command with the proxy beside it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Cluster, Process, binary, child_of, etcdproxy, eventually, fails_with, finish, free_addr, is_alive, start_proxy,
    unique_addr, unique_host, wait_ready,
};

/// `exec`, still without its command.
fn exec(endpoints: &str, addr: &str) -> Command {
    etcdproxy(["exec", "--endpoints", endpoints, "--listen-addr", addr, "--"])
}

#[test]
fn the_command_finds_a_ready_cluster_and_its_exit_code_is_returned() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let script = "test \"$ETCDCTL_ENDPOINTS\" = \"$ETCDPROXY_LISTEN_ADDR\" && \"$0\" health && exit 7";
    let mut command = exec(&cluster.endpoints(), &addr);
    command.args(["/bin/sh", "-c", script]).arg(binary());
    let (code, stdout, stderr) = finish(&mut command);
    assert_eq!((code, stdout), (7, format!("{addr} is ready\n")), "{stderr}");
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.contains("nothing listens there"), "the proxy has ended: {line}");
}

#[test]
fn signals_reach_the_command_while_the_proxy_keeps_serving() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '\"$0\" health >health; exit 3' TERM; : >started; while :; do sleep 0.05; done";
    let mut command = exec(&cluster.endpoints(), &addr);
    command.args(["/bin/sh", "-c", script]).arg(binary());
    let mut exec = Process::start(command.current_dir(&dir).stderr(Stdio::null()));
    eventually("the command runs", || dir.path().join("started").exists());
    exec.signal(Signal::SIGTERM);
    assert_eq!(exec.wait().code(), Some(3));
    assert_eq!(std::fs::read_to_string(dir.path().join("health")).unwrap(), format!("{addr} is ready\n"));
}

#[test]
fn usr1_usr2_quit_and_int_go_to_the_command() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let dir = tempfile::tempdir().unwrap();
    let script = "for s in USR1 USR2 QUIT INT; do trap \"echo $s >>got\" $s; done; : >started
        while [ \"$(wc -l <got)\" -lt 4 ]; do sleep 0.05; done";
    std::fs::write(dir.path().join("got"), "").unwrap();
    let mut command = exec(&cluster.endpoints(), &addr);
    command.args(["/bin/sh", "-c", script]).current_dir(&dir).stderr(Stdio::null());
    let mut exec = Process::start(&mut command);
    eventually("the command runs", || dir.path().join("started").exists());
    let got = || std::fs::read_to_string(dir.path().join("got")).unwrap();
    for (signal, name) in [
        (Signal::SIGUSR1, "USR1\n"),
        (Signal::SIGUSR2, "USR2\n"),
        (Signal::SIGQUIT, "QUIT\n"),
        (Signal::SIGINT, "INT\n"),
    ] {
        exec.signal(signal);
        eventually("the command has received it", || got().ends_with(name));
    }
    assert_eq!(exec.wait().code(), Some(0));
}

#[test]
fn exec_starts_a_proxy_when_the_one_it_used_ends() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let dir = tempfile::tempdir().unwrap();
    let script = ": >started; until [ -e ended ]; do sleep 0.05; done; \"$0\" wait --timeout 20s";
    let mut command = exec(&cluster.endpoints(), &addr);
    command.args(["/bin/sh", "-c", script]).arg(binary()).current_dir(&dir);
    let mut exec = Process::start(command.stderr(Stdio::piped()));
    eventually("the command runs", || dir.path().join("started").exists());
    proxy.kill();
    std::fs::write(dir.path().join("ended"), "").unwrap();
    assert_eq!(exec.wait().code(), Some(0));
    assert!(exec.stderr_text().contains(&format!("the proxy at {addr} has ended: starting another")));
}

#[test]
fn the_exit_codes_after_a_signal_and_for_a_missing_command_are_those_of_a_shell() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let run = |command: &[&str]| finish(exec(&cluster.endpoints(), &addr).args(command));
    assert_eq!(run(&["/bin/sh", "-c", "kill -9 $$"]).0, 137);
    let (code, _, stderr) = run(&["/no/such/command"]);
    assert_eq!(code, 127);
    assert!(stderr.contains("cannot run /no/such/command"), "{stderr}");
}

#[test]
fn a_proxy_that_already_serves_is_used_and_left_alone() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let notice = format!("etcdproxy: another etcd proxy serves {addr}: it is used with its own settings\n");
    for endpoints in [Some(cluster.endpoints()), None] {
        let mut command = etcdproxy(["exec", "--listen-addr", &addr, "--", "echo", "done"]);
        command.envs(endpoints.map(|endpoints| ("ETCDPROXY_ENDPOINTS", endpoints)));
        let (code, stdout, stderr) = finish(&mut command);
        assert_eq!((code, stdout.as_str(), &stderr), (0, "done\n", &notice));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(proxy.is_running());

    proxy.kill();
    let line = fails_with(78, &mut etcdproxy(["exec", "--listen-addr", &addr, "--", "echo", "done"]));
    assert!(line.starts_with("etcdproxy: error: endpoints: none are set"), "{line}");
}

#[test]
fn without_endpoints_the_end_of_the_used_proxy_is_reported_and_the_command_continues() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let dir = tempfile::tempdir().unwrap();
    let script = ": >started; until [ -e ended ]; do sleep 0.05; done; exit 7";
    let mut command = etcdproxy(["exec", "--listen-addr", &addr, "--", "/bin/sh", "-c", script]);
    let mut exec = Process::start(command.current_dir(&dir).stderr(Stdio::piped()));
    eventually("the command runs", || dir.path().join("started").exists());
    proxy.kill();
    let mut lines = BufReader::new(exec.stderr()).lines().map_while(Result::ok);
    let problem = format!("error: the proxy at {addr} has ended, and no other can be started: endpoints: none are set");
    assert!(lines.any(|line| line.contains(&problem)));
    std::fs::write(dir.path().join("ended"), "").unwrap();
    assert_eq!(exec.wait().code(), Some(7));
}

#[test]
fn without_a_cluster_the_command_does_not_run_and_the_reason_is_reported() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let args = ["exec", "--timeout", "2s", "--endpoints", &closed, "--listen-addr", &addr, "--", "echo", "run"];
    let (code, stdout, stderr) = finish(&mut etcdproxy(args));
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("the connection is refused"), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains(&format!("{addr} is not ready after 2s: ")), "{stderr}");
}

#[test]
fn the_proxy_of_a_command_dies_with_exec() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let mut command = exec(&cluster.endpoints(), &addr);
    let mut exec = Process::start(command.args(["sleep", "1"]).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_ready(&addr);
    let etcd = child_of(exec.pid(), "etcd");
    exec.kill();
    eventually("etcd is gone", || !is_alive(etcd));
}
