//! What the sidecar may use (memory, files, ports), and what it leaves behind (connections, core dumps).

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::sidecar::{ask_member, connect_http2, get, metric, native, start};
use crate::support::{Cluster, Process, child_of, etcdproxy, eventually, is_ready, succeeds, unique_addr, wait_ready};

#[test]
fn the_limit_of_clients_follows_the_memory_setting() {
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let proxy = Process::start(native(&cluster.endpoints(), &addr).args(["--memory", "8"]));
    wait_ready(&addr);
    let clients: Vec<TcpStream> = (0..140).filter_map(|_| connect_http2(&addr).ok()).collect();
    assert_eq!(clients.len(), 128);
    assert!(is_ready(&addr));
    let log = proxy.into_log();
    let message = "the proxy serves at most 128 at once, because --memory is 8 MB: raise it, or open fewer";
    assert_eq!(log.matches(message).count(), 1, "{log}");
}

/// A hung member answers nothing, so only the client shows that it has left. The other way of leaving, a plain end, is
/// tested beside the code that waits for it.
#[test]
fn clients_that_leave_while_all_members_hang_are_forgotten() {
    let cluster = Cluster::start(1);
    let (_proxy, addr) = start(&cluster);
    let clients: Vec<TcpStream> = (0..50).map(|_| connect_http2(&addr).unwrap()).collect();
    cluster.signal_member(0, Signal::SIGSTOP);
    assert!(get(&addr, "/metrics").contains("\netcdproxy_clients 50\n"));
    for client in &clients {
        SockRef::from(client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(clients);
    eventually("no client is left", || metric(&addr, "clients") == 0);
    cluster.signal_member(0, Signal::SIGCONT);
}

/// The limit of open files, which is one of their numbers, that leaves room for one more; `None` where the system shows
/// the numbers only to root.
fn room_for_one_file(process: &Process) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid())).ok()?;
    let used: Vec<u64> = files.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    (0..).filter(|number| !used.contains(number)).nth(1)
}

/// Gives a running process another limit of open files.
fn limit_files(process: &Process, count: u64) {
    let (pid, limit) = (process.pid().to_string(), format!("--nofile={count}:"));
    succeeds(Command::new("prlimit").args(["--pid", &pid, &limit]));
}

#[test]
fn a_lack_of_files_is_no_fault_of_a_member() {
    let cluster = Cluster::start(1);
    let (proxy, addr) = start(&cluster);
    let labels = format!("{{member=\"{}\",kind=\"local\"}}", cluster.endpoints());
    // There is one file for the client's connection, and none for that to the member.
    eventually("no connection to the member can be opened", || {
        let Some(limit) = room_for_one_file(&proxy) else { return true };
        limit_files(&proxy, limit);
        let _ = ask_member(TcpStream::connect(&addr).unwrap());
        limit_files(&proxy, 1000);
        metric(&addr, &format!("connect_failures_total{labels}")) > 0
    });
    // Nothing is accepted while the member is asked a few times more.
    limit_files(&proxy, 3);
    std::thread::sleep(Duration::from_secs(3));
    limit_files(&proxy, 1000);
    ask_member(TcpStream::connect(&addr).unwrap()).unwrap();
    let log = proxy.into_log();
    assert!(!log.contains("is down") && !log.contains("new connections fail"), "{log}");
}

/// The soft limit of core dumps' size, and which memory they contain (core(5)).
fn core_dumps_of(pid: u32) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let size = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let memory = fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap_or_default();
    (size.split_whitespace().next().unwrap().to_owned(), memory.trim().to_owned())
}

#[test]
fn keys_stay_out_of_core_dumps() {
    let cluster = Cluster::start(1);
    let nothing = ("0".to_owned(), "00000000".to_owned());
    for (mode, drain) in [("native", "0s"), ("grpc-proxy", "0s"), ("grpc-proxy", "off")] {
        let addr = unique_addr();
        let mut command =
            etcdproxy(["run", "--mode", mode, "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
        let process = Process::start(command.args(["--drain", drain]).stderr(Stdio::null()));
        wait_ready(&addr);
        let (size, memory) = core_dumps_of(process.pid());
        // A process that is not dumpable shows its filter only to root.
        assert!(size == nothing.0 && (memory.is_empty() || memory == nothing.1), "{mode} {drain}: {size} {memory}");
        if (mode, drain) == ("grpc-proxy", "0s") {
            assert_eq!(core_dumps_of(child_of(process.pid(), "etcd")), nothing);
        }
    }
}

mod needs_root {
    use std::fs::File;
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd as _;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::cgroup::Group;
    use crate::sidecar::ask_member;
    use crate::support::{Lines, binary, finish};

    #[test]
    #[ignore = "needs root: it makes a control group"]
    fn a_control_group_that_is_small_limits_the_clients_and_does_not_kill_the_proxy() {
        let Some(group) = Group::new(24) else {
            eprintln!("skipped: this system has no control group with a limit of memory");
            return;
        };
        let cluster = Cluster::start(1);
        let addr = unique_addr();
        let mut shell = group.command(&binary());
        shell.args(["run", "--mode", "native", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
        let mut proxy = Process::start(shell.stderr(Stdio::piped()));
        wait_ready(&addr);
        let clients: Vec<TcpStream> = (0..700).filter_map(|_| connect_http2(&addr).ok()).collect();
        assert_eq!(clients.len(), 640, "(24 - 4) MB / 32 kB");
        assert!(proxy.is_running() && is_ready(&addr));
        let log = proxy.into_log();
        let message = "at most 640 at once, because the control group's memory limit is 24 MB: raise it";
        assert!(log.contains(message), "{log}");
    }

    #[test]
    #[ignore = "needs root: it has a network of its own"]
    fn a_lack_of_ports_is_no_fault_of_a_member() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        succeeds(Command::new("ip").args(["link", "set", "lo", "up"]));
        let cluster = Cluster::spread(&["127.0.0.11"], 2379, None);
        let (proxy, addr) = start(&cluster);
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50003").unwrap();
        // The client's ports are chosen here, those of the connections to the member by the system.
        let clients: Vec<TcpStream> =
            (20_001..20_008).filter_map(|port| ask_member(connect_from(port, &addr)).ok()).collect();
        assert!(clients.len() <= 4);
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "30000 60000").unwrap();
        let labels = format!("{{member=\"{}\",kind=\"local\"}}", cluster.endpoints());
        let failures = metric(&addr, &format!("connect_failures_total{labels}"));
        assert!(failures > 0, "{} clients", clients.len());
        std::thread::sleep(Duration::from_secs(2));
        assert!(is_ready(&addr));
        let log = proxy.into_log();
        assert!(!log.contains("is down") && !log.contains("new connections fail"), "{log}");
    }

    fn connect_from(port: u16, addr: &str) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        socket.connect(&addr.parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.into()
    }

    /// A file system whose server never answers, as that of a dead host.
    struct HungMount {
        dir: tempfile::TempDir,
        _server: File,
    }

    impl HungMount {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
            mount(Some("hung"), dir.path(), Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
            Self { dir, _server: server }
        }
    }

    impl Drop for HungMount {
        fn drop(&mut self) {
            umount2(self.dir.path(), MntFlags::MNT_DETACH).unwrap();
        }
    }

    #[test]
    #[ignore = "needs root: it mounts a file system"]
    fn a_hung_file_system_with_certificates_keeps_no_signal_waiting() {
        if !std::path::Path::new("/dev/fuse").exists() {
            eprintln!("skipped: this system has no FUSE");
            return;
        }
        let mount = HungMount::new();
        let ca = mount.dir.path().join("ca.pem");
        let run = |preflight: &str| {
            let addr = unique_addr();
            let mut command = etcdproxy(["run", "--endpoints", "https://127.0.0.1:1", "--listen-addr", &addr]);
            command.arg("--cacert").arg(&ca).args(["--preflight", preflight]).stderr(Stdio::piped());
            command
        };
        let message = "certificates: their files cannot be read within 1 s: is a file system hung?";
        let mut waiting = Process::start(&mut run("warn"));
        Lines::of(&mut waiting).wait_for(&format!("the start waits: {message}"));
        assert_eq!(waiting.terminate().code(), Some(0));
        let (code, _, log) = finish(&mut run("strict"));
        assert!(code == 69 && log.ends_with(&format!("etcdproxy: error: {message}\n")), "{code}: {log}");
    }
}
