//! `etcdproxy prune`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install;
use crate::os::env::Env;

use super::change::{IgnoreBrokenPipe, Lines, report, target};

pub(crate) fn run(args: &cli::Prune, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut IgnoreBrokenPipe(out);
    let target = target(&args.location, &args.dry_run, env);
    let outcome = install::prune(&target, args.keep.into(), &mut Lines::new(out))?;
    if report(&outcome, &args.dry_run, out)? && outcome.steps.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(ExitCode::SUCCESS)
}
