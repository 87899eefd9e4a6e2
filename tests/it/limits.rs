//! What `docs/etcd-grpc-proxy.md` says about etcd's proxy is so with the etcd inside this binary. If a test fails after etcd
//! was updated, etcd has become better: change the document.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use etcd_client::{Client, CompactionOptions, Error, GetOptions};
use tokio::time::timeout;

use crate::load;
use crate::support::{Cluster, Process, etcdproxy, unique_addr, wait_ready};

fn status<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Error::GRpcStatus(status)) => format!("{:?}", status.code()),
        Err(other) => other.to_string(),
    }
}

/// The first line of the answer to an HTTP/1.1 request.
fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// Whether a watch answers a request for its progress.
async fn answers_progress(client: &mut Client) -> String {
    let mut watch = client.watch("watched", None).await.unwrap();
    watch.message().await.unwrap();
    watch.request_progress().await.unwrap();
    timeout(Duration::from_secs(1), watch.message()).await.map_or("silence", |_| "an answer").to_owned()
}

/// What a keepalive says about a lease that has been revoked.
async fn ttl_of_dead_lease(client: &mut Client) -> String {
    let id = client.lease_grant(3, None).await.unwrap().id();
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await.unwrap();
    client.lease_revoke(id).await.unwrap();
    keeper.keep_alive().await.unwrap();
    let answer = timeout(Duration::from_secs(5), answers.message()).await;
    answer.map_or("silence".to_owned(), |answer| answer.unwrap().unwrap().ttl().to_string())
}

/// What the application sees at an address, in the order of [`ROWS`].
async fn seen(addr: &str) -> Vec<String> {
    let mut client = load::connect(addr).await.unwrap();
    let urls = client.member_list().await.unwrap().members()[0].client_urls().join(",");
    vec![
        status(client.compact(1_000_000, None::<CompactionOptions>).await),
        status(client.lease_revoke(12345).await),
        status(client.put("", "", None).await),
        get(addr, "/version"),
        status(client.put("large", vec![0; 1_800_000], None).await),
        answers_progress(&mut client).await,
        ttl_of_dead_lease(&mut client).await,
        if urls.ends_with(addr) { "itself" } else { "the member" }.to_owned(),
    ]
}

/// What is tried, and what the application sees at a member, at etcd's proxy and at native.
const ROWS: [(&str, [&str; 3]); 8] = [
    ("compact a future revision", ["OutOfRange", "Unknown", "OutOfRange"]),
    ("revoke an unknown lease", ["NotFound", "Unknown", "NotFound"]),
    ("put an empty key", ["InvalidArgument", "Unknown", "InvalidArgument"]),
    ("JSON over HTTP: the version", ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"]),
    ("put 1.8 MB where members accept it", ["ok", "ResourceExhausted", "ok"]),
    ("request the progress of a watch", ["an answer", "silence", "an answer"]),
    ("the TTL of a revoked lease", ["0", "-1", "0"]),
    ("the first member in the list of members", ["itself", "itself", "itself"]),
];

fn proxy(mode: &str, cluster: &Cluster, flags: &[&str]) -> (Process, String) {
    let addr = unique_addr();
    let args = ["run", "--mode", mode, "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
    let process = Process::start(etcdproxy(args).args(flags).stderr(Stdio::null()));
    wait_ready(&addr);
    (process, addr)
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_proxy_has_the_limits_of_the_document_and_native_has_not() {
    let cluster = Cluster::start_with(&["--max-request-bytes=10000000"]);
    let (_etcd, through_etcd) = proxy("grpc-proxy", &cluster, &[]);
    let (_native, through_native) = proxy("native", &cluster, &[]);
    let (direct, proxied, native) =
        tokio::join!(seen(cluster.client_addr(0)), seen(&through_etcd), seen(&through_native));
    for (n, (row, expected)) in ROWS.into_iter().enumerate() {
        assert_eq!([&direct[n], &proxied[n], &native[n]], expected, "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_holds_keys_but_not_locks_and_a_flag_of_etcd_allows_larger_values() {
    let cluster = Cluster::start_with(&["--max-request-bytes=10000000"]);
    let (_proxy, addr) = proxy("grpc-proxy", &cluster, &["--namespace", "app/", "--", "--max-send-bytes=10000000"]);
    let mut client = load::connect(&addr).await.unwrap();
    client.put("key", "", None).await.unwrap();
    client.lock("lock", None).await.unwrap();
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.campaign("election", "me", lease).await.unwrap();
    let mut direct = load::connect(cluster.client_addr(0)).await.unwrap();
    let all = direct.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    let mut keys: Vec<&str> =
        all.kvs().iter().map(|kv| kv.key_str().unwrap().split_inclusive('/').next().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["app/", "election/", "lock/"]);

    for (megabytes, expected) in [(3, "ok"), (5, "ResourceExhausted")] {
        assert_eq!(status(client.put("large", vec![0; megabytes * 1_000_000], None).await), expected, "{megabytes} MB");
    }
}
