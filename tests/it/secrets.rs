//! No secret is in a command line, a log, an error or a file.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::pki::{Authority, Pair};
use crate::support::{Cluster, Process, Security, binary, child_of, command, finish, free_addr, own_host, wait_ready};

/// A part of the key that stands on a line of its own.
fn inner(pair: &Pair) -> String {
    pair.key.lines().nth(1).unwrap().to_owned()
}

/// Paths below `dir` of files that hold one of the secrets.
fn holders(dir: &Path, secrets: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(holders(&path, secrets));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let holds = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            found.extend(secrets.iter().any(holds).then(|| path.display().to_string()));
        }
    }
    found
}

/// Command lines of all processes that hold one of the secrets.
fn command_lines(secrets: &[&str]) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| secrets.iter().any(|secret| line.contains(secret))).collect()
}

#[test]
fn a_key_and_a_password_are_nowhere_but_in_memory() {
    let host = own_host();
    let authority = Authority::new("ca");
    let client = authority.client(None);
    let security = Security { server: authority.server(&[&host], 365), clients: Some(authority.pem.clone()) };
    let cluster = Cluster::start_on(&host, 1, Some(security));
    let (key, password) = (inner(&client), "pa55-w0rd,with@odd");
    let secrets = [key.as_str(), password, "w0rd"];
    let uri = format!("https://app:{password}@{}", cluster.client_addr(0));
    let credentials =
        json!({"uri": uri, "password": password, "ca": authority.pem, "cert": client.cert, "key": client.key});
    let services = json!({"user-provided": [{"name": "my-etcd", "credentials": credentials}]}).to_string();

    // Everything that could be written is written below this directory.
    let scratch = tempfile::tempdir().unwrap();
    for (mode, supervised) in [("grpc-proxy", false), ("grpc-proxy", true), ("tunnel", true)] {
        let addr = free_addr(&host);
        let mut run = command(&binary(), ["run", "--mode", mode, "--listen-addr", &addr]);
        run.env("VCAP_SERVICES", &services).env("TMPDIR", scratch.path()).env("HOME", scratch.path());
        run.env("ETCDPROXY_UNPACK_DIR", scratch.path().join("unpacked")).current_dir(&scratch);
        if supervised {
            run.args(["--drain", "0s"]);
        }
        let (_, shown, _) =
            finish(command(&binary(), ["run", "--mode", "grpc-proxy", "--dry-run"]).env("VCAP_SERVICES", &services));
        assert!(shown.contains("(PEM of service binding \"my-etcd\", key)"), "{shown}");
        assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");

        let mut proxy = Process::start(run.stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_ready(&addr);
        assert_eq!(command_lines(&secrets), [""; 0]);
        assert_eq!(holders(scratch.path(), &secrets), [""; 0]);
        if mode == "tunnel" {
            proxy.kill();
            let log = proxy.stderr_text();
            assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
            continue;
        }
        // etcd itself has the key's file, which nobody else may open, and no copy of the binding.
        let etcd = etcd(&proxy, supervised);
        let environment = fs::read(format!("/proc/{etcd}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains(password));
        assert!(!String::from_utf8_lossy(&environment).contains(&key));

        proxy.signal(Signal::SIGTERM);
        proxy.wait();
        let log = proxy.stderr_text();
        assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    }
    assert_eq!(holders(scratch.path(), &secrets), [""; 0]);
}

#[test]
fn a_key_on_the_command_line_is_not_repeated() {
    let client = Authority::new("ca").client(None);
    for args in [["run", "--key", &client.key], ["run", "--endpoints", &client.key]] {
        let line = crate::support::fails_with(78, &mut command(&binary(), args));
        assert!(line.starts_with("etcdproxy: error: command line: ") && !line.contains(&inner(&client)), "{line}");
    }
}

fn etcd(proxy: &Process, supervised: bool) -> u32 {
    if supervised { child_of(proxy.pid(), "etcd") } else { proxy.pid() }
}

#[test]
fn errors_show_no_secret() {
    let client = Authority::new("ca").client(None);
    let key = inner(&client);
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
        let (code, stdout, stderr) = finish(command(&binary(), ["run", "--dry-run"]).env("VCAP_SERVICES", &services));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (78, "", 1), "{services}\n{stderr}");
        assert!(!secrets.iter().any(|secret| stderr.contains(secret)), "{stderr}");
    }
}
