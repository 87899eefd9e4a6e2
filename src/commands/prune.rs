//! `etcdproxy prune`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::plan_prune;
use crate::os::env::Env;

use super::change::{Existing, Unread};

pub(crate) fn run(args: &cli::Prune, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut Unread(out);
    let there = Existing::open(&args.place, &args.dry_run, env)?;
    let plan = plan_prune(&there.layout, &there.receipt, args.keep.into())?;
    if there.change(&plan, &args.dry_run, out)? && plan.steps.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(ExitCode::SUCCESS)
}
