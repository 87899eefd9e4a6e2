//! For tests: carries out plans on a disk that is only a table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::goal::Goal;
use super::snapshot::Snapshot;
use super::step::{Plan, Step};
use crate::install::error::Error;
use crate::install::file_state::FileState;
use crate::install::layout::Layout;
use crate::install::layout::tests::layout;
use crate::install::receipt::Receipt;

/// A host: its disk, and the receipt of its installation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Host {
    pub disk: BTreeMap<PathBuf, FileState>,
    pub receipt: Option<Receipt>,
}

/// Plans something for a host.
pub(super) type Planning<'a> = &'a dyn Fn(&Host) -> Result<Plan, Error>;

impl Host {
    /// A host with the usual directories.
    pub(super) fn new() -> Self {
        let dirs = ["/", "/opt", "/usr", "/usr/local", "/usr/local/bin", "/etc", "/etc/systemd", "/etc/systemd/system"];
        let disk = dirs.into_iter().map(|dir| (dir.into(), FileState::Directory)).collect();
        Self { disk, receipt: None }
    }

    pub(super) fn with(mut self, path: &str, state: FileState) -> Self {
        self.disk.insert(path.into(), state);
        self
    }

    pub(super) fn at(&self, path: &str) -> Option<&FileState> {
        self.disk.get(Path::new(path))
    }

    /// The receipt as `Receipt::load` would return it.
    pub(super) fn load(&self) -> Receipt {
        let mut receipt = self.receipt.clone().unwrap_or_else(|| Receipt::new(&layout()));
        if let Some(FileState::Link { target }) = self.disk.get(&layout().current()) {
            receipt.follow_current(target);
        }
        receipt
    }

    pub(super) fn snapshot(&self, goal: &Goal<'_>) -> Snapshot {
        let has_directory = |dir: &Path| Ok(self.disk.get(dir) == Some(&FileState::Directory));
        let names = |dir: &Path| {
            let inside = self.disk.keys().filter(|path| path.parent() == Some(dir));
            inside.filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect()
        };
        Snapshot::with(goal, |path| Ok(self.disk.get(path).cloned()), has_directory, names)
    }

    /// Plans and carries out the plan. Returns the plan.
    #[track_caller]
    pub(super) fn run(&mut self, planning: Planning<'_>) -> Plan {
        let plan = planning(self).unwrap();
        self.run_until(&plan, plan.steps.len());
        self.receipt.clone_from(&plan.after);
        if plan.after.is_none() {
            // The directories that the receipt was in.
            let directories = plan.steps.iter().filter(|step| matches!(step, Step::RemoveDirectory { .. }));
            directories.for_each(|step| self.carry_out(step.clone()));
        }
        plan
    }

    /// Carries out the first steps of a plan, like a run that is killed after them.
    pub(super) fn run_until(&mut self, plan: &Plan, steps: usize) {
        self.receipt = Some(plan.during.clone());
        plan.steps[..steps].iter().for_each(|step| self.carry_out(step.clone()));
    }

    fn carry_out(&mut self, step: Step) {
        let exists = |dir: &Path| self.disk.get(dir) == Some(&FileState::Directory);
        match &step {
            Step::Remove { .. } | Step::RemoveDirectory { .. } => {}
            step => assert!(exists(step.path().parent().unwrap()), "no directory for {step:?}"),
        }
        match step {
            Step::Directory { path } => drop(self.disk.insert(path, FileState::Directory)),
            Step::Write { path, sha256, mode, .. } => drop(self.disk.insert(path, FileState::File { sha256, mode })),
            Step::Link { path, target } => drop(self.disk.insert(path, FileState::Link { target })),
            Step::Remove { path } => drop(self.disk.remove(&path)),
            Step::Save { path: from, to } | Step::Restore { from, path: to } => {
                let state = self.disk.remove(&from).unwrap();
                self.disk.insert(to, state);
            }
            Step::RemoveDirectory { path } => {
                let holds_receipt = self.receipt.is_some() && layout().receipt().starts_with(&path);
                let is_empty = !self.disk.keys().any(|other| *other != path && other.starts_with(&path));
                if is_empty && !holds_receipt {
                    self.disk.remove(&path);
                }
            }
        }
    }

    /// Kills a run after each of its steps, and checks that another run of the same kind finishes the work.
    #[track_caller]
    pub(super) fn survives_interruption(&self, planning: Planning<'_>) {
        let mut whole = self.clone();
        let plan = whole.run(planning);
        assert!(!plan.steps.is_empty(), "nothing to interrupt");
        for killed_after in 0..=plan.steps.len() {
            let mut host = self.clone();
            host.run_until(&plan, killed_after);
            host.run(planning);
            assert_eq!(host.disk, whole.disk, "killed after {killed_after} of {:#?}", plan.steps);
        }
    }
}

/// A file whose content nobody expects.
pub(super) fn own_file() -> FileState {
    FileState::text("the user's own")
}

pub(super) fn link(target: &str) -> FileState {
    FileState::Link { target: target.into() }
}

/// The steps in short, such as `write /etc/x`.
pub(super) fn in_short(plan: &Plan) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Directory { .. } => "make",
        Step::Save { .. } => "save",
        Step::Write { .. } => "write",
        Step::Link { .. } => "link",
        Step::Remove { .. } => "remove",
        Step::Restore { .. } => "restore",
        Step::RemoveDirectory { .. } => "rmdir",
    };
    plan.steps.iter().map(|step| format!("{} {}", name(step), step.path().display())).collect()
}

/// The usual layout, for as long as the tests run.
pub(super) fn static_layout() -> &'static Layout {
    static LAYOUT: std::sync::LazyLock<Layout> = std::sync::LazyLock::new(layout);
    &LAYOUT
}
