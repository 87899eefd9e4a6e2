//! `etcdproxy uninstall`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::{self, Receipt, plan_uninstall};
use crate::os::env::Env;
use crate::place;

use super::change::{Existing, Unread, show};

pub(crate) fn run(args: &cli::Uninstall, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut Unread(out);
    let there = match Existing::open(&args.place, &args.dry_run, env) {
        // As it is to be: automation may say it twice.
        Err(err) if matches!(err.downcast_ref(), Some(install::Error::NothingThere { .. })) => {
            let layout = place::installation(&args.place, None, env)?;
            let mut plan = plan_uninstall(&layout, &Receipt::new(&layout), args.purge)?;
            plan.notes.insert(0, err.to_string());
            show(&plan, &layout, args.dry_run.dry_run.as_deref().unwrap_or("text"), out)?;
            return Ok(ExitCode::SUCCESS);
        }
        there => there?,
    };
    let plan = plan_uninstall(&there.layout, &there.receipt, args.purge)?;
    if there.change(&plan, &args.dry_run, out)? {
        writeln!(out, "etcdproxy is no longer installed in {}", there.layout.real(&there.layout.prefix).display())?;
    }
    Ok(ExitCode::SUCCESS)
}
