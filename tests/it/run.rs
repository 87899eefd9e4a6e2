//! `etcdproxy run`, and links to the binary.
//!
//! Most proxies here have no cluster. Their port opens anyway.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use crate::support::{
    Process, command, etcdproxy, fails_with, finish, free_addr, link, manifest_value, succeeds, unique_addr,
    unique_host, unpack_dir, wait_listening,
};

#[test]
fn run_becomes_etcd_with_the_same_pid_and_passes_on_the_flags_after_the_dashes() {
    let addr = unique_addr();
    let args = ["run", "--endpoints", &unique_addr(), "--listen-addr", &addr, "--", "--max-send-bytes=4194304"];
    let mut run = Process::start(etcdproxy(args).stderr(Stdio::null()));
    wait_listening(&addr);

    let exe = fs::read_link(format!("/proc/{}/exe", run.pid())).unwrap();
    assert!(exe.starts_with(unpack_dir()) && exe.ends_with("etcd"), "{}", exe.display());
    let args = fs::read_to_string(format!("/proc/{}/cmdline", run.pid())).unwrap();
    let args: Vec<&str> = args.split('\0').collect();
    assert_eq!(args[..3], ["etcd", "grpc-proxy", "start"]);
    assert!(args.contains(&"--max-send-bytes=4194304"));

    assert_eq!(run.terminate().signal(), Some(15));
}

#[test]
fn etcd_gets_no_http_proxy_and_no_secret_but_a_memory_limit_and_the_root_directory() {
    let proxied = [("HTTPS_PROXY", "http://proxy.invalid:1"), ("no_proxy", "x"), ("VCAP_SERVICES", "{}")];
    let environment = |more: (&str, &str)| {
        let addr = unique_addr();
        let args =
            ["run", "--preflight", "off", "--memory", "64", "--endpoints", &unique_addr(), "--listen-addr", &addr];
        let run = Process::start(etcdproxy(args).envs(proxied).envs([more]).stderr(Stdio::null()));
        wait_listening(&addr);
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
    let with_http_proxy = environment(("ETCDPROXY_USE_HTTP_PROXY", "1"));
    assert!(has(&with_http_proxy, "HTTPS_PROXY") && has(&with_http_proxy, "no_proxy"), "{with_http_proxy:?}");
}

#[test]
fn an_address_that_this_host_does_not_have_is_an_error() {
    // 192.0.2.0/24 is reserved for documentation: no host uses it.
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", "192.0.2.1:2379"]));
    assert_eq!(
        line,
        "etcdproxy: error: 192.0.2.1:2379 is not an address of this host: choose another with --listen-addr or \
         ETCDPROXY_LISTEN_ADDR"
    );
}

#[test]
fn run_does_not_stand_by_for_a_program_that_never_answers() {
    let silent = std::net::TcpListener::bind((unique_host(), 0)).unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", &addr]));
    assert!(line.contains(&format!("(pid {}), which is not etcd's proxy", std::process::id())), "{line}");
}

#[test]
fn etcd_may_be_unpacked_below_a_relative_path() {
    let dir = tempfile::tempdir().unwrap();
    let addr = unique_addr();
    let args = ["run", "--preflight", "off", "--endpoints", &unique_addr(), "--listen-addr", &addr];
    let mut run = etcdproxy(args);
    let _run = Process::start(run.current_dir(&dir).env("ETCDPROXY_UNPACK_DIR", "here").stderr(Stdio::null()));
    wait_listening(&addr);
}

#[test]
fn words_after_the_dashes_must_be_flags_and_cannot_override_checked_settings() {
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
        let line = fails_with(2, etcdproxy(["run", "--endpoints", "h:1", "--"]).args(flags));
        assert_eq!(line, format!("etcdproxy: error: {problem}"));
    }
}

#[test]
fn settings_can_come_from_the_environment() {
    let mut command = etcdproxy(["run", "--dry-run"]);
    command.env("ETCDPROXY_ENDPOINTS", "h:2379").env("ETCDPROXY_NAMESPACE", "my app/");
    let stdout = succeeds(&mut command);
    assert!(stdout.contains("--endpoints=http://h:2379"), "{stdout}");
    assert!(stdout.ends_with("'--namespace=my app/'\n"), "{stdout}");
}

#[test]
fn a_dry_run_prints_a_command_that_a_shell_can_run() {
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), "etcd");
    let addr = unique_addr();
    let (_, stdout, _) =
        finish(&mut etcdproxy(["run", "--dry-run", "--endpoints", &unique_addr(), "--listen-addr", &addr]));
    let mut shell = command("/bin/sh".as_ref(), ["-c", &format!("exec ./{}", stdout.lines().last().unwrap())]);
    let _proxy = Process::start(shell.current_dir(dir.path()).stderr(Stdio::null()));
    wait_listening(&addr);
}

#[test]
fn a_link_named_etcd_runs_etcd_and_returns_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = link(dir.path(), "etcd");
    let stdout = succeeds(&mut command(&etcd, ["--version"]));
    let expected = format!("etcd Version: {}", manifest_value("  version:"));
    assert_eq!(stdout.lines().next(), Some(expected.as_str()));
    let (code, _, stderr) = finish(&mut command(&etcd, ["--no-such-flag"]));
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_link_named_after_a_program_that_is_not_embedded_explains_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = fails_with(1, &mut command(&link(dir.path(), "etcdctl"), ["version"]));
    assert_eq!(
        line,
        "etcdproxy: error: this build carries etcd, not etcdctl: build with ETCD_RELEASE_TARBALL set to the official \
         etcd tarball"
    );
}

#[test]
fn both_modes_warn_about_an_address_that_others_can_reach() {
    for mode in ["grpc-proxy", "native"] {
        let port = free_addr("127.0.0.1").rsplit(':').next().unwrap().to_owned();
        let warning = format!(
            "warning: 0.0.0.0:{port} is not a loopback address: everyone who can reach it has this sidecar's access "
        );
        let addr = format!("0.0.0.0:{port}");
        let args = ["run", "--preflight", "off", "--mode", mode, "--endpoints", &unique_addr(), "--listen-addr", &addr];
        let run = Process::start(etcdproxy(args).stderr(Stdio::piped()));
        wait_listening(&addr);
        let log = run.into_log();
        assert_eq!(log.matches(&warning).count(), 1, "{log}");
        let (_, shown, _) = finish(etcdproxy(args).arg("--dry-run"));
        assert_eq!(shown.matches(&warning).count(), 1, "{shown}");
    }
}
