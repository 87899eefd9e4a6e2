//! What the tests share: the binary, processes that end with their test, clusters of real members.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::load::Load;
use crate::pki::{self, Pair};

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("ETCDPROXY_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_etcdproxy").into(), PathBuf::from)
}

/// What stands behind the first `key`, with the spaces before it, in manifest.yml.
pub(crate) fn in_manifest(key: &str) -> String {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifest.yml")).unwrap();
    manifest.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

/// Where tests that do not test unpacking keep the unpacked etcd, for all of them.
pub(crate) fn unpack_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpacked")
}

/// The binary with a clean environment.
pub(crate) fn etcdproxy<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    command(&binary(), args)
}

/// Any program with a clean environment.
pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(program: &Path, args: I) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("ETCDPROXY_UNPACK_DIR", unpack_dir());
    command
}

/// A link called `name` to the binary.
pub(crate) fn link(dir: &Path, name: &str) -> PathBuf {
    let link = dir.join(name);
    symlink(binary(), &link).unwrap();
    link
}

/// Runs to the end; gives exit code, stdout and stderr.
pub(crate) fn finish(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Asserts the exit code and that stderr is one line, and gives the line.
#[track_caller]
pub(crate) fn fails_with(code: i32, command: &mut Command) -> String {
    let (actual, stdout, stderr) = finish(command);
    assert_eq!(actual, code, "{stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "more than one line:\n{stderr}");
    stderr.trim_end().to_owned()
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

    /// Waits for its end, and fails the test if that does not come.
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

/// Asks until it is true; fails the test after 30 s.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited 30 s in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    // A zombie that its new parent has not waited for yet lives no more.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The child of that name, once there is one.
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
pub(crate) fn own_host() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 16 + (unique >> 16) % 200, (unique >> 8) % 256, unique % 254 + 1)
}

/// A port of `host` that nobody listens on.
pub(crate) fn free_addr(host: &str) -> String {
    free_addrs(host, 1).remove(0)
}

/// All held until there are enough: the system may give a port that was let go once more.
pub(crate) fn free_addrs(host: &str, count: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((host, 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// Serves web pages that are not there, with HTTP/1.1 and HTTP/2; gives its address.
pub(crate) fn web_server(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 1000];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    // SETTINGS, and the HEADERS of a 404 that is text.
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

/// Waits, with the product's own command, until the cluster answers at `addr`.
pub(crate) fn wait_ready(addr: &str) {
    let (code, _, stderr) = finish(&mut etcdproxy(["wait", "--timeout", "60s", "--listen-addr", addr]));
    assert_eq!(code, 0, "{stderr}");
}

/// Until 50 more writes are acknowledged.
pub(crate) async fn goes_on(load: &Load) {
    let goal = load.writes() + 50;
    let progress = async {
        while load.writes() < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), progress).await.expect("the client goes on within 30 s");
}

/// The one etcd proxy of a test, started by `etcdproxy run`.
pub(crate) fn start_proxy(endpoints: &str, addr: &str) -> Process {
    let mut command = etcdproxy(["run", "--endpoints", endpoints, "--listen-addr", addr]);
    let proxy = Process::start(command.stderr(Stdio::null()));
    wait_ready(addr);
    proxy
}

/// What the members of a cluster show to their clients, and want to see.
pub(crate) struct Security {
    pub(crate) server: Pair,
    /// Authority of the clients' certificates, when they must have one.
    pub(crate) clients: Option<String>,
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
    security: Option<Security>,
    flags: Vec<String>,
}

impl Cluster {
    pub(crate) fn start(size: usize) -> Self {
        Self::start_on(&own_host(), size, None)
    }

    /// With members that speak TLS, on an address for which they have certificates.
    pub(crate) fn start_on(host: &str, size: usize, security: Option<Security>) -> Self {
        Self::begin(host, size, security, Vec::new())
    }

    fn begin(host: &str, size: usize, security: Option<Security>, flags: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        link(dir.path(), "etcd");
        let mut free = free_addrs(host, 3 * size).into_iter();
        let mut addr = || free.next().unwrap();
        let member = |n| Member { name: format!("m{n}"), client: addr(), peer: addr(), health: addr(), process: None };
        let mut cluster = Self { dir, members: (1..=size).map(member).collect(), security, flags };
        (0..size).for_each(|n| cluster.start_member(n));
        (0..size).for_each(|n| wait_ready(&cluster.members[n].health));
        cluster
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
        if let Some(Security { server, clients }) = &self.security {
            let [cert, key] = server.write(self.dir.path(), name);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
            if let Some(authority) = clients {
                let file = pki::write(self.dir.path(), "clients.crt", authority);
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file);
            }
        }
        // The tests' disk is slow and shared; no test here pulls its plug.
        command.args(&self.flags).arg("--unsafe-no-fsync").stdout(Stdio::null()).stderr(Stdio::null());
        self.members[n].process = Some(Process::start(&mut command));
    }

    /// One member with these flags besides.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(ToString::to_string).collect();
        Self::begin(&own_host(), 1, None, flags)
    }

    /// What a member shows to new connections from now on.
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

    /// Without a word to it, as a hung host does; SIGCONT ends it.
    pub(crate) fn signal_member(&self, n: usize, signal: Signal) {
        self.members[n].process.as_ref().unwrap().signal(signal);
    }

    fn scheme(&self) -> &'static str {
        if self.security.is_some() { "https" } else { "http" }
    }

    pub(crate) fn client_addr(&self, n: usize) -> &str {
        &self.members[n].client
    }

    /// For `--endpoints`.
    pub(crate) fn endpoints(&self) -> String {
        self.members.iter().map(|member| format!("{}://{}", self.scheme(), member.client)).collect::<Vec<_>>().join(",")
    }

    /// Index of the member that leads.
    pub(crate) async fn leader(&self) -> usize {
        for (n, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some()) {
            let Ok(client) = crate::load::connect(&member.client).await else { continue };
            let Ok(status) = client.maintenance_client().status().await else { continue };
            if status.header().unwrap().member_id() == status.leader() {
                return n;
            }
        }
        panic!("no member leads");
    }
}
