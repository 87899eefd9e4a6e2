//! `etcdproxy install`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::{self, Options, ServiceHint, Started};
use crate::os::env::Env;

use super::change::{IgnoreBrokenPipe, Lines, report, target};

pub(crate) fn run(args: &cli::Install, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut IgnoreBrokenPipe(out);
    let mut target = target(&args.location, &args.dry_run, env);
    target.location.bin_dir.clone_from(&args.bin_dir);
    let systemd = (args.systemd || args.no_systemd).then_some(args.systemd);
    let options = Options { systemd, enable: args.enable, force: args.force };
    let installed = install::install(&target, options, &mut Lines::new(out))?;
    if !report(&installed.outcome, &args.dry_run, out)? {
        return Ok(ExitCode::SUCCESS);
    }
    let (version, prefix) = (&installed.version, installed.outcome.prefix.display());
    if installed.outcome.steps.is_empty() {
        writeln!(out, "etcdproxy {version} is installed in {prefix}: nothing to do")?;
    } else {
        writeln!(out, "etcdproxy {version} is now installed in {prefix}")?;
    }
    if let Some(bin_dir) = &installed.not_in_path {
        writeln!(out, "note: {} is not in PATH", bin_dir.display())?;
    }
    if args.start {
        match installed.start()? {
            Started::Ready => writeln!(out, "the service is started")?,
            Started::NotYet(log) => writeln!(out, "the service is started, but not ready yet: see {log}")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    match installed.service_hint() {
        ServiceHint::Nothing => {}
        ServiceHint::Start(command) => writeln!(out, "start the service with: {command}")?,
        ServiceHint::Restart(command) => {
            writeln!(out, "the running service is unchanged; to update it: {command}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
