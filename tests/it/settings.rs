//! Settings from flags and from the environment, as the user meets them.

use std::fs;
use std::process::{Command, Stdio};

use etcd_client::{Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Txn, TxnOp};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::load;
use crate::support::{Cluster, Process, enable_auth, etcdproxy, fails_with, finish, succeeds, unique_addr, wait_ready};

/// Values that a flag does not take, in every command that has such flags.
const INVALID: [&[&str]; 23] = [
    &["run", "--endpoints", "h"],
    &["run", "--discovery-srv", "a:1"],
    &["run", "--endpoints", "h:1", "--listen-addr", "1"],
    &["run", "--endpoints", "h:1", "--mode", "fast"],
    &["run", "--endpoints", "h:1", "--prefer", "fast"],
    &["run", "--endpoints", "h:1", "--member-urls", "own"],
    &["run", "--endpoints", "h:1", "--namespace-admin=perhaps"],
    &["run", "--endpoints", "h:1", "--mode", "native", "--username", "", "--password-file", "/x"],
    &["run", "--endpoints", "h:1", "--drain", "8"],
    &["run", "--endpoints", "h:1", "--memory", "1"],
    &["run", "--endpoints", "h:1", "--metrics-addr", "x"],
    &["run", "--endpoints", "h:1", "--preflight", "yes"],
    &["run", "--endpoints", "h:1", "--log-format", "xml"],
    &["exec", "--endpoints", "h:1", "--timeout", "5", "--", "true"],
    &["exec", "--endpoints", "h", "--", "true"],
    &["wait", "--timeout", "5"],
    &["wait", "--listen-addr", "h"],
    &["health", "--listen-addr", "h"],
    &["dev", "--nodes", "2"],
    &["dev", "--listen-addr", "h"],
    &["prune", "--keep", "0"],
    &["completions", "tcsh"],
    &["sbom", "--format", "x"],
];

#[test]
fn a_value_that_a_flag_does_not_take_ends_every_command_with_2() {
    for args in INVALID {
        let mut command = etcdproxy(args);
        // `exec` checks its settings only if nobody serves the address.
        command.env("ETCDPROXY_LISTEN_ADDR", unique_addr());
        let (code, stdout, stderr) = finish(&mut command);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    }
}

#[test]
fn the_same_value_from_the_environment_is_78() {
    for (name, value) in [
        ("ETCDPROXY_ENDPOINTS", "h"),
        ("ETCDPROXY_LISTEN_ADDR", "1"),
        ("ETCDPROXY_MODE", "fast"),
        ("ETCDPROXY_DRAIN", "8"),
        ("ETCDPROXY_MEMORY", "1"),
        ("ETCDPROXY_METRICS_ADDR", "x"),
        ("ETCDPROXY_PREFLIGHT", "yes"),
        ("ETCDPROXY_LOG_FORMAT", "xml"),
        ("ETCDPROXY_USE_HTTP_PROXY", "perhaps"),
        ("ETCDPROXY_PREFER", "fast"),
        ("ETCDPROXY_MEMBER_URLS", "own"),
        ("ETCDPROXY_NAMESPACE_ADMIN", "perhaps"),
        ("ETCDPROXY_USERNAME", "app"),
        ("ETCDPROXY_PASSWORD", "pw"),
    ] {
        let line = fails_with(78, etcdproxy(["run"]).env("ETCDPROXY_ENDPOINTS", "h:1").env(name, value));
        assert!(line.starts_with(&format!("etcdproxy: error: {name}: ")) && !line.contains("--"), "{line}");
    }
    for args in [&["wait"][..], &["health"], &["dev"]] {
        let line = fails_with(78, etcdproxy(args).env("ETCDPROXY_LISTEN_ADDR", "h"));
        assert!(line.starts_with("etcdproxy: error: ETCDPROXY_LISTEN_ADDR: "), "{line}");
    }
}

#[test]
fn a_misspelled_variable_is_warned_of() {
    let warning = "warning: ETCDPROXY_DRIAN is not a setting, and has no effect: did you mean ETCDPROXY_DRAIN?";
    let shown = succeeds(etcdproxy(["run", "--dry-run", "--endpoints", "h:1"]).env("ETCDPROXY_DRIAN", "s3cret"));
    assert!(shown.contains(warning) && !shown.contains("s3cret"), "{shown}");
    let addr = unique_addr();
    let mut wait = etcdproxy(["wait", "--timeout", "10ms", "--listen-addr", &addr]);
    let (code, _, stderr) = finish(wait.env("ETCDPROXY_DRIAN", "1s").env("ETCDPROXY_WAIT", "1s"));
    assert_eq!(code, 69);
    assert!(stderr.contains(warning) && !stderr.contains("ETCDPROXY_WAIT"), "{stderr}");
}

#[test]
fn native_refuses_an_http_proxy_that_it_would_not_use() {
    let mut run = etcdproxy(["run", "--mode", "native", "--endpoints", "h:1"]);
    run.env("ETCDPROXY_USE_HTTP_PROXY", "yes").env("HTTPS_PROXY", "http://u:s3cret@127.0.0.1:1");
    let line = fails_with(78, &mut run);
    let problem = "ETCDPROXY_USE_HTTP_PROXY: mode native connects to the members itself, not through HTTPS_PROXY: ";
    assert!(line.contains(problem) && !line.contains("s3cret"), "{line}");
}

#[test]
fn a_member_on_the_other_familys_loopback_is_not_the_proxy_itself() {
    for (endpoint, addr) in [("[::1]:2379", "127.0.0.1:2379"), ("127.0.0.1:2379", "[::1]:2379")] {
        let args = ["run", "--dry-run", "--endpoints", endpoint, "--listen-addr", addr];
        let shown = succeeds(&mut etcdproxy(args));
        assert!(shown.contains(&format!("# endpoint: http://{endpoint}\n")), "{shown}");
    }
}

/// A proxy with these settings, and a client that does not log in.
async fn connect(mut command: Command) -> (Process, Client) {
    let addr = unique_addr();
    let process = Process::start(command.args(["--listen-addr", &addr]).stderr(Stdio::piped()));
    wait_ready(&addr);
    (process, load::connect(&addr).await.unwrap())
}

fn code(err: &Error) -> i32 {
    let Error::GRpcStatus(status) = err else { panic!("{err}") };
    status.code().into()
}

const PERMISSION_DENIED: i32 = 7;
const INVALID_ARGUMENT: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_login_acts_as_the_user_of_the_settings() {
    let cluster = Cluster::start_with(&["--auth-token-ttl", "5"]);
    let admin = load::connect(cluster.client_addr(0)).await.unwrap();
    enable_auth(&admin, &[("root", "r00t"), ("app", " p@ss ")]).await;
    let endpoints = cluster.endpoints();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, " p@ss \n").unwrap();
    let run = || {
        let mut command = etcdproxy(["run"]);
        command.env("ETCDPROXY_ENDPOINTS", &endpoints);
        command
    };
    let bound = |credentials: serde_json::Value| {
        let mut command = etcdproxy(["run"]);
        let services = json!({"etcd": [{"name": "e", "credentials": credentials}]}).to_string();
        command.env("VCAP_SERVICES", services);
        command
    };
    let uri = format!("http://app:%20p%40ss%20@{}", cluster.client_addr(0));
    let mut by_file = run();
    by_file.args(["--username", "app", "--password-file"]).arg(&file);
    let mut by_environment = run();
    by_environment.env("ETCDPROXY_USERNAME", "app").env("ETCDPROXY_PASSWORD", " p@ss ");
    for (name, command) in [
        ("file", by_file),
        ("environment", by_environment),
        ("URI", bound(json!({"uri": uri}))),
        ("entries", bound(json!({"endpoints": endpoints, "username": "app", "password": " p@ss "}))),
    ] {
        let (process, client) = connect(command).await;
        let mut kv = client.kv_client();
        kv.put(format!("app/{name}"), "1", None).await.unwrap();
        assert_eq!(kv.get(format!("app/{name}"), None).await.unwrap().count(), 1);
        let key = || format!("app/{name}");
        let txn =
            Txn::new().when([Compare::version(key(), CompareOp::Equal, 1)]).and_then([TxnOp::delete(key(), None)]);
        assert!(kv.txn(txn).await.unwrap().succeeded());
        let denied = kv.put("other", "1", None).await.unwrap_err();
        assert_eq!(code(&denied), PERMISSION_DENIED, "{denied}");
        process.signal(Signal::SIGTERM);
        let log = process.into_log();
        assert!(log.contains("mode native: ") && !log.contains("p@ss") && !log.contains("warning"), "{log}");
    }

    // Who logs in is who he is.
    let addr = unique_addr();
    let mut command = bound(json!({"uri": uri}));
    let _proxy = Process::start(command.args(["--listen-addr", &addr]).stderr(Stdio::null()));
    wait_ready(&addr);
    let root = Client::connect([&addr], Some(ConnectOptions::new().with_user("root", "r00t"))).await.unwrap();
    root.kv_client().put("other", "1", None).await.unwrap();

    // Switched off, the binding's user is the application's own matter.
    let mut off = bound(json!({"uri": uri}));
    off.env("ETCDPROXY_LOGIN_FROM_BINDING", "false");
    let (_off, client) = connect(off).await;
    let refused = client.kv_client().get("app/x", None).await.unwrap_err();
    assert_eq!(code(&refused), INVALID_ARGUMENT, "{refused}");

    // A prefix together with a login, which etcd's proxy cannot do.
    let mut prefixed = bound(json!({"uri": uri}));
    prefixed.env("ETCDPROXY_NAMESPACE", "app/p/");
    let (_prefixed, client) = connect(prefixed).await;
    client.kv_client().put("k", "1", None).await.unwrap();
    let all = root.kv_client().get("app/p/", Some(GetOptions::new().with_prefix())).await.unwrap();
    assert_eq!(all.kvs()[0].key(), b"app/p/k");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_about_calls_reach_the_proxy() {
    let cluster = Cluster::start(1);
    let endpoints = cluster.endpoints();
    let run = |args: &[&str]| {
        let mut command = etcdproxy(["run", "--endpoints", &endpoints]);
        command.args(args);
        command
    };
    for (args, keeps) in [(&["--prefer", "nearest"][..], false), (&["--member-urls", "keep"], true)] {
        let (_proxy, client) = connect(run(args)).await;
        let list = client.cluster_client().member_list().await.unwrap();
        let urls = list.members()[0].client_urls();
        assert_eq!(urls[0].ends_with(cluster.client_addr(0)), keeps, "{urls:?}");
    }
    for (args, allowed) in [(&[][..], false), (&["--namespace-admin"], true)] {
        let (_proxy, client) = connect(run(&[&["--mode", "native", "--namespace", "p/"], args].concat())).await;
        let put = client.kv_client().put("k", "1", None).await.unwrap();
        let compacted = client.kv_client().compact(put.header().unwrap().revision(), None).await;
        assert_eq!(compacted.is_ok(), allowed, "{compacted:?}");
    }
}

#[test]
fn a_dry_run_shows_who_calls_act_as_and_no_password() {
    let services = json!({"etcd": [{"name": "e", "credentials": {"uri": "https://u:s3cret@h:1"}}]}).to_string();
    let shown = succeeds(etcdproxy(["run", "--dry-run", "--namespace", "p/"]).env("VCAP_SERVICES", services));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "# mode native (with etcd's grpc-proxy, watches stop for clients that log in with a password)",
            "# service binding: e",
            "# endpoint: https://h:1",
            "# listens on 127.0.0.1:2379; after SIGTERM it drains for 8s at most",
            "# calls go to the leader",
            "# calls without a token act as the user \"u\"",
            "# puts \"p/\" before every key",
        ]
    );
    let (code, _, stderr) = finish(&mut etcdproxy(["run", "--endpoints", "h:1", "--password", "s3cret"]));
    assert!(code == 2 && !stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn the_start_waits_for_the_file_of_a_password() {
    let cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let (file, addr) = (dir.path().join("password"), unique_addr());
    let mut command = etcdproxy(["run", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
    command.args(["--username", "app", "--password-file"]).arg(&file).stderr(Stdio::piped());
    let proxy = Process::start(&mut command);
    std::thread::sleep(std::time::Duration::from_millis(500));
    fs::write(&file, "s3cret\n").unwrap();
    wait_ready(&addr);
    let log = proxy.into_log();
    let waits =
        format!("the start waits: --password-file: {} does not exist: write the password into it", file.display());
    assert!(log.contains(&waits) && !log.contains("s3cret"), "{log}");
}

#[test]
fn the_plain_case_names_native_once() {
    let cluster = Cluster::start(1);
    for drain in ["off", "8s"] {
        let addr = unique_addr();
        let args = ["run", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--drain", drain];
        let proxy = Process::start(etcdproxy(args).stderr(Stdio::piped()));
        wait_ready(&addr);
        let log = proxy.into_log();
        assert_eq!(log.matches("--mode native").count(), 1, "{log}");
        assert!(log.contains("etcdproxy: mode grpc-proxy: JSON clients, "), "{log}");
    }
}
