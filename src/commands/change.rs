//! What the commands that change an installation have in common: plans are shown or carried out.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Result;
use serde::Serialize;

use crate::commands::cli;
use crate::install::{self, Layout, Lock, Plan, Progress, Receipt, Step, apply, host};
use crate::os::env::Env;
use crate::place;

#[derive(Serialize)]
struct Shown<'a> {
    steps: Vec<Step>,
    notes: &'a [String],
}

/// An installation that is there, and nobody else's until this is dropped.
pub(super) struct Existing {
    pub layout: Layout,
    pub receipt: Receipt,
    _lock: Option<Lock>,
}

impl Existing {
    /// # Errors
    /// When there is nothing, not even what an uninstall has left.
    pub(super) fn open(place: &cli::Place, dry_run: &cli::DryRun, env: &Env) -> Result<Self> {
        let layout = place::installation(place, None, env)?;
        let lock = if dry_run.dry_run.is_some() { None } else { Some(Lock::take_existing(&layout)?) };
        let nothing = || install::Error::NothingThere { path: layout.real(&layout.prefix) };
        let receipt = Receipt::load(&layout)?.ok_or_else(nothing)?;
        Ok(Self { layout, receipt, _lock: lock })
    }

    /// Shows the plan or carries it out. Gives whether it was carried out.
    pub(super) fn change(&self, plan: &Plan, dry_run: &cli::DryRun, out: &mut impl Write) -> Result<bool> {
        match &dry_run.dry_run {
            Some(format) => show(plan, &self.layout, format, out)?,
            None => carry_out(plan, &self.layout, out)?,
        }
        Ok(dry_run.dry_run.is_none())
    }
}

/// Where commands that change something write to. That nobody reads it is no reason to leave the work half done.
pub(super) struct Unread<W>(pub W);

impl<W: Write> Write for Unread<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }
}

/// What would be done.
pub(super) fn show(plan: &Plan, layout: &Layout, format: &str, out: &mut impl Write) -> Result<()> {
    if format == "json" {
        let steps = plan.steps.iter().map(|step| step.real(layout)).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&Shown { steps, notes: &plan.notes })?)?;
        return Ok(());
    }
    for step in &plan.steps {
        writeln!(out, "would {}", words(step, layout))?;
    }
    if plan.steps.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    notes(plan, out)
}

/// Does it, and tells the system.
pub(super) fn carry_out(plan: &Plan, layout: &Layout, out: &mut impl Write) -> Result<()> {
    let is_managed = host::is_managed(layout);
    if is_managed
        && plan.removes_service(layout)
        && let Err(err) = host::disable(layout)
    {
        writeln!(out, "note: {err}")?;
    }
    apply(layout, plan, &mut Lines { layout, out, is_terminal: io::stdout().is_terminal() })?;
    if let Some(after) = &plan.after {
        host::restore_labels(layout, after);
    }
    // Also when nothing was done now: an earlier run may have been interrupted here.
    if is_managed && (plan.before.systemd || plan.during.systemd) {
        host::reload(layout)?;
    }
    notes(plan, out)
}

fn notes(plan: &Plan, out: &mut impl Write) -> Result<()> {
    for note in &plan.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// A line for each step; on a terminal also for the one at work.
struct Lines<'a, W> {
    layout: &'a Layout,
    out: &'a mut W,
    is_terminal: bool,
}

impl<W: Write> Progress for Lines<'_, W> {
    fn begin(&mut self, step: &Step) {
        if self.is_terminal {
            self.print(&format!("{} …", words(step, self.layout)), "");
        }
    }

    fn done(&mut self, step: &Step) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.print(&format!("{start}{}", words(step, self.layout)), "\n");
    }
}

impl<W: Write> Lines<'_, W> {
    /// What is not seen is no reason to leave the work half done.
    fn print(&mut self, text: &str, end: &str) {
        let _ = write!(self.out, "{text}{end}").and_then(|()| self.out.flush());
    }
}

fn words(step: &Step, layout: &Layout) -> String {
    match step.real(layout) {
        Step::Directory { path } => format!("make {}/", path.display()),
        Step::Write { path, .. } => format!("write {}", path.display()),
        Step::Link { path, target } => format!("link {} -> {}", path.display(), target.display()),
        Step::Save { path, to } => format!("move {} to {}", path.display(), to.display()),
        Step::Restore { path, from } => format!("move {} back to {}", from.display(), path.display()),
        Step::Remove { path } => format!("remove {}", path.display()),
        Step::RemoveDirectory { path } => format!("remove {}/", path.display()),
    }
}
