//! `etcdproxy uninstall`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli;
use crate::env::Env;
use crate::install::plan_uninstall;

use super::change::{Existing, Unread};

pub(crate) fn run(args: &cli::Uninstall, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut Unread(out);
    let there = Existing::open(&args.place, &args.dry_run, env)?;
    let plan = plan_uninstall(&there.layout, &there.receipt, args.purge)?;
    if there.change(&plan, &args.dry_run, out)? {
        writeln!(out, "etcdproxy is no longer installed in {}", there.layout.real(&there.layout.prefix).display())?;
    }
    Ok(ExitCode::SUCCESS)
}
