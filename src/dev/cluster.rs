//! Real etcd members and a proxy, as child processes.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::fs::{WriteError, atomic, dirs};
use crate::net::{etcd_health, sockets};
use crate::os::env::Env;
use crate::os::process::{self, ExecError};
use crate::os::sys;
use crate::settings::{Endpoint, ListenAddr};

/// A first start on a busy machine elects a leader within a second or two.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// The last member would try for longer to hand its leadership over to the others, which have ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What to do when the data directory cannot be used.
const REMEDY: &str = "name another --data-dir";

/// Another process works on the data directory.
#[derive(Debug, thiserror::Error)]
#[error("{dir} is in use by another etcdproxy dev: end it, or name another --data-dir")]
pub(crate) struct InUse {
    dir: PathBuf,
}

/// Where a member listens. The data directory keeps it, because a member's peers expect it there after a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct MemberPorts {
    client: u16,
    peer: u16,
}

/// A child process with a name and a log.
#[derive(Debug)]
struct Part {
    name: String,
    addr: ListenAddr,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

/// Members and proxy. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Part>,
    proxy: Option<Part>,
    /// Whether the data must survive the end.
    keep_data: bool,
    _lock: File,
}

impl Cluster {
    /// Starts the members, without waiting until they are ready. Without `keep_data` their end is SIGKILL, which is
    /// quicker.
    pub(crate) fn start(etcd: &Path, nodes: usize, dir: &Path, keep_data: bool, env: &Env) -> Result<Self> {
        dirs::ensure(dir, REMEDY)?;
        let lock = File::open(dir).map_err(|err| WriteError::new(dir, &err, REMEDY, None))?;
        if lock.try_lock().is_err() {
            bail!(InUse { dir: dir.to_owned() });
        }
        let ports = ports(nodes, dir)?;
        let initial_cluster: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, ports)| format!("m{}={}", n + 1, Endpoint::loopback(ports.peer)))
            .collect();
        let initial_cluster = initial_cluster.join(",");

        let mut cluster = Self { members: Vec::new(), proxy: None, keep_data, _lock: lock };
        for (n, ports) in ports.iter().enumerate() {
            let name = format!("m{}", n + 1);
            let client_url = Endpoint::loopback(ports.client).to_string();
            let peer_url = Endpoint::loopback(ports.peer).to_string();
            let mut command = Command::new(etcd);
            command.args(["--name", &name, "--data-dir"]).arg(dir.join(&name));
            command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
            command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
            command.args(["--initial-cluster", &initial_cluster, "--initial-cluster-token", "etcdproxy-dev"]);
            command.args(["--log-level", "warn"]);
            // The user's own variables configure another cluster.
            for variable in env.names("ETCD_") {
                command.env_remove(variable);
            }
            cluster.members.push(spawn(command, &name, ListenAddr::loopback(ports.client), dir)?);
        }
        Ok(cluster)
    }

    /// Starts the proxy, which is to listen on `addr`.
    pub(crate) fn start_proxy(&mut self, command: Command, addr: ListenAddr, dir: &Path) -> Result<()> {
        self.proxy = Some(spawn(command, "proxy", addr, dir)?);
        Ok(())
    }

    /// The members' client addresses.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(|member| Endpoint::loopback(member.addr.port())).collect()
    }

    /// Waits until every part answers. Calls `interrupted` meanwhile, and returns its signal as soon as there is one.
    ///
    /// # Errors
    /// When a part ends, or is not ready after [`START_TIMEOUT`].
    pub(crate) fn wait_ready(&mut self, interrupted: impl Fn() -> Option<Signal>) -> Result<Option<Signal>> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let mut parts = self.members.iter().chain(&self.proxy);
            let not_ready = parts.find_map(|part| Some((part.name.clone(), part.problem()?)));
            for part in self.members.iter_mut().chain(&mut self.proxy) {
                if let Some(how) = part.end()? {
                    bail!("{} ended while starting ({how}): {}", part.name, last_line(&part.log));
                }
            }
            let Some((name, problem)) = not_ready else { return Ok(None) };
            if let Some(signal) = interrupted() {
                return Ok(Some(signal));
            }
            if Instant::now() > deadline {
                bail!("{name} is not ready after {}: {problem}", humantime::format_duration(START_TIMEOUT));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One line for each part, such as `m1  http://127.0.0.1:40001  pid 12`.
    pub(crate) fn describe(&self) -> Vec<String> {
        let line = |part: &Part, addr: String| format!("{:<6} {addr:<24} pid {}", part.name, part.child.id());
        let members =
            self.members.iter().zip(self.endpoints()).map(|(part, endpoint)| line(part, endpoint.to_string()));
        members.chain(self.proxy.iter().map(|part| line(part, part.addr.to_string()))).collect()
    }

    /// The parts that have ended since the last call, one line each.
    pub(crate) fn newly_ended(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for part in self.members.iter_mut().chain(&mut self.proxy) {
            let known = part.ended.is_some();
            if let (false, Some(how)) = (known, part.end()?) {
                lines.push(format!("{} (pid {}) ended: {how}", part.name, part.child.id()));
            }
        }
        Ok(lines)
    }

    /// Whether the application can still be served: by the proxy and a majority of the members.
    pub(crate) fn serves(&self) -> bool {
        let living = self.members.iter().filter(|member| member.ended.is_none()).count();
        self.proxy.as_ref().is_some_and(|proxy| proxy.ended.is_none()) && living > self.members.len() / 2
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut parts: Vec<&mut Part> = self.proxy.iter_mut().chain(&mut self.members).collect();
        if self.keep_data {
            for part in &mut parts {
                if matches!(part.end(), Ok(None)) {
                    process::send(&part.child, Signal::SIGTERM);
                }
            }
            let deadline = Instant::now() + STOP_TIMEOUT;
            while parts.iter_mut().any(|part| matches!(part.end(), Ok(None))) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for part in parts {
            if matches!(part.end(), Ok(None)) {
                let _ = part.child.kill();
                let _ = part.child.wait();
            }
        }
    }
}

impl Part {
    /// Why it is not ready, if it is not. Something else that answers at its address does not count.
    fn problem(&self) -> Option<String> {
        if !sockets::seems_to_listen(self.child.id(), &self.addr) {
            return Some(format!("it does not listen on {}", self.addr));
        }
        etcd_health::check(&self.addr, Duration::from_secs(2)).reason
    }

    /// How it ended, if it did.
    fn end(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.ended)
    }
}

fn spawn(mut command: Command, name: &str, addr: ListenAddr, dir: &Path) -> Result<Part> {
    let log = dir.join(format!("{name}.log"));
    let open = || File::options().create(true).append(true).open(&log);
    let stderr = open().map_err(|err| WriteError::new(&log, &err, REMEDY, None))?;
    command.stdin(std::process::Stdio::null()).stdout(stderr.try_clone()?).stderr(stderr);
    // Ctrl-C goes to the foreground command; this process ends the parts itself.
    command.process_group(0);
    sys::die_with_parent(&mut command);
    let child = command.spawn().map_err(|cause| ExecError::new(command.get_program(), cause))?;
    Ok(Part { name: name.to_owned(), addr, log, child, ended: None })
}

/// The ports of the last start in this directory, or free ones.
fn ports(nodes: usize, dir: &Path) -> Result<Vec<MemberPorts>> {
    let file = dir.join("etcdproxy-dev.json");
    match fs::read(&file) {
        Ok(json) => {
            let ports: Vec<MemberPorts> = serde_json::from_slice(&json)
                .with_context(|| format!("{} is damaged: name another --data-dir", file.display()))?;
            if ports.len() != nodes {
                let made = ports.len();
                bail!(
                    "{} holds a cluster of {made} members, not {nodes}: use --nodes {made}, or another --data-dir",
                    dir.display()
                );
            }
            Ok(ports)
        }
        // A file in place of the directory is an error of the write below.
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let mut free = free_ports(2 * nodes)?.into_iter();
            let mut port = || free.next().unwrap_or_default();
            let ports: Vec<MemberPorts> = (0..nodes).map(|_| MemberPorts { client: port(), peer: port() }).collect();
            let json = serde_json::to_vec(&ports)?;
            atomic::replace(&file, 0o644, REMEDY, |file| file.write_all(&json))?;
            Ok(ports)
        }
        Err(err) => Err(err).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Ports of 127.0.0.1 on which nobody listens now.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: io::Result<Vec<TcpListener>> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let held = held.context("cannot open a port on 127.0.0.1")?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn last_line(log: &Path) -> String {
    let lines = File::open(log).map(|file| BufReader::new(file).lines().map_while(Result::ok).last());
    lines.ok().flatten().unwrap_or_else(|| "it wrote nothing".to_owned())
}
