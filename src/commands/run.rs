//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{cli, proxy_flags};
use crate::os::env::Env;
use crate::os::log;
use crate::proxy::{self, Launch};
use crate::release::RELEASE;
use crate::settings::{Mode, Settings, Sources, check_etcd_flags};

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let sources = Sources::new(proxy_flags(args.proxy, args.drain), env);
    log::set_format(sources.log_format()?);
    let settings = sources.with_binding(env)?.resolve()?;
    check_etcd_flags(&args.extra, settings.mode)?;
    if args.dry_run {
        print(&settings, &args.extra, env, out)?;
    } else {
        proxy::run(&settings, &args.extra, env)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what would be done. The last line is a command for a shell, unless the line before says that it is not.
fn print(settings: &Settings, extra: &[OsString], env: &Env, out: &mut impl Write) -> Result<()> {
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
        return Ok(());
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
    Ok(())
}
