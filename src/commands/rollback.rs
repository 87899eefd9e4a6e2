//! `etcdproxy rollback`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install;
use crate::os::env::Env;

use super::change::{IgnoreBrokenPipe, Lines, report, target};

pub(crate) fn run(args: &cli::Rollback, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut IgnoreBrokenPipe(out);
    let target = target(&args.location, &args.dry_run, env);
    let done = install::rollback(&target, args.version.as_deref(), &mut Lines::new(out))?;
    if report(&done.outcome, &args.dry_run, out)? {
        writeln!(out, "{} is current", done.current)?;
    }
    if let Some(command) = done.restart {
        writeln!(out, "the running service is unchanged; to update it: {command}")?;
    }
    Ok(ExitCode::SUCCESS)
}
