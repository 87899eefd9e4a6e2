//! `etcdproxy run` and the links.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{
    Process, command, etcdproxy, fails_with, finish, free_addr, in_manifest, link, own_host, unpack_dir,
};

/// A proxy opens its port whether or not its cluster is there.
fn closed() -> String {
    free_addr(&own_host())
}

#[test]
fn run_becomes_etcd_with_the_same_pid_and_hands_on_what_follows_the_dashes() {
    let addr = free_addr(&own_host());
    let args = ["run", "--endpoints", &closed(), "--listen-addr", &addr, "--", "--max-send-bytes=4194304"];
    let mut run = Process::start(etcdproxy(args).stderr(Stdio::null()));
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr]));
    assert_eq!(code, 0, "{stderr}");

    let exe = fs::read_link(format!("/proc/{}/exe", run.pid())).unwrap();
    assert!(exe.starts_with(unpack_dir()) && exe.ends_with("etcd"), "{}", exe.display());
    let args = fs::read_to_string(format!("/proc/{}/cmdline", run.pid())).unwrap();
    let args: Vec<&str> = args.split('\0').collect();
    assert_eq!(args[..3], ["etcd", "grpc-proxy", "start"]);
    assert!(args.contains(&"--max-send-bytes=4194304"));

    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().signal(), Some(15));
}

#[test]
fn etcd_gets_no_http_proxy_no_secret_a_memory_limit_and_a_directory_of_its_own() {
    let proxied = [("HTTPS_PROXY", "http://proxy.invalid:1"), ("no_proxy", "x"), ("VCAP_SERVICES", "{}")];
    let environment = |more: (&str, &str)| {
        let addr = free_addr(&own_host());
        let args = ["run", "--preflight", "off", "--memory", "64", "--endpoints", &closed(), "--listen-addr", &addr];
        let run = Process::start(etcdproxy(args).envs(proxied).envs([more]).stderr(Stdio::null()));
        assert_eq!(finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr])).0, 0);
        assert_eq!(fs::read_link(format!("/proc/{}/cwd", run.pid())).unwrap().to_str(), Some("/"));
        let environment = fs::read_to_string(format!("/proc/{}/environ", run.pid())).unwrap();
        environment.split('\0').map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let has = |environment: &[String], name: &str| environment.iter().any(|one| one.starts_with(&format!("{name}=")));
    let plain = environment(("X", "1"));
    assert!(plain.contains(&"GOMEMLIMIT=54MiB".to_owned()) && plain.contains(&"X=1".to_owned()), "{plain:?}");
    for name in ["HTTPS_PROXY", "no_proxy", "VCAP_SERVICES"] {
        assert!(!has(&plain, name), "{plain:?}");
    }
    let asked = environment(("ETCDPROXY_USE_HTTP_PROXY", "1"));
    assert!(has(&asked, "HTTPS_PROXY") && has(&asked, "no_proxy"), "{asked:?}");
}

#[test]
fn an_address_that_this_host_does_not_have() {
    // 192.0.2.0/24 is for documentation: no host has it.
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", "192.0.2.1:2379"]));
    assert_eq!(
        line,
        "etcdproxy: error: 192.0.2.1:2379 is not an address of this host: choose another with --listen-addr"
    );
}

#[test]
fn a_program_that_says_nothing_is_no_proxy_to_stand_by_for() {
    let silent = std::net::TcpListener::bind((own_host(), 0)).unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", &addr]));
    assert!(line.contains(&format!("(pid {}), which is not etcd's proxy", std::process::id())), "{line}");
}

#[test]
fn etcd_may_be_unpacked_below_a_relative_path() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free_addr(&own_host());
    let args = ["run", "--preflight", "off", "--endpoints", &closed(), "--listen-addr", &addr];
    let mut run = etcdproxy(args);
    let _run = Process::start(run.current_dir(&dir).env("ETCDPROXY_UNPACK_DIR", "here").stderr(Stdio::null()));
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr]));
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_name_of_the_proxys_own_address_is_found_when_it_is_resolved() {
    let addr = free_addr("127.0.0.1");
    let port = addr.rsplit(':').next().unwrap();
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", &format!("127.1:{port}"), "--listen-addr", &addr]));
    let problem = "the proxy itself listens on this address: name the cluster's members instead";
    assert_eq!(line, format!("etcdproxy: error: --endpoints: http://127.1:{port}: {problem}"));
}

#[test]
fn flags_for_etcd_cannot_undo_what_is_checked_and_are_flags() {
    for (flags, problem) in [
        (
            &["--endpoints=h:2"][..],
            "-- --endpoints=h:2: it would override a checked setting: use --endpoints before the --",
        ),
        (
            &["--debug", "--listen-addr", "h:2"],
            "-- --listen-addr: it would override a checked setting: use --listen-addr before the --",
        ),
        (&["stray"], "-- stray: it is not a flag, and etcd would ignore it: remove it"),
    ] {
        let line = fails_with(78, etcdproxy(["run", "--endpoints", "h:1", "--"]).args(flags));
        assert_eq!(line, format!("etcdproxy: error: {problem}"));
    }
}

#[test]
fn settings_come_from_the_environment_too() {
    let mut command = etcdproxy(["run", "--dry-run"]);
    command.env("ETCDPROXY_ENDPOINTS", "h:2379").env("ETCDPROXY_NAMESPACE", "my app/");
    let (code, stdout, _) = finish(&mut command);
    assert_eq!(code, 0);
    assert!(stdout.contains("--endpoints=http://h:2379"), "{stdout}");
    assert!(stdout.ends_with("'--namespace=my app/'\n"), "{stdout}");
}

#[test]
fn a_dry_run_prints_a_command_that_a_shell_can_run() {
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), "etcd");
    let addr = free_addr(&own_host());
    let (_, stdout, _) = finish(&mut etcdproxy(["run", "--dry-run", "--endpoints", &closed(), "--listen-addr", &addr]));
    let mut shell = command("/bin/sh".as_ref(), ["-c", &format!("exec ./{}", stdout.lines().last().unwrap())]);
    let _proxy = Process::start(shell.current_dir(dir.path()).stderr(Stdio::null()));
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr]));
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_link_named_etcd_is_etcd_and_passes_on_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = link(dir.path(), "etcd");
    let (code, stdout, _) = finish(&mut command(&etcd, ["--version"]));
    let expected = format!("etcd Version: {}", in_manifest("  version:"));
    assert_eq!((code, stdout.lines().next()), (0, Some(expected.as_str())));
    let (code, _, stderr) = finish(&mut command(&etcd, ["--no-such-flag"]));
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_link_to_a_program_that_is_not_carried_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = fails_with(1, &mut command(&link(dir.path(), "etcdctl"), ["version"]));
    assert_eq!(
        line,
        "etcdproxy: error: this build carries etcd, not etcdctl: build with ETCD_RELEASE_TARBALL set to the official \
         etcd tarball"
    );
}

#[test]
fn an_address_that_others_can_reach_is_a_warning_in_both_modes() {
    for mode in ["grpc-proxy", "tunnel"] {
        let port = free_addr("127.0.0.1").rsplit(':').next().unwrap().to_owned();
        let warning = format!(
            "warning: 0.0.0.0:{port} is not a loopback address: everyone who can reach it has this sidecar's access "
        );
        let addr = format!("0.0.0.0:{port}");
        let args = ["run", "--preflight", "off", "--mode", mode, "--endpoints", &closed(), "--listen-addr", &addr];
        let mut run = Process::start(etcdproxy(args).stderr(Stdio::piped()));
        assert_eq!(finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr])).0, 0);
        run.kill();
        let log = run.stderr_text();
        assert_eq!(log.matches(&warning).count(), 1, "{log}");
        let (_, shown, _) = finish(etcdproxy(args).arg("--dry-run"));
        assert_eq!(shown.matches(&warning).count(), 1, "{shown}");
    }
}
