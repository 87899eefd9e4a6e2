//! Helpers that the tests share: the binary under test, processes that end with their test, clusters of real members.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Client, Permission};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::load::Load;
use crate::pki::{self, Pair};

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("ETCDPROXY_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_etcdproxy").into(), PathBuf::from)
}

/// A path that only `scripts/test.sh` sets, for tests that are ignored without it.
pub(crate) fn path_from_test_script(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run ./scripts/test.sh")).into()
}

/// The value after the first `key` of manifest.yml. `key` includes its indentation and colon.
pub(crate) fn manifest_value(key: &str) -> String {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifest.yml")).unwrap();
    manifest.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

/// The unpacked etcd of all tests that do not test unpacking.
pub(crate) fn unpack_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpacked")
}

/// The binary, with a clean environment.
pub(crate) fn etcdproxy<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    command(&binary(), args)
}

/// Any program, with a clean environment.
pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(program: &Path, args: I) -> Command {
    stop_ignoring_signals();
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("ETCDPROXY_UNPACK_DIR", unpack_dir());
    command
}

/// After `nohup`, and in the background of a shell, this process ignores some signals, and so would its children. With a
/// handler that does nothing, it still ignores them, but its children do not.
fn stop_ignoring_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignored = procfs::process::Process::myself().unwrap().status().unwrap().sigign;
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT].map(|signal| signal as i32) {
            if ignored & (1 << (signal - 1)) != 0 {
                signal_hook::flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
}

/// A program that runs as this user and group.
pub(crate) fn as_user(id: u32, program: &Path) -> Command {
    let mut command = command("setpriv".as_ref(), [format!("--reuid={id}"), format!("--regid={id}")]);
    command.arg("--clear-groups").arg(program).current_dir("/");
    command
}

/// A link to the binary.
pub(crate) fn link(dir: &Path, name: &str) -> PathBuf {
    let link = dir.join(name);
    symlink(binary(), &link).unwrap();
    link
}

/// Writes a program.
///
/// A child process writes it. If this process did, a child that another test starts at that moment would inherit the
/// open file, and until its exec, nobody could run the program ("Text file busy").
pub(crate) fn write_program(path: &Path, bytes: &[u8]) {
    let mut install = Command::new("install");
    let mut install = install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(install.wait().unwrap().success());
}

/// Runs to the end, and returns exit code, stdout and stderr.
pub(crate) fn finish(command: &mut Command) -> (i32, String, String) {
    let done = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = done.unwrap_or_else(|err| panic!("cannot run {command:?}: {err}"));
    (status.code().unwrap_or(-1), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Asserts exit code 0 and an empty stderr, and returns stdout.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let (code, stdout, stderr) = finish(command);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

/// Asserts the exit code and that stderr is one line, and returns that line.
#[track_caller]
pub(crate) fn fails_with(code: i32, command: &mut Command) -> String {
    let (actual, stdout, stderr) = finish(command);
    assert_eq!(actual, code, "{stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "more than one line:\n{stderr}");
    stderr.trim_end().to_owned()
}

/// Unpacks the etcd inside `binary` into `dir`.
#[track_caller]
pub(crate) fn unpack(binary: &Path, dir: &Path) {
    succeeds(&mut command(binary, [Path::new("unpack"), dir]));
}

/// The sha256 of a file, in hex.
pub(crate) fn sha256(file: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(file).unwrap()))
}

/// The sorted names in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// When to kill a process in round `round` of 200. Over all rounds, the moments cover its whole run and a little more,
/// in a shuffled order.
pub(crate) fn moment(round: u32, whole: Duration) -> Duration {
    whole.mul_f64(f64::from(round * 73 % 200) / 180.0)
}

/// A process that does not outlive its test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.0.stdout.take().unwrap()
    }

    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.0.stderr.take().unwrap()
    }

    pub(crate) fn stderr_text(&mut self) -> String {
        let mut text = String::new();
        self.stderr().read_to_string(&mut text).unwrap();
        text
    }

    /// Kills it, and returns what it wrote to stderr.
    pub(crate) fn into_log(mut self) -> String {
        self.kill();
        self.stderr_text()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends SIGTERM, and waits until it ends.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it ends. The test fails if that takes longer than 30 s.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition holds. The test fails if that takes longer than 30 s.
#[track_caller]
pub(crate) fn eventually(condition: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "timed out after 30 s waiting until {condition}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The number of files that a process has open; `None` where the system shows it only to root.
pub(crate) fn open_files(pid: u32) -> Option<u64> {
    let dir = format!("/proc/{pid}/fd");
    let count = std::fs::read_dir(&dir).ok().map(|files| files.count() as u64);
    // Since Linux 6.2, everybody can see the number.
    count.or_else(|| std::fs::metadata(&dir).ok().map(|meta| meta.len())).filter(|count| *count > 0)
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie is dead; its new parent may not have reaped it yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The lines that a process writes to stderr.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(process: &mut Process) -> Self {
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(process.stderr());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line + "\n")));
        Self(lines)
    }

    /// The next line, if one comes within this time.
    pub(crate) fn next(&self, timeout: Duration) -> Option<String> {
        self.0.recv_timeout(timeout).ok()
    }

    /// Waits for a line that contains this text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let mut log = String::new();
        while !log.contains(text) {
            let line = self.next(Duration::from_secs(30));
            log += &line.unwrap_or_else(|| panic!("no line has {text:?}: {log}"));
        }
    }
}

/// Waits for a child with this name, and returns its pid.
pub(crate) fn child_of(pid: u32, name: &str) -> u32 {
    let mut found = None;
    eventually("the child runs", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let mut children = children.split_whitespace().map(|child| child.parse().unwrap());
        found = children.find(|child: &u32| {
            std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim_end() == name)
        });
        found.is_some()
    });
    found.unwrap()
}

/// An address of 127.0.0.0/8 that no other test uses at the same time.
pub(crate) fn unique_host() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 16 + (unique >> 16) % 200, (unique >> 8) % 256, unique % 254 + 1)
}

/// A free port of a [`unique_host`].
pub(crate) fn unique_addr() -> String {
    free_addr(&unique_host())
}

/// A port of `host` that nobody listens on.
pub(crate) fn free_addr(host: &str) -> String {
    free_addrs(host, 1).remove(0)
}

/// Several free ports. All are held until there are enough, so they differ.
///
/// The sockets do not listen: with `SO_REUSEADDR`, the next program gets the port even while a child that another test
/// has just started still holds a copy of the socket.
pub(crate) fn free_addrs(host: &str, count: usize) -> Vec<String> {
    let hold = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::new(host.parse().unwrap(), 0).into()).unwrap();
        socket
    };
    let sockets: Vec<Socket> = (0..count).map(|_| hold()).collect();
    let addr = |socket: &Socket| socket.local_addr().as_ref().ok().and_then(SockAddr::as_socket).unwrap().to_string();
    sockets.iter().map(addr).collect()
}

/// A server that sends the same bytes on each connection, then closes it. Returns its address.
pub(crate) fn server(host: &str, answer: impl AsRef<[u8]> + Send + 'static) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(answer.as_ref());
        }
    });
    addr
}

/// A web server whose only answer is 404, with HTTP/1.1 and HTTP/2. Returns its address.
pub(crate) fn web_server(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 1000];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    // With HTTP/2: SETTINGS, and the HEADERS of a 404 whose content type is text.
                    let _ = client.write_all(if bytes[..length].starts_with(b"GET ") {
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
                    } else {
                        b"\0\0\0\x04\0\0\0\0\0\0\0\x0d\x01\x05\0\0\0\x01\x8d\x0f\x10\x09text/html"
                    });
                }
            });
        }
    });
    addr
}

/// The response to an HTTP/1.1 request.
pub(crate) fn http(addr: &str, method: &str, path: &str) -> String {
    http_over(TcpStream::connect(addr).unwrap(), method, path)
}

/// The same, over any connection.
pub(crate) fn http_over(mut stream: impl Read + Write, method: &str, path: &str) -> String {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asserts the rules of Prometheus' text format: a family has its HELP and TYPE before its samples, and all of them
/// together; the names of our counters, and of nothing else of ours, end in `_total`; no sample is there twice.
pub(crate) fn check_prometheus_text(text: &str) {
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split(' ').next().unwrap().clone_into(&mut current);
            assert!(!families.contains_key(&current), "two families with this name: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "{line}");
            let is_ours = name.starts_with("etcdproxy_");
            assert!(!is_ours || (kind == "counter") == name.ends_with("_total"), "{line}");
            families.insert(name.to_owned(), kind.to_owned());
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(sample.to_owned()), "twice: {line}");
            let name = sample.split('{').next().unwrap();
            let suffixes = if ["histogram", "summary"].contains(&families[&current].as_str()) {
                &["_bucket", "_sum", "_count", ""][..]
            } else {
                &[""]
            };
            assert!(suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(&current)), "{line}");
            let Some((_, labels)) = sample.split_once('{') else { continue };
            assert!(labels.ends_with("\"}") && labels.contains("=\""), "{line}");
        }
    }
    assert!(text.ends_with('\n') && families.len() > 2, "{text}");
}

/// Waits, with the product's own command, until the cluster answers at `addr`.
#[track_caller]
pub(crate) fn wait_ready(addr: &str) {
    succeeds(&mut etcdproxy(["wait", "--timeout", "60s", "--listen-addr", addr]));
}

/// Waits until a port is open, with or without a cluster behind it.
#[track_caller]
pub(crate) fn wait_listening(addr: &str) {
    succeeds(&mut etcdproxy(["wait", "--listening", "--listen-addr", addr]));
}

pub(crate) fn is_ready(addr: &str) -> bool {
    finish(&mut etcdproxy(["health", "--listen-addr", addr])).0 == 0
}

/// Waits for 50 more acknowledged writes.
pub(crate) async fn makes_progress(load: &Load) {
    let goal = load.writes() + 50;
    let progress = async {
        while load.writes() < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), progress).await.expect("50 writes within 30 s");
}

/// Starts `etcdproxy run`, and waits until the cluster answers through it.
pub(crate) fn start_proxy(endpoints: &str, addr: &str) -> Process {
    let mut command = etcdproxy(["run", "--endpoints", endpoints, "--listen-addr", addr]);
    let proxy = Process::start(command.stderr(Stdio::null()));
    wait_ready(addr);
    proxy
}

/// Creates users with these passwords, and switches authentication on. The user `root` may do everything, any other
/// only what is below `app/`.
pub(crate) async fn enable_auth(client: &Client, users: &[(&str, &str)]) {
    let mut auth = client.auth_client();
    auth.role_add("app").await.unwrap();
    auth.role_grant_permission("app", Permission::read_write("app/").with_prefix()).await.unwrap();
    for (user, password) in users {
        auth.user_add(*user, *password, None).await.unwrap();
        auth.user_grant_role(*user, if *user == "root" { "root" } else { "app" }).await.unwrap();
    }
    auth.auth_enable().await.unwrap();
}

/// The TLS settings of a cluster's members.
pub(crate) struct Tls {
    pub(crate) server: Pair,
    /// If set, clients need a certificate of this authority.
    pub(crate) client_ca: Option<String>,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    /// Answers without TLS.
    health: String,
    process: Option<Process>,
}

/// Real etcd members, started through a link named `etcd`.
pub(crate) struct Cluster {
    dir: TempDir,
    members: Vec<Member>,
    tls: Option<Tls>,
    flags: Vec<String>,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Several members under load need most of a small machine: one such cluster runs at a time. With `cargo nextest`, each
/// test is a process of its own, and `.config/nextest.toml` does the same.
static TURN: Mutex<()> = Mutex::new(());

impl Cluster {
    pub(crate) fn start(size: usize) -> Self {
        Self::start_on(&unique_host(), size, None)
    }

    /// With TLS, the members' certificate must be for `host`.
    pub(crate) fn start_on(host: &str, size: usize, tls: Option<Tls>) -> Self {
        Self::begin(host, size, tls, Vec::new())
    }

    /// One member with TLS and additional flags.
    pub(crate) fn start_tls_with(host: &str, tls: Tls, flags: &[&str]) -> Self {
        Self::begin(host, 1, Some(tls), flags.iter().map(ToString::to_string).collect())
    }

    /// One member with additional flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        Self::begin(&unique_host(), 1, None, flags)
    }

    /// Several members with additional flags.
    pub(crate) fn start_many_with(size: usize, flags: &[&str]) -> Self {
        Self::begin(&unique_host(), size, None, flags.iter().map(ToString::to_string).collect())
    }

    /// Several members that write to the disk as they do in production.
    pub(crate) fn start_durable(size: usize) -> Self {
        Self::begin(&unique_host(), size, None, vec!["--unsafe-no-fsync=false".to_owned()])
    }

    /// One member on each of these hosts; the clients' port is the same on all.
    pub(crate) fn spread(hosts: &[&str], port: u16, tls: Option<Tls>) -> Self {
        let mut cluster = Self::prepare("127.0.0.1", hosts.len(), tls, Vec::new());
        for (member, host) in cluster.members.iter_mut().zip(hosts) {
            member.client = format!("{host}:{port}");
        }
        cluster.start_all();
        cluster
    }

    fn begin(host: &str, size: usize, tls: Option<Tls>, flags: Vec<String>) -> Self {
        let mut cluster = Self::prepare(host, size, tls, flags);
        cluster.start_all();
        cluster
    }

    fn prepare(host: &str, size: usize, tls: Option<Tls>, flags: Vec<String>) -> Self {
        let turn = (size > 1).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        let dir = tempfile::tempdir().unwrap();
        link(dir.path(), "etcd");
        let mut free = free_addrs(host, 3 * size).into_iter();
        let mut addr = || free.next().unwrap();
        let member = |n| Member { name: format!("m{n}"), client: addr(), peer: addr(), health: addr(), process: None };
        Self { dir, members: (1..=size).map(member).collect(), tls, flags, _turn: turn }
    }

    fn start_all(&mut self) {
        let size = self.members.len();
        (0..size).for_each(|n| self.start_member(n));
        (0..size).for_each(|n| self.wait_member(n));
    }

    /// Starts a member, for the first time or again.
    pub(crate) fn start_member(&mut self, n: usize) {
        let initial: Vec<String> = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.peer)).collect();
        let Member { name, client, peer, health, .. } = &self.members[n];
        let (client, peer) = (format!("{}://{client}", self.scheme()), format!("http://{peer}"));
        let mut command = command(&self.dir.path().join("etcd"), ["--name", name, "--log-level", "error"]);
        command.arg("--data-dir").arg(self.dir.path().join(name));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &initial.join(","), "--listen-metrics-urls", &format!("http://{health}")]);
        if let Some(Tls { server, client_ca }) = &self.tls {
            let [cert, key] = server.write(self.dir.path(), name);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
            if let Some(authority) = client_ca {
                let file = pki::write(self.dir.path(), "clients.crt", authority);
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file);
            }
        }
        // A disk may be slow, and no test cuts the power.
        command.arg("--unsafe-no-fsync").args(&self.flags).stdout(Stdio::null()).stderr(Stdio::null());
        self.members[n].process = Some(Process::start(&mut command));
    }

    /// Replaces the certificate that a member shows to new connections.
    pub(crate) fn renew_member(&self, n: usize, server: &Pair) {
        server.write(self.dir.path(), &self.members[n].name);
    }

    /// Waits until a member answers.
    pub(crate) fn wait_member(&self, n: usize) {
        wait_ready(&self.members[n].health);
    }

    pub(crate) fn kill_member(&mut self, n: usize) {
        self.members[n].process.take().unwrap().kill();
    }

    /// After SIGSTOP, a member hangs without closing its connections, until SIGCONT.
    pub(crate) fn signal_member(&self, n: usize, signal: Signal) {
        self.members[n].process.as_ref().unwrap().signal(signal);
    }

    /// Kills a follower under load, and brings it back.
    pub(crate) async fn kill_follower_for_a_while(&mut self, load: &Load) {
        let follower = (self.leader().await + 1) % self.members.len();
        self.kill_member(follower);
        makes_progress(load).await;
        self.start_member(follower);
        self.wait_member(follower);
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(crate) fn client_addr(&self, n: usize) -> &str {
        &self.members[n].client
    }

    /// Where a member answers about itself without TLS.
    pub(crate) fn health_addr(&self, n: usize) -> &str {
        &self.members[n].health
    }

    /// The value of `--endpoints`.
    pub(crate) fn endpoints(&self) -> String {
        self.members.iter().map(|member| format!("{}://{}", self.scheme(), member.client)).collect::<Vec<_>>().join(",")
    }

    /// Index of the member that leads.
    pub(crate) async fn leader(&self) -> usize {
        self.find_leader().await.expect("a member leads")
    }

    /// The same; `None` while no member leads.
    pub(crate) async fn find_leader(&self) -> Option<usize> {
        for (n, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some()) {
            let Ok(client) = crate::load::connect(&member.client).await else { continue };
            let Ok(status) = client.maintenance_client().status().await else { continue };
            if status.header().unwrap().member_id() == status.leader() {
                return Some(n);
            }
        }
        None
    }
}
