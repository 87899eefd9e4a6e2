//! A machine that runs out of something.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use super::{cases, check_log, connect_from, figure, nothing_lost, number, raise_files};
use crate::cgroup::Group;
use crate::load::{self, Load};
use crate::sidecar::{GREETING, connect_http2, memory_kb, metric, native};
use crate::support::{
    Cluster, Process, binary, command, eventually, free_addrs, is_ready, makes_progress, unique_addr, unique_host,
    wait_ready,
};

/// A proxy that a shell starts after other commands. They see `$0` (the binary) and `$1` to `$3` (endpoints, address,
/// and what `extra` is).
fn native_after(commands: &str, endpoints: &str, addr: &str, extra: &str) -> Process {
    let script = format!("{commands}\nexec \"$0\" run --mode native --endpoints \"$1\" --listen-addr \"$2\"");
    let mut shell = command("/bin/bash".as_ref(), ["-c", &script]);
    Process::start(shell.arg(binary()).args([endpoints, addr, extra]).stderr(Stdio::piped()))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_no_member_is_blamed_and_nobody_is_cut() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    // So many that a few clients fit; the proxy's own limit is one client with less than 98.
    for files in [64, 130] {
        let mut process = native_after("ulimit -n \"$3\"", &cluster.endpoints(), &addr, &files.to_string());
        wait_ready(&addr);
        let mut client = load::connect(&addr).await.unwrap();
        client.put("a", "1", None).await.unwrap();
        let count = cases(400);
        let mut others = Vec::new();
        for n in 0..count {
            let mut other = connect_from(n, &addr).unwrap();
            if n % 2 == 0 {
                let _ = other.write_all(GREETING);
            }
            others.push(other);
            // This process has a limit, too.
            if others.len() > 500 {
                others.drain(..250);
            }
            if n % 50 == 0 {
                client.put("a", n.to_string(), None).await.expect("the open connection goes on");
            }
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        client.get("a", None).await.expect("the open connection goes on");
        drop(others);
        eventually("new clients are served again", || is_ready(&addr));
        assert!(process.is_running());
        process.kill();
        let log = process.stderr_text();
        check_log(&log);
        assert!(!log.contains("is down: ") && !log.contains("cut now"), "{files} files: {log}");
        figure(&format!(
            "{files} files: {} connections, half of them clients; the first client never cut, no member down",
            number(count)
        ));
    }
}

mod needs_root {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs root: it makes a memory cgroup"]
    async fn a_cgroup_of_32_mb_is_enough_for_many_clients() {
        let Some(group) = Group::new(32) else {
            figure("not tried: this machine allows no memory cgroup");
            return;
        };
        raise_files();
        let cluster = Cluster::start(1);
        let addr = unique_addr();
        let mut process = native_after(&group.join(), &cluster.endpoints(), &addr, "");
        wait_ready(&addr);
        let load = Load::start(&addr, "/attack/").await.unwrap();
        let count = cases(300);
        let clients: Vec<TcpStream> = (0..count)
            .filter_map(|n| {
                let mut client = connect_from(n, &addr).ok()?;
                client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                client.write_all(GREETING).ok()?;
                client.read_exact(&mut [0; 9]).ok()?;
                Some(client)
            })
            .collect();
        assert!(process.is_running(), "the kernel killed it at {} clients", clients.len());
        makes_progress(&load).await;
        let served = clients.len();
        assert!(served >= count.min(300), "{served} of {count} clients were served");
        let memory = memory_kb(&process, "VmRSS") / 1000;
        drop(clients);
        let report = load.stop().await.unwrap();
        assert!(process.is_running());
        process.kill();
        let log = process.stderr_text();
        check_log(&log);
        let end = nothing_lost(&report, &log);
        drop(process);
        figure(&format!("32 MB: {} of {} clients served, {memory} MB of memory; {end}", number(served), number(count)));
    }

    #[test]
    #[ignore = "needs root: it makes a network with few ports"]
    fn without_local_ports_no_member_is_blamed_and_nobody_is_cut() {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        crate::support::succeeds(std::process::Command::new("ip").args(["link", "set", "lo", "up"]));
        let host = unique_host();
        let addrs = free_addrs(&host, 2);
        let [addr, metrics] = &addrs[..] else { unreachable!() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::start(1);
            let args = ["--metrics-addr", metrics];
            let mut process = Process::start(native(&cluster.endpoints(), addr).args(args));
            wait_ready(addr);
            let mut client = load::connect(addr).await.unwrap();
            client.get("a", None).await.unwrap();
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "45000 45031").unwrap();
            // The test's own connections come from other addresses, and each of those has all ports.
            let count = cases(80);
            let connected: Vec<TcpStream> = (0..count)
                .filter_map(|n| {
                    let mut stream = connect_from(n, addr).ok()?;
                    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                    stream.write_all(GREETING).ok()?;
                    stream.read_exact(&mut [0; 9]).ok()?;
                    Some(stream)
                })
                .collect();
            assert_eq!(connected.len(), count, "clients share one connection");
            // Also the probe that wants a new connection gets none.
            for _ in 0..25 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                client.get("a", None).await.expect("the open connection goes on");
            }
            let served = connected.len();
            drop(connected);
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999").unwrap();
            eventually("new clients are served again", || connect_http2(addr).is_ok());
            let member = format!("{{member=\"{}\"}}", cluster.endpoints());
            assert_eq!(metric(metrics, &format!("member_up{member}")), 1);
            assert_eq!(metric(metrics, &format!("failovers_total{member}")), 0);
            assert!(process.is_running());
            process.kill();
            let log = process.stderr_text();
            check_log(&log);
            assert!(!log.contains("is down: ") && !log.contains("cut now"), "{log}");
            figure(&format!(
                "32 ports: {served} of {} clients served; the first one never cut, no member down",
                number(count)
            ));
        });
    }
}
