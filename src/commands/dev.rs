//! `etcdproxy dev`

use std::io::{IsTerminal as _, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::cluster::{self, Cluster};
use crate::env::Env;
use crate::release::RELEASE;
use crate::settings::{Layer, ListenAddr, Setting, Sources};
use crate::{cli, exec, sidecar};

use super::obtain;

pub(crate) fn run(args: cli::Dev, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("cannot receive signals")?;
    let etcd = obtain("etcd", env)?.path();
    let data = Data::new(args.data_dir)?;
    let nodes = args.nodes.parse().context("--nodes")?;

    let mut cluster = Cluster::start(&etcd, nodes, data.path(), matches!(data, Data::Kept(_)), env)?;
    let addr = start_proxy(&mut cluster, args.listen_addr, &etcd, data.path(), env)?;
    if !cluster.wait_ready(|| signals.pending().any(|signal| signal != SIGCHLD))? {
        return Ok(ExitCode::SUCCESS);
    }

    let Some((program, command_args)) = args.command.split_first() else {
        print(&cluster, &data, &addr, out)?;
        return watch(&mut cluster, &mut signals);
    };
    let endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    let command = Command::new(program)
        .args(command_args)
        .env(Setting::ListenAddr.variable(), addr.to_string())
        .env(Setting::Endpoints.variable(), endpoints.join(","))
        .env("ETCDCTL_ENDPOINTS", addr.to_string())
        .spawn()
        .map_err(|cause| exec::Error::new(program, cause))?;
    Ok(code_of(watch_command(command, &mut cluster, &mut signals)?))
}

/// The same proxy that `run` starts, on the address that was asked for or on a free port.
fn start_proxy(
    cluster: &mut Cluster,
    listen_addr: Option<std::ffi::OsString>,
    etcd: &Path,
    dir: &Path,
    env: &Env,
) -> Result<ListenAddr> {
    let told = listen_addr.or_else(|| env.get(Setting::ListenAddr.variable()).map(ToOwned::to_owned));
    let listen_addr = match told {
        Some(told) => told,
        None => ListenAddr::loopback(cluster::free_ports(1)?[0]).to_string().into(),
    };
    let endpoints: Vec<String> = cluster.endpoints().iter().map(ToString::to_string).collect();
    let flags = [(Setting::ListenAddr, Some(listen_addr)), (Setting::Endpoints, Some(endpoints.join(",").into()))];
    let settings = Sources::new(Layer::flags(flags), &Env::default()).resolve()?;
    let args = sidecar::grpc_proxy(&settings, &RELEASE, &[]);
    cluster.start_proxy(etcd, &args, settings.listen_addr.clone(), dir)?;
    Ok(settings.listen_addr)
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
fn watch(cluster: &mut Cluster, signals: &mut Signals) -> Result<ExitCode> {
    loop {
        for signal in signals.wait() {
            if signal != SIGCHLD {
                return Ok(ExitCode::SUCCESS);
            }
        }
        report_ends(cluster)?;
        if !cluster.serves() {
            bail!("too few parts are left to serve");
        }
    }
}

/// Until the command ends. It is told of SIGTERM and SIGHUP; of SIGINT only when no terminal told it already.
fn watch_command(mut command: Child, cluster: &mut Cluster, signals: &mut Signals) -> Result<ExitStatus> {
    loop {
        for signal in signals.wait() {
            match signal {
                SIGCHLD => {}
                SIGINT if std::io::stdin().is_terminal() => {}
                other => {
                    if let Ok(signal) = Signal::try_from(other) {
                        cluster::terminate(&command, signal);
                    }
                }
            }
        }
        if let Some(status) = command.try_wait().context("cannot wait for the command")? {
            return Ok(status);
        }
        report_ends(cluster)?;
    }
}

fn report_ends(cluster: &mut Cluster) -> Result<()> {
    for line in cluster.newly_ended()? {
        super::warn(&line);
    }
    Ok(())
}

/// The command's own code; as a shell has it, 128 and the signal's number when one ended it.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
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
