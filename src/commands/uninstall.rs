//! `etcdproxy uninstall`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install;
use crate::os::env::Env;

use super::change::{IgnoreBrokenPipe, Lines, report, target};

pub(crate) fn run(args: &cli::Uninstall, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut IgnoreBrokenPipe(out);
    let target = target(&args.location, &args.dry_run, env);
    let outcome = install::uninstall(&target, args.purge, &mut Lines::new(out))?;
    if report(&outcome, &args.dry_run, out)? {
        writeln!(out, "etcdproxy is no longer installed in {}", outcome.prefix.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
