//! Attacks on our own program. With small counts they are part of the test suite; `scripts/attack.sh` runs them with
//! large ones, and collects the figures that they print.

mod calls;
mod certificates;
mod connections;
mod machine;
mod members;
mod process;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::load::{Load, Report};
use crate::sidecar::native;
use crate::support::{Cluster, Process, unique_addr, wait_ready};

/// How many to try: what the campaign asks for, or else this number, which is quick.
pub(crate) fn cases(quick: usize) -> usize {
    match std::env::var("ETCDPROXY_ATTACK_CASES") {
        Ok(count) => count.parse().expect("ETCDPROXY_ATTACK_CASES is a number"),
        Err(_) => quick,
    }
}

/// A line for the campaign's table.
pub(crate) fn figure(text: &str) {
    println!("FIGURE {text}");
}

/// Random numbers, the same in each run (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: usize) -> Self {
        Self(seed as u64)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// What is attacked: a proxy to a cluster, with a load that checks that nothing is lost.
struct Target {
    cluster: Cluster,
    proxy: Process,
    addr: String,
    load: Load,
}

impl Target {
    async fn start(members: usize, flags: &[&str]) -> Self {
        let cluster = Cluster::start(members);
        let addr = unique_addr();
        let proxy = Process::start(native(&cluster.endpoints(), &addr).args(flags));
        wait_ready(&addr);
        let load = Load::start(&addr, "/attack/").await.unwrap();
        crate::support::makes_progress(&load).await;
        Self { cluster, proxy, addr, load }
    }

    /// Ends everything; checks that nothing was lost, and that the log is one that people can read. Returns the figures
    /// of the load.
    async fn end(mut self) -> String {
        crate::support::makes_progress(&self.load).await;
        let report = self.load.stop().await.unwrap();
        assert!(self.proxy.is_running(), "the proxy has ended: {}", self.proxy.stderr_text());
        let log = self.proxy.into_log();
        drop(self.cluster);
        check_log(&log);
        nothing_lost(&report, &log)
    }
}

/// The figures of a load that has lost nothing.
fn nothing_lost(report: &Report, log: &str) -> String {
    assert!(report.nothing_lost(), "{report}\n{log}");
    format!("{} puts, none lost", number(report.puts.done()))
}

/// The log has no panic, no endless lines, no control characters.
fn check_log(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
    for line in log.lines() {
        assert!(line.len() <= 1000, "a line of {} bytes: {line:.300}", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// Lets this process open as many files as it may. Returns how many that are.
fn raise_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// Connects from one of many addresses of this host, so that ports never run out.
fn connect_from(n: usize, addr: &str) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let [.., a, b] = n.to_be_bytes();
    let from: SocketAddr = format!("127.9.{}.{}:0", a % 8, b % 250 + 1).parse().unwrap();
    socket.bind(&from.into())?;
    let to: SocketAddr = addr.parse().unwrap();
    socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}

/// A number with commas.
pub(crate) fn number(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
