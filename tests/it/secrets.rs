//! No secret appears in a command line, a log, an error message or a file.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::pki::{Authority, Pair};
use crate::support::{
    Cluster, Process, Tls, child_of, etcdproxy, fails_with, finish, free_addr, succeeds, unique_host, wait_ready,
};

/// A line of the private key.
fn line_of_key(pair: &Pair) -> String {
    pair.key.lines().nth(1).unwrap().to_owned()
}

/// Paths of the files below `dir` that contain one of the secrets.
fn files_with(dir: &Path, secrets: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_with(&path, secrets));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let contains = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            found.extend(secrets.iter().any(contains).then(|| path.display().to_string()));
        }
    }
    found
}

/// Command lines, of all processes, that contain one of the secrets.
fn command_lines_with(secrets: &[&str]) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| secrets.iter().any(|secret| line.contains(secret))).collect()
}

#[test]
fn a_key_and_a_password_exist_only_in_memory() {
    let host = unique_host();
    let authority = Authority::new("ca");
    let client = authority.client(None);
    let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
    let cluster = Cluster::start_on(&host, 1, Some(tls));
    let (key, password) = (line_of_key(&client), "pa55-w0rd,with@odd");
    let secrets = [key.as_str(), password, "w0rd"];
    let uri = format!("https://app:{password}@{}", cluster.client_addr(0));
    let credentials =
        json!({"uri": uri, "password": password, "ca": authority.pem, "cert": client.cert, "key": client.key});
    let services = json!({"user-provided": [{"name": "my-etcd", "credentials": credentials}]}).to_string();

    // Whatever the proxy writes, it writes below this directory.
    let scratch = tempfile::tempdir().unwrap();
    for (mode, supervised) in [("grpc-proxy", false), ("grpc-proxy", true), ("native", true)] {
        let addr = free_addr(&host);
        let mut run = etcdproxy(["run", "--mode", mode, "--listen-addr", &addr]);
        run.env("VCAP_SERVICES", &services).env("TMPDIR", scratch.path()).env("HOME", scratch.path());
        run.env("ETCDPROXY_UNPACK_DIR", scratch.path().join("unpacked")).current_dir(&scratch);
        if supervised {
            run.args(["--drain", "0s"]);
        }
        let shown = succeeds(etcdproxy(["run", "--mode", "grpc-proxy", "--dry-run"]).env("VCAP_SERVICES", &services));
        assert!(shown.contains("(PEM of service binding \"my-etcd\", key)"), "{shown}");
        assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");

        let mut proxy = Process::start(run.stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_ready(&addr);
        assert_eq!(command_lines_with(&secrets), [""; 0]);
        assert_eq!(files_with(scratch.path(), &secrets), [""; 0]);
        if mode == "grpc-proxy" {
            // etcd has the key as a file that nobody else can open, and no copy of the binding.
            let etcd = if supervised { child_of(proxy.pid(), "etcd") } else { proxy.pid() };
            let environment = fs::read(format!("/proc/{etcd}/environ")).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains(password));
            assert!(!String::from_utf8_lossy(&environment).contains(&key));
        }
        proxy.terminate();
        let log = proxy.stderr_text();
        assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    }
    assert_eq!(files_with(scratch.path(), &secrets), [""; 0]);
}

#[test]
fn a_key_on_the_command_line_is_not_in_the_error_message() {
    let client = Authority::new("ca").client(None);
    for args in [["run", "--key", &client.key], ["run", "--endpoints", &client.key]] {
        let line = fails_with(2, &mut etcdproxy(args));
        assert!(
            line.starts_with("etcdproxy: error: command line: ") && !line.contains(&line_of_key(&client)),
            "{line}"
        );
    }
}

#[test]
fn error_messages_contain_no_secret() {
    let client = Authority::new("ca").client(None);
    let key = line_of_key(&client);
    let secrets = [key.as_str(), "pa55"];
    let service =
        |credentials: serde_json::Value| json!({"etcd": [{"name": "e", "credentials": credentials}]}).to_string();
    let half_key = client.key[..client.key.len() / 2].to_owned();
    for services in [
        service(json!({"uri": "https://u:pa55@", "key": client.key})),
        service(json!({"uri": "https://u:pa55@h:x1"})),
        service(json!({"uri": "http://u:pa55@h:1/v2/keys"})),
        service(json!({"uri": "http://u:pa55@h:1,https://u:pa55@h:2"})),
        service(json!({"hosts": ["pa55 @@"]})),
        service(json!({"uri": "https://h:1", "cert": client.cert, "key": half_key})),
        service(json!({"uri": "https://h:1", "cert": key, "key": client.key})),
        service(json!({"uri": "https://h:1", "ca": client.key})),
        service(json!("pa55")),
        service(json!({"uri": "https://h:1", "key": client.key})).replace("}]", "]"),
    ] {
        let (code, stdout, stderr) = finish(etcdproxy(["run", "--dry-run"]).env("VCAP_SERVICES", &services));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (78, "", 1), "{services}\n{stderr}");
        assert!(!secrets.iter().any(|secret| stderr.contains(secret)), "{stderr}");
    }
}
