//! What the commands that change an installation have in common: how they show plans and progress.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Result;
use serde::Serialize;

use crate::commands::cli;
use crate::install::{Location, Outcome, Progress, Step, Target};
use crate::os::env::Env;

/// The output of `--dry-run=json`.
#[derive(Serialize)]
struct Plan<'a> {
    steps: &'a [Step],
    notes: &'a [String],
}

impl From<&cli::Location> for Location {
    fn from(args: &cli::Location) -> Self {
        Self { prefix: args.prefix.clone(), root: args.root.clone(), user: args.user, bin_dir: None }
    }
}

/// The installation that the arguments mean.
pub(super) fn target<'a>(location: &cli::Location, dry_run: &cli::DryRun, env: &'a Env) -> Target<'a> {
    Target { location: location.into(), dry_run: dry_run.dry_run.is_some(), env }
}

/// Prints the notes and, after a dry run, the steps before them. Returns whether the steps were carried out.
pub(super) fn report(outcome: &Outcome, dry_run: &cli::DryRun, out: &mut impl Write) -> Result<bool> {
    if !outcome.is_done {
        if dry_run.dry_run.as_deref() == Some("json") {
            let plan = Plan { steps: &outcome.steps, notes: &outcome.notes };
            writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
            return Ok(false);
        }
        for step in &outcome.steps {
            writeln!(out, "would {}", describe(step))?;
        }
        if outcome.steps.is_empty() {
            writeln!(out, "nothing to do")?;
        }
    }
    for note in &outcome.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(outcome.is_done)
}

/// Prints a line for each completed step; on a terminal, also for the current one.
pub(super) struct Lines<'a, W> {
    out: &'a mut W,
    is_terminal: bool,
}

impl<'a, W: Write> Lines<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self { out, is_terminal: io::stdout().is_terminal() }
    }

    /// Ignores errors, because output that fails must not leave the work half done.
    fn print(&mut self, text: &str, end: &str) {
        let _ = write!(self.out, "{text}{end}").and_then(|()| self.out.flush());
    }
}

impl<W: Write> Progress for Lines<'_, W> {
    fn begin(&mut self, step: &Step) {
        if self.is_terminal {
            self.print(&format!("{} …", describe(step)), "");
        }
    }

    fn done(&mut self, step: &Step) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.print(&format!("{start}{}", describe(step)), "\n");
    }

    fn note(&mut self, text: &str) {
        self.print(&format!("note: {text}"), "\n");
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Directory { path } => format!("make {}/", path.display()),
        Step::Write { path, .. } => format!("write {}", path.display()),
        Step::Link { path, target } => format!("link {} -> {}", path.display(), target.display()),
        Step::Save { path, to } => format!("move {} to {}", path.display(), to.display()),
        Step::Restore { path, from } => format!("move {} back to {}", from.display(), path.display()),
        Step::Remove { path } => format!("remove {}", path.display()),
        Step::RemoveDirectory { path } => format!("remove {}/", path.display()),
    }
}

/// The output of commands that change something. They finish their work even if its reader has gone.
pub(super) struct IgnoreBrokenPipe<W>(pub W);

impl<W: Write> Write for IgnoreBrokenPipe<W> {
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
