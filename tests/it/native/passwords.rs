//! The proxy logs in for clients that do not.

use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};

use super::*;
use crate::api::auth;
use crate::grpc::{Call, Outcome, Server};
use crate::load;
use crate::support::{Lines, eventually, http_over, wait_listening};

/// A cluster with passwords, whose tokens live for 5 s after their last use, and its administrator.
async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start_with(&["--auth-token", "simple", "--auth-token-ttl", "5"]);
    let root = load::connect(cluster.client_addr(0)).await.unwrap();
    crate::support::enable_auth(&root, &[("root", "r00t"), ("app", "secret"), ("other", "0ther")]).await;
    let options = ConnectOptions::new().with_user("root", "r00t");
    let root = Client::connect([cluster.client_addr(0)], Some(options)).await.unwrap();
    (cluster, root)
}

struct Proxy {
    process: Process,
    addr: String,
    dir: tempfile::TempDir,
}

fn log_in(cluster: &Cluster, user: &str, password: &str) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let file = crate::pki::write(dir.path(), "password", password);
    let addr = unique_addr();
    let mut command = etcdproxy(["run", "--mode", "native", "--endpoints", &cluster.endpoints()]);
    command.args(["--listen-addr", &addr, "--username", user, "--password-file"]).arg(file);
    let process = Process::start(command.stderr(Stdio::piped()));
    wait_listening(&addr);
    Proxy { process, addr, dir }
}

fn is_refused(outcome: &Outcome, status: u32) -> bool {
    outcome.status == Some(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_credentials_works_for_longer_than_a_token_lives() {
    let (cluster, _root) = cluster().await;
    let proxy = log_in(&cluster, "app", "secret");
    let server = Server::connect(&proxy.addr).await;
    let busy = Server::connect(&proxy.addr).await;
    let begin = Instant::now();
    let mut n = 0_u64;
    // Busy for a while, and idle for longer than a token lives.
    for pause in std::iter::repeat_n(100, 40).chain(std::iter::repeat_n(7000, effort(1) as usize)) {
        n += 1;
        server.call(PUT, &put("app/a", &n.to_string())).await.answer();
        let read = busy.call(RANGE, &range("app/a", "")).await.answer();
        assert!(read.windows(n.to_string().len()).any(|part| part == n.to_string().as_bytes()));
        let put_one = field(2, field(2, put("app/b", "1")));
        let all = field(2, field(1, range("app/", "app0")));
        server.call(TXN, &[put_one, all].concat()).await.answer();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    server.call(PUT, &put("app/a", "last")).await.answer();
    println!("{n} rounds in {:?}", begin.elapsed());
    // It is this user, and no other.
    for (path, message) in [(PUT, put("a", "1")), (RANGE, range("a", "")), (RANGE, range("\0", "\0"))] {
        let refused = server.call(path, &message).await;
        assert_eq!((refused.status, &*refused.message), (Some(7), "etcdserver: permission denied"), "{refused:?}");
    }
    let log = proxy.process.into_log();
    assert!(!log.contains("warning") && !log.contains("secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_caller_passes_untouched() {
    let (cluster, _root) = cluster().await;
    let proxy = log_in(&cluster, "app", "secret");
    let server = Server::connect(&proxy.addr).await;
    server.call(PUT, &put("app/a", "1")).await.answer();
    let answer = server.call(auth::AUTHENTICATE, &auth::request("root", "r00t")).await.answer();
    let token = auth::token(&answer).unwrap();
    let with = |token: &str| Call::new(PUT, &put("beyond", "1")).with("token", token);
    server.send(&with(token)).await.answer();
    assert!(is_refused(&server.call(PUT, &put("beyond", "1")).await, 7));
    let direct = Server::connect(cluster.client_addr(0)).await;
    for bad in ["no.such", "", "x.1"] {
        assert_eq!(server.send(&with(bad)).await, direct.send(&with(bad)).await, "{bad:?}");
    }
    let wrong = auth::request("root", "wrong");
    let expected = direct.call(auth::AUTHENTICATE, &wrong).await;
    assert_eq!(server.call(auth::AUTHENTICATE, &wrong).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_once_and_not_tried_all_the_time() {
    let (cluster, _root) = cluster().await;
    let mut proxy = log_in(&cluster, "app", "wr0ng");
    let mut lines = Lines::of(&mut proxy.process);
    let server = Server::connect(&proxy.addr).await;
    let begin = Instant::now();
    let mut refused = 0;
    while begin.elapsed() < Duration::from_secs(5) {
        let outcome = server.call(RANGE, &range("app/a", "")).await;
        assert!(is_refused(&outcome, 16), "{outcome:?}");
        assert!(outcome.message.contains("app") && !outcome.message.contains("wr0ng"), "{outcome:?}");
        refused += 1;
    }
    lines.wait_for("does not accept user \"app\"");
    println!("{refused} calls were refused");
    let mut rest = String::new();
    while let Some(line) = lines.next(Duration::from_millis(300)) {
        rest += &line;
    }
    assert!(!rest.contains("wr0ng") && rest.matches("does not accept user").count() <= 1, "{rest}");
    let metrics = crate::support::http(cluster.health_addr(0), "GET", "/metrics");
    let logins = metrics.lines().filter(|line| {
        line.starts_with("grpc_server_handled_total") && line.contains("\"Authenticate\"") && !line.ends_with(" 0")
    });
    let logins: f64 = logins.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!(logins <= 12.0, "{logins} logins in 5 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_cluster_may_change_while_the_proxy_runs() {
    let (cluster, root) = cluster().await;
    let proxy = log_in(&cluster, "app", "secret");
    let server = Server::connect(&proxy.addr).await;
    server.call(PUT, &put("app/a", "1")).await.answer();
    // Any change of users makes etcd refuse tokens ("revision of auth store is old"), or forget them.
    root.auth_client().user_change_password("other", "n3w").await.unwrap();
    server.call(PUT, &put("app/a", "2")).await.answer();
    root.auth_client().role_add("more").await.unwrap();
    server.call(PUT, &put("app/a", "3")).await.answer();
    root.auth_client().auth_disable().await.unwrap();
    server.call(PUT, &put("app/a", "4")).await.answer();
    server.call(PUT, &put("everywhere", "4")).await.answer();
    root.auth_client().auth_enable().await.unwrap();
    server.call(PUT, &put("app/a", "5")).await.answer();
    assert!(is_refused(&server.call(PUT, &put("everywhere", "5")).await, 7));
    let options = ConnectOptions::new().with_user("root", "r00t");
    let root = Client::connect([cluster.client_addr(0)], Some(options)).await.unwrap();
    root.auth_client().user_change_password("app", "n3w").await.unwrap();
    let outcome = server.call(PUT, &put("app/a", "6")).await;
    assert!(is_refused(&outcome, 16), "{outcome:?}");
    root.auth_client().user_change_password("app", "secret").await.unwrap();
    let begin = Instant::now();
    while server.call(PUT, &put("app/a", "7")).await.status != Some(0) {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not log in again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A secrets agent writes the new password into the file, and nobody starts the proxy again.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_in_the_file_is_used() {
    let (cluster, root) = cluster().await;
    let proxy = log_in(&cluster, "app", "secret");
    let server = Server::connect(&proxy.addr).await;
    server.call(PUT, &put("app/a", "1")).await.answer();
    std::fs::write(proxy.dir.path().join("password"), "r0tated\n").unwrap();
    root.auth_client().user_change_password("app", "r0tated").await.unwrap();
    server.call(PUT, &put("app/a", "2")).await.answer();
    let log = proxy.process.into_log();
    assert!(!log.contains("warning") && !log.contains("r0tated"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_gateway_gets_the_token() {
    let (cluster, _root) = cluster().await;
    let proxy = log_in(&cluster, "app", "secret");
    // "app/j" is "YXBwL2o=".
    let body = r#"{"key":"YXBwL2o=","value":"MQ=="}"#;
    for pause in [0, 0, 7] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        eventually("the gateway accepts the token", || {
            let stream = std::net::TcpStream::connect(&proxy.addr).unwrap();
            post(stream, "/v3/kv/put", body).starts_with("HTTP/1.1 200")
        });
    }
    let stream = std::net::TcpStream::connect(&proxy.addr).unwrap();
    let refused = post(stream, "/v3/kv/put", r#"{"key":"eg==","value":"MQ=="}"#);
    assert!(refused.contains("permission denied"), "{refused}");
    let stream = std::net::TcpStream::connect(&proxy.addr).unwrap();
    assert!(http_over(stream, "GET", "/version").contains("etcdserver"));
}
