//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::cli;
use crate::os::companion::Companion;
use crate::os::env::Env;
use crate::os::log;
use crate::os::process::never_dump;
use crate::proxy::{self, Launch};
use crate::release::{RELEASE, Store};
use crate::settings::{Run, Settings, Sources, check_etcd_flags};

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let companion = args.beside.map(|text| Companion::parse(&text)).transpose().context("--beside")?;
    let sources = Sources::new(args.settings.0, env);
    log::set_format(sources.log_format()?);
    let sources = sources.with_etcd(Store::new(env).has("etcd")).with_binding(env)?;
    if args.dry_run {
        let settings = sources.resolve()?;
        check_etcd_flags(&args.extra, settings.run.mode())?;
        print(&settings, &args.extra, env, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    log::write_in_background();
    never_dump();
    if let Some(companion) = companion {
        companion.end_with_it().context("cannot wait for the end of the application")?;
    }
    if let Some((settings, events)) = proxy::await_settings(sources)? {
        check_etcd_flags(&args.extra, settings.run.mode())?;
        proxy::run(&settings, &args.extra, env, events)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what would be done. The last line is a shell command, unless the line before says that it does not work.
fn print(settings: &Settings, extra: &[OsString], env: &Env, out: &mut impl Write) -> Result<()> {
    let why = settings.mode_reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    writeln!(out, "# mode {}{why}", settings.run.mode())?;
    writeln!(out, "# service binding: {}", settings.binding.as_deref().unwrap_or("none"))?;
    if let Some(domain) = &settings.discovery_srv {
        writeln!(out, "# endpoints: the SRV records of {domain}")?;
    }
    for endpoint in &settings.endpoints {
        writeln!(out, "# endpoint: {endpoint}")?;
    }
    let show = |drain| humantime::format_duration(drain);
    match settings.run {
        Run::ExecEtcd => writeln!(out, "# execs etcd in the same process")?,
        Run::SuperviseEtcd { drain } => {
            writeln!(out, "# supervises etcd; after SIGTERM it drains for {} at most", show(drain))?;
        }
        Run::Native { drain } => {
            let (addr, drain) = (&settings.listen_addr, show(drain));
            writeln!(out, "# listens on {addr}; after SIGTERM it drains for {drain} at most")?;
        }
    }
    if matches!(settings.run, Run::Native { .. }) {
        writeln!(out, "# calls go to {}", settings.prefer)?;
        if let Some(login) = &settings.login {
            writeln!(out, "# calls without a token act as the user {:?}", login.username)?;
        }
        if let Some(namespace) = &settings.namespace {
            writeln!(out, "# puts {namespace:?} before every key")?;
        }
    }
    for warning in &settings.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    if !settings.run.mode().capabilities().runs_etcd {
        return Ok(());
    }
    let launch = Launch::to_show(settings, &RELEASE, extra, env)?;
    if let Some(dir) = launch.dir {
        writeln!(out, "# in the working directory {}", dir.display())?;
    }
    if !launch.is_complete() {
        writeln!(
            out,
            "# (a certificate or key that is not a file cannot be shown: this command does not work as it is)"
        )?;
    }
    let mut separator = "";
    for word in launch.words() {
        let word = word.to_string_lossy();
        write!(out, "{separator}{}", shlex::try_quote(&word).context("an argument contains a NUL byte")?)?;
        separator = " ";
    }
    writeln!(out)?;
    Ok(())
}
