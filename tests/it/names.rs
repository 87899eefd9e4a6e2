//! Endpoints by name: each test has a network and a DNS server of its own.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::attack::figure;
use crate::load;
use crate::pki::{Authority, write};
use crate::support::{
    Cluster, Lines, Process, Tls, etcdproxy, eventually, fails_with, finish, is_ready, succeeds, wait_listening,
    wait_ready,
};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

const LISTEN: &str = "127.0.0.1:2379";
const HOSTS: [&str; 3] = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];
const PORT: u16 = 2379;

/// A cluster that has lost its leader has another one after this time.
const ELECTION: Duration = Duration::from_secs(3);

/// What happens with names, and the test that shows it.
pub(crate) const CASES: &[(&str, &str, fn())] = &[
    (
        "a name with several addresses, one of which hangs",
        "each address is a member of its own; the others serve, and the connections of the hung one move within seconds",
        each_address_of_a_name_is_a_member,
    ),
    (
        "the same with `--mode grpc-proxy`",
        "a warning: etcd uses one address of a name at a time, even if it hangs",
        etcds_own_proxy_says_that_it_uses_one_address_of_a_name,
    ),
    (
        "a name moves to another address",
        "new connections go there; open ones go on; the log names both addresses",
        addresses_come_and_go,
    ),
    (
        "an address vanishes without a word (packets are dropped)",
        "its connections end within 5 s of the first failed probe, also if no other member is better",
        connections_to_an_address_that_vanishes_end_within_seconds,
    ),
    ("DNS forgets a name", "the addresses that were found before stay in use, with a warning", addresses_come_and_go),
    (
        "DNS is silent for some names, and later for all",
        "only names that were never found cannot be used; no connection is cut, and new ones work",
        a_name_without_an_answer_hurts_only_itself,
    ),
    (
        "the question for IPv6 addresses is answered with SERVFAIL, NXDOMAIN, nothing, or not at all",
        "the IPv4 addresses are used",
        an_error_for_one_kind_of_address_does_not_hide_the_other,
    ),
    (
        "SRV records (`--discovery-srv`)",
        "their hosts are the members, and followed; `--mode grpc-proxy` waits for one look-up",
        srv_records_name_the_members,
    ),
    (
        "SRV records for TLS and without",
        "those for TLS; with certificates, or if DNS fails, never those without",
        srv_records_for_tls_come_first_and_plain_text_never_replaces_them,
    ),
    (
        "names in the file of hosts, beside a search list or `ndots:5`",
        "the addresses of the file are used",
        the_file_of_hosts_comes_before_dns_and_its_search_list,
    ),
    (
        "a name has eight addresses, of which only the last listens",
        "it is used, at the first start and for each new connection",
        the_last_of_eight_addresses_is_found,
    ),
    ("a name that leads to the proxy itself", "an error, 78", a_name_that_leads_to_the_proxy_itself_is_an_error),
];

/// What the DNS server answers to a question.
#[derive(Clone)]
enum Reply {
    Addresses(Vec<IpAddr>),
    /// Port and target.
    Services(Vec<(u16, &'static str)>),
    Error(u8),
    Silence,
}

/// A network and a DNS server of this test's own. Everything that the test starts uses them.
struct Network {
    replies: Arc<Mutex<HashMap<(String, u16), Reply>>>,
    dir: TempDir,
}

impl Network {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        ip("link set lo up");
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("resolv.conf", "nameserver 127.0.0.53\n"), ("hosts", "127.0.0.1 localhost own.test\n")] {
            let file = write(dir.path(), name, text);
            mount(Some(&file), format!("/etc/{name}").as_str(), none, MsFlags::MS_BIND, none).unwrap();
        }
        let network = Self { replies: Arc::default(), dir };
        let socket = UdpSocket::bind("127.0.0.53:53").unwrap();
        let replies = Arc::clone(&network.replies);
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let (name, kind, end) = question(&bytes[..length]);
                let reply = replies.lock().unwrap().get(&(name, kind)).cloned().unwrap_or(Reply::Error(NXDOMAIN));
                if let Some(answer) = answer(&bytes[..end], &reply) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        network
    }

    fn set(&self, name: &str, kind: u16, reply: Reply) {
        self.replies.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    fn addresses(&self, name: &str, addresses: &[&str]) {
        self.set(name, A, Reply::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect()));
    }
}

fn ip(args: &str) {
    succeeds(Command::new("ip").args(args.split(' ')));
}

/// Name, kind and end of the question.
fn question(bytes: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while bytes[at] > 0 {
        let end = at + 1 + usize::from(bytes[at]);
        labels.push(String::from_utf8_lossy(&bytes[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]), at + 5)
}

fn answer(question: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let (error, records): (u8, Vec<(u16, Vec<u8>)>) = match reply {
        Reply::Silence => return None,
        Reply::Error(code) => (*code, Vec::new()),
        Reply::Addresses(addresses) => {
            let record = |address: &IpAddr| match address {
                IpAddr::V4(address) => (A, address.octets().to_vec()),
                IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
            };
            (0, addresses.iter().map(record).collect())
        }
        Reply::Services(services) => {
            let record = |(port, target): &(u16, &str)| {
                let labels = target
                    .split('.')
                    .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
                (SRV, [0, 0, 0, 0].into_iter().chain(port.to_be_bytes()).chain(labels).chain([0]).collect())
            };
            (0, services.iter().map(record).collect())
        }
    };
    let mut bytes =
        [&question[..2], &[0x85, 0x80 | error, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]].concat();
    bytes.extend(&question[12..]);
    for (kind, data) in records {
        // The name of the question, the kind, the class, a TTL of one second.
        bytes.extend([&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 1]].concat());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    Some(bytes)
}

fn run(args: &[&str]) -> Command {
    let mut command = etcdproxy(["run", "--listen-addr", LISTEN]);
    command.args(args).stderr(Stdio::piped());
    command
}

fn native(endpoints: &str) -> Process {
    Process::start(&mut run(&["--mode", "native", "--endpoints", endpoints]))
}

/// Runs `test` in an event loop of this thread's namespaces.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(test)
}

/// How long a client, which connects again when a call fails, gets no answer.
async fn gap() -> Duration {
    let begin = Instant::now();
    loop {
        let get = async { load::connect(LISTEN).await?.get("a", None).await };
        if matches!(tokio::time::timeout(Duration::from_secs(1), get).await, Ok(Ok(_))) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no answer for 30 s");
    }
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn each_address_of_a_name_is_a_member() {
    let network = Network::new();
    let cluster = Cluster::spread(&HOSTS, PORT, None);
    network.addresses("etcd.test", &HOSTS);
    // One hangs from the start on.
    cluster.signal_member(0, Signal::SIGSTOP);
    let proxy = native("etcd.test:2379");
    wait_ready(LISTEN);
    block_on(async {
        assert!(gap().await < Duration::from_secs(4));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut client = load::connect(LISTEN).await.unwrap();
        client.put("a", "1", None).await.unwrap();
        // Another one hangs later: without a majority nothing is answered, with one everything.
        cluster.signal_member(0, Signal::SIGCONT);
        cluster.wait_member(0);
        cluster.signal_member(1, Signal::SIGSTOP);
        assert!(gap().await < Duration::from_secs(4));
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.signal_member(1, Signal::SIGCONT);
    });
    let log = proxy.into_log();
    for n in [0, 1] {
        let member = format!("http://etcd.test:2379 ({})", HOSTS[n]);
        let warned =
            |why: &str| log.contains(&format!("{member} is down: {why}")) || log.contains(&format!("{member}: {why}"));
        // It may hang in the middle of a probe.
        let hangs = warned("it accepts the connection but does not") || warned("it answers, but not to a read");
        assert!(hangs, "{member}: {log}");
    }
    assert!(log.contains("http://etcd.test:2379 (127.0.0.13) is up"), "{log}");
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn addresses_come_and_go() {
    let network = Network::new();
    let cluster = Cluster::spread(&HOSTS, PORT, None);
    network.addresses("etcd.test", &HOSTS[..1]);
    let proxy = native("etcd.test:2379");
    wait_ready(LISTEN);
    block_on(async {
        let mut old = load::connect(LISTEN).await.unwrap();
        old.get("a", None).await.unwrap();
        network.addresses("etcd.test", &HOSTS[1..2]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        old.get("a", None).await.expect("a connection to an address without a name goes on");
        drop(old);
        cluster.signal_member(0, Signal::SIGSTOP);
        tokio::time::sleep(ELECTION).await;
        assert!(gap().await < Duration::from_secs(1), "new connections do not use it");
        cluster.signal_member(0, Signal::SIGCONT);
        // DNS forgets the name: what it said last counts.
        network.set("etcd.test", A, Reply::Error(NXDOMAIN));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(gap().await < Duration::from_secs(1));
    });
    let log = proxy.into_log();
    for line in [
        "http://etcd.test:2379 (127.0.0.12) is a new address of this name",
        "http://etcd.test:2379 (127.0.0.11) is no longer an address of this name",
        "warning: http://etcd.test:2379: its name does not resolve (no such name): check the name and this host's DNS; \
         the addresses that were found before stay in use",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn a_name_without_an_answer_hurts_only_itself() {
    let network = Network::new();
    let _cluster = Cluster::spread(&HOSTS, PORT, None);
    let names = ["a.test", "b.test", "c.test"];
    for (name, host) in names.iter().zip(HOSTS) {
        network.addresses(name, &[host]);
    }
    for name in ["silent1.test", "silent2.test"] {
        network.set(name, A, Reply::Silence);
        network.set(name, AAAA, Reply::Silence);
    }
    let proxy = native("silent1.test:2379,a.test:2379,b.test:2379,silent2.test:2379,c.test:2379");
    wait_ready(LISTEN);
    block_on(async {
        let mut clients = Vec::new();
        for _ in 0..9 {
            clients.push(load::connect(LISTEN).await.unwrap());
        }
        // DNS answers nothing any more.
        for name in names {
            network.set(name, A, Reply::Silence);
            network.set(name, AAAA, Reply::Silence);
        }
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for client in &mut clients {
                client.get("a", None).await.expect("open connections go on");
            }
            assert!(gap().await < Duration::from_secs(1), "and new ones work");
            assert!(is_ready(LISTEN));
        }
    });
    figure("DNS silent for 15 s: 9 of 9 clients live, 15 of 15 new ones served within 1 s");
    let log = proxy.into_log();
    assert!(!log.contains("is down"), "{log}");
    for name in ["silent1", "silent2", "a", "b", "c"] {
        let line = format!("warning: http://{name}.test:2379: its name does not resolve");
        assert!(log.contains(&line), "{line}: {log}");
    }
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn the_last_of_eight_addresses_is_found() {
    let network = Network::new();
    for step in
        ["link add out type veth peer name in", "addr add 10.9.0.1/24 dev out", "link set out up", "link set in up"]
    {
        ip(step);
    }
    let _cluster = Cluster::spread(&HOSTS[..1], PORT, None);
    let mut slowest = Duration::ZERO;
    // At the first seven, the connection is refused, or packets get no answer.
    for prefix in ["127.0.1", "10.9.0"] {
        let mut addresses: Vec<String> = (11..18).map(|n| format!("{prefix}.{n}")).collect();
        if prefix == "10.9.0" {
            for address in &addresses {
                ip(&format!("neigh add {address} lladdr 02:00:00:00:00:99 dev out"));
            }
        }
        addresses.push(HOSTS[0].to_owned());
        network.addresses("etcd.test", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
        let proxy = native("etcd.test:2379");
        wait_ready(LISTEN);
        block_on(async {
            for _ in 0..10 {
                slowest = slowest.max(gap().await);
            }
        });
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        let log = proxy.into_log();
        assert!(log.contains("http://etcd.test:2379 (127.0.0.11) is up"), "{log}");
    }
    figure(&format!("seven addresses refuse, or swallow packets; new clients wait at most {} ms", slowest.as_millis()));
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn an_error_for_one_kind_of_address_does_not_hide_the_other() {
    let network = Network::new();
    let _cluster = Cluster::spread(&HOSTS[..1], PORT, None);
    network.addresses("etcd.test", &HOSTS[..1]);
    for reply in [
        Reply::Error(SERVFAIL),
        Reply::Error(NXDOMAIN),
        Reply::Silence,
        Reply::Addresses(Vec::new()),
        Reply::Addresses(vec!["::1".parse().unwrap()]),
    ] {
        network.set("etcd.test", AAAA, reply);
        for mode in ["native", "grpc-proxy"] {
            let args = ["--mode", mode, "--preflight", "strict", "--endpoints", "etcd.test:2379"];
            let mut proxy = Process::start(&mut run(&args));
            wait_ready(LISTEN);
            proxy.terminate();
            let log = proxy.stderr_text();
            assert!(!log.contains("warning"), "{log}");
        }
    }
    // And the error of both is the name's, not the member's.
    network.set("etcd.test", A, Reply::Error(SERVFAIL));
    network.set("etcd.test", AAAA, Reply::Error(SERVFAIL));
    let line = fails_with(69, &mut run(&["--preflight", "strict", "--endpoints", "etcd.test:2379"]));
    let why = "http://etcd.test:2379: its name does not resolve (the DNS server answers ServFail)";
    assert!(line.contains(why), "{line}");
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn srv_records_name_the_members() {
    let network = Network::new();
    let cluster = Cluster::spread(&HOSTS, PORT, None);
    network.addresses("m1.test", &HOSTS[..1]);
    network.addresses("m2.test", &HOSTS[1..2]);
    network.set("_etcd-client._tcp.example.test", SRV, Reply::Services(vec![(PORT, "m1.test")]));
    let proxy = Process::start(&mut run(&["--discovery-srv", "example.test"]));
    wait_ready(LISTEN);
    // A member without an address replaces nobody.
    network.set("_etcd-client._tcp.example.test", SRV, Reply::Services(vec![(PORT, "m3.test")]));
    block_on(async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(gap().await < Duration::from_secs(1), "m1 is still used");
        network.set("_etcd-client._tcp.example.test", SRV, Reply::Services(vec![(PORT, "m2.test")]));
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.signal_member(0, Signal::SIGSTOP);
        tokio::time::sleep(ELECTION).await;
        assert!(gap().await < Duration::from_secs(1), "the records are followed");
        cluster.signal_member(0, Signal::SIGCONT);
    });
    let log = proxy.into_log();
    assert!(log.contains("mode native: ") && log.contains("http://m2.test:2379 (127.0.0.12) is up"), "{log}");

    // etcd's own proxy takes them from one look-up, which waits for DNS.
    network.set("_etcd-client._tcp.example.test", SRV, Reply::Error(SERVFAIL));
    let proxy = Process::start(&mut run(&["--mode", "grpc-proxy", "--discovery-srv", "example.test"]));
    std::thread::sleep(Duration::from_secs(3));
    network.set("_etcd-client._tcp.example.test", SRV, Reply::Services(vec![(PORT, "m1.test"), (PORT, "m2.test")]));
    wait_ready(LISTEN);
    drop(proxy);
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn srv_records_for_tls_come_first_and_plain_text_never_replaces_them() {
    let network = Network::new();
    let authority = Authority::new("cluster");
    let tls = Tls { server: authority.server(&["m1.test"], 365), client_ca: None };
    let _cluster = Cluster::spread(&HOSTS[..1], PORT, Some(tls));
    let ca = write(network.dir.path(), "ca.pem", &authority.pem);
    network.addresses("m1.test", &HOSTS[..1]);
    network.set("_etcd-client._tcp.example.test", SRV, Reply::Services(vec![(1, "m1.test")]));
    network.set("_etcd-client-ssl._tcp.example.test", SRV, Reply::Services(vec![(PORT, "m1.test")]));
    let args = ["--discovery-srv", "example.test", "--cacert", ca.to_str().unwrap()];
    let proxy = Process::start(&mut run(&args));
    wait_ready(LISTEN);
    drop(proxy);
    for (secure, extra) in [(Reply::Error(NXDOMAIN), &args[..]), (Reply::Error(SERVFAIL), &args[..2])] {
        network.set("_etcd-client-ssl._tcp.example.test", SRV, secure);
        let (code, _, line) = finish(run(extra).args(["--preflight", "strict"]));
        assert_eq!(code, 69, "{line}");
        assert!(line.contains("example.test: its name does not resolve ("), "{line}");
        assert!(line.contains("SRV records of _etcd-client-ssl._tcp"), "{line}");
    }
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn a_name_that_leads_to_the_proxy_itself_is_an_error() {
    let _network = Network::new();
    let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"own.test:2379"}}]}"#;
    for (args, env, source) in [
        (&["--endpoints", "own.test:2379"][..], ("X", ""), "--endpoints"),
        (&[], ("ETCDPROXY_ENDPOINTS", "own.test:2379"), "ETCDPROXY_ENDPOINTS"),
        (&[], ("VCAP_SERVICES", services), "service binding \"e\", uri"),
    ] {
        let line = fails_with(78, run(args).env(env.0, env.1));
        let problem = "the proxy itself listens on this address: name the cluster's members instead";
        assert_eq!(line, format!("etcdproxy: error: {source}: http://own.test:2379: {problem}"));
    }
}

/// As in containers: the names of hosts that the platform adds, and a search list for all others.
#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn the_file_of_hosts_comes_before_dns_and_its_search_list() {
    let network = Network::new();
    let _cluster = Cluster::spread(&HOSTS[..1], PORT, None);
    write(network.dir.path(), "hosts", "127.0.0.11 etcd1 etcd.internal.example\n");
    for options in ["", "search a.test b.test\n", "search a.test b.test\noptions ndots:5\n"] {
        write(network.dir.path(), "resolv.conf", &format!("nameserver 127.0.0.53\n{options}"));
        for name in ["etcd1", "etcd.internal.example"] {
            let endpoint = format!("{name}:2379");
            let args = ["--mode", "native", "--preflight", "strict", "--endpoints", &endpoint];
            let _proxy = Process::start(&mut run(&args));
            wait_ready(LISTEN);
        }
    }
}

/// A virtual machine disappears with its address, and DNS names its replacement: no packet says that it has gone.
#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn connections_to_an_address_that_vanishes_end_within_seconds() {
    let network = Network::new();
    for step in
        ["link add out type veth peer name in", "addr add 10.9.0.1/24 dev out", "link set out up", "link set in up"]
    {
        ip(step);
    }
    ip("addr add 10.9.0.2/32 dev lo");
    let hosts = ["10.9.0.2", HOSTS[1], HOSTS[2]];
    let _cluster = Cluster::spread(&hosts, PORT, None);
    network.addresses("etcd.test", &hosts[..1]);
    let proxy = native("etcd.test:2379");
    wait_ready(LISTEN);
    block_on(async {
        let mut client = load::connect(LISTEN).await.unwrap();
        let mut idle = load::connect(LISTEN).await.unwrap().watch("a", None).await.unwrap();
        client.get("a", None).await.unwrap();
        // From here on, packets to the address go to a machine that drops them.
        ip("addr del 10.9.0.2/32 dev lo");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev out");
        let begin = Instant::now();
        let failed = tokio::time::timeout(Duration::from_secs(20), client.get("a", None)).await;
        assert!(matches!(failed, Ok(Err(_))), "the connection ends: {failed:?}");
        let after = begin.elapsed();
        assert!(after < Duration::from_secs(8), "{after:?}");
        idle.message().await.ok();
        assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
        network.addresses("etcd.test", &hosts[1..2]);
        assert!(gap().await < Duration::from_secs(4));
    });
    eventually("the replacement is known", || is_ready(LISTEN));
    let log = proxy.into_log();
    assert!(log.contains("http://etcd.test:2379 (127.0.0.12) is up"), "{log}");
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn etcds_own_proxy_says_that_it_uses_one_address_of_a_name() {
    let network = Network::new();
    let _cluster = Cluster::spread(&HOSTS, PORT, None);
    network.addresses("etcd.test", &HOSTS);
    let mut proxy = Process::start(&mut run(&["--mode", "grpc-proxy", "--endpoints", "etcd.test:2379"]));
    wait_listening(LISTEN);
    let _ = finish(&mut etcdproxy(["health", "--listen-addr", LISTEN]));
    proxy.terminate();
    let log = proxy.stderr_text();
    assert!(log.contains("etcd.test:2379 has 3 addresses, of which etcd's grpc-proxy uses one at a time"), "{log}");
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn a_look_up_of_the_name_to_listen_on_does_not_keep_signals_waiting() {
    let network = Network::new();
    let _silent = ["127.0.0.54:53", "127.0.0.55:53"].map(|addr| UdpSocket::bind(addr).unwrap());
    let servers = "nameserver 127.0.0.54\nnameserver 127.0.0.55\nsearch a.test b.test c.test\n";
    std::fs::write(network.dir.path().join("resolv.conf"), servers).unwrap();
    for mode in ["native", "grpc-proxy"] {
        let begin = Instant::now();
        let args = ["run", "--mode", mode, "--endpoints", "127.0.0.1:1", "--listen-addr", "own:2379"];
        let mut proxy = Process::start(etcdproxy(args).stderr(Stdio::piped()));
        let mut log = Lines::of(&mut proxy);
        log.wait_for("warning: cannot listen on own:2379: its name does not resolve");
        proxy.terminate();
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    }
}

#[test]
#[ignore = "needs root: run ./scripts/test.sh as root"]
fn exec_replaces_another_proxy_although_dns_has_failed_meanwhile() {
    let network = Network::new();
    let _cluster = Cluster::spread(&HOSTS[..1], PORT, None);
    network.addresses("listen.test", &["127.0.0.1"]);
    let mut first = native(&format!("{}:{PORT}", HOSTS[0]));
    wait_ready(LISTEN);
    let endpoint = format!("{}:{PORT}", HOSTS[0]);
    let args = ["exec", "--mode", "native", "--endpoints", &endpoint, "--listen-addr", "listen.test:2379", "--"];
    let mut exec =
        Process::start(etcdproxy(args).args(["sh", "-c", "echo runs >&2; exec sleep 60"]).stderr(Stdio::piped()));
    let mut log = Lines::of(&mut exec);
    log.wait_for("runs\n");
    network.set("listen.test", A, Reply::Error(SERVFAIL));
    // It looks for the other proxy every second.
    std::thread::sleep(Duration::from_millis(2500));
    first.kill();
    log.wait_for("the proxy at listen.test:2379 has ended: starting another\n");
    wait_ready(LISTEN);
    exec.terminate();
}
