//! The work of the verbs: find and lock the installation, plan, then carry out the plan or only return it.

use std::path::PathBuf;

use super::apply::{self, Progress};
use super::error::Error;
use super::layout::{Layout, UNIT};
use super::locate::{Location, locate};
use super::lock::Lock;
use super::plan::install::{ThisBinary, Wanted};
use super::plan::{self, Plan, Step};
use super::receipt::Receipt;
use super::systemd::{manager, settings_file, unit};
use super::{selinux, versions};
use crate::os::env::Env;
use crate::release::RELEASE;

/// The installation to change; with `dry_run`, the change is only planned.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub location: Location,
    pub dry_run: bool,
    pub env: &'a Env,
}

/// What was done or, in a dry run, would be done.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Where the installation is.
    pub prefix: PathBuf,
    /// The steps, with paths as this process sees them.
    pub steps: Vec<Step>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
    /// Whether the steps were carried out.
    pub is_done: bool,
}

/// The options of `install`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Whether to install a service; `None` if the user does not say.
    pub systemd: Option<bool>,
    /// Start the service at boot, or at login.
    pub enable: bool,
    /// Move the user's own files out of the way.
    pub force: bool,
}

/// What `install` did, or would do.
#[derive(Debug)]
pub(crate) struct Installed {
    pub outcome: Outcome,
    /// The name of this version.
    pub version: String,
    /// The directory of the programs' links, if `PATH` lacks it.
    pub not_in_path: Option<PathBuf>,
    layout: Layout,
    has_service: bool,
}

/// What the user has to do so that the service runs the installed version with its settings.
#[derive(Debug)]
pub(crate) enum ServiceHint {
    Nothing,
    /// The command that starts it.
    Start(String),
    /// The command that restarts it, because it still runs as before.
    Restart(String),
}

/// The result of starting the service.
#[derive(Debug)]
pub(crate) enum Started {
    Ready,
    /// It is not ready yet. The command shows its log.
    NotYet(String),
}

/// Makes this binary the current version, or completes an installation that was interrupted.
///
/// # Errors
/// If something is in the way, or if a step fails.
pub(crate) fn install(target: &Target<'_>, options: Options, progress: &mut dyn Progress) -> Result<Installed, Error> {
    let env = target.env;
    let layout = locate(&target.location, env)?;
    let this = ThisBinary::new()?;
    let lock = if target.dry_run { None } else { Some(Lock::acquire(&layout)?) };
    let receipt = match Receipt::load(&layout) {
        Err(Error::Receipt { .. }) if options.force => {
            if lock.is_some() {
                let path = layout.real(&layout.receipt());
                apply::rename(&path, &plan::backup_of(&path))?;
            }
            None
        }
        loaded => loaded?,
    };
    let receipt = receipt.unwrap_or_else(|| Receipt::new(&layout));
    let wanted = wanted(options, &receipt, &layout, env);
    let created = lock.as_ref().map_or(&[][..], |lock| &lock.created);
    let mut plan = plan::install::plan(&layout, &receipt, created, &this, wanted)?;
    // The lock is in these directories, so they exist already.
    let new = lock.iter().flat_map(|lock| lock.new.iter().cloned());
    plan.steps.splice(0..0, new.map(|path| Step::Directory { path }));
    if !wanted.systemd && options.systemd.is_none() {
        plan.notes.push(why_no_service(&layout).to_owned());
    }
    let is_in_path = !layout.is_live() || env.has_in_path(&layout.bin_dir);
    Ok(Installed {
        outcome: finish(target, &layout, &plan, progress)?,
        version: format!("{} with etcd {}", this.name, RELEASE.version),
        not_in_path: (!is_in_path).then(|| layout.bin_dir.clone()),
        has_service: wanted.systemd,
        layout,
    })
}

/// The unit that an installation would write, with what its drop-in adds.
///
/// # Errors
/// If there can be no installation, or if the service's settings cannot work.
pub(crate) fn unit_text(location: &Location, env: &Env) -> Result<String, Error> {
    let layout = locate(location, env)?;
    let needs = settings_file::read(&layout)?;
    let drop_in = unit::certificates(&layout, &needs).map(|text| format!("\n{text}"));
    Ok(unit::unit(&layout, &needs) + &drop_in.unwrap_or_default())
}

/// What to install: what the user says; otherwise what was installed before; otherwise what is usual on such a system.
fn wanted(options: Options, before: &Receipt, layout: &Layout, env: &Env) -> Wanted {
    // Only root can manage the services of the system.
    let is_usual = || manager::has_systemd(layout) && (env.is_root() || layout.user);
    Wanted {
        systemd: options.systemd.unwrap_or_else(|| before.systemd || options.enable || is_usual()),
        enable: options.enable || before.enabled && layout.is_enabled(),
        force: options.force,
    }
}

fn why_no_service(layout: &Layout) -> &'static str {
    if manager::has_systemd(layout) {
        "no service is installed, because you are not root: --systemd installs one anyway"
    } else {
        "no service is installed, because there is no systemd: --systemd installs one anyway"
    }
}

impl Installed {
    /// What the user has to do about the service.
    pub(crate) fn service_hint(&self) -> ServiceHint {
        if !self.has_service || !manager::is_running(&self.layout) {
            ServiceHint::Nothing
        } else if !manager::is_active(&self.layout) {
            ServiceHint::Start(manager::systemctl(&self.layout, &["start", UNIT]))
        } else if self.outcome.steps.is_empty() {
            ServiceHint::Nothing
        } else {
            ServiceHint::Restart(manager::systemctl(&self.layout, &["restart", UNIT]))
        }
    }

    /// Starts the service, or restarts it.
    ///
    /// # Errors
    /// If it does not start, or if no service manager is running.
    pub(crate) fn start(&self) -> Result<Started, Error> {
        let layout = &self.layout;
        if !self.has_service || !manager::is_running(layout) {
            return Err(Error::NoManager);
        }
        let is_ready = manager::restart(layout);
        if is_ready.is_err() {
            settings_file::refuse_unconfigured(layout)?;
        }
        let journal = if layout.user { "journalctl --user" } else { "journalctl" };
        Ok(if is_ready? { Started::Ready } else { Started::NotYet(format!("{journal} -u {UNIT}")) })
    }
}

/// Removes everything that was installed. It is not an error if nothing is installed.
pub(crate) fn uninstall(target: &Target<'_>, purge: bool, progress: &mut dyn Progress) -> Result<Outcome, Error> {
    let existing = match Existing::open(target) {
        Err(err @ Error::NotInstalled { .. }) => {
            let layout = locate(&target.location, target.env)?;
            let mut plan = plan::uninstall::plan(&layout, &Receipt::new(&layout), purge)?;
            plan.notes.insert(0, err.to_string());
            return Ok(Outcome::new(&layout, &plan, false));
        }
        existing => existing?,
    };
    let plan = plan::uninstall::plan(&existing.layout, &existing.receipt, purge)?;
    finish(target, &existing.layout, &plan, progress)
}

/// What `rollback` did, or would do.
#[derive(Debug)]
pub(crate) struct RolledBack {
    pub outcome: Outcome,
    /// The version that is current now.
    pub current: String,
    /// The command that restarts the service, if it still runs as before.
    pub restart: Option<String>,
}

/// Makes another installed version the current one: the one whose name begins with `version`, or the previous one.
pub(crate) fn rollback(
    target: &Target<'_>,
    version: Option<&str>,
    progress: &mut dyn Progress,
) -> Result<RolledBack, Error> {
    let Existing { layout, receipt, _lock } = Existing::open(target)?;
    let plan = plan::rollback::plan(&layout, &receipt, version)?;
    let outcome = finish(target, &layout, &plan, progress)?;
    let runs_as_before =
        outcome.is_done && receipt.systemd && manager::is_running(&layout) && manager::is_active(&layout);
    Ok(RolledBack {
        outcome,
        current: plan.after.and_then(|after| after.current).unwrap_or_default(),
        restart: runs_as_before.then(|| manager::systemctl(&layout, &["restart", UNIT])),
    })
}

/// Removes all versions except the newest `keep`, the current one, and those that a process is running.
pub(crate) fn prune(target: &Target<'_>, keep: usize, progress: &mut dyn Progress) -> Result<Outcome, Error> {
    let existing = Existing::open(target)?;
    let plan = plan::prune::plan(&existing.layout, &existing.receipt, keep)?;
    finish(target, &existing.layout, &plan, progress)
}

/// An installed version, for `list`.
#[derive(Debug)]
pub(crate) struct Listed {
    pub name: String,
    /// The version of etcd.
    pub etcd: String,
    /// The time of the installation (RFC 3339, UTC).
    pub installed: String,
    pub is_current: bool,
    /// The ids of the processes that run it.
    pub pids: Vec<i32>,
}

/// The prefix and the installed versions; `None` if nothing is installed.
pub(crate) fn list(location: &Location, env: &Env) -> Result<Option<(PathBuf, Vec<Listed>)>, Error> {
    let layout = locate(location, env)?;
    let Some(receipt) = Receipt::load_installed(&layout)? else { return Ok(None) };
    let listed = receipt.versions.iter().map(|version| Listed {
        name: version.name.clone(),
        etcd: version.etcd.clone(),
        installed: version.installed.clone(),
        is_current: receipt.current.as_ref() == Some(&version.name),
        pids: versions::running(&layout, version),
    });
    Ok(Some((layout.real(&layout.prefix), listed.collect())))
}

/// An installation that exists and, unless this is a dry run, is locked.
struct Existing {
    layout: Layout,
    receipt: Receipt,
    _lock: Option<Lock>,
}

impl Existing {
    /// # Errors
    /// If there is nothing, not even settings that an uninstall has left.
    fn open(target: &Target<'_>) -> Result<Self, Error> {
        let layout = locate(&target.location, target.env)?;
        let lock = if target.dry_run { None } else { Some(Lock::acquire_existing(&layout)?) };
        let not_installed = || Error::NotInstalled { path: layout.real(&layout.prefix) };
        let receipt = Receipt::load(&layout)?.ok_or_else(not_installed)?;
        Ok(Self { layout, receipt, _lock: lock })
    }
}

impl Outcome {
    fn new(layout: &Layout, plan: &Plan, is_done: bool) -> Self {
        Self {
            prefix: layout.real(&layout.prefix),
            steps: plan.steps.iter().map(|step| step.real(layout)).collect(),
            notes: plan.notes.clone(),
            is_done,
        }
    }
}

/// Carries out the plan and informs the service manager, unless this is a dry run.
fn finish(target: &Target<'_>, layout: &Layout, plan: &Plan, progress: &mut dyn Progress) -> Result<Outcome, Error> {
    if !target.dry_run {
        let has_manager = manager::is_running(layout);
        if has_manager
            && plan.removes_service(layout)
            && let Err(err) = manager::disable(layout)
        {
            progress.note(&err.to_string());
        }
        apply::apply(layout, plan, progress)?;
        if let Some(after) = &plan.after {
            selinux::restore_labels(layout, after);
        }
        // Even if nothing was done now, because an earlier run may have been interrupted here.
        if has_manager && (plan.before.systemd || plan.during.systemd) {
            manager::reload(layout)?;
        }
    }
    Ok(Outcome::new(layout, plan, !target.dry_run))
}
