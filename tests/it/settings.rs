//! Settings from flags and from the environment, as the user meets them.

use crate::support::{etcdproxy, fails_with, finish, succeeds, unique_addr};

/// Values that a flag does not take, in every command that has such flags.
const INVALID: [&[&str]; 19] = [
    &["run", "--endpoints", "h"],
    &["run", "--discovery-srv", "a:1"],
    &["run", "--endpoints", "h:1", "--listen-addr", "1"],
    &["run", "--endpoints", "h:1", "--mode", "fast"],
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
fn the_tunnel_refuses_an_http_proxy_that_it_would_not_use() {
    let mut run = etcdproxy(["run", "--mode", "native", "--endpoints", "h:1"]);
    run.env("ETCDPROXY_USE_HTTP_PROXY", "yes").env("HTTPS_PROXY", "http://u:s3cret@127.0.0.1:1");
    let line = fails_with(78, &mut run);
    let problem = "ETCDPROXY_USE_HTTP_PROXY: the tunnel connects to the members itself, not through HTTPS_PROXY: ";
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
