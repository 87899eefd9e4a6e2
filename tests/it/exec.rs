//! `etcdproxy exec`: a command with the proxy beside it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Cluster, Process, etcdproxy, eventually, fails_with, finish, free_addr, lives, own_host, start_proxy,
};

#[test]
fn the_command_finds_a_cluster_that_answers_and_its_code_is_returned() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let script = "test \"$ETCDCTL_ENDPOINTS\" = \"$ETCDPROXY_LISTEN_ADDR\" && \"$0\" health && exit 7";
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
    command.args(["/bin/sh", "-c", script]).arg(crate::support::binary());
    let (code, stdout, stderr) = finish(&mut command);
    assert_eq!((code, stdout), (7, format!("{addr} is ready\n")), "{stderr}");
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.contains("nothing listens there"), "the proxy is down again: {line}");
}

#[test]
fn signals_reach_the_command_while_the_proxy_serves_on() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '\"$0\" health >health; exit 3' TERM; : >started; while :; do sleep 0.05; done";
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
    command.args(["/bin/sh", "-c", script]).arg(crate::support::binary());
    let mut exec = Process::start(command.current_dir(&dir).stderr(Stdio::null()));
    eventually("the command runs", || dir.path().join("started").exists());
    exec.signal(Signal::SIGTERM);
    assert_eq!(exec.wait().code(), Some(3));
    assert_eq!(std::fs::read_to_string(dir.path().join("health")).unwrap(), format!("{addr} is ready\n"));
}

#[test]
fn signals_that_servers_are_steered_with_are_for_the_command() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let dir = tempfile::tempdir().unwrap();
    let script = "for s in USR1 USR2 QUIT INT; do trap \"echo $s >>got\" $s; done; : >started
        while [ \"$(wc -l <got)\" -lt 4 ]; do sleep 0.05; done";
    std::fs::write(dir.path().join("got"), "").unwrap();
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
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
        eventually("the command has it", || got().ends_with(name));
    }
    assert_eq!(exec.wait().code(), Some(0));
}

#[test]
fn when_anothers_proxy_ends_an_own_one_is_started() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let dir = tempfile::tempdir().unwrap();
    let script = ": >started; until [ -e ended ]; do sleep 0.05; done; \"$0\" wait --timeout 20s";
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
    command.args(["/bin/sh", "-c", script]).arg(crate::support::binary()).current_dir(&dir);
    let mut exec = Process::start(command.stderr(Stdio::piped()));
    eventually("the command runs", || dir.path().join("started").exists());
    proxy.kill();
    std::fs::write(dir.path().join("ended"), "").unwrap();
    assert_eq!(exec.wait().code(), Some(0));
    assert!(exec.stderr_text().contains(&format!("the proxy at {addr} has ended: starting another")));
}

#[test]
fn a_command_that_a_signal_ends_has_the_shells_code_and_one_that_is_not_there_127() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let exec = |command: &[&str]| {
        let args = ["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"];
        finish(etcdproxy(args).args(command))
    };
    assert_eq!(exec(&["/bin/sh", "-c", "kill -9 $$"]).0, 137);
    let (code, _, stderr) = exec(&["/no/such/command"]);
    assert_eq!(code, 127);
    assert!(stderr.contains("cannot run /no/such/command"), "{stderr}");
}

#[test]
fn a_proxy_that_serves_already_is_used_and_left_as_it_is() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let used = format!("etcdproxy: another etcd proxy serves {addr}: it is used with its own settings\n");
    for endpoints in [Some(cluster.endpoints()), None] {
        let mut command = etcdproxy(["exec", "--listen-addr", &addr, "--", "echo", "done"]);
        command.envs(endpoints.map(|endpoints| ("ETCDPROXY_ENDPOINTS", endpoints)));
        let (code, stdout, stderr) = finish(&mut command);
        assert_eq!((code, stdout.as_str(), &stderr), (0, "done\n", &used));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(proxy.is_running());

    proxy.kill();
    let line = fails_with(78, &mut etcdproxy(["exec", "--listen-addr", &addr, "--", "echo", "done"]));
    assert!(line.starts_with("etcdproxy: error: endpoints: none are set"), "{line}");
}

#[test]
fn when_anothers_proxy_ends_and_no_endpoints_are_known_that_is_said_and_the_command_goes_on() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut proxy = start_proxy(&cluster.endpoints(), &addr);
    let dir = tempfile::tempdir().unwrap();
    let script = ": >started; until [ -e ended ]; do sleep 0.05; done; exit 7";
    let mut command = etcdproxy(["exec", "--listen-addr", &addr, "--", "/bin/sh", "-c", script]);
    let mut exec = Process::start(command.current_dir(&dir).stderr(Stdio::piped()));
    eventually("the command runs", || dir.path().join("started").exists());
    proxy.kill();
    let mut said = BufReader::new(exec.stderr()).lines().map_while(Result::ok);
    let problem = format!("error: the proxy at {addr} has ended, and no other can be started: endpoints: none are set");
    assert!(said.any(|line| line.contains(&problem)));
    std::fs::write(dir.path().join("ended"), "").unwrap();
    assert_eq!(exec.wait().code(), Some(7));
}

#[test]
fn without_a_cluster_the_command_is_not_run_and_the_reason_said() {
    let host = own_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let args = ["exec", "--timeout", "2s", "--endpoints", &closed, "--listen-addr", &addr, "--", "echo", "run"];
    let (code, stdout, stderr) = finish(&mut etcdproxy(args));
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("the connection is refused"), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains(&format!("{addr} is not ready after 2s: ")), "{stderr}");
}

#[test]
fn the_proxy_of_a_command_dies_with_its_launcher() {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut command = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
    let mut exec = Process::start(command.args(["sleep", "1"]).stdout(Stdio::null()).stderr(Stdio::null()));
    crate::support::wait_ready(&addr);
    let etcd = crate::support::child_of(exec.pid(), "etcd");
    exec.kill();
    eventually("etcd is gone", || !lives(etcd));
}
