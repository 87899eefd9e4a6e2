//! `etcdproxy doctor`: what it finds with real members, and what it advises.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load;
use crate::pki::{Authority, write};
use crate::support::{
    Cluster, Tls, enable_auth, etcdproxy, finish, server, start_proxy, unique_addr, unique_host, wait_ready,
};

/// The exit code and the report.
fn report(command: &mut Command) -> (i32, Value) {
    let (code, out, err) = finish(command.args(["--output", "json"]));
    assert_eq!(err, "");
    (code, serde_json::from_str(&out).unwrap_or_else(|err| panic!("{err}: {out}")))
}

/// Level and text of each finding of a chapter that is about this.
fn findings<'a>(report: &'a Value, chapter: &str, about: &str) -> Vec<(&'a str, &'a str)> {
    let chapters = report["chapters"].as_array().unwrap();
    let chapter = chapters.iter().find(|it| it["name"] == chapter).unwrap();
    let found =
        chapter["findings"].as_array().unwrap().iter().filter(|it| it["about"].as_str().unwrap().contains(about));
    found.map(|it| (it["level"].as_str().unwrap(), it["text"].as_str().unwrap())).collect()
}

#[test]
fn a_healthy_cluster_has_no_faults() {
    let cluster = Cluster::start(3);
    let addr = unique_addr();
    let _proxy = start_proxy(&cluster.endpoints(), &addr);
    wait_ready(&addr);
    let doctor = || etcdproxy(["doctor", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
    let (code, report) = report(&mut doctor());
    assert_eq!((code, &report["ok"]), (0, &Value::Bool(true)), "{report:#}");
    let members = findings(&report, "members", "http://");
    assert_eq!(members.len(), 3, "{report:#}");
    assert_eq!(members.iter().filter(|(level, text)| *level == "ok" && text.starts_with("leads, etcd 3.")).count(), 1);
    assert!(members.iter().all(|(_, text)| text.contains("a read takes ")), "{members:?}");
    let [(level, text)] = findings(&report, "proxy", &addr)[..] else { panic!("{report:#}") };
    assert!(level == "ok" && text.starts_with("is ready (etcd, pid "), "{text}");
    assert_eq!(findings(&report, "settings", "--endpoints").len(), 1);
    let (code, text, _) = finish(&mut doctor());
    assert_eq!(code, 0);
    assert!(text.contains("\nmembers\n  ok       http://") && !text.contains('\x1b'), "{text}");
}

#[test]
fn each_fault_has_its_advice() {
    let mut cluster = Cluster::start(3);
    let hung = cluster.client_addr(1).to_owned();
    cluster.signal_member(1, Signal::SIGSTOP);
    let ssh = server(&unique_host(), "SSH-2.0-OpenSSH_9\r\n");
    let closed = unique_addr();
    let taken = server(&unique_host(), "SSH-2.0-OpenSSH_9\r\n");
    let endpoints = format!("{},{hung},{ssh},{closed},no-such-host.invalid:2379", cluster.client_addr(0));
    let (code, out, _) = finish(&mut etcdproxy(["doctor", "--endpoints", &endpoints, "--listen-addr", &taken]));
    cluster.signal_member(1, Signal::SIGCONT);
    assert_eq!(code, 1, "{out}");
    for expected in [
        format!("fault    http://{hung}: it accepts the connection but does not answer"),
        format!("fault    http://{ssh}: "),
        format!("fault    http://{closed}: the connection is refused"),
        "fault    http://no-such-host.invalid:2379: ".to_owned(),
        "-> start the member, or correct the port".to_owned(),
        "-> check the name, and this host's DNS".to_owned(),
        format!("fault    {taken}: is in use by another program"),
    ] {
        assert!(out.contains(&expected), "{expected}\n{out}");
    }
    cluster.kill_member(2);
}

#[test]
fn certificates_are_read_and_keys_are_not_shown() {
    let (host, authority) = (unique_host(), Authority::new("the cluster's authority"));
    let server = authority.server(&[&host, "db.example"], 9);
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server, client_ca: Some(authority.pem.clone()) }));
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let client = authority.client(Some("app"));
    let mut command = etcdproxy(["doctor", "--endpoints", &cluster.endpoints()]);
    command.arg("--cacert").arg(&ca).env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", &client.key);
    let (code, report) = report(&mut command);
    assert_eq!(code, 0, "{report:#}");
    let members = findings(&report, "members", "https://");
    let certificate = members.iter().find(|(_, text)| text.contains("certificate")).unwrap();
    assert_eq!(certificate.0, "warning");
    assert!(certificate.1.contains(&host) && certificate.1.contains("db.example, and ends in "), "{certificate:?}");
    assert!(!report.to_string().contains("PRIVATE KEY"));
    // With another authority, the message says what to do.
    let other = write(dir.path(), "other.pem", &Authority::new("another authority").pem);
    let (code, out, _) = finish(etcdproxy(["doctor", "--endpoints", &cluster.endpoints()]).arg("--cacert").arg(other));
    assert!(code == 1 && out.contains("is not signed by the authority of --cacert"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_is_tried() {
    let cluster = Cluster::start(1);
    enable_auth(&load::connect(cluster.client_addr(0)).await.unwrap(), &[("root", "root")]).await;
    for (password, code, text) in
        [("s3cret", 1, "the cluster refuses the user name or the password"), ("root", 0, "can log in")]
    {
        let mut command = etcdproxy(["doctor", "--endpoints", &cluster.endpoints(), "--username", "root"]);
        let (got, report) = report(command.env("ETCDPROXY_PASSWORD", password));
        assert_eq!(findings(&report, "members", "user \"root\"").first().map(|it| it.1), Some(text), "{report:#}");
        assert_eq!(got, code, "{report:#}");
        assert!(!report.to_string().contains("s3cret"));
    }
}

#[test]
fn settings_that_cannot_work_are_a_fault_and_the_rest_is_examined() {
    let (code, report) = report(etcdproxy(["doctor"]).env("ETCDPROXY_DRAIN", "soon").env("ETCDPROXY_ENDPOINTS", "h:1"));
    assert_eq!(code, 1);
    let faults = findings(&report, "settings", "settings");
    assert!(faults.iter().any(|(level, text)| *level == "fault" && text.contains("ETCDPROXY_DRAIN")), "{report:#}");
    assert_eq!(findings(&report, "host", "etcd").len(), 1);
}
