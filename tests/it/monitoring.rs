//! What watches the proxy: the dashboard, the alerts and their documents use metrics that exist, and Prometheus' own tool
//! accepts everything.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pki::{Authority, write};
use crate::support::{
    Cluster, Process, Tls, etcdproxy, eventually, free_addrs, http, path_from_test_script, succeeds, unique_addr,
    unique_host, wait_ready,
};

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn alerts() -> String {
    succeeds(&mut etcdproxy(["alerts"]))
}

fn dashboard() -> Value {
    serde_json::from_str(&succeeds(&mut etcdproxy(["dashboard"]))).unwrap()
}

/// The pages of native, with everything that it may have, and our part of that of a supervised etcd.
fn pages() -> [String; 2] {
    let host = unique_host();
    let authority = Authority::new("the cluster's authority");
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server: authority.server(&[&host], 9), client_ca: None }));
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.pem", &authority.pem);
    let page = |addr: &str| http(addr, "GET", "/metrics").split_once("\r\n\r\n").unwrap().1.to_owned();
    let run = |mode: &[&str], addr: &str| {
        let mut command = etcdproxy(["run", "--endpoints", &cluster.endpoints(), "--listen-addr", addr, "--cacert"]);
        let process = Process::start(command.arg(&ca).args(mode).stderr(Stdio::null()));
        wait_ready(addr);
        process
    };
    let addr = unique_addr();
    let _native = run(&["--mode", "native"], &addr);
    eventually("the probe has answered", || page(&addr).contains("\netcdproxy_member_round_trip_seconds{"));
    let addrs = free_addrs(&unique_host(), 2);
    let _supervised = run(&["--mode", "grpc-proxy", "--drain", "1s", "--metrics-addr", &addrs[1]], &addrs[0]);
    let is_ours = |line: &&str| line.contains("etcdproxy_");
    let ours: Vec<_> = page(&addrs[1]).lines().filter(is_ours).map(|line| line.to_owned() + "\n").collect();
    [page(&addr), ours.concat()]
}

/// The names of metrics in a text: those of pages and expressions.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_name = |word: &&str| {
        ["etcdproxy_", "process_"].iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
    };
    let family = |word: &str| {
        let suffix = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        suffix.unwrap_or(word).to_owned()
    };
    words.filter(is_name).map(family).collect()
}

/// The metrics that pages have.
fn families(pages: &[String]) -> BTreeSet<String> {
    let of_type = |line: &str| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned());
    pages.iter().flat_map(|page| page.lines()).filter_map(of_type).collect()
}

#[test]
fn dashboard_alerts_and_pages_name_the_metrics_that_exist() {
    let exist = families(&pages());
    for (what, text) in [
        ("dashboard", dashboard().to_string()),
        ("alerts", alerts()),
        ("their tests", repository("tests/alerts_test.yml")),
        ("docs/alerts.md", repository("docs/alerts.md")),
    ] {
        let unknown: Vec<_> = names(&text).into_iter().filter(|name| !exist.contains(name)).collect();
        assert!(unknown.is_empty(), "{what}: no page has {unknown:?}");
    }
    let rows =
        |text: &str| text.lines().filter(|line| line.starts_with("| `")).map(ToOwned::to_owned).collect::<Vec<_>>();
    let in_page: BTreeSet<_> =
        rows(&repository("docs/metrics.md")).iter().flat_map(|row| names(row.split('|').nth(1).unwrap())).collect();
    assert_eq!(in_page, exist, "the tables in docs/metrics.md");
    // The dashboard leaves out only what has another mode, or says little.
    let shown = names(&dashboard().to_string());
    let missing: Vec<_> = exist.iter().filter(|name| !shown.contains(*name)).collect();
    let elsewhere = |name: &str| {
        ["etcdproxy_etcd_", "etcdproxy_metrics_", "etcdproxy_connections", "etcdproxy_open_", "process_virtual_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    assert!(missing.iter().all(|name| elsewhere(name)), "not on the dashboard: {missing:?}");
}

/// Grafana has no tool that checks a dashboard, so this does, by
/// <https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>.
#[test]
fn the_dashboard_is_a_dashboard() {
    let dashboard = dashboard();
    for key in
        ["uid", "title", "tags", "schemaVersion", "version", "time", "templating", "panels", "refresh", "editable"]
    {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    // Grafana gives an id to what it imports.
    assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_i64().unwrap() >= 39, "that of Grafana 10.3");
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().filter(|title| !title.is_empty()).unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, width, height) = (place("x"), place("y"), place("w"), place("h"));
        assert!(width > 0 && height > 0 && x + width <= 24, "{title}: it is too wide");
        for column in x..x + width {
            for line in y..y + height {
                assert!(places.insert((column, line)), "{title}: it lies on another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()), "{title}");
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().filter(|targets| !targets.is_empty()).unwrap() {
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            for source in [&panel["datasource"], &target["datasource"]] {
                assert_eq!(*source, serde_json::json!({"type": "prometheus", "uid": "${datasource}"}), "{title}");
            }
            let expr = target["expr"].as_str().unwrap();
            let selectors = expr.matches("{job=~\"$job\", instance=~\"$instance\"").count();
            assert_eq!(selectors, names(expr).len().max(expr.matches("etcdproxy_").count()), "{title}: {expr}");
        }
    }
}

/// The values of all lines with this key in `alerts.yml`.
fn values(text: &str, key: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_alert_has_a_document_and_a_test() {
    let (alerts, docs, tests) = (alerts(), repository("docs/alerts.md"), repository("tests/alerts_test.yml"));
    let names = values(&alerts, "- alert");
    let sections: Vec<_> = docs.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, names, "the sections of docs/alerts.md are the alerts, in the same order");
    let url =
        |name: &String| format!("{}/blob/main/docs/alerts.md#{}", env!("CARGO_PKG_REPOSITORY"), name.to_lowercase());
    assert_eq!(values(&alerts, "runbook_url"), names.iter().map(url).collect::<Vec<_>>());
    for section in docs.split("\n## ").skip(1) {
        for part in ["**What it means.**", "**What to look at.**", "**What to do.**"] {
            assert_eq!(section.matches(part).count(), 1, "{part}: {section}");
        }
    }
    for name in names {
        assert!(tests.contains(&format!("- {{alertname: {name}, eval_time: ")), "{name}: when it does not fire");
        let fires = tests.split_once(&format!("- alertname: {name}\n")).map(|(_, rest)| rest.lines().nth(1).unwrap());
        assert_eq!(fires.map(str::trim), Some("exp_alerts:"), "{name}: when it fires");
    }
}

/// Runs Prometheus' tool with this input.
fn promtool(args: &[&str], dir: &Path, input: &str) {
    let mut command = Command::new(path_from_test_script("ETCDPROXY_TEST_PROMTOOL"));
    let command =
        command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}\n{input}");
}

#[test]
#[ignore = "needs promtool: run ./scripts/test.sh"]
fn promtool_accepts_the_pages_and_the_alerts() {
    let dir = tempfile::tempdir().unwrap();
    for page in pages() {
        promtool(&["check", "metrics"], dir.path(), &page);
    }
    fs::write(dir.path().join("alerts.yml"), alerts()).unwrap();
    fs::write(dir.path().join("test.yml"), repository("tests/alerts_test.yml")).unwrap();
    promtool(&["check", "rules", "--lint", "all", "--lint-fatal", "alerts.yml"], dir.path(), "");
    promtool(&["test", "rules", "test.yml"], dir.path(), "");
}
