//! `etcdproxy dev`: a cluster of real etcd members and the proxy on loopback, for trying and for tests.

mod cluster;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(crate) use self::cluster::InUse;
use self::cluster::{Cluster, free_ports};
use crate::fs::WriteError;
use crate::os::env::Env;
use crate::os::log::{warn_all, with_causes, write_in_background};
use crate::os::process::{self, ExecError, FOREVER};
use crate::os::signals::{Events, FOR_COMMANDS, FOR_LAUNCHERS};
use crate::proxy::{self, Launch};
use crate::release::{RELEASE, Store};
use crate::settings::{ETCDCTL_ENDPOINTS, ListenAddr, Setting, Sources, etcdctl_endpoints};

/// What to start.
pub(crate) struct Dev {
    pub nodes: usize,
    /// Where the members' data stays; a temporary directory when not given.
    pub data_dir: Option<PathBuf>,
    /// The proxy's address; a free port on 127.0.0.1 when not given.
    pub listen_addr: Option<ListenAddr>,
    /// Program and arguments to run against the cluster. When empty, the cluster runs until a signal.
    pub command: Vec<OsString>,
}

/// Runs members and proxy until the command ends, or a signal comes. Returns the command's exit code.
///
/// # Errors
/// When a part cannot be started, or too few are left to serve.
pub(crate) fn run(dev: Dev, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let wanted: &[Signal] = if dev.command.is_empty() { &FOR_LAUNCHERS } else { &FOR_COMMANDS };
    write_in_background();
    let events = Events::new(wanted).context("cannot receive signals")?;
    let addr = match dev.listen_addr {
        Some(addr) => addr,
        None => ListenAddr::loopback(free_ports(1)?[0]),
    };
    // Held to the end, so that an `etcdproxy run` on this address stands by.
    let _claim = proxy::claim(&addr)?;
    let etcd = Store::new(env).obtain("etcd")?;
    let data = Data::new(dev.data_dir, env)?;

    let mut cluster = Cluster::start(etcd.path(), dev.nodes, data.path(), matches!(data, Data::Kept(_)), env)?;
    start_proxy(&mut cluster, &addr, etcd.path(), data.path(), env)?;
    if let Some(signal) = cluster.wait_ready(|| events.ending())? {
        // A command that did not run has not succeeded.
        return Ok(if dev.command.is_empty() { ExitCode::SUCCESS } else { process::signal_code(signal) });
    }

    let Some((program, args)) = dev.command.split_first() else {
        print(&cluster, &data, &addr, out)?;
        return watch(&mut cluster, &events);
    };
    let command = Command::new(program)
        .args(args)
        .env(Setting::ListenAddr.variable(), addr.to_string())
        .env(Setting::Endpoints.variable(), endpoint_list(&cluster))
        .envs(etcdctl_endpoints(&addr, env).map(|addr| (ETCDCTL_ENDPOINTS, addr)))
        .spawn()
        .map_err(|cause| ExecError::new(program, cause))?;
    let status = process::run_to_end(command, &events, || log_ends(&mut cluster))?;
    Ok(process::exit_code(status))
}

fn endpoint_list(cluster: &Cluster) -> String {
    let endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    endpoints.join(",")
}

/// Starts the proxy that `run` would start.
fn start_proxy(cluster: &mut Cluster, addr: &ListenAddr, etcd: &Path, dir: &Path, env: &Env) -> Result<()> {
    let flags = [(Setting::ListenAddr, addr.to_string().into()), (Setting::Endpoints, endpoint_list(cluster).into())];
    let settings = Sources::new(flags, &Env::default()).resolve()?;
    warn_all(&settings.warnings);
    let launch = Launch::new(&settings, &RELEASE, &[], env)?;
    cluster.start_proxy(launch.command(etcd), settings.listen_addr, dir)
}

fn print(cluster: &Cluster, data: &Data, addr: &ListenAddr, out: &mut impl Write) -> Result<()> {
    for line in cluster.describe() {
        writeln!(out, "{line}")?;
    }
    let kept = if matches!(data, Data::Temporary(_)) { "removed at the end" } else { "kept" };
    writeln!(out, "data and logs in {}, {kept}", data.path().display())?;
    writeln!(out, "Ready: connect to {addr}. Ctrl-C ends it.")?;
    out.flush()?;
    Ok(())
}

/// Waits for a signal, as long as the cluster can serve.
fn watch(cluster: &mut Cluster, events: &Events) -> Result<ExitCode> {
    loop {
        let interval = log_ends(cluster);
        if !cluster.serves() {
            bail!("the proxy or too many members have ended: see the warnings above");
        }
        if events.next(interval).ending().is_some() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Logs the parts that have ended. The end of a child is a signal, so the next look can wait.
fn log_ends(cluster: &mut Cluster) -> Duration {
    match cluster.newly_ended() {
        Ok(lines) => warn_all(&lines),
        Err(err) => log::error!("{}", with_causes(&*err)),
    }
    FOREVER
}

/// Where the members keep their data.
enum Data {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Data {
    fn new(dir: Option<PathBuf>, env: &Env) -> Result<Self> {
        if let Some(dir) = dir {
            return Ok(Self::Kept(dir));
        }
        let temp = env.path("TMPDIR").unwrap_or_else(|| "/tmp".into());
        let dir = tempfile::Builder::new().prefix("etcdproxy-dev-").tempdir_in(&temp).map_err(|err| {
            let remedy = "set TMPDIR to a directory that can be written, or name a --data-dir";
            WriteError::new(&temp.join("etcdproxy-dev-…"), &err, remedy, None)
        })?;
        Ok(Self::Temporary(dir))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}
