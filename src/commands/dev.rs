//! `etcdproxy dev`

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::commands::cli;
use crate::dev::{self, Cluster};
use crate::os::child::{ENDING, Events, FOR_COMMANDS};
use crate::os::env::Env;
use crate::os::log::Log;
use crate::os::{child, exec};
use crate::proxy::{self, Launch};
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Setting, Sources};

use super::obtain;

pub(crate) fn run(args: cli::Dev, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let wanted: &[Signal] = if args.command.is_empty() { &ENDING } else { &FOR_COMMANDS };
    let events = Events::new(wanted).context("cannot receive signals")?;
    let addr = listen_addr(args.listen_addr, env)?;
    // Held to the end: a `run` on that address stands by.
    let _claim = proxy::claim(&addr)?;
    let etcd = obtain("etcd", env, Log::default())?.path();
    let data = Data::new(args.data_dir)?;
    let nodes = args.nodes.parse().context("--nodes")?;

    let mut cluster = Cluster::start(&etcd, nodes, data.path(), matches!(data, Data::Kept(_)), env)?;
    start_proxy(&mut cluster, &addr, &etcd, data.path(), env)?;
    if !cluster.wait_ready(|| events.ending().is_some())? {
        return Ok(ExitCode::SUCCESS);
    }

    let Some((program, command_args)) = args.command.split_first() else {
        print(&cluster, &data, &addr, out)?;
        return watch(&mut cluster, &events);
    };
    let endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    let command = Command::new(program)
        .args(command_args)
        .env(Setting::ListenAddr.variable(), addr.to_string())
        .env(Setting::Endpoints.variable(), endpoints.join(","))
        .env("ETCDCTL_ENDPOINTS", addr.to_string())
        .spawn()
        .map_err(|cause| exec::Error::new(program, cause))?;
    let status = child::run_to_end(command, &events, || report_ends(&mut cluster))?;
    Ok(child::exit_code(status))
}

/// The address that was asked for, or a free port.
fn listen_addr(flag: Option<OsString>, env: &Env) -> Result<ListenAddr> {
    if flag.is_none() && env.get(Setting::ListenAddr.variable()).is_none() {
        return Ok(ListenAddr::loopback(dev::free_ports(1)?[0]));
    }
    Ok(Sources::new(flag.map(|text| (Setting::ListenAddr, text)), env).listen_addr()?)
}

/// The same proxy that `run` starts.
fn start_proxy(cluster: &mut Cluster, addr: &ListenAddr, etcd: &Path, dir: &Path, env: &Env) -> Result<()> {
    let endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    let flags = [(Setting::ListenAddr, addr.to_string().into()), (Setting::Endpoints, endpoints.join(",").into())];
    let settings = Sources::new(flags, &Env::default()).resolve()?;
    Log::default().warn_all(&settings.warnings);
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

/// Until a signal, or until the cluster can serve no more.
fn watch(cluster: &mut Cluster, events: &Events) -> Result<ExitCode> {
    loop {
        let patience = report_ends(cluster);
        if !cluster.serves() {
            bail!("too few parts are left to serve");
        }
        if events.next(patience).ending().is_some() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Says what has ended; a child's end is a signal, so there is time until the next look.
fn report_ends(cluster: &mut Cluster) -> Duration {
    match cluster.newly_ended() {
        Ok(lines) => Log::default().warn_all(&lines),
        Err(err) => Log::default().error(format_args!("{err:#}")),
    }
    Duration::from_hours(1)
}

/// Where the members keep their data.
enum Data {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Data {
    fn new(dir: Option<PathBuf>) -> Result<Self> {
        if let Some(dir) = dir {
            return Ok(Self::Kept(dir));
        }
        let dir = tempfile::Builder::new().prefix("etcdproxy-dev-").tempdir();
        Ok(Self::Temporary(dir.context("cannot make a temporary directory: set TMPDIR to one that can be written")?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}
