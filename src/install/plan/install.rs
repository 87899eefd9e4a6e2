//! Plans to install this binary, as a new version or over an incomplete one.

use std::path::PathBuf;
use std::time::SystemTime;

use super::goal::{Goal, Item, Rule, Source};
use super::planner::Planner;
use super::snapshot::Snapshot;
use super::step::Plan;
use crate::fs::{dirs, hash};
use crate::install::error::Error;
use crate::install::layout::Layout;
use crate::install::receipt::{Receipt, Version};
use crate::install::systemd::{settings_file, unit};
use crate::os::clock::rfc3339;
use crate::os::env;
use crate::release::{self, RELEASE, VERSION};
use crate::settings::Needs;

/// What to install.
#[derive(Debug, Clone, Copy)]
pub(in crate::install) struct Wanted {
    /// Write a unit for systemd.
    pub systemd: bool,
    /// Start the service at boot, or at login.
    pub enable: bool,
    /// Move the user's own files out of the way.
    pub force: bool,
}

/// This binary, as it will be installed.
#[derive(Debug)]
pub(in crate::install) struct ThisBinary {
    /// The name of the version.
    pub name: String,
    sha256: String,
}

impl ThisBinary {
    /// Hashes this binary.
    ///
    /// # Errors
    /// If it is the small launcher, which has nothing to install, or if it cannot be read.
    pub(in crate::install) fn new() -> Result<Self, Error> {
        if !release::has_payload() {
            return Err(release::Error::Launcher { name: "etcd" }.into());
        }
        let sha256 = env::open_own_exe().and_then(hash::sha256).map_err(Error::own_exe)?;
        Ok(Self { name: format!("{VERSION}-{}", &sha256[..12]), sha256 })
    }
}

/// What a plan depends on besides the paths that it changes.
#[derive(Debug, Default)]
struct Facts {
    /// What the service needs; `None` if there is no service.
    needs: Option<Needs>,
    /// What is wrong with its settings, one line each.
    problems: Vec<String>,
    /// Names of installed versions that lack a program.
    incomplete: Vec<String>,
}

/// `created` are the directories that were created for this installation.
///
/// # Errors
/// If something is in the way that is not ours to replace, or if an installation could not work.
pub(in crate::install) fn plan(
    layout: &Layout,
    before: &Receipt,
    created: &[PathBuf],
    this: &ThisBinary,
    wanted: Wanted,
) -> Result<Plan, Error> {
    let facts = Facts::gather(layout, before, wanted)?;
    plan_with(layout, before, created, this, wanted, &facts, Snapshot::take)
}

impl Facts {
    /// # Errors
    /// If programs could not run from the prefix, or if the service's settings cannot work.
    fn gather(layout: &Layout, before: &Receipt, wanted: Wanted) -> Result<Self, Error> {
        let prefix = layout.real_target(&layout.prefix);
        // Otherwise the only sign would be a "permission denied" when the service starts.
        if dirs::is_noexec(&prefix) {
            return Err(Error::NoExec { path: prefix });
        }
        if wanted.systemd {
            refuse_hidden(layout)?;
        }
        let is_complete = |version: &&Version| {
            let dir = layout.real_target(&layout.programs(&version.name));
            version.programs.iter().all(|name| dir.join(name).symlink_metadata().is_ok())
        };
        let incomplete = before.versions.iter().filter(|version| !is_complete(version));
        let incomplete = incomplete.map(|version| version.name.clone()).collect();
        let needs = wanted.systemd.then(|| settings_file::read(layout)).transpose()?;
        let problems = needs.as_ref().map(|needs| settings_file::problems(layout, needs)).unwrap_or_default();
        Ok(Self { needs, problems, incomplete })
    }

    /// Whether an older version stays: it is installed, complete, and not the one that this binary replaces.
    fn keeps(&self, version: &str, before: &Receipt, this: &ThisBinary) -> bool {
        version != this.name
            && before.version(version).is_some()
            && !self.incomplete.iter().any(|incomplete| incomplete == version)
    }
}

fn plan_with(
    layout: &Layout,
    before: &Receipt,
    created: &[PathBuf],
    this: &ThisBinary,
    wanted: Wanted,
    facts: &Facts,
    snapshot: impl FnOnce(&Goal<'_>) -> Snapshot,
) -> Result<Plan, Error> {
    let goal = Goal { created, ..goal(layout, before, this, wanted, facts) };
    Ok(Planner::compare(&goal, snapshot(&goal))?.finish(Some(after(layout, before, this, wanted, facts))))
}

/// This version, its links and its service, and the older versions that stay.
fn goal<'a>(layout: &'a Layout, before: &'a Receipt, this: &ThisBinary, wanted: Wanted, facts: &Facts) -> Goal<'a> {
    let mut goal = Goal { force: wanted.force, ..Goal::new(layout, before) };
    let stays = |version: &str| facts.keeps(version, before, this);
    goal.kept = before.entries.iter().filter(|entry| layout.version_of(&entry.path).is_some_and(stays)).collect();
    let removed = facts.incomplete.iter().filter(|name| **name != this.name);
    goal.notes.extend(removed.map(|name| format!("{name} is incomplete and will be removed")));
    goal.notes.extend(facts.problems.iter().cloned());

    let dir = layout.programs(&this.name);
    goal.items.push(Item::program(dir.join("etcdproxy"), &this.sha256, Source::ThisBinary));
    for program in RELEASE.programs {
        goal.items.push(Item::program(dir.join(program.name), program.sha256, Source::Program(program)));
    }
    if let Some(needs) = &facts.needs {
        goal.items.push(Item::text(layout.config(), settings_file::template(layout), Rule::Keep));
        goal.items.push(Item::text(layout.unit(), unit::unit(layout, needs), Rule::Refuse));
        if let Some(text) = unit::certificates(layout, needs) {
            goal.items.push(Item::text(layout.certificates_drop_in(), text, Rule::Refuse));
        }
        if wanted.enable {
            goal.items.push(Item::link(layout.enablement(), layout.unit()));
        }
    }
    goal.link(&this.name, &programs());
    goal
}

/// The receipt at the end, still without its entries.
fn after(layout: &Layout, before: &Receipt, this: &ThisBinary, wanted: Wanted, facts: &Facts) -> Receipt {
    let stays = |version: &&Version| version.name == this.name || facts.keeps(&version.name, before, this);
    let mut after = Receipt {
        versions: before.versions.iter().filter(stays).cloned().collect(),
        systemd: wanted.systemd,
        enabled: wanted.systemd && wanted.enable,
        current: before.current.clone(),
        previous: before.previous.clone(),
        ..Receipt::new(layout)
    };
    if before.version(&this.name).is_none() {
        after.versions.push(Version {
            name: this.name.clone(),
            etcd: RELEASE.version.to_owned(),
            installed: rfc3339(SystemTime::now()),
            programs: programs(),
        });
    }
    after.set_current(&this.name);
    after
}

fn programs() -> Vec<String> {
    std::iter::once("etcdproxy").chain(RELEASE.programs.iter().map(|program| program.name)).map(str::to_owned).collect()
}

/// Refuses a prefix that `ProtectHome=` or `PrivateTmp=` hides from the service (systemd.exec(5)).
fn refuse_hidden(layout: &Layout) -> Result<(), Error> {
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
    match hidden.into_iter().find(|dir| !layout.user && layout.prefix.starts_with(dir)) {
        Some(hidden) => Err(Error::Hidden { path: layout.prefix.clone(), hidden }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::simulation::{Host, Planning, in_short, link, own_file, static_layout};
    use super::*;
    use crate::install::file_state::FileState;

    const ETCD: &str = "/usr/local/bin/etcd";
    const CONFIG: &str = "/etc/etcdproxy/etcdproxy.env";
    const UNIT: &str = "/etc/systemd/system/etcdproxy.service";

    fn this(name: &str) -> ThisBinary {
        ThisBinary { name: name.to_owned(), sha256: format!("sha256 of {name}") }
    }

    /// Plans to install a version of that name.
    pub(in crate::install::plan) fn plan_of(name: &str, host: &Host, force: bool) -> Result<Plan, Error> {
        let this = this(name);
        let wanted = Wanted { systemd: true, enable: true, force };
        let receipt = host.load();
        let layout = static_layout();
        let lacks = |version: &&Version| {
            !version.programs.iter().all(|name| host.disk.contains_key(&layout.programs(&version.name).join(name)))
        };
        let incomplete = receipt.versions.iter().filter(lacks).map(|version| version.name.clone()).collect();
        let facts = Facts { needs: Some(Needs::default()), incomplete, ..Facts::default() };
        plan_with(layout, &receipt, &[], &this, wanted, &facts, |goal| host.snapshot(goal))
    }

    fn install(host: &Host) -> Result<Plan, Error> {
        plan_of("1.0-a", host, false)
    }

    fn force(host: &Host) -> Result<Plan, Error> {
        plan_of("1.0-a", host, true)
    }

    fn upgrade(host: &Host) -> Result<Plan, Error> {
        plan_of("1.1-b", host, false)
    }

    fn installed() -> Host {
        let mut host = Host::new();
        host.run(&install);
        host
    }

    /// A host with version 1.0-a, upgraded to 1.1-b.
    pub(in crate::install::plan) fn upgraded() -> Host {
        let mut host = installed();
        host.run(&upgrade);
        host
    }

    #[track_caller]
    fn refused(host: &Host, planning: Planning<'_>, problem: &str) {
        let err = planning(host).unwrap_err().to_string();
        assert!(err.starts_with(problem), "{err}");
    }

    #[test]
    fn a_new_installation_makes_everything_and_its_links_come_last() {
        let plan = install(&Host::new()).unwrap();
        let expected = [
            "make /opt/etcdproxy",
            "make /opt/etcdproxy/versions",
            "make /opt/etcdproxy/versions/1.0-a",
            "make /opt/etcdproxy/versions/1.0-a/bin",
            "write /opt/etcdproxy/versions/1.0-a/bin/etcdproxy",
            "write /opt/etcdproxy/versions/1.0-a/bin/etcd",
            "make /etc/etcdproxy",
            "write /etc/etcdproxy/etcdproxy.env",
            "write /etc/systemd/system/etcdproxy.service",
            "make /etc/systemd/system/multi-user.target.wants",
            "link /etc/systemd/system/multi-user.target.wants/etcdproxy.service",
            "link /opt/etcdproxy/current",
            "link /usr/local/bin/etcdproxy",
            "link /usr/local/bin/etcd",
        ];
        let steps: Vec<String> =
            in_short(&plan).into_iter().filter(|step| !step.contains("etcdctl") && !step.contains("etcdutl")).collect();
        assert_eq!(steps, expected);
        let after = plan.after.unwrap();
        assert_eq!(after.entries.len(), plan.steps.len(), "the receipt has every path");
        assert_eq!(after.current.as_deref(), Some("1.0-a"));
        assert!(after.entries.iter().all(|entry| plan.during.entries.contains(entry)), "and has it beforehand");
    }

    #[test]
    fn a_second_run_has_nothing_to_do() {
        let plan = install(&installed()).unwrap();
        assert_eq!(in_short(&plan), [] as [&str; 0]);
        assert!(plan.is_recorded && plan.notes.is_empty());
    }

    #[test]
    fn whenever_it_is_interrupted_the_same_finishes_it() {
        Host::new().survives_interruption(&install);
        installed().survives_interruption(&upgrade);
        Host::new().with(ETCD, own_file()).survives_interruption(&force);
    }

    #[test]
    fn an_upgrade_keeps_the_old_version() {
        let mut host = installed();
        let plan = host.run(&upgrade);
        let after = plan.after.unwrap();
        assert_eq!((after.current.as_deref(), after.previous.as_deref()), (Some("1.1-b"), Some("1.0-a")));
        assert_eq!(after.versions.len(), 2);
        assert!(host.at("/opt/etcdproxy/versions/1.0-a/bin/etcd").is_some());
        assert_eq!(host.at("/opt/etcdproxy/current"), Some(&link("versions/1.1-b")));
        assert_eq!(plan.during.current.as_deref(), Some("1.0-a"), "until the end");
    }

    #[test]
    fn a_version_that_lacks_a_program_is_removed_by_an_upgrade() {
        let mut host = installed();
        host.disk.remove(&static_layout().programs("1.0-a").join("etcd"));
        let plan = host.run(&upgrade);
        assert_eq!(plan.notes, ["1.0-a is incomplete and will be removed"]);
        assert!(host.at("/opt/etcdproxy/versions/1.0-a").is_none());
        assert_eq!(plan.after.unwrap().versions.len(), 1);
    }

    #[test]
    fn a_damaged_program_is_replaced() {
        let path = "/opt/etcdproxy/versions/1.0-a/bin/etcd";
        let host = installed().with(path, own_file());
        assert_eq!(in_short(&install(&host).unwrap()), [format!("write {path}")]);
    }

    #[test]
    fn the_users_own_file_is_in_the_way() {
        let backup = "move it away, or \"install --force\" keeps it as /usr/local/bin/etcd.etcdproxy-saved";
        let problem = format!("{ETCD} is a file that etcdproxy did not install: {backup}");
        refused(&Host::new().with(ETCD, own_file()), &install, &problem);
        let problem = format!("{ETCD} is a link to /usr/bin/etcd that etcdproxy did not install: {backup}");
        refused(&Host::new().with(ETCD, link("/usr/bin/etcd")), &install, &problem);
        let problem = format!("{UNIT} was changed after it was installed: move it away");
        refused(&installed().with(UNIT, own_file()), &install, &problem);
        // A directory is not moved, whatever the user wants.
        let problem = format!("{ETCD} is a directory where a file must go");
        refused(&Host::new().with(ETCD, FileState::Directory), &force, &problem);
    }

    #[test]
    fn with_force_the_users_own_file_is_kept_under_another_name() {
        let backup = "/usr/local/bin/etcd.etcdproxy-saved";
        let mut host = Host::new().with(ETCD, own_file());
        let plan = host.run(&force);
        assert_eq!(plan.notes, [format!("{ETCD} is kept as {backup}")]);
        assert_eq!(host.at(backup), Some(&own_file()));
        assert_eq!(host.at(ETCD), Some(&link("/opt/etcdproxy/current/bin/etcd")));
        let entry = host.load().entry(ETCD.as_ref()).unwrap().clone();
        assert_eq!(entry.backup.as_deref(), Some(backup.as_ref()));
        assert!(install(&host).unwrap().steps.is_empty());
        // Never two backups of one name.
        let host = host.with(ETCD, own_file());
        let problem = format!("{ETCD} cannot be kept as {backup}, which already exists");
        refused(&host, &force, &problem);
    }

    #[test]
    fn settings_stay_and_the_defaults_are_offered_beside_them_once() {
        let new = "/etc/etcdproxy/etcdproxy.env.new";
        let mut host = Host::new().with("/etc/etcdproxy", FileState::Directory).with(CONFIG, own_file());
        let plan = host.run(&install);
        assert_eq!(plan.notes, [format!("{CONFIG} is yours and stays: the current defaults are in {new}")]);
        assert_eq!(host.at(CONFIG), Some(&own_file()));
        assert!(host.at(new).is_some());
        host.disk.remove(new.as_ref() as &std::path::Path);
        assert_eq!(in_short(&install(&host).unwrap()), [] as [&str; 0]);

        // Not if the user also has a file of that name.
        let host =
            Host::new().with("/etc/etcdproxy", FileState::Directory).with(CONFIG, own_file()).with(new, own_file());
        let plan = install(&host).unwrap();
        assert_eq!(plan.notes, [format!("{CONFIG} and {new} are yours and stay")]);
        assert!(in_short(&plan).iter().all(|step| !step.contains("etcdproxy.env")));
    }

    #[test]
    fn settings_that_the_user_has_changed_stay_without_a_note() {
        let host = installed().with(CONFIG, own_file());
        let plan = upgrade(&host).unwrap();
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        assert!(in_short(&plan).iter().all(|step| !step.contains("etcdproxy.env")));
        assert!(plan.after.unwrap().entry(CONFIG.as_ref()).is_some(), "they are still in the receipt");
    }

    #[test]
    fn what_is_no_longer_wanted_goes() {
        let host = installed();
        let mut receipt = host.load();
        let old = static_layout().bin_dir.join("etcdold");
        receipt
            .entries
            .push(crate::install::receipt::Entry::new(old.clone(), link("/opt/etcdproxy/current/bin/etcdold")));
        let host = Host {
            receipt: Some(receipt),
            ..host.with(old.to_str().unwrap(), link("/opt/etcdproxy/current/bin/etcdold"))
        };
        assert_eq!(in_short(&install(&host).unwrap()), [format!("remove {}", old.display())]);
    }

    #[test]
    fn existing_directories_are_not_ours_unless_they_were_created_for_this_installation() {
        let host = Host::new().with("/opt/etcdproxy", FileState::Directory);
        let prefix = static_layout().prefix.clone();
        for created in [vec![], vec![prefix.clone()]] {
            let (this, wanted) = (this("1.0-a"), Wanted { systemd: false, enable: false, force: false });
            let look = |goal: &Goal<'_>| host.snapshot(goal);
            let plan =
                plan_with(static_layout(), &host.load(), &created, &this, wanted, &Facts::default(), look).unwrap();
            let is_ours = |path: &PathBuf| plan.after.as_ref().unwrap().entry(path).is_some();
            assert_eq!(is_ours(&prefix), !created.is_empty());
            assert!(is_ours(&static_layout().versions()));
        }
    }

    #[test]
    fn an_error_counts_only_if_the_plan_depends_on_that_path() {
        let host = Host::new();
        let receipt = host.load();
        let this = this("1.0-a");
        let wanted = Wanted { systemd: true, enable: false, force: false };
        let facts = Facts { needs: Some(Needs::default()), ..Facts::default() };
        let plan = |broken: &str| {
            let look = |path: &std::path::Path| match path.to_str() {
                Some(path) if path == broken => Err(Error::Special { path: path.into() }),
                _ => Ok(host.disk.get(path).cloned()),
            };
            let look =
                |goal: &Goal<'_>| Snapshot::with(goal, look, |dir| Ok(host.disk.contains_key(dir)), |_| Vec::new());
            plan_with(static_layout(), &receipt, &[], &this, wanted, &facts, look)
        };
        assert!(matches!(plan(UNIT), Err(Error::Special { .. })));
        assert!(plan("/etc/etcdproxy/etcdproxy.env.new").is_ok());
    }

    #[test]
    fn a_prefix_that_the_sandbox_hides_is_refused() {
        for (prefix, is_hidden) in [("/home/x", true), ("/tmp/x", true), ("/opt/x", false), ("/homes", false)] {
            let layout = Layout { prefix: prefix.into(), ..static_layout().clone() };
            assert_eq!(refuse_hidden(&layout).is_err(), is_hidden, "{prefix}");
            assert!(refuse_hidden(&Layout { user: true, ..layout }).is_ok());
        }
    }
}
