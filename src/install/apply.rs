//! Carries out a plan step by step.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::error::{Error, REMEDY};
use super::file_state::FileState;
use super::guard;
use super::layout::Layout;
use super::plan::{Plan, Source, Step, kept_not_empty};
use crate::fs::atomic::{self, Durability};
use crate::fs::{WriteError, dirs};
use crate::os::env;
use crate::release;

/// Shows the progress of the work. All paths are as this process sees them.
pub(crate) trait Progress {
    /// The step begins. It may take a while.
    fn begin(&mut self, step: &Step);
    /// The step is done.
    fn done(&mut self, step: &Step);
    /// Something went wrong, but the work goes on.
    fn note(&mut self, text: &str);
}

/// Carries out the plan.
///
/// # Errors
/// If a step fails. The steps before it stay done and are in the receipt, so the next run does not repeat them. Only an
/// incomplete new version is removed again.
pub(super) fn apply(layout: &Layout, plan: &Plan, progress: &mut dyn Progress) -> Result<(), Error> {
    sweep(layout, plan);
    if plan.steps.is_empty() && plan.is_recorded {
        return Ok(());
    }
    match plan.during.save(layout) {
        // What only removes needs no room, and every path that it removes is in the receipt that is there already.
        Err(Error::Write(err)) if err.is_full() && plan.needs_no_room() => {}
        saved => saved?,
    }
    for (n, step) in plan.steps.iter().enumerate() {
        let shown = step.real(layout);
        progress.begin(&shown);
        match run(step, layout) {
            Ok(true) => progress.done(&shown),
            // The directories with the receipt have another chance, after the receipt.
            Ok(false) if plan.after.is_none() && layout.prefix.starts_with(step.path()) => {}
            Ok(false) => note_what_is_left(layout, step, progress),
            Err(err) => {
                undo_new_version(layout, plan, &plan.steps[..=n]);
                return Err(err);
            }
        }
    }
    match &plan.after {
        Some(after) => match after.save(layout) {
            Err(Error::Write(err)) if err.is_full() && plan.needs_no_room() => {
                progress.note(&format!("everything is done, but a later command has to record it: {err}"));
                Ok(())
            }
            saved => saved,
        },
        None => remove_receipt(layout, plan, progress),
    }
}

/// If only a new version was written so far, removes what there is of it, so that it takes no room on a full disk. Then
/// everything is as it was before.
fn undo_new_version(layout: &Layout, plan: &Plan, tried: &[Step]) {
    let is_new = |version: &str| plan.before.version(version).is_none();
    let is_of_new = |step: &Step| match step {
        Step::Directory { .. } => true,
        Step::Write { path, .. } => layout.version_of(path).is_some_and(is_new),
        _ => false,
    };
    if !tried.iter().all(is_of_new) {
        return;
    }
    for step in tried.iter().rev() {
        let real = layout.real(step.path());
        let _ = match step {
            Step::Directory { .. } => remove_directory(&real).map(drop),
            _ => remove(&real),
        };
    }
    let _ =
        if plan.before.entries.is_empty() { remove(&layout.real(&layout.receipt())) } else { plan.before.save(layout) };
}

/// Removes the receipt last, with the lock file, which nobody needs any more, and the directories that held them.
fn remove_receipt(layout: &Layout, plan: &Plan, progress: &mut dyn Progress) -> Result<(), Error> {
    remove(&layout.real(&layout.receipt()))?;
    remove(&layout.real(&layout.lock()))?;
    for step in &plan.steps {
        if let Step::RemoveDirectory { path } = step
            && layout.prefix.starts_with(path)
        {
            if run(step, layout)? {
                progress.done(&step.real(layout));
            } else {
                note_what_is_left(layout, step, progress);
            }
        }
    }
    Ok(())
}

/// Says why a directory that is ours could not be removed: files that are not ours came into it meanwhile.
fn note_what_is_left(layout: &Layout, step: &Step, progress: &mut dyn Progress) {
    let Step::RemoveDirectory { path } = step else { return };
    let dir = layout.real(path);
    if let Ok(names) = dirs::names(&dir) {
        progress.note(&kept_not_empty(&dir, &names));
    }
}

/// Removes the temporary files that interrupted runs left behind.
fn sweep(layout: &Layout, plan: &Plan) {
    let files = plan.during.entries.iter().filter(|entry| entry.state != FileState::Directory);
    for path in files.map(|entry| &entry.path).chain([&layout.receipt()]) {
        if guard::check(layout, dirs::parent(path)).unwrap_or(false) {
            atomic::sweep(&layout.real(path));
        }
    }
}

/// Carries out one step. Returns whether it changed anything.
fn run(step: &Step, layout: &Layout) -> Result<bool, Error> {
    let path = step.path();
    let real = layout.real(path);
    // Immediately before the change, check again that nobody else can change the directory.
    let dir = dirs::parent(path);
    if !guard::check(layout, dir)? {
        if matches!(step, Step::Remove { .. } | Step::RemoveDirectory { .. }) {
            return Ok(false);
        }
        guard::create(layout, dir)?;
    }
    let failed = |err: io::Error| write_error(&real, &err);
    match step {
        Step::Directory { path } => {
            guard::create(layout, path)?;
        }
        Step::Save { to, .. } => rename(&real, &layout.real(to))?,
        Step::Restore { from, .. } => rename(&layout.real(from), &real)?,
        Step::Write { mode, source, .. } => match source {
            Source::Text(text) => {
                atomic::write(&real, mode.0, Durability::Synced, |file| file.write_all(text.as_bytes()))
                    .map_err(failed)?;
            }
            Source::ThisBinary => {
                let mut own = env::open_own_exe().map_err(Error::own_exe)?;
                atomic::write(&real, mode.0, Durability::Synced, |file| io::copy(&mut own, file).map(drop))
                    .map_err(failed)?;
            }
            Source::Program(program) => {
                release::unpack_fresh(program, dirs::parent(&real), REMEDY)?;
            }
            Source::None => {}
        },
        Step::Link { target, .. } => atomic::link(&real, target).map_err(failed)?,
        Step::Remove { .. } => remove(&real)?,
        Step::RemoveDirectory { .. } => return remove_directory(&real),
    }
    Ok(true)
}

/// Moves a file. An existing file at the new path is an error.
pub(super) fn rename(path: &Path, to: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::BackupExists { path: path.to_owned(), backup: to.to_owned() });
    }
    let moved = fs::rename(path, to).and_then(|()| dirs::sync(dirs::parent(to)));
    moved.map_err(|err| write_error(to, &err))
}

/// Removes a file or a link. A missing one is not an error.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(write_error(path, &err)),
        _ => Ok(()),
    }
}

fn remove_directory(path: &Path) -> Result<bool, Error> {
    dirs::remove_if_empty(path).map_err(|err| write_error(path, &err))
}

fn write_error(path: &Path, err: &io::Error) -> Error {
    WriteError::new(path, err, REMEDY, None).into()
}
