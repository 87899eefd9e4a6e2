//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::env::Env;
use crate::log::Log;
use crate::release::RELEASE;
use crate::settings::{Settings, Sources};
use crate::sidecar::{self, Launch, Output, Proxy, preflight};
use crate::{child, cli, exec, sys};

use super::{ENDING, in_format, obtain, proxy_flags, start_preflight};

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let sources = Sources::new(proxy_flags(args.proxy, args.drain), env);
    let log = Log { format: sources.log_format()? };
    let done = sources.with_binding(env).map_err(Into::into).and_then(|sources| {
        let settings = sources.resolve()?;
        if args.dry_run { print(&settings, &args.extra, env, out) } else { start(&settings, &args.extra, env, log) }
    });
    in_format(log, done)
}

fn start(settings: &Settings, extra: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    log.warn_all(&settings.warnings);
    let addr = &settings.listen_addr;
    let claim = sidecar::claim(addr, || log.info(format_args!("{addr} is served by another etcd proxy: standing by")))?;
    let tried = start_preflight(settings);
    let etcd = obtain("etcd", env, log)?;
    let launch = Launch::new(settings, &RELEASE, extra, env)?;
    let failing = preflight::wait(&tried, settings, log)?;
    let Some(drain) = settings.drain else {
        let mut command = launch.command(&etcd.path());
        if let Some(claim) = &claim {
            sys::keep_open(&mut command, claim);
        }
        return Err(exec::exec(command, "etcd").into());
    };
    preflight::report_rest(tried, log);
    let signals = child::signals(&ENDING).context("cannot receive signals")?;
    let proxy = Proxy::start(launch, etcd.path(), addr, Output::new(log, &failing))?;
    sidecar::supervise(proxy, drain, &signals)?;
    Ok(ExitCode::SUCCESS)
}

/// What would be done. The last line is a command that a shell can run, unless a secret would stand in it.
fn print(settings: &Settings, extra: &[OsString], env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    writeln!(out, "# mode {}: etcd's grpc-proxy", settings.mode)?;
    writeln!(out, "# service binding: {}", settings.binding.as_deref().unwrap_or("none"))?;
    for endpoint in &settings.endpoints {
        writeln!(out, "# endpoint: {endpoint}")?;
    }
    match settings.drain {
        None => writeln!(out, "# becomes etcd (same pid)")?,
        Some(drain) => {
            writeln!(out, "# supervises etcd; after SIGTERM it serves on for {}", humantime::format_duration(drain))?;
        }
    }
    let launch = Launch::to_show(settings, &RELEASE, extra, env)?;
    if let Some(dir) = launch.dir {
        writeln!(out, "# in the working directory {}", dir.display())?;
    }
    for warning in &settings.warnings {
        writeln!(out, "# warning: {warning}")?;
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
