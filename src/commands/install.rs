//! `etcdproxy install`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::{self, Layout, Lock, Own, Receipt, Request, Step, host, plan_install};
use crate::os::env::Env;
use crate::place;
use crate::release::RELEASE;

use super::change::{Unread, carry_out, show};

pub(crate) fn run(args: &cli::Install, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let out = &mut Unread(out);
    let layout = place::installation(&args.place, args.bin_dir.as_deref(), env)?;
    let own = Own::new()?;
    let lock = if args.dry_run.dry_run.is_some() { None } else { Some(Lock::take(&layout)?) };
    let receipt = match Receipt::load(&layout) {
        Err(install::Error::Receipt { .. }) if args.force => {
            if lock.is_some() {
                install::save_receipt_away(&layout)?;
            }
            None
        }
        loaded => loaded?,
    };
    let of_before = |flag: fn(&Receipt) -> bool| receipt.as_ref().is_some_and(flag);
    // A user without rights has no say in the system's services.
    let usual = || host::has_systemd(&layout) && (env.is_root || layout.user);
    let request = Request {
        systemd: args.systemd || !args.no_systemd && (of_before(|receipt| receipt.systemd) || args.enable || usual()),
        enable: args.enable || of_before(|receipt| receipt.enabled) && install::is_enabled(&layout),
        force: args.force,
    };
    let made = lock.as_ref().map_or(&[][..], |lock| &lock.made);
    let mut plan = plan_install(&layout, receipt.as_ref(), made, &own, &request)?;
    // The lock stands in them, so they are there already.
    let missing = lock.iter().flat_map(|lock| lock.missing.iter().cloned());
    plan.steps.splice(0..0, missing.map(|path| Step::Directory { path }));
    if !request.systemd && !args.no_systemd {
        plan.notes.push(why_no_service(&layout).to_owned());
    }
    if let Some(format) = &args.dry_run.dry_run {
        show(&plan, &layout, format, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    carry_out(&plan, &layout, out)?;
    let what = format!("etcdproxy {} with etcd {} is", own.name, RELEASE.version);
    let place = layout.real(&layout.prefix);
    if plan.steps.is_empty() {
        writeln!(out, "{what} installed in {}: nothing to do", place.display())?;
    } else {
        writeln!(out, "{what} now installed in {}", place.display())?;
    }
    if layout.is_live() && !is_in_path(&layout, env) {
        writeln!(out, "note: {} is not in PATH", layout.bin_dir.display())?;
    }
    if request.systemd && host::is_managed(&layout) {
        serve(args, &layout, plan.steps.is_empty(), out)?;
    } else if args.start {
        return Err(install::Error::NoManager.into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Said when nobody asked for none.
fn why_no_service(layout: &Layout) -> &'static str {
    if host::has_systemd(layout) {
        "no service is made, for you are not root: --systemd makes one all the same"
    } else {
        "no service is made, for systemd is not there: --systemd makes one all the same"
    }
}

fn is_in_path(layout: &Layout, env: &Env) -> bool {
    env.get("PATH").is_some_and(|path| std::env::split_paths(path).any(|dir| dir == layout.bin_dir))
}

fn serve(args: &cli::Install, layout: &Layout, unchanged: bool, out: &mut impl Write) -> Result<()> {
    let call = |args: &[&str]| host::systemctl(layout, args);
    if args.start {
        let started = host::restart(layout);
        if started.is_err() {
            install::refuse_unconfigured(layout)?;
        }
        if started? {
            writeln!(out, "the service is started")?;
        } else {
            let journal = if layout.user { "journalctl --user" } else { "journalctl" };
            writeln!(out, "the service starts, but is not ready yet: see {journal} -u {}", install::UNIT)?;
        }
    } else if !host::is_active(layout) {
        writeln!(out, "start the service with: {}", call(&["start", install::UNIT]))?;
    } else if !unchanged {
        writeln!(out, "the service still runs as it was; to change that: {}", call(&["restart", install::UNIT]))?;
    }
    Ok(())
}
