//! Which connections the proxy cuts when members fail, and which it leaves alone.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use nix::sys::signal::Signal;

use crate::attack::figure;
use crate::load;
use crate::sidecar::{metric, start};
use crate::support::{Cluster, Process, etcdproxy, eventually, fails_with, is_ready, server, unique_addr, unique_host};

/// Clients with a connection each, some to every member.
async fn clients(addr: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..9 {
        let mut client = load::connect(addr).await.unwrap();
        client.get("a", None).await.unwrap();
        clients.push(client);
    }
    clients
}

/// Waits until a call works.
async fn works(addr: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let get = async { load::connect(addr).await?.get("a", None).await };
        if matches!(tokio::time::timeout(Duration::from_secs(1), get).await, Ok(Ok(_))) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no answer for 30 s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_leader_cuts_no_client_of_a_healthy_member() {
    let mut cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster);
    // The followers lose their leader, answer errors for a second or two, and not at the same time.
    for _ in 0..3 {
        let clients = clients(&addr).await;
        let leader = cluster.leader().await;
        cluster.kill_member(leader);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut alive = 0;
        for mut client in clients {
            alive += usize::from(client.get("a", None).await.is_ok());
        }
        assert!(alive >= 6, "{alive} of 9");
        cluster.start_member(leader);
        cluster.wait_member(leader);
        works(&addr).await;
    }
    let log = proxy.into_log();
    assert!(!log.contains("cut now"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_all_members_cuts_nothing() {
    let cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster);
    let mut clients = clients(&addr).await;
    for stall in [2500, 6000] {
        (0..3).for_each(|n| cluster.signal_member(n, Signal::SIGSTOP));
        tokio::time::sleep(Duration::from_millis(stall)).await;
        // The first one answers a little earlier than the others.
        for n in 0..3 {
            cluster.signal_member(n, Signal::SIGCONT);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for client in &mut clients {
            client.get("a", None).await.expect("the connection lives");
        }
        eventually("the members answer again", || is_ready(&addr));
    }
    let log = proxy.into_log();
    assert!(log.contains("is down: it accepts the connection but does not answer"), "{log}");
    assert!(!log.contains("cut now"), "{log}");
    figure("all members frozen for 2.5 s and for 6 s: 9 of 9 clients live, none cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_member_is_left_within_seconds() {
    let cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster);
    let clients = clients(&addr).await;
    let leader = cluster.leader().await;
    let url = cluster.endpoints().split(',').nth(leader).unwrap().to_owned();
    let open = format!("open_connections{{member=\"{url}\"}}");
    eventually("the leader serves", || metric(&addr, &open) == 1);
    cluster.signal_member(leader, Signal::SIGSTOP);
    let begin = Instant::now();
    let mut served = 0;
    for mut client in clients {
        let answer = tokio::time::timeout(Duration::from_secs(10), client.get("a", None)).await.expect("an end");
        served += usize::from(answer.is_ok());
    }
    // The client itself gives up after a while.
    assert!(served >= 8, "{served} of 9");
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let log = proxy.into_log();
    assert!(log.contains(&format!("{url} is down: ")), "{log}");
}

/// Without a majority, a member still answers serializable reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_answers_is_tried_before_silent_ones() {
    let cluster = Cluster::start(3);
    let (proxy, addr) = start(&cluster);
    let leader = cluster.leader().await;
    for n in (0..3).filter(|n| *n != leader) {
        cluster.signal_member(n, Signal::SIGSTOP);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    for _ in 0..4 {
        let read = async { load::connect(&addr).await?.get("a", Some(GetOptions::new().with_serializable())).await };
        let read = tokio::time::timeout(Duration::from_secs(2), read).await;
        assert!(matches!(read, Ok(Ok(_))), "{read:?}: {}", proxy.into_log());
    }
    assert!(!is_ready(&addr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_is_an_alarm_and_no_outage() {
    let cluster = Cluster::start_with(&["--quota-backend-bytes", "1000000"]);
    let (proxy, addr) = start(&cluster);
    let mut client = load::connect(&addr).await.unwrap();
    while client.put("a", vec![0; 300_000], None).await.is_ok() {}
    client.get("a", None).await.expect("reads work");
    let get_health = || {
        let mut stream = TcpStream::connect(&addr).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    eventually("the alarm is known", || get_health().contains("alarm NOSPACE"));
    assert!(get_health().starts_with("HTTP/1.1 200 OK") && is_ready(&addr));
    client.delete("a", None).await.expect("deletes work");
    let log = proxy.into_log();
    let line = "alarm NOSPACE: its database is full, so writes fail; reads and deletes work";
    assert!(log.contains(line) && !log.contains("is down"), "{log}");
}

#[test]
fn a_member_that_ends_a_connection_at_once_is_no_foreign_server() {
    let addr = server(&unique_host(), "");
    for scheme in ["http", "https"] {
        let endpoint = format!("{scheme}://{addr}");
        let args = ["run", "--preflight", "strict", "--endpoints", &endpoint, "--listen-addr", &unique_addr()];
        let line = fails_with(69, &mut etcdproxy(args));
        assert!(line.contains("closes the connection before it answers: is the member starting"), "{line}");
    }
}

/// A gateway in front of the cluster may choose by this name.
#[test]
fn probes_name_the_server_as_the_application_does() {
    for mode in ["native", "grpc-proxy"] {
        let listener = TcpListener::bind((unique_host(), 0)).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let addr = unique_addr();
        let args = ["run", "--mode", mode, "--endpoints", &endpoint, "--listen-addr", &addr];
        let _proxy = Process::start(etcdproxy(args).stderr(Stdio::null()));
        let (mut client, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(endpoint.len()).any(|window| window == endpoint.as_bytes()) {
            let mut more = [0; 1000];
            let length = client.read(&mut more).unwrap();
            assert!(length > 0, "{mode}: {}", bytes.escape_ascii());
            bytes.extend(&more[..length]);
        }
    }
}
