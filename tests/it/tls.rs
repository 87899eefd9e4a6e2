//! Clusters with TLS, client certificates, users and passwords; and the messages when settings do not fit them.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use etcd_client::{Client, ConnectOptions};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::load;
use crate::pki::{Authority, Pair, write};
use crate::support::{
    Cluster, Lines, Process, Tls, command, enable_auth, etcdproxy, fails_with, finish, free_addr, link, server,
    succeeds, unique_addr, unique_host, wait_listening, wait_ready, web_server,
};

/// A host with clusters whose members have certificates of one authority.
struct Site {
    host: String,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        Self { host: unique_host(), authority: Authority::new("the cluster's authority") }
    }

    fn cluster(&self, client_certificates: bool) -> Cluster {
        let server = self.authority.server(&[&self.host, "localhost"], 365);
        let client_ca = client_certificates.then(|| self.authority.pem.clone());
        Cluster::start_on(&self.host, 1, Some(Tls { server, client_ca }))
    }

    /// A member with this certificate.
    fn member(&self, server: Pair) -> Cluster {
        Cluster::start_on(&self.host, 1, Some(Tls { server, client_ca: None }))
    }
}

/// Starts the proxy with the endpoints and certificates that `command` has in its environment. Writes and reads through
/// it, and asserts that it logs no warning.
async fn serves(mut command: Command, what: &str) {
    let addr = unique_addr();
    let proxy = Process::start(command.arg("run").args(["--listen-addr", &addr]).stderr(Stdio::piped()));
    wait_ready(&addr);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("key", what, None).await.unwrap();
    assert_eq!(client.kv_client().get("key", None).await.unwrap().kvs()[0].value(), what.as_bytes());
    let log = proxy.into_log();
    assert!(!log.contains("etcdproxy: warning"), "{what}: {log}");
}

/// The binary without arguments.
fn bare() -> Command {
    etcdproxy([""; 0])
}

/// The binary with these credentials in a service binding.
fn with_binding(credentials: serde_json::Value) -> Command {
    let services = json!({"user-provided": [{"name": "my-etcd", "credentials": credentials}]}).to_string();
    let mut command = bare();
    command.env("VCAP_SERVICES", services);
    command
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_without_a_client_certificate_works_from_every_source() {
    let site = Site::new();
    let cluster = site.cluster(false);
    let (endpoints, ca) = (cluster.endpoints(), &site.authority.pem);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "ca.pem", ca);

    let mut command = bare();
    command.current_dir(&dir).env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", "ca.pem");
    serves(command, "a file, by a relative path").await;
    let der: String = ca.lines().filter(|line| !line.starts_with('-')).collect();
    for (text, what) in [
        (ca.clone(), "PEM"),
        (ca.replace('\n', "\\n"), "escaped PEM"),
        (format!("'{}'", ca.replace('\n', " ")), "PEM with spaces, quoted"),
        (base64(ca), "base64"),
        (der, "base64 of DER"),
    ] {
        let mut command = bare();
        // An endpoint without a scheme uses TLS, because TLS is configured.
        command.env("ETCDPROXY_ENDPOINTS", cluster.client_addr(0)).env("ETCDPROXY_CACERT", text);
        serves(command, what).await;
    }
    serves(with_binding(json!({"endpoints": [&endpoints], "ca_cert": ca})), "a binding").await;
    let grpc = json!({"composed": [&endpoints], "certificate": {"certificate_base64": base64(ca)}});
    serves(with_binding(json!({"connection": {"grpc": grpc}})), "a binding like IBM's").await;

    let root = tempfile::tempdir().unwrap();
    let files = root.path().join("my-etcd");
    std::fs::create_dir(&files).unwrap();
    for (name, text) in [("type", "etcd"), ("uri", &endpoints), ("ca", ca)] {
        std::fs::write(files.join(name), text).unwrap();
    }
    let mut command = bare();
    command.env("SERVICE_BINDING_ROOT", root.path());
    serves(command, "a binding as files").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_work_from_every_source() {
    let site = Site::new();
    let cluster = site.cluster(true);
    let (endpoints, ca) = (cluster.endpoints(), &site.authority.pem);
    let client = site.authority.client(None);
    let dir = tempfile::tempdir().unwrap();
    let [cert_file, key_file] = client.write(dir.path(), "client");
    let ca_file = write(dir.path(), "ca.pem", ca);

    let mut command = bare();
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", &ca_file);
    command.env("ETCDPROXY_CERT", &cert_file).env("ETCDPROXY_KEY", &key_file);
    serves(command, "files").await;
    let mut command = bare();
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", base64(ca));
    command.env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", client.key.replace('\n', "\\n"));
    serves(command, "the environment").await;
    let credentials = json!({"uris": [&endpoints], "ca": ca, "client_cert": client.cert, "client_key": client.key});
    serves(with_binding(credentials), "a binding").await;
    let mut command =
        with_binding(json!({"tls": {"cert": base64(&client.cert), "key": base64(&client.key), "ca": ca}}));
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_DRAIN", "0s");
    serves(command, "a binding, endpoints from elsewhere, supervised").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_of_version_1_work_too() {
    let site = Site::new();
    let cluster = site.cluster(true);
    let other = site.authority.client(None);
    for (name, mode) in [(None, "grpc-proxy"), (Some("app"), "native")] {
        let client = site.authority.client_of_version_1(name);
        let run = || {
            let mut command = bare();
            command.env("ETCDPROXY_ENDPOINTS", cluster.endpoints()).env("ETCDPROXY_CACERT", &site.authority.pem);
            command.env("ETCDPROXY_PREFLIGHT", "strict").env("ETCDPROXY_CERT", &client.cert);
            command
        };
        let mut command = run();
        command.env("ETCDPROXY_KEY", &client.key);
        serves(command, mode).await;
        let line = fails_with(78, run().env("ETCDPROXY_KEY", &other.key).arg("run"));
        assert!(line.contains("ETCDPROXY_KEY: the key does not belong to the certificate of ETCDPROXY_CERT"), "{line}");
    }
}

#[test]
fn a_key_of_an_unsupported_kind_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Authority::new("ca").client(Some("app")).cert;
    let key = write(dir.path(), "key.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let mut command = etcdproxy(["run", "--preflight", "off", "--endpoints", "https://127.0.0.1:1", "--key"]);
    command.arg(&key).env("ETCDPROXY_CERT", cert).env("ETCDPROXY_LISTEN_ADDR", unique_addr());
    let (_, _, stderr) = finish(&mut command);
    let problem = "this kind of key is not supported: use RSA with 2048 to 8192 bits, ECDSA with P-256, P-384 or P-521, \
                   or Ed25519";
    let line = format!("etcdproxy: error: --key: {}: {problem}\n", key.display());
    assert!(stderr.ends_with(&line) && stderr.matches("error").count() == 1, "{stderr}");
}

#[test]
fn certificates_that_can_never_work_stop_the_start_with_one_line() {
    let authority = Authority::new("ca");
    let (good, other) = (authority.client(None), authority.client(None));
    let (named, expired) = (authority.client(Some("app")), authority.server(&["h"], -2));
    for (cert, key, problem) in [
        (Some(&good.cert), None, "a client certificate and its key belong together"),
        (None, Some(&good.key), "a client certificate and its key belong together"),
        (
            Some(&good.cert),
            Some(&other.key),
            "ETCDPROXY_KEY: the key does not belong to the certificate of ETCDPROXY_CERT",
        ),
        (Some(&named.cert), Some(&named.key), "has the common name \"app\""),
        (Some(&named.cert), Some(&named.key), "use --mode native"),
        (Some(&expired.cert), Some(&expired.key), "expired on 20"),
    ] {
        let mut command = etcdproxy(["run", "--mode", "grpc-proxy", "--endpoints", "https://127.0.0.1:1"]);
        for (name, value) in [("ETCDPROXY_CERT", cert), ("ETCDPROXY_KEY", key)] {
            command.envs(value.map(|value| (name, value)));
        }
        let line = fails_with(78, &mut command);
        assert!(line.starts_with("etcdproxy: error: ETCDPROXY_") && line.contains(problem), "{line}");
        let secret = good.key.lines().nth(1).unwrap();
        assert!(!line.contains(secret));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "empty.pem", "nothing\n");
    let line = fails_with(78, etcdproxy(["run", "--endpoints", "h:1", "--cacert"]).arg(&file));
    assert!(line.starts_with(&format!("etcdproxy: error: --cacert: {} is not a PEM file: ", file.display())), "{line}");
}

#[test]
fn a_certificate_that_expires_soon_is_a_warning() {
    let authority = Authority::new("ca");
    // Of its 24 hours, 4 or 20 are left.
    for (age, is_soon) in [(20, true), (4, false)] {
        let client = authority.client_from(SystemTime::now() - Duration::from_hours(age));
        let mut command = etcdproxy(["run", "--dry-run", "--endpoints", "https://127.0.0.1:1"]);
        let stdout = succeeds(command.env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", &client.key));
        let warning = "# warning: ETCDPROXY_CERT: the client certificate expires on 20";
        assert_eq!(stdout.contains(warning), is_soon, "{age}: {stdout}");
    }
}

/// The proxy as `exec` of etcd, supervised, and as a proxy.
const RUNS: [&[&str]; 3] =
    [&["--mode", "grpc-proxy"], &["--mode", "grpc-proxy", "--drain", "0s"], &["--mode", "native", "--drain", "0s"]];

#[test]
fn files_that_are_not_there_yet_are_waited_for() {
    let site = Site::new();
    let cluster = site.cluster(true);
    let client = site.authority.client(None);
    for run in RUNS {
        let dir = tempfile::tempdir().unwrap();
        let [ca, cert, key] = ["ca.pem", "client.crt", "client.key"].map(|name| dir.path().join(name));
        let addr = free_addr(&site.host);
        let command = || {
            let mut command = etcdproxy(["run", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
            command.args(run).arg("--cacert").arg(&ca).arg("--cert").arg(&cert).arg("--key").arg(&key);
            command
        };
        let mut strict = command();
        let (code, _, stderr) = finish(strict.args(["--preflight", "strict"]));
        let problem = format!("--cacert: {} does not exist: create it, or name another file\n", ca.display());
        assert_eq!(code, 69, "{stderr}");
        assert_eq!(
            stderr,
            format!("etcdproxy: warning: the start waits: {problem}etcdproxy: error: {problem}"),
            "once in 30 s"
        );

        let mut proxy = Process::start(command().stderr(Stdio::piped()));
        let mut log = Lines::of(&mut proxy);
        log.wait_for(&format!("the start waits: {problem}"));
        std::fs::write(&ca, "").unwrap();
        log.wait_for(&format!("the start waits: --cacert: {} is empty: ", ca.display()));
        std::fs::write(&ca, &site.authority.pem).unwrap();
        log.wait_for(&format!("the start waits: --cert: {} does not exist: ", cert.display()));
        client.write(dir.path(), "client");
        log.wait_for("the certificates can be used now: the start goes on\n");
        wait_ready(&addr);
        drop(proxy);

        std::fs::remove_file(&key).unwrap();
        let mut proxy = Process::start(command().stderr(Stdio::piped()));
        Lines::of(&mut proxy).wait_for(&format!("the start waits: --key: {} does not exist", key.display()));
        assert!(proxy.terminate().success());
    }
}

#[test]
fn exec_waits_for_a_file_as_long_as_for_the_cluster() {
    let site = Site::new();
    let cluster = site.cluster(false);
    let (dir, addr) = (tempfile::tempdir().unwrap(), free_addr(&site.host));
    let ca = dir.path().join("ca.pem");
    let exec = |timeout: &str| {
        let mut exec = etcdproxy(["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
        exec.arg("--cacert").arg(&ca).args(["--timeout", timeout, "--", "true"]).stderr(Stdio::piped());
        exec
    };
    let (code, _, stderr) = finish(&mut exec("1s"));
    assert!(code == 69 && stderr.contains("error: --cacert: "), "{stderr}");
    let mut command = Process::start(&mut exec("60s"));
    Lines::of(&mut command).wait_for("the start waits: --cacert: ");
    std::fs::write(&ca, &site.authority.pem).unwrap();
    assert!(command.wait().success());
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_waited_for() {
    let site = Site::new();
    let cluster = site.cluster(true);
    for run in RUNS {
        let client = site.authority.client_from(SystemTime::now() + Duration::from_secs(3));
        let addr = free_addr(&site.host);
        let mut command = etcdproxy(["run", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
        command.args(run).env("ETCDPROXY_CACERT", &site.authority.pem);
        command.env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", &client.key);
        let mut proxy = Process::start(command.stderr(Stdio::piped()));
        let mut log = Lines::of(&mut proxy);
        log.wait_for("the start waits: ETCDPROXY_CERT: the client certificate is not valid before 20");
        log.wait_for("the start goes on\n");
        wait_ready(&addr);
    }
}

#[test]
fn a_renewal_while_the_proxy_stands_by_is_noticed() {
    let site = Site::new();
    let cluster = site.cluster(false);
    let (dir, addr) = (tempfile::tempdir().unwrap(), free_addr(&site.host));
    let old = write(dir.path(), "ca.pem", &Authority::new("old").pem);
    let start = |ca: &std::path::Path| {
        let args = ["run", "--mode", "native", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
        Process::start(etcdproxy(args).arg("--cacert").arg(ca).stderr(Stdio::piped()))
    };
    let first = start(&write(dir.path(), "right.pem", &site.authority.pem));
    wait_ready(&addr);
    let mut second = start(&old);
    Lines::of(&mut second).wait_for("standing by\n");
    write(dir.path(), "ca.pem", &site.authority.pem);
    drop(first);
    wait_ready(&addr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_name_is_checked_instead_of_the_endpoints_host() {
    let host = unique_host();
    let authority = Authority::new("the cluster's authority");
    let server = authority.server(&["etcd.example"], 365);
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server, client_ca: None }));
    let endpoint = cluster.endpoints();
    let with = |name: &str| {
        let mut command = bare();
        command.env("ETCDPROXY_CACERT", &authority.pem).env("ETCDPROXY_SERVER_NAME", name);
        command
    };
    let mut command = with("etcd.example");
    command.env("ETCDPROXY_ENDPOINTS", &endpoint);
    serves(command, "a variable").await;
    let credentials = json!({"uri": &endpoint, "tls": {"ca": authority.pem, "server_name": "etcd.example"}});
    serves(with_binding(credentials), "a binding").await;
    assert_eq!(
        problem_with(&endpoint, with("other.example").env("ETCDPROXY_MODE", "native")),
        "its certificate is for etcd.example, not for other.example: write one of these names in the endpoint, or \
         give it with --server-name"
    );
    let line = fails_with(78, with("etcd.example").args(["run", "--mode", "grpc-proxy", "--endpoints", &endpoint]));
    assert!(line.contains("ETCDPROXY_SERVER_NAME: etcd's grpc-proxy checks"), "{line}");
}

/// The problem that `--preflight strict` reports for an endpoint.
fn problem_with(endpoint: &str, command: &mut Command) -> String {
    let addr = unique_addr();
    let args = ["run", "--preflight", "strict", "--endpoints", endpoint, "--listen-addr", &addr];
    let line = fails_with(69, command.args(args));
    let (_, problem) = line.split_once("no endpoint can be used: ").unwrap();
    problem.strip_prefix(&format!("{endpoint}: ")).unwrap().to_owned()
}

#[test]
fn each_problem_with_an_endpoint_has_its_own_message() {
    let site = Site::new();
    let host = site.host.as_str();
    let plain = Cluster::start_on(host, 1, None);
    let good = site.cluster(false);
    let mutual = site.cluster(true);
    let expired = site.member(site.authority.server(&[host], -2));
    let wrong_name = site.member(site.authority.server(&["etcd.example", "10.0.0.1"], 365));
    let untrusted = site.member(Authority::new("another").server(&[host], 365));
    let url = |cluster: &Cluster, scheme: &str| format!("{scheme}://{}", cluster.client_addr(0));
    let with_ca = || {
        let mut command = bare();
        command.env("ETCDPROXY_CACERT", &site.authority.pem);
        command
    };

    let web_addr = format!("http://{}", server(host, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(problem_with(&web_addr, &mut bare()), "the server is not etcd: it does not speak HTTP/2");

    let web_addr = format!("http://{}", web_server(host));
    assert_eq!(problem_with(&web_addr, &mut bare()), "the server is not etcd: it speaks HTTP/2, but not gRPC");

    let closed = format!("http://{}", free_addr(host));
    assert_eq!(problem_with(&closed, &mut bare()), "the connection is refused: nothing listens there");
    let problem = problem_with("http://no-such-host.invalid:2379", &mut bare());
    assert!(problem.starts_with("its name does not resolve"), "{problem}");
    assert_eq!(
        problem_with(&url(&plain, "https"), &mut with_ca()),
        "it does not speak TLS: begin the endpoint with http://"
    );
    assert_eq!(problem_with(&url(&good, "http"), &mut bare()), "it speaks TLS only: begin the endpoint with https://");
    let problem = problem_with(&url(&mutual, "http"), &mut bare());
    assert!(problem.starts_with("it speaks TLS only"), "{problem}");
    let problem = problem_with(&url(&good, "https"), &mut bare());
    assert!(problem.starts_with("its certificate is signed by an authority that is not trusted here"), "{problem}");
    let problem = problem_with(&url(&untrusted, "https"), &mut with_ca());
    assert!(problem.starts_with("its certificate is not signed by the authority of ETCDPROXY_CACERT"), "{problem}");
    let problem = problem_with(&url(&expired, "https"), &mut with_ca());
    assert!(problem.starts_with("its certificate expired on 20"), "{problem}");
    let problem = problem_with(&url(&wrong_name, "https"), &mut with_ca());
    let wrong =
        format!("its certificate is for etcd.example, 10.0.0.1, not for {host}: write one of these names in the");
    assert_eq!(problem, format!("{wrong} endpoint, or give it with --server-name"));
    assert_eq!(
        problem_with(&url(&mutual, "https"), &mut with_ca()),
        "it asks for a client certificate: give one with --cert and --key"
    );
    let stranger = Authority::new("a stranger").client(None);
    let mut command = with_ca();
    command.env("ETCDPROXY_CERT", &stranger.cert).env("ETCDPROXY_KEY", &stranger.key);
    let problem = problem_with(&url(&mutual, "https"), &mut command);
    assert!(problem.starts_with("it refuses the client certificate ("), "{problem}");

    for (member, scheme, mut command) in [(&plain, "http", bare()), (&good, "https", with_ca())] {
        member.signal_member(0, Signal::SIGSTOP);
        let problem = problem_with(&url(member, scheme), &mut command);
        assert_eq!(problem, "it accepts the connection but does not answer within 2 s: is the member hung?");
        member.signal_member(0, Signal::SIGCONT);
    }
}

#[test]
fn a_members_own_certificate_can_be_the_ca() {
    let host = unique_host();
    let mut params = rcgen::CertificateParams::new([host.clone()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server: server.clone(), client_ca: None }));
    let addr = free_addr(&host);
    let args = ["run", "--preflight", "strict", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
    let _proxy = Process::start(etcdproxy(args).env("ETCDPROXY_CACERT", server.cert).stderr(Stdio::null()));
    wait_ready(&addr);
}

#[test]
fn a_member_can_listen_on_a_unix_socket() {
    let (dir, host) = (tempfile::tempdir().unwrap(), unique_host());
    let etcd = link(dir.path(), "etcd");
    let (client, peer, addr) = (free_addr(&host), free_addr(&host), free_addr(&host));
    let socket = format!("unix://{}", dir.path().join("etcd.sock").display());
    let mut command = command(&etcd, ["--log-level", "error", "--data-dir"]);
    command.arg(dir.path().join("data")).args(["--listen-client-urls", &format!("{socket},http://{client}")]);
    command.args(["--advertise-client-urls", &format!("http://{client}")]);
    let _member = Process::start(command.args(["--listen-peer-urls", &format!("http://{peer}")]));
    wait_ready(&client);
    for mode in ["grpc-proxy", "native"] {
        let args = ["run", "--mode", mode, "--preflight", "strict", "--endpoints", &socket, "--listen-addr", &addr];
        let _proxy = Process::start(etcdproxy(args).stderr(Stdio::null()));
        wait_ready(&addr);
    }
    let problem = problem_with("unix:///no/such.sock", &mut bare());
    assert_eq!(problem, "it cannot be reached: No such file or directory");
}

#[test]
fn only_the_configured_ca_is_trusted() {
    let site = Site::new();
    let cluster = site.cluster(false);
    let system = tempfile::tempdir().unwrap();
    let right = write(system.path(), "right.pem", &site.authority.pem);
    let addr = free_addr(&site.host);
    let run = |other: &str| {
        let mut command = etcdproxy(["run", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
        command.env("SSL_CERT_FILE", &right).env("SSL_CERT_DIR", system.path());
        command.env("ETCDPROXY_CACERT", other).stderr(Stdio::null());
        command
    };
    let _proxy = Process::start(&mut run(&Authority::new("another").pem));
    let line = fails_with(69, &mut etcdproxy(["wait", "--timeout", "4s", "--listen-addr", &addr]));
    assert!(line.contains("the cluster does not answer"), "{line}");
}

#[test]
fn run_starts_without_a_usable_endpoint_and_with_one_it_does_not_wait_for_the_others() {
    let host = unique_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let mut run = etcdproxy(["run", "--endpoints", &closed, "--listen-addr", &addr]);
    let proxy = Process::start(run.stderr(Stdio::piped()));
    wait_listening(&addr);
    let log = proxy.into_log();
    let line = format!("etcdproxy: warning: http://{closed}: the connection is refused: nothing listens there\n");
    assert!(log.contains(&line) && log.contains("starting anyway"), "{log}");

    let (cluster, hung) = (Cluster::start(1), Cluster::start(1));
    hung.signal_member(0, Signal::SIGSTOP);
    let addr = free_addr(&host);
    let endpoints = format!("{},{}", hung.endpoints(), cluster.endpoints());
    let mut run = etcdproxy(["run", "--preflight", "strict", "--endpoints", &endpoints, "--listen-addr", &addr]);
    let proxy = Process::start(run.stderr(Stdio::piped()));
    wait_ready(&addr);
    let log = proxy.into_log();
    assert!(!log.contains("etcdproxy: warning"), "it waited for the hung member: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_can_log_in_through_the_proxy_and_a_cluster_with_authentication_is_ready() {
    let cluster = Cluster::start(1);
    let admin = load::connect(cluster.client_addr(0)).await.unwrap();
    enable_auth(&admin, &[("root", "r00t"), ("app", "s3cret")]).await;

    let addr = unique_addr();
    let mut command = with_binding(json!({"uri": format!("http://app:s3cret@{}", cluster.client_addr(0))}));
    let args = ["run", "--mode", "grpc-proxy", "--listen-addr", &addr];
    let proxy = Process::start(command.args(args).stderr(Stdio::piped()));
    wait_ready(&addr);
    let options = ConnectOptions::new().with_user("app", "s3cret");
    let mut app = Client::connect([&addr], Some(options)).await.unwrap();
    app.put("app/key", "value", None).await.unwrap();
    assert_eq!(app.get("app/key", None).await.unwrap().kvs()[0].value(), b"value");
    assert!(app.put("other/key", "value", None).await.unwrap_err().to_string().contains("permission denied"));
    let log = proxy.into_log();
    assert!(log.contains("warning: the service binding has a password: ") && !log.contains("s3cret"), "{log}");
}
