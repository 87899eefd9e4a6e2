//! A plan becomes true, step by step.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::layout::Layout;
use super::plan::{Plan, Source, Step};
use super::receipt::What;
use super::{Error, REMEDY, disk, guard, open_own};
use crate::{fs as file, release};

/// Another run takes a second; one that is stopped must not stop others for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Two runs on the same installation would each undo what the other does.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The directories that were made for it. Those that stay empty go with it.
    pub made: Vec<PathBuf>,
    /// Those that are made by this run.
    pub missing: Vec<PathBuf>,
    layout: Layout,
    held: File,
}

impl Lock {
    /// Waits until nobody else works on it; makes the prefix, where it is missing.
    ///
    /// # Errors
    /// When somebody does for 10 s, or the prefix cannot be made.
    pub(crate) fn take(layout: &Layout) -> Result<Self, Error> {
        let start = Instant::now();
        let prefix = layout.real(&layout.prefix);
        let path = layout.real(&layout.lock());
        let mut made = Vec::new();
        loop {
            made.extend(guard::make(layout, &layout.prefix)?);
            // Nobody else can open it, and so hold it.
            let mut options = File::options();
            options.create(true).truncate(false).write(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
            let file = match options.open(&path) {
                Ok(file) => file,
                // Another run has just removed the directory.
                Err(err) if err.kind() == io::ErrorKind::NotFound && start.elapsed() < LOCK_PATIENCE => continue,
                Err(err) => return Err(file::Error::new(&path, &err, REMEDY, None).into()),
            };
            match file.try_lock() {
                Ok(()) if is_still(&file, &path) => {
                    let missing = made.clone();
                    if made.is_empty() && is_all_there_is(&path) {
                        made.push(layout.prefix.clone());
                    }
                    return Ok(Self { made, missing, layout: layout.clone(), held: file });
                }
                // Another run has just removed it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_PATIENCE => {
                    return Err(Error::Busy { path: prefix });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(cause)) => return Err(Error::CannotRead { path, cause }),
            }
        }
    }

    /// As [`take`](Self::take), for an installation that is there.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn take_existing(layout: &Layout) -> Result<Self, Error> {
        if !guard::check(layout, &layout.prefix)? {
            return Err(Error::NothingThere { path: layout.real(&layout.prefix) });
        }
        Self::take(layout)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let path = self.layout.real(&self.layout.lock());
        // An uninstall has removed it, and another run may have one of its own by now.
        if is_still(&self.held, &path) {
            let _ = fs::remove_file(path);
        }
        for dir in self.made.iter().rev() {
            let _ = fs::remove_dir(self.layout.real(dir));
        }
    }
}

/// An earlier run was killed before it wrote its receipt, or the directory was made for this one.
fn is_all_there_is(path: &Path) -> bool {
    path.parent().and_then(|dir| fs::read_dir(dir).ok()).is_some_and(|entries| entries.count() == 1)
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => (file.dev(), file.ino()) == (path.dev(), path.ino()),
        _ => false,
    }
}

/// Says what is done.
pub(crate) trait Progress {
    /// This begins, and may take a while.
    fn begin(&mut self, step: &Step);
    /// This is done.
    fn done(&mut self, step: &Step);
}

/// Does what was planned.
///
/// # Errors
/// At the first step that cannot be done. What was done before it stays, is in the receipt, and is not done again.
pub(crate) fn apply(layout: &Layout, plan: &Plan, progress: &mut dyn Progress) -> Result<(), Error> {
    sweep(layout, plan);
    if plan.steps.is_empty() && plan.is_known {
        return Ok(());
    }
    plan.during.save(layout)?;
    for (n, step) in plan.steps.iter().enumerate() {
        progress.begin(step);
        match step.run(layout) {
            Ok(true) => progress.done(step),
            Ok(false) => {}
            Err(err) => {
                take_back(layout, plan, &plan.steps[..=n]);
                return Err(err);
            }
        }
    }
    match &plan.after {
        Some(after) => after.save(layout),
        None => forget(layout, plan, progress),
    }
}

/// A new version that could not be completed takes no room on a disk that is full. As far as nothing else was changed,
/// all is as before then.
fn take_back(layout: &Layout, plan: &Plan, tried: &[Step]) {
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
            Step::Directory { .. } => disk::remove_dir(&real).map(drop),
            _ => disk::remove(&real),
        };
    }
    let _ = if plan.before.entries.is_empty() {
        disk::remove(&layout.real(&layout.receipt()))
    } else {
        plan.before.save(layout)
    };
}

/// The receipt goes last, and then the directories that it stood in. Nobody has the lock any more who could need it.
fn forget(layout: &Layout, plan: &Plan, progress: &mut dyn Progress) -> Result<(), Error> {
    disk::remove(&layout.real(&layout.receipt()))?;
    disk::remove(&layout.real(&layout.lock()))?;
    for step in &plan.steps {
        if let Step::RemoveDirectory { path } = step
            && layout.prefix.starts_with(path)
            && step.run(layout)?
        {
            progress.done(step);
        }
    }
    Ok(())
}

/// Removes what an interrupted run left unfinished, wherever it may have been at work.
fn sweep(layout: &Layout, plan: &Plan) {
    let files = plan.during.entries.iter().filter(|entry| entry.what != What::Directory);
    let mut dirs: Vec<&Path> = files.filter_map(|entry| entry.path.parent()).chain([&*layout.prefix]).collect();
    dirs.sort_unstable();
    dirs.dedup();
    for dir in dirs {
        if guard::check(layout, dir).unwrap_or(false) {
            disk::sweep(&layout.real(dir));
        }
    }
}

impl Step {
    /// Gives whether something was done.
    fn run(&self, layout: &Layout) -> Result<bool, Error> {
        let path = self.path();
        let real = layout.real(path);
        // Looked at again, right before: it is not to be another place than the one that was planned with.
        let dir = path.parent().unwrap_or(Path::new("/"));
        if !guard::check(layout, dir)? {
            if matches!(self, Self::Remove { .. } | Self::RemoveDirectory { .. }) {
                return Ok(false);
            }
            guard::make(layout, dir)?;
        }
        match self {
            Self::Directory { path } => {
                guard::make(layout, path)?;
            }
            Self::Save { to, .. } => disk::rename(&real, &layout.real(to))?,
            Self::Restore { from, .. } => disk::rename(&layout.real(from), &real)?,
            Self::Write { mode, source, .. } => match source {
                Source::Text(text) => disk::write(&real, mode.0, &mut text.as_bytes())?,
                Source::Own => {
                    let mut own = open_own().map_err(|cause| Error::CannotRead { path: super::OWN.into(), cause })?;
                    disk::write(&real, mode.0, &mut own)?;
                }
                Source::Program(program) => {
                    release::unpack_fresh(program, real.parent().unwrap_or(Path::new("/")), REMEDY)?;
                }
                Source::None => {}
            },
            Self::Link { target, .. } => disk::link(&real, target)?,
            Self::Remove { .. } => disk::remove(&real)?,
            Self::RemoveDirectory { .. } => return disk::remove_dir(&real),
        }
        Ok(true)
    }

    /// What it changes.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory { path }
            | Self::Save { path, .. }
            | Self::Write { path, .. }
            | Self::Link { path, .. }
            | Self::Remove { path }
            | Self::Restore { path, .. }
            | Self::RemoveDirectory { path } => path,
        }
    }
}
