//! The status page, `/status.json` and `etcdproxy top`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::grpc::Server;
use crate::native::{PUT, RANGE};
use crate::pki::Authority;
use crate::support::{
    Cluster, Process, Tls, etcdproxy, eventually, fails_with, http_over, succeeds, unique_addr, unique_host, wait_ready,
};

/// The answer to a request with these headers.
fn ask(addr: &str, request: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status_of(addr: &str) -> Value {
    let answer = ask(addr, "GET /status.json", "Host: localhost\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    serde_json::from_str(body).unwrap()
}

fn run(endpoints: &str, addr: &str, args: &[&str]) -> Process {
    let mut command = etcdproxy(["run", "--endpoints", endpoints, "--listen-addr", addr]);
    let process = Process::start(command.args(args).stderr(Stdio::null()));
    wait_ready(addr);
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_native_as_json() {
    let mut cluster = Cluster::start(3);
    let addr = unique_addr();
    let _proxy = run(&cluster.endpoints(), &addr, &["--prefer", "leader"]);
    let server = Server::connect(&addr).await;
    for _ in 0..20 {
        server.call(PUT, b"\x0a\x01k\x12\x01v").await.answer();
        server.call(RANGE, b"\x0a\x01k").await.answer();
    }
    eventually("three members with versions, and a point with calls", || {
        let status = status_of(&addr);
        let members = status["members"].as_array().unwrap();
        let history = status["calls"]["history"].as_array().unwrap();
        members.iter().filter(|it| it["state"] == "up" && it["version"] == "3.7.2").count() == 3
            && members.iter().filter(|it| it["leads"] == true && it["serves"] == true).count() == 1
            && history.iter().any(|point| point["calls"].as_f64() > Some(0.0) && point["p99"].as_f64() > Some(0.0))
    });
    let status = status_of(&addr);
    assert_eq!(status["summary"]["level"], "good", "{status}");
    assert_eq!(status["health"], json!({"ok": true, "reason": ""}));
    assert_eq!((&status["mode"], &status["listen_addr"]), (&json!("native"), &json!(addr)));
    let method = |name: &str| json!({"name": name, "total": 20, "failed": 0});
    for name in ["KV/Put", "KV/Range"] {
        assert!(status["calls"]["methods"].as_array().unwrap().contains(&method(name)), "{status}");
    }
    let settings = status["settings"].as_array().unwrap();
    let given = json!({"name": "--prefer", "value": "leader", "source": "flag", "from": "--prefer"});
    assert!(settings.contains(&given), "{status}");
    let log = status["log"].as_array().unwrap();
    assert!(log.iter().any(|line| line["text"].as_str().unwrap().starts_with("calls go to ")), "{status}");

    let follower = (cluster.leader().await + 1) % 3;
    let victim = format!("http://{}", cluster.client_addr(follower));
    cluster.kill_member(follower);
    eventually("the member is down", || {
        let status = status_of(&addr);
        let members = status["members"].as_array().unwrap().iter();
        let down: Vec<_> =
            members.filter(|it| it["state"] == "down").map(|it| (&it["address"], &it["error"])).collect();
        down.len() == 1 && down[0].0 == victim.as_str() && down[0].1.is_string() && status["summary"]["level"] == "warn"
    });
    let line = succeeds(&mut etcdproxy(["top", "--once", "--listen-addr", &addr]));
    assert!(line.contains("● Healthy, with ") && line.contains(&format!("{victim} is down: ")), "{line}");
}

#[test]
fn the_page_has_a_strict_policy() {
    let cluster = Cluster::start(1);
    let (addr, metrics) = (unique_addr(), unique_addr());
    let _proxy = run(&cluster.endpoints(), &addr, &["--mode", "native", "--metrics-addr", &metrics]);
    for addr in [&addr, &metrics] {
        for (path, kind) in [("/", "text/html; charset=utf-8"), ("/status.json", "application/json")] {
            let answer = ask(addr, &format!("GET {path}"), &format!("Host: {addr}\r\n"));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            for line in [
                &format!("Content-Type: {kind}"),
                "X-Content-Type-Options: nosniff",
                "Referrer-Policy: no-referrer",
                "Cache-Control: no-store",
                "Cross-Origin-Resource-Policy: same-origin",
            ] {
                assert!(head.lines().any(|header| header == line), "{line}: {head}");
            }
            assert!(head.contains("default-src 'none'; script-src 'sha256-") && !head.contains("unsafe"), "{head}");
            assert!(!head.to_lowercase().contains("access-control"), "{head}");
            let asked = ask(addr, &format!("HEAD {path}"), "");
            let (asked, nothing) = asked.split_once("\r\n\r\n").unwrap();
            assert_eq!(nothing, "");
            if path == "/" {
                assert_eq!(asked, head);
                assert!(body.starts_with("<!doctype html>"));
            }
        }
        // A web site that has moved to this address.
        for host in ["evil.example", "localhost.evil.example:2379", "127.0.0.1.evil.example"] {
            let answer = ask(addr, "GET /status.json", &format!("Host: {host}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 421 ") && !answer.contains("evil") && !answer.contains("members"));
        }
        // The rest of the port is as it was.
        assert!(ask(addr, "GET /health", "Host: evil.example\r\n").starts_with("HTTP/1.1 200 "));
    }
    assert!(ask(&metrics, "POST /", "").starts_with("HTTP/1.1 404 "));
    assert!(ask(&addr, "GET /version", "Host: x\r\n").contains("etcdserver"), "it goes to the member");
    let endless = format!("Host: localhost\r\nX: {}\r\n", "x".repeat(32 * 1024));
    assert!(ask(&addr, "GET /", &endless).starts_with("HTTP/1.1 421 "));
}

#[test]
fn a_socket_has_the_page_too() {
    let cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.sock");
    let _proxy = run(&cluster.endpoints(), &format!("unix:{}", path.display()), &[]);
    // Its Host is `x`.
    let answer = http_over(UnixStream::connect(&path).unwrap(), "GET", "/status.json");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let mut stream = UnixStream::connect(&path).unwrap();
    write!(stream, "GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("<!doctype html>"));
}

/// Needs an address of this host that is not loopback.
#[test]
fn others_see_what_they_saw_without_the_page() {
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = udp.connect("192.0.2.1:9").ok().and_then(|()| udp.local_addr().ok()).map(|addr| addr.ip());
    let Some(own) = own.filter(|ip| !ip.is_loopback()) else {
        println!("skipped: this host has no other address than loopback");
        return;
    };
    let cluster = Cluster::start(1);
    let free = |host: &str| TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().to_string();
    let (addr, metrics) = (free(&own.to_string()), free(&own.to_string()));
    let _proxy = run(&cluster.endpoints(), &addr, &["--mode", "native", "--metrics-addr", &metrics]);
    for path in ["/", "/status.json"] {
        let answer = ask(&addr, &format!("GET {path}"), "Host: localhost\r\n");
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("Content-Security-Policy"), "{answer}");
        // The port for metrics is there to be seen, under any name.
        assert!(ask(&metrics, &format!("GET {path}"), "Host: sidecar.example\r\n").starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_supervised_etcd_has_the_page_at_the_port_for_metrics() {
    let cluster = Cluster::start(1);
    let (addr, metrics) = (unique_addr(), unique_addr());
    let args = ["--mode", "grpc-proxy", "--drain", "0s", "--metrics-addr", &metrics];
    let _proxy = run(&cluster.endpoints(), &addr, &args);
    eventually("it is healthy", || status_of(&metrics)["health"]["ok"] == true);
    let status = status_of(&metrics);
    assert_eq!((&status["mode"], &status["calls"]), (&json!("grpc-proxy"), &Value::Null));
    assert_eq!(status["etcd"]["listening"], true);
    assert!(ask(&metrics, "GET /", "Host: localhost\r\n").contains("<!doctype html>"));
    let line = fails_with(69, &mut etcdproxy(["top", "--once", "--listen-addr", &addr]));
    assert!(line.contains("it has no status (404): ") && line.contains("--metrics-addr"), "{line}");
    assert!(succeeds(&mut etcdproxy(["top", "--once", "--metrics-addr", &metrics])).contains("mode grpc-proxy"));
}

#[test]
fn no_secret_is_on_a_page() {
    let host = unique_host();
    let authority = Authority::new("ca");
    let client = authority.client(None);
    let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
    let cluster = Cluster::start_on(&host, 1, Some(tls));
    let (password, key) = ("pa55-w0rd", client.key.lines().nth(1).unwrap());
    let uri = format!("https://app:{password}@{}", cluster.client_addr(0));
    let bound = json!({"uri": uri, "ca": authority.pem, "cert": client.cert, "key": client.key});
    let services = json!({"etcd": [{"name": "e", "credentials": bound}]}).to_string();
    let variables = [
        ("ETCDPROXY_ENDPOINTS", cluster.endpoints()),
        ("ETCDPROXY_CACERT", authority.pem.clone()),
        ("ETCDPROXY_CERT", client.cert.clone()),
        ("ETCDPROXY_KEY", client.key.clone()),
        ("ETCDPROXY_USERNAME", "app".to_owned()),
        ("ETCDPROXY_PASSWORD", password.to_owned()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = crate::pki::write(dir.path(), "password", password);
    let flags = ["--username".into(), "app".into(), "--password-file".into(), file.into_os_string()];
    for (sources, login) in
        [(vec![("VCAP_SERVICES", services)], false), (variables[..4].to_vec(), true), (variables.to_vec(), false)]
    {
        let (addr, metrics) = (unique_addr(), unique_addr());
        let mut command = etcdproxy(["run", "--mode", "native", "--listen-addr", &addr, "--metrics-addr", &metrics]);
        command.envs(sources.iter().map(|(name, value)| (*name, value)));
        if login {
            command.args(&flags);
        }
        let _proxy = Process::start(command.stderr(Stdio::null()));
        wait_ready(&addr);
        let top = succeeds(&mut etcdproxy(["top", "--once", "--listen-addr", &addr]));
        assert!(top.contains("(set)"), "{top}");
        let pages = ["/", "/status.json", "/metrics", "/health"].map(|path| ask(&metrics, &format!("GET {path}"), ""));
        for page in pages.iter().chain([&top]) {
            assert!(!page.contains(password) && !page.contains(key) && !page.contains("BEGIN"), "{page}");
        }
        let status = status_of(&metrics);
        let certificates = status["certificates"].as_array().unwrap();
        let whose: Vec<_> = certificates.iter().map(|it| it["what"].as_str().unwrap()).collect();
        assert_eq!(whose[..2], ["the client", "the authorities"], "{status}");
        assert!(certificates.iter().all(|it| it["days_left"].as_i64() > Some(0)), "{status}");
    }
}

/// `top` in the background.
struct Top(Child);

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn top_prints_lines_where_there_is_no_terminal() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let line = fails_with(69, &mut etcdproxy(["top", "--listen-addr", &addr]));
    assert!(line.ends_with("nothing listens there"), "{line}");
    let proxy = run(&cluster.endpoints(), &addr, &["--mode", "native"]);
    let mut top = Top(etcdproxy(["top", "--listen-addr", &addr]).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(top.0.stdout.take().unwrap())).map_while(Result::ok);
    for _ in 0..2 {
        let line = lines.next().unwrap();
        assert!(
            line.contains("Z Healthy, ") && line.contains(" calls/s, ") && line.contains("1 of 1 members up"),
            "{line}"
        );
    }
    drop(proxy);
    assert!(lines.any(|line| line.ends_with("nothing listens there")), "it goes on and says that the proxy is gone");
}

/// A server that is no proxy, or a hostile one.
#[test]
fn top_shows_what_a_hostile_proxy_says_as_text() {
    let body =
        json!({"version": "1\u{1b}[2J", "summary": {"headline": "a\nb\u{9b}", "level": "x", "why": ["\u{202e}"]},
        "members": [{"address": "\u{7}", "since": -1e300}], "now": 1e300, "log": [{"at": -5.0, "text": "\r"}],
        "certificates": [{"days_left": i64::MIN}]})
        .to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let addr = crate::support::server(&unique_host(), answer);
    let shown = succeeds(&mut etcdproxy(["top", "--once", "--listen-addr", &addr]));
    assert!(shown.contains("1\\u{1b}[2J") && shown.contains("a\\nb\\u{9b}"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n') && !shown.contains('\u{202e}'), "{shown:?}");
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "SSH-2.0-x\r\n", ""] {
        let addr = crate::support::server(&unique_host(), answer);
        let line = fails_with(69, &mut etcdproxy(["top", "--once", "--listen-addr", &addr]));
        assert!(line.contains(" is not an etcdproxy: "), "{line}");
    }
}

/// With `script`, which gives it a terminal.
#[test]
fn top_gives_the_terminal_back() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let _proxy = run(&cluster.endpoints(), &addr, &["--mode", "native"]);
    let top = format!("{} top --listen-addr {addr}", crate::support::binary().display());
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &top, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(child) => Top(child),
        Err(_) => return println!("skipped: there is no script(1)"),
    };
    std::thread::sleep(Duration::from_millis(1500));
    child.0.stdin.take().unwrap().write_all(b"q").unwrap();
    let mut shown = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{shown}");
    assert!(shown.contains("\x1b[?1049h") && shown.contains("\x1b[32m● \x1b[0m\x1b[32mHealthy"), "{shown:?}");
    assert!(shown.trim_end().ends_with("\x1b[?7h\x1b[?25h\x1b[?1049l"), "{shown:?}");
}
