//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::commands::cli;
use crate::os::child::{ENDING, Events};
use crate::os::env::Env;
use crate::os::exec;
use crate::os::log::Log;
use crate::proxy::preflight::{self, Verdict};
use crate::proxy::{self, Attempt, Claim, Launch};
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Run, Settings, Sources, check_etcd_flags};

use super::{Prepared, in_format, obtain, start_preflight};

/// How soon one that stands by notices that the port is free.
const STAND_BY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let sources = Sources::new(args.settings.0, env);
    let log = Log { format: sources.log_format()? };
    let done = sources.with_binding(env).map_err(Into::into).and_then(|sources| {
        let settings = sources.resolve()?;
        check_etcd_flags(&args.extra, settings.run.mode())?;
        if args.dry_run { print(&settings, &args.extra, env, out) } else { start(settings, &args.extra, env, log) }
    });
    in_format(log, done)
}

fn start(settings: Settings, extra: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    match settings.run {
        Run::ExecEtcd => exec_etcd(settings, extra, env, log),
        Run::SuperviseEtcd { drain } | Run::Tunnel { drain } => supervise(settings, drain, extra, env, log),
    }
}

/// Leaves the signals as they are: after exec, they are etcd's.
fn exec_etcd(mut settings: Settings, extra: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    let Some(claim) = stand_by(&settings.listen_addr, None, log)? else { return Ok(ExitCode::SUCCESS) };
    log.warn_all(&settings.warnings);
    let tried = start_preflight(&mut settings, env, log)?;
    let (etcd, launch) = (obtain("etcd", env, log)?, Launch::new(&settings, &RELEASE, extra, env)?);
    preflight::wait(&tried, None, &settings, log)?;
    let mut command = launch.command(&etcd.path());
    claim.hand_on(&mut command);
    Err(exec::exec(command, "etcd").into())
}

fn supervise(mut settings: Settings, drain: Duration, extra: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    let events = Events::new(&ENDING).context("cannot receive signals")?;
    let Some(_claim) = stand_by(&settings.listen_addr, Some(&events), log)? else { return Ok(ExitCode::SUCCESS) };
    log.warn_all(&settings.warnings);
    let tried = start_preflight(&mut settings, env, log)?;
    let prepared = Prepared::new(&settings, extra, env, log)?;
    let Verdict::Start(failing) = preflight::wait(&tried, Some(&events), &settings, log)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut carrier = prepared.start(&settings, &failing, tried, log)?;
    proxy::supervise(&mut *carrier, drain, &events, log)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until no other proxy serves the address; gives nothing when a signal comes before that.
fn stand_by(addr: &ListenAddr, events: Option<&Events>, log: Log) -> Result<Option<Claim>> {
    let mut said = false;
    loop {
        match proxy::try_claim(addr)? {
            Attempt::Ours(claim) => return Ok(Some(claim)),
            Attempt::Served if !said => {
                log.info(format_args!("{addr} is served by another etcd proxy: standing by"));
                said = true;
            }
            Attempt::Served => {}
        }
        match events {
            None => std::thread::sleep(STAND_BY_PAUSE),
            Some(events) if events.next(STAND_BY_PAUSE).ending().is_some() => return Ok(None),
            Some(_) => {}
        }
    }
}

/// What would be done. The last line is a command that a shell can run, unless it says otherwise.
fn print(settings: &Settings, extra: &[OsString], env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let mode = settings.run.mode();
    let why = settings.mode_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    writeln!(out, "# mode {mode}{why}")?;
    writeln!(out, "# service binding: {}", settings.binding.as_deref().unwrap_or("none"))?;
    for endpoint in &settings.endpoints {
        writeln!(out, "# endpoint: {endpoint}")?;
    }
    let show = |drain| humantime::format_duration(drain);
    match settings.run {
        Run::ExecEtcd => writeln!(out, "# becomes etcd (same pid)")?,
        Run::SuperviseEtcd { drain } => {
            writeln!(out, "# supervises etcd; after SIGTERM it serves on for {} at most", show(drain))?;
        }
        Run::Tunnel { drain } => {
            let (addr, drain) = (&settings.listen_addr, show(drain));
            writeln!(out, "# listens on {addr}; after SIGTERM it serves on for {drain} at most")?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    if !mode.capabilities().runs_etcd {
        return Ok(ExitCode::SUCCESS);
    }
    let launch = Launch::to_show(settings, &RELEASE, extra, env)?;
    if let Some(dir) = launch.dir {
        writeln!(out, "# in the working directory {}", dir.display())?;
    }
    if !launch.is_complete() {
        writeln!(out, "# (what is no file cannot be written out: this command would not work as it stands)")?;
    }
    let mut separator = "";
    for word in launch.words() {
        let word = word.to_string_lossy();
        write!(out, "{separator}{}", shlex::try_quote(&word).context("an argument holds a NUL byte")?)?;
        separator = " ";
    }
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
