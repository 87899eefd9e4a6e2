//! `etcdproxy rollback`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::{UNIT, host, plan_rollback};
use crate::os::env::Env;

use super::change::{Existing, Unread};

pub(crate) fn run(args: &cli::Rollback, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut Unread(out);
    let there = Existing::open(&args.place, &args.dry_run, env)?;
    let plan = plan_rollback(&there.layout, &there.receipt, args.version.as_deref())?;
    if there.change(&plan, &args.dry_run, out)? {
        let current = plan.after.and_then(|after| after.current).unwrap_or_default();
        writeln!(out, "{current} is current")?;
        if there.receipt.systemd && host::is_managed(&there.layout) && host::is_active(&there.layout) {
            let restart = host::systemctl(&there.layout, &["restart", UNIT]);
            writeln!(out, "the service still runs as it was; to change that: {restart}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
