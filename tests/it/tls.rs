//! Clusters with TLS, with client certificates, with users and passwords; and what is said when it does not fit.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use base64::Engine as _;
use etcd_client::{Client, ConnectOptions, Permission};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::load;
use crate::pki::{Authority, Pair, write};
use crate::support::{
    Cluster, Process, Security, etcdproxy, fails_with, finish, free_addr, own_host, wait_ready, web_server,
};

struct Site {
    host: String,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        Self { host: own_host(), authority: Authority::new("the cluster's authority") }
    }

    fn cluster(&self, client_certificates: bool) -> Cluster {
        let server = self.authority.server(&[&self.host, "localhost"], 365);
        let clients = client_certificates.then(|| self.authority.pem.clone());
        Cluster::start_on(&self.host, 1, Some(Security { server, clients }))
    }

    /// A member with this certificate.
    fn member(&self, server: Pair) -> Cluster {
        Cluster::start_on(&self.host, 1, Some(Security { server, clients: None }))
    }
}

/// Starts the proxy, whose endpoints and certificates `command` knows, and writes and reads through it.
async fn serves(mut command: Command, what: &str) {
    let addr = free_addr(&own_host());
    let mut proxy = Process::start(command.arg("run").args(["--listen-addr", &addr]).stderr(Stdio::piped()));
    wait_ready(&addr);
    let client = load::connect(&addr).await.unwrap();
    client.kv_client().put("key", what, None).await.unwrap();
    assert_eq!(client.kv_client().get("key", None).await.unwrap().kvs()[0].value(), what.as_bytes());
    proxy.kill();
    let log = proxy.stderr_text();
    assert!(!log.contains("etcdproxy: warning"), "{what}: {log}");
}

fn empty() -> Command {
    etcdproxy([""; 0])
}

fn binding(credentials: serde_json::Value) -> Command {
    let mut command = empty();
    command
        .env("VCAP_SERVICES", json!({"user-provided": [{"name": "my-etcd", "credentials": credentials}]}).to_string());
    command
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_alone_is_enough_from_every_source() {
    let site = Site::new();
    let cluster = site.cluster(false);
    let (endpoints, ca) = (cluster.endpoints(), &site.authority.pem);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "ca.pem", ca);

    let mut command = empty();
    command.current_dir(&dir).env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", "ca.pem");
    serves(command, "a file, by a relative path").await;
    for (text, what) in [(ca.clone(), "PEM"), (ca.replace('\n', "\\n"), "escaped PEM"), (base64(ca), "base64")] {
        let mut command = empty();
        // Endpoints without a scheme: TLS is configured, so TLS it is.
        command.env("ETCDPROXY_ENDPOINTS", cluster.client_addr(0)).env("ETCDPROXY_CACERT", text);
        serves(command, what).await;
    }
    serves(binding(json!({"endpoints": [&endpoints], "ca_cert": ca})), "a binding").await;
    let grpc = json!({"composed": [&endpoints], "certificate": {"certificate_base64": base64(ca)}});
    serves(binding(json!({"connection": {"grpc": grpc}})), "a binding of IBM's").await;

    let root = tempfile::tempdir().unwrap();
    let files = root.path().join("my-etcd");
    std::fs::create_dir(&files).unwrap();
    for (name, text) in [("type", "etcd"), ("uri", &endpoints), ("ca", ca)] {
        std::fs::write(files.join(name), text).unwrap();
    }
    let mut command = empty();
    command.env("SERVICE_BINDING_ROOT", root.path());
    serves(command, "files of a binding").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_from_every_source() {
    let site = Site::new();
    let cluster = site.cluster(true);
    let (endpoints, ca) = (cluster.endpoints(), &site.authority.pem);
    let client = site.authority.client(None);
    let dir = tempfile::tempdir().unwrap();
    let [cert_file, key_file] = client.write(dir.path(), "client");
    let ca_file = write(dir.path(), "ca.pem", ca);

    let mut command = empty();
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", &ca_file);
    command.env("ETCDPROXY_CERT", &cert_file).env("ETCDPROXY_KEY", &key_file);
    serves(command, "files").await;
    let mut command = empty();
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_CACERT", base64(ca));
    command.env("ETCDPROXY_CERT", &client.cert).env("ETCDPROXY_KEY", client.key.replace('\n', "\\n"));
    serves(command, "the environment").await;
    let credentials = json!({"uris": [&endpoints], "ca": ca, "client_cert": client.cert, "client_key": client.key});
    serves(binding(credentials), "a binding").await;
    let mut command = binding(json!({"tls": {"cert": base64(&client.cert), "key": base64(&client.key), "ca": ca}}));
    command.env("ETCDPROXY_ENDPOINTS", &endpoints).env("ETCDPROXY_DRAIN", "0s");
    serves(command, "a binding, endpoints from elsewhere, supervised").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_of_version_1_are_as_good() {
    let site = Site::new();
    let cluster = site.cluster(true);
    let other = site.authority.client(None);
    for (name, mode) in [(None, "grpc-proxy"), (Some("app"), "tunnel")] {
        let client = site.authority.client_of_version_1(name);
        let run = || {
            let mut command = empty();
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
fn a_key_that_the_tunnel_does_not_know_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let cert = Authority::new("ca").client(Some("app")).cert;
    let key = write(dir.path(), "key.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let mut command = etcdproxy(["run", "--preflight", "off", "--endpoints", "https://127.0.0.1:1", "--key"]);
    let (_, _, stderr) =
        finish(command.arg(&key).env("ETCDPROXY_CERT", cert).env("ETCDPROXY_LISTEN_ADDR", free_addr(&own_host())));
    let problem = "this kind of key is not supported: use RSA, ECDSA with P-256 or P-384, or Ed25519";
    let line = format!("etcdproxy: error: --key: {}: {problem}\n", key.display());
    assert!(stderr.ends_with(&line) && stderr.matches("error").count() == 1, "{stderr}");
}

#[test]
fn certificates_that_can_never_work_end_the_start_in_words() {
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
        (Some(&named.cert), Some(&named.key), "use --mode tunnel"),
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
fn a_certificate_that_ends_within_thirty_days_is_a_warning() {
    let authority = Authority::new("ca");
    let ending = authority.server(&["h"], 20);
    let mut command = etcdproxy(["run", "--dry-run", "--endpoints", "https://127.0.0.1:1"]);
    let (code, stdout, _) = finish(command.env("ETCDPROXY_CACERT", &ending.cert));
    assert_eq!(code, 0);
    assert!(
        stdout.contains("# warning: ETCDPROXY_CACERT: the certificate authority (CN=a member) expires on 20"),
        "{stdout}"
    );
}

/// What `--preflight strict` says about one endpoint.
fn verdict(endpoint: &str, command: &mut Command) -> String {
    let addr = free_addr(&own_host());
    let args = ["run", "--preflight", "strict", "--endpoints", endpoint, "--listen-addr", &addr];
    let line = fails_with(69, command.args(args));
    let (_, words) = line.split_once("no endpoint can be used: ").unwrap();
    words.strip_prefix(&format!("{endpoint}: ")).unwrap().to_owned()
}

#[test]
fn what_is_wrong_with_an_endpoint_is_said_in_words() {
    let site = Site::new();
    let host = site.host.as_str();
    let plain = Cluster::start_on(host, 1, None);
    let good = site.cluster(false);
    let mutual = site.cluster(true);
    let expired = site.member(site.authority.server(&[host], -2));
    let elsewhere = site.member(site.authority.server(&["etcd.example", "10.0.0.1"], 365));
    let foreign = site.member(Authority::new("another").server(&[host], 365));
    let listens = |cluster: &Cluster, scheme: &str| format!("{scheme}://{}", cluster.client_addr(0));
    let trusting = || {
        let mut command = empty();
        command.env("ETCDPROXY_CACERT", &site.authority.pem);
        command
    };

    let web = TcpListener::bind((host, 0)).unwrap();
    let web_addr = format!("http://{}", web.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in web.incoming().flatten() {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = client.read(&mut [0; 100]);
        }
    });
    assert_eq!(verdict(&web_addr, &mut empty()), "the server is not etcd: it does not speak HTTP/2");

    let web_addr = format!("http://{}", web_server(host));
    assert_eq!(verdict(&web_addr, &mut empty()), "the server is not etcd: it speaks HTTP/2, but not gRPC");

    let closed = format!("http://{}", free_addr(host));
    assert_eq!(verdict(&closed, &mut empty()), "the connection is refused: nothing listens there");
    let words = verdict("http://no-such-host.invalid:2379", &mut empty());
    assert!(words.starts_with("its name does not resolve"), "{words}");
    assert_eq!(
        verdict(&listens(&plain, "https"), &mut trusting()),
        "it does not speak TLS: begin the endpoint with http://"
    );
    assert_eq!(verdict(&listens(&good, "http"), &mut empty()), "it speaks TLS only: begin the endpoint with https://");
    let words = verdict(&listens(&mutual, "http"), &mut empty());
    assert!(words.starts_with("it speaks TLS only"), "{words}");
    let words = verdict(&listens(&good, "https"), &mut empty());
    assert!(words.starts_with("its certificate is signed by an authority that is not trusted here"), "{words}");
    let words = verdict(&listens(&foreign, "https"), &mut trusting());
    assert!(words.starts_with("its certificate is not signed by the authority of ETCDPROXY_CACERT"), "{words}");
    let words = verdict(&listens(&expired, "https"), &mut trusting());
    assert!(words.starts_with("its certificate expired on 20"), "{words}");
    assert_eq!(
        verdict(&listens(&elsewhere, "https"), &mut trusting()),
        "its certificate is for etcd.example, 10.0.0.1, not for this name: use one of these names"
    );
    assert_eq!(
        verdict(&listens(&mutual, "https"), &mut trusting()),
        "it asks for a client certificate: give one with --cert and --key"
    );
    let stranger = Authority::new("a stranger").client(None);
    let mut command = trusting();
    command.env("ETCDPROXY_CERT", &stranger.cert).env("ETCDPROXY_KEY", &stranger.key);
    let words = verdict(&listens(&mutual, "https"), &mut command);
    assert!(words.starts_with("it refuses the client certificate ("), "{words}");

    for (member, scheme, mut command) in [(&plain, "http", empty()), (&good, "https", trusting())] {
        member.signal_member(0, Signal::SIGSTOP);
        let words = verdict(&listens(member, scheme), &mut command);
        assert_eq!(words, "it accepts the connection but does not answer within 2 s: is the member hung?");
        member.signal_member(0, Signal::SIGCONT);
    }
}

#[test]
fn a_servers_own_certificate_may_stand_among_the_authorities() {
    let host = own_host();
    let mut params = rcgen::CertificateParams::new([host.clone()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let cluster = Cluster::start_on(&host, 1, Some(Security { server: server.clone(), clients: None }));
    let addr = free_addr(&host);
    let args = ["run", "--preflight", "strict", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
    let _proxy = Process::start(etcdproxy(args).env("ETCDPROXY_CACERT", server.cert).stderr(Stdio::null()));
    wait_ready(&addr);
}

#[test]
fn a_member_on_a_unix_socket() {
    let (dir, host) = (tempfile::tempdir().unwrap(), own_host());
    let etcd = crate::support::link(dir.path(), "etcd");
    let (client, peer, addr) = (free_addr(&host), free_addr(&host), free_addr(&host));
    let socket = format!("unix://{}", dir.path().join("etcd.sock").display());
    let mut command = crate::support::command(&etcd, ["--log-level", "error", "--data-dir"]);
    command.arg(dir.path().join("data")).args(["--listen-client-urls", &format!("{socket},http://{client}")]);
    command.args(["--advertise-client-urls", &format!("http://{client}")]);
    let _member = Process::start(command.args(["--listen-peer-urls", &format!("http://{peer}")]));
    wait_ready(&client);
    for mode in ["grpc-proxy", "tunnel"] {
        let args = ["run", "--mode", mode, "--preflight", "strict", "--endpoints", &socket, "--listen-addr", &addr];
        let _proxy = Process::start(etcdproxy(args).stderr(Stdio::null()));
        wait_ready(&addr);
    }
    let words = verdict("unix:///no/such.sock", &mut empty());
    assert_eq!(words, "it cannot be reached: No such file or directory");
}

#[test]
fn only_the_authority_that_is_given_is_trusted() {
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
fn without_a_good_endpoint_it_starts_all_the_same_and_with_one_it_does_not_wait_for_the_others() {
    let host = own_host();
    let (closed, addr) = (free_addr(&host), free_addr(&host));
    let mut run = etcdproxy(["run", "--endpoints", &closed, "--listen-addr", &addr]);
    let mut proxy = Process::start(run.stderr(Stdio::piped()));
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr]));
    assert_eq!(code, 0, "{stderr}");
    proxy.kill();
    let log = proxy.stderr_text();
    let line = format!("etcdproxy: warning: http://{closed}: the connection is refused: nothing listens there\n");
    assert!(log.contains(&line) && log.contains("starting anyway"), "{log}");

    let (cluster, hung) = (Cluster::start(1), Cluster::start(1));
    hung.signal_member(0, Signal::SIGSTOP);
    let addr = free_addr(&host);
    let endpoints = format!("{},{}", hung.endpoints(), cluster.endpoints());
    let mut run = etcdproxy(["run", "--preflight", "strict", "--endpoints", &endpoints, "--listen-addr", &addr]);
    let mut proxy = Process::start(run.stderr(Stdio::piped()));
    wait_ready(&addr);
    proxy.kill();
    let log = proxy.stderr_text();
    assert!(!log.contains("etcdproxy: warning"), "the hung one is not waited for: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords_pass_through_and_an_authenticated_cluster_counts_as_ready() {
    let cluster = Cluster::start(1);
    let admin = load::connect(cluster.client_addr(0)).await.unwrap();
    let mut auth = admin.auth_client();
    for (user, password) in [("root", "r00t"), ("app", "s3cret")] {
        auth.user_add(user, password, None).await.unwrap();
    }
    auth.role_add("app").await.unwrap();
    auth.role_grant_permission("app", Permission::read_write("app/").with_prefix()).await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.user_grant_role("app", "app").await.unwrap();
    auth.auth_enable().await.unwrap();

    let addr = free_addr(&own_host());
    let mut command = binding(json!({"uri": format!("http://app:s3cret@{}", cluster.client_addr(0))}));
    let args = ["run", "--mode", "grpc-proxy", "--listen-addr", &addr];
    let mut proxy = Process::start(command.args(args).stderr(Stdio::piped()));
    wait_ready(&addr);
    let options = ConnectOptions::new().with_user("app", "s3cret");
    let mut app = Client::connect([&addr], Some(options)).await.unwrap();
    app.put("app/key", "value", None).await.unwrap();
    assert_eq!(app.get("app/key", None).await.unwrap().kvs()[0].value(), b"value");
    assert!(app.put("other/key", "value", None).await.unwrap_err().to_string().contains("permission denied"));
    proxy.kill();
    let log = proxy.stderr_text();
    assert!(log.contains("warning: the service binding has a password: ") && !log.contains("s3cret"), "{log}");
}
