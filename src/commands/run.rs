//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::commands::cli;
use crate::os::child::{ENDING, Events};
use crate::os::env::Env;
use crate::os::exec;
use crate::os::log::Log;
use crate::proxy::preflight::{self, Verdict};
use crate::proxy::{self, Attempt, Claim, Launch};
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Mode, Settings, Sources, check_etcd_flags};

use super::{Prepared, in_format, proxy_flags, start_preflight};

/// How soon one that stands by notices that the port is free.
const STAND_BY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let sources = Sources::new(proxy_flags(args.proxy, args.drain), env);
    let log = Log { format: sources.log_format()? };
    let done = sources.with_binding(env).map_err(Into::into).and_then(|sources| {
        let settings = sources.resolve()?;
        check_etcd_flags(&args.extra, settings.mode)?;
        if args.dry_run { print(&settings, &args.extra, env, out) } else { start(settings, &args.extra, env, log) }
    });
    in_format(log, done)
}

fn start(mut settings: Settings, extra: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    // Without a drain the signals stay what they are: after exec, they are etcd's.
    let events = settings.drain.map(|_| Events::new(&ENDING)).transpose().context("cannot receive signals")?;
    let Some(claim) = stand_by(&settings.listen_addr, events.as_ref(), log)? else { return Ok(ExitCode::SUCCESS) };
    log.warn_all(&settings.warnings);
    let tried = start_preflight(&mut settings, env, log)?;
    let prepared = Prepared::new(&settings, extra, env, log)?;
    let failing = match preflight::wait(&tried, events.as_ref(), &settings, log)? {
        Verdict::Start(failing) => failing,
        Verdict::Interrupted(_) => return Ok(ExitCode::SUCCESS),
    };
    let (Some(drain), Some(events)) = (settings.drain, events) else {
        let Prepared::Etcd { etcd, launch } = prepared else { bail!("the tunnel has no process to become") };
        let mut command = launch.command(&etcd.path());
        claim.hand_on(&mut command);
        return Err(exec::exec(command, "etcd").into());
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
    let why = settings.mode_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    writeln!(out, "# mode {}{why}", settings.mode)?;
    writeln!(out, "# service binding: {}", settings.binding.as_deref().unwrap_or("none"))?;
    for endpoint in &settings.endpoints {
        writeln!(out, "# endpoint: {endpoint}")?;
    }
    let drain = settings.drain.map(|drain| humantime::format_duration(drain).to_string()).unwrap_or_default();
    match (settings.mode, settings.drain) {
        (Mode::GrpcProxy, None) => writeln!(out, "# becomes etcd (same pid)")?,
        (Mode::GrpcProxy, _) => writeln!(out, "# supervises etcd; after SIGTERM it serves on for {drain} at most")?,
        (Mode::Tunnel, _) => {
            writeln!(out, "# listens on {}; after SIGTERM it serves on for {drain} at most", settings.listen_addr)?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    if settings.mode == Mode::Tunnel {
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
