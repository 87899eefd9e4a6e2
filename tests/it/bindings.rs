//! Service bindings in every shape that services give them, with real members.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::pki::{Authority, Pair};
use crate::support::{Cluster, Process, Tls, etcdproxy, finish, succeeds, unique_addr, unique_host, wait_ready};

/// What becomes of a binding.
enum Outcome {
    /// The proxy uses these endpoints.
    Endpoints(&'static str),
    /// It serves, with no warning. `CA`, `CERT`, `KEY`, `HOST` and `PORT` are those of a real cluster.
    Serves,
    /// The proxy uses the endpoint `https://a:1`, and a warning names these entries.
    Unused(&'static str),
    /// The proxy does not start, and says this.
    Fails(&'static str),
}

use Outcome::{Endpoints, Fails, Serves, Unused};

/// How services name the members: what it is, the credentials, what happens.
const MEMBERS: [(&str, &str, Outcome); 27] = [
    ("a list of URLs", r#"{"endpoints": ["https://a:1", "https://b:2"]}"#, Endpoints("https://a:1 https://b:2")),
    ("commas", r#"{"uri": "a:1, b:2"}"#, Endpoints("http://a:1 http://b:2")),
    ("semicolons", r#"{"uri": "a:1;b:2"}"#, Endpoints("http://a:1 http://b:2")),
    ("spaces", r#"{"uri": "a:1 b:2"}"#, Endpoints("http://a:1 http://b:2")),
    ("line ends", r#"{"uri": "a:1\nb:2\n"}"#, Endpoints("http://a:1 http://b:2")),
    ("line ends as \\n", r#"{"uri": "a:1\\nb:2"}"#, Endpoints("http://a:1 http://b:2")),
    ("quotes around each", r#"{"uri": "\"a:1\", 'b:2'"}"#, Endpoints("http://a:1 http://b:2")),
    ("JSON in a string", r#"{"uri": "[\"a:1\", \"b:2\"]"}"#, Endpoints("http://a:1 http://b:2")),
    (
        "a list as Java and Go print it",
        r#"{"uri": "[https://a:1, https://b:2]"}"#,
        Endpoints("https://a:1 https://b:2"),
    ),
    ("a list as Python prints it", r#"{"uri": "['a:1', 'b:2']"}"#, Endpoints("http://a:1 http://b:2")),
    ("objects with url", r#"{"members": [{"url": "https://a:1"}]}"#, Endpoints("https://a:1")),
    ("objects with address and port", r#"{"nodes": [{"address": "a", "port": 1}]}"#, Endpoints("http://a:1")),
    ("objects with host and port", r#"{"hosts": [{"hostname": "a", "port": "1"}]}"#, Endpoints("http://a:1")),
    ("etcdctl member list", r#"{"members": [{"name": "m", "clientURLs": ["http://a:1"]}]}"#, Endpoints("http://a:1")),
    (
        "an object of URLs",
        r#"{"endpoints": {"m1": "https://a:1", "m2": "https://b:2"}}"#,
        Endpoints("https://a:1 https://b:2"),
    ),
    ("host and port", r#"{"host": "a", "port": 1}"#, Endpoints("http://a:1")),
    ("an IPv6 host and port", r#"{"host": "2001:db8::1", "port": 1}"#, Endpoints("http://[2001:db8::1]:1")),
    ("host, port and scheme", r#"{"host": "a", "port": 1, "scheme": "https"}"#, Endpoints("https://a:1")),
    ("host, port and tls: true", r#"{"host": "a", "port": 1, "tls": true}"#, Endpoints("https://a:1")),
    ("a host with a password", r#"{"hosts": [{"host": "u:s3cret@a", "port": 1}]}"#, Endpoints("http://a:1")),
    ("a URL with a password", r#"{"uri": "https://u:s3,c;r et@a:1/x"}"#, Endpoints("https://a:1")),
    ("etcd://", r#"{"uri": "etcd://u:s3cret@a:1,b:2"}"#, Endpoints("http://a:1 http://b:2")),
    ("etcds://", r#"{"uri": "etcds://a:1"}"#, Endpoints("https://a:1")),
    (
        "IBM Databases for etcd",
        r#"{"connection": {"grpc": {"composed": ["https://u:s3cret@a:1"], "hosts": [{"hostname": "a", "port": 1}], "authentication": {"username": "u", "password": "s3cret"}}, "cli": {"composed": ["etcdctl"]}}}"#,
        Endpoints("https://a:1"),
    ),
    (
        "no members",
        r#"{"password": "s3cret", "server_list": "s3cret"}"#,
        Fails("it has no endpoints (not understood: server_list): "),
    ),
    ("a reference to CredHub", r#"{"credhub-ref": "/s3cret"}"#, Fails("its credentials are in CredHub")),
    ("etcd's version 2 API", r#"{"uri": "http://u:s3cret@a:1/v2/keys"}"#, Fails("version 2 API")),
];

/// All tables for people: a title, and credentials with what happens.
pub(crate) fn tables() -> [(&'static str, Vec<(&'static str, String)>); 3] {
    let words = |credentials: &str, outcome: &Outcome| match outcome {
        Endpoints(used) => format!("`{credentials}`: uses `{used}`"),
        Serves => format!("`{credentials}`: serves"),
        Unused(names) => format!("`{credentials}`: a warning names `{names}`"),
        Fails(why) => format!("`{credentials}`: does not start: `{why}`"),
    };
    let rows = |cases: &[(&'static str, &'static str, Outcome)]| {
        cases.iter().map(|(name, credentials, outcome)| (*name, words(credentials, outcome))).collect()
    };
    let files = |files: &[(&str, &str)]| {
        let names: Vec<_> = files.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("files {}: serves", names.join(", "))
    };
    [
        ("Members in credentials", rows(&MEMBERS)),
        ("Certificates in credentials", rows(&CERTIFICATES)),
        (
            "Directories of files (servicebinding.io)",
            DIRECTORIES.iter().map(|(name, all)| (*name, files(all))).collect(),
        ),
    ]
}

/// How services give certificates.
const CERTIFICATES: [(&str, &str, Outcome); 12] = [
    ("ca, cert and key", r#"{"uri": "https://HOST:PORT", "ca": "CA", "cert": "CERT", "key": "KEY"}"#, Serves),
    (
        "other spellings",
        r#"{"host": "HOST", "port": "PORT", "caCert": "CA", "client-cert": "CERT", "PRIVATE_KEY": "KEY"}"#,
        Serves,
    ),
    ("below tls", r#"{"hosts": ["HOST:PORT"], "tls": {"ca": "CA", "cert": "CERT", "key": "KEY"}}"#, Serves),
    (
        "below tls, as JSON in a string",
        r#"{"hosts": ["HOST:PORT"], "tls": "{\"ca\": \"CA\", \"cert\": \"CERT\", \"key\": \"KEY\"}"}"#,
        Serves,
    ),
    (
        "as a Kubernetes TLS secret",
        r#"{"uri": "HOST:PORT", "ca.crt": "CA", "tls.crt": "CERT", "tls.key": "KEY"}"#,
        Serves,
    ),
    (
        "as servicebinding.io has them",
        r#"{"uri": "etcd://HOST:PORT", "ca.crt": "CA", "certificates": "CERT", "private-key": "KEY"}"#,
        Serves,
    ),
    (
        "ETCDCTL_ names",
        r#"{"ETCDCTL_ENDPOINTS": "https://HOST:PORT", "ETCDCTL_CACERT": "CA", "ETCDCTL_CERT": "CERT", "ETCDCTL_KEY": "KEY"}"#,
        Serves,
    ),
    (
        "a list of authorities",
        r#"{"uri": "HOST:PORT", "ca_certificates": ["CA", "CA"], "certificate": "CERT", "key": "KEY"}"#,
        Serves,
    ),
    ("a keystore", r#"{"uri": "https://a:1", "keystore.jks": "s3cret", "plan": "x"}"#, Unused("keystore.jks")),
    (
        "names that nobody knows",
        r#"{"uri": "https://a:1", "admin": {"cert": "s3cret"}, "dashboard_url": "s3cret"}"#,
        Unused("dashboard_url, admin.cert"),
    ),
    ("members that differ", r#"{"hosts": ["https://a:1"], "uri": "https://s3cret:1"}"#, Unused("uri")),
    (
        "a key without a certificate",
        r#"{"uri": "https://a:1", "private-key": "KEY"}"#,
        Fails(
            "service binding \"my-etcd\", private-key: a client certificate and its key belong together: give the other one with ETCDPROXY_CERT",
        ),
    ),
];

/// The files of a binding in a directory, as in servicebinding.io's specification.
const DIRECTORIES: [(&str, &[(&str, &str)]); 4] = [
    (
        "servicebinding.io's entries",
        &[
            ("type", "etcd"),
            ("provider", "x"),
            ("host", "HOST"),
            ("port", "PORT"),
            ("ca.crt", "CA"),
            ("certificates", "CERT"),
            ("private-key", "KEY"),
        ],
    ),
    (
        "a Kubernetes TLS secret",
        &[("type", "etcd"), ("uri", "https://HOST:PORT\n"), ("ca.crt", "CA"), ("tls.crt", "CERT"), ("tls.key", "KEY")],
    ),
    (
        "a provider that is etcd, members as JSON",
        &[
            ("type", "key-value"),
            ("provider", "etcd"),
            ("endpoints", "[\"https://HOST:PORT\"]\n"),
            ("tls", "{\n\"ca\": \"CA\",\n\"cert\": \"CERT\", \"key\": \"KEY\"}"),
        ],
    ),
    ("no type", &[("endpoints", "https://HOST:PORT\n"), ("ca", "CA"), ("cert", "CERT"), ("key", "KEY")]),
];

/// A member that wants client certificates, and what an application needs for it.
struct Site {
    cluster: Cluster,
    ca: String,
    /// Its common name makes `auto` choose native.
    client: Pair,
}

impl Site {
    fn new() -> Self {
        let (host, authority) = (unique_host(), Authority::new("ca"));
        let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
        let client = authority.client(Some("app"));
        Self { cluster: Cluster::start_on(&host, 1, Some(tls)), ca: authority.pem, client }
    }

    fn fill(&self, text: &str) -> String {
        let (host, port) = self.cluster.client_addr(0).rsplit_once(':').unwrap();
        let text = text.replace("HOST", host).replace("PORT", port);
        match text.as_str() {
            "CA" => self.ca.clone(),
            "CERT" => self.client.cert.clone(),
            "KEY" => self.client.key.clone(),
            // JSON in a string.
            text if text.contains("\"CA\"") => {
                let mut inner: Value = serde_json::from_str(text).unwrap();
                self.fill_all(&mut inner);
                serde_json::to_string_pretty(&inner).unwrap()
            }
            text => text.to_owned(),
        }
    }

    fn fill_all(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.fill(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.fill_all(value)),
            Value::Object(object) => object.values_mut().for_each(|value| self.fill_all(value)),
            _ => {}
        }
    }
}

fn with_services(args: &[&str], credentials: &Value) -> Command {
    let services = json!({"user-provided": [{"name": "my-etcd", "credentials": credentials}]}).to_string();
    let mut command = etcdproxy(args);
    command.env("VCAP_SERVICES", services);
    command
}

/// The values of the lines `# NAME: VALUE` that a dry run prints.
fn printed<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    output.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// Starts the proxy, and asserts that it reaches the cluster and logs no warning.
#[track_caller]
fn serves(mut command: Command, name: &str) {
    let addr = unique_addr();
    let proxy = Process::start(command.args(["--listen-addr", &addr]).stderr(Stdio::piped()));
    wait_ready(&addr);
    let log = proxy.into_log();
    assert!(!log.contains("etcdproxy: warning") && log.contains("mode native"), "{name}: {log}");
}

/// Asserts what happens, without a cluster.
#[track_caller]
fn prints(mut command: Command, name: &str, outcome: &Outcome) {
    let (code, stdout, stderr) = finish(&mut command);
    assert!(!stdout.contains("s3cret") && !stderr.contains("s3cret"), "{name}: {stdout}{stderr}");
    match outcome {
        Endpoints(expected) => {
            assert_eq!((code, printed(&stdout, "endpoint").join(" ").as_str()), (0, *expected), "{name}: {stderr}");
            assert!(!stdout.contains("not understood"), "{name}: {stdout}");
        }
        Unused(expected) => {
            assert_eq!((code, printed(&stdout, "endpoint")), (0, vec!["https://a:1"]), "{name}: {stderr}");
            let expected = format!("service binding \"my-etcd\": not understood and not used: {expected}. ");
            assert!(printed(&stdout, "warning")[0].starts_with(&expected), "{name}: {stdout}");
        }
        Fails(expected) => {
            assert_eq!((code, stderr.lines().count()), (78, 1), "{name}: {stdout}{stderr}");
            assert!(stderr.contains("service binding \"my-etcd\"") && stderr.contains(expected), "{name}: {stderr}");
        }
        Serves => unreachable!("{name}"),
    }
}

#[test]
fn members_in_every_shape() {
    for (name, credentials, outcome) in &MEMBERS {
        let credentials = serde_json::from_str(credentials).unwrap();
        prints(with_services(&["run", "--dry-run"], &credentials), name, outcome);
    }
}

#[test]
fn certificates_in_every_shape() {
    let site = Site::new();
    for (name, credentials, outcome) in &CERTIFICATES {
        let mut credentials = serde_json::from_str(credentials).unwrap();
        site.fill_all(&mut credentials);
        match outcome {
            Serves => serves(with_services(&["run"], &credentials), name),
            outcome => prints(with_services(&["run", "--dry-run"], &credentials), name, outcome),
        }
    }
}

/// Writes files as Kubernetes mounts a secret: links that lead through a hidden directory.
fn mount(dir: &Path, files: &[(&str, String)]) {
    let data = dir.join("..2026_01_01");
    fs::create_dir_all(&data).unwrap();
    symlink("..2026_01_01", dir.join("..data")).unwrap();
    for (name, text) in files {
        fs::write(data.join(name), text).unwrap();
        symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
    }
}

#[test]
fn directories_of_files() {
    let site = Site::new();
    for (name, files) in &DIRECTORIES {
        let root = tempfile::tempdir().unwrap();
        let files: Vec<(&str, String)> = files.iter().map(|(file, text)| (*file, site.fill(text))).collect();
        mount(&root.path().join("my-etcd"), &files);
        mount(&root.path().join("db"), &[("type", "postgresql".to_owned()), ("uri", "s3cret".to_owned())]);
        let mut run = etcdproxy(["run"]);
        run.env("SERVICE_BINDING_ROOT", root.path());
        serves(run, name);
    }
}

#[test]
fn a_binary_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("my-etcd");
    mount(&dir, &[("type", "etcd".to_owned()), ("uri", "https://a:1".to_owned())]);
    fs::write(dir.join("truststore.p12"), b"\x30\x82\xff").unwrap();
    let shown = succeeds(etcdproxy(["run", "--dry-run"]).env("SERVICE_BINDING_ROOT", root.path()));
    assert!(printed(&shown, "warning")[0].contains("not understood and not used: truststore.p12. "), "{shown}");
    // Under a known name, whoever reads it says what is wrong.
    fs::write(dir.join("ca.crt"), b"\x30\x82\xff").unwrap();
    let (code, _, stderr) = finish(etcdproxy(["run", "--dry-run"]).env("SERVICE_BINDING_ROOT", root.path()));
    assert_eq!(code, 78);
    assert!(stderr.starts_with("etcdproxy: error: service binding \"my-etcd\", ca.crt: "), "{stderr}");
}

#[test]
fn an_srv_domain_in_a_binding_is_used() {
    let shown = succeeds(&mut with_services(&["run", "--dry-run"], &json!({"srv": "example.com"})));
    assert_eq!(printed(&shown, "endpoints"), ["the SRV records of example.com"], "{shown}");
}
