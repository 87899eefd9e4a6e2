//! Plans to make another installed version the current one.

use super::goal::Goal;
use super::planner::Planner;
use super::snapshot::Snapshot;
use super::step::Plan;
use crate::install::error::Error;
use crate::install::layout::Layout;
use crate::install::receipt::{Receipt, Version};
use crate::install::{verify, versions};

/// `wanted` is the beginning of a version's name; without it, the previous version is taken.
///
/// # Errors
/// If there is no such version, or if it was changed after it was installed.
pub(in crate::install) fn plan(layout: &Layout, receipt: &Receipt, wanted: Option<&str>) -> Result<Plan, Error> {
    if receipt.versions.is_empty() {
        return Err(Error::NotInstalled { path: layout.real(&layout.prefix) });
    }
    let version = versions::to_roll_back_to(receipt, wanted)?;
    verify::refuse_damaged(layout, receipt, &version.name)?;
    plan_with(layout, receipt, version, Snapshot::take)
}

/// Keeps all versions and the service, and changes the links.
fn plan_with(
    layout: &Layout,
    receipt: &Receipt,
    version: &Version,
    snapshot: impl FnOnce(&Goal<'_>) -> Snapshot,
) -> Result<Plan, Error> {
    let is_installed = |version: &str| receipt.version(version).is_some();
    let kept = receipt
        .entries
        .iter()
        .filter(|entry| layout.version_of(&entry.path).is_some_and(is_installed) || layout.is_of_service(&entry.path));
    let mut goal = Goal { kept: kept.collect(), ..Goal::new(layout, receipt) };
    goal.link(&version.name, &version.programs);
    let mut after = receipt.clone();
    after.set_current(&version.name);
    Ok(Planner::compare(&goal, snapshot(&goal))?.finish(Some(after)))
}

#[cfg(test)]
mod tests {
    use super::super::install::tests::upgraded;
    use super::super::simulation::{Host, in_short, link, own_file, static_layout};
    use super::*;
    use crate::install::file_state::FileState;

    fn to_a(host: &Host) -> Result<Plan, Error> {
        let receipt = host.load();
        plan_with(static_layout(), &receipt, receipt.version("1.0-a").unwrap(), |goal| host.snapshot(goal))
    }

    #[test]
    fn only_the_link_to_the_version_changes() {
        let mut host = upgraded();
        let plan = host.run(&to_a);
        assert_eq!(in_short(&plan), ["link /opt/etcdproxy/current"]);
        assert_eq!(host.at("/opt/etcdproxy/current"), Some(&link("versions/1.0-a")));
        let after = plan.after.unwrap();
        assert_eq!((after.current.as_deref(), after.previous.as_deref()), (Some("1.0-a"), Some("1.1-b")));
        assert_eq!(
            after.entries,
            upgraded()
                .load()
                .entries
                .iter()
                .map(|entry| {
                    let mut entry = entry.clone();
                    if entry.path == static_layout().current() {
                        entry.state = link("versions/1.0-a");
                    }
                    entry
                })
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn links_to_programs_that_the_version_lacks_go() {
        let mut host = upgraded();
        let mut receipt = host.load();
        for version in receipt.versions.iter_mut().filter(|version| version.name == "1.0-a") {
            version.programs.retain(|name| name != "etcd");
        }
        host.receipt = Some(receipt);
        assert_eq!(in_short(&to_a(&host).unwrap()), ["link /opt/etcdproxy/current", "remove /usr/local/bin/etcd"]);
    }

    #[test]
    fn the_service_stays_even_if_it_was_changed() {
        for path in ["/etc/etcdproxy/etcdproxy.env", "/etc/systemd/system/etcdproxy.service"] {
            let plan = to_a(&upgraded().with(path, own_file())).unwrap();
            assert_eq!(in_short(&plan), ["link /opt/etcdproxy/current"]);
            assert!(plan.after.unwrap().entry(path.as_ref()).is_some());
        }
    }

    /// An interrupted upgrade may or may not have replaced the unit.
    #[test]
    fn files_that_stay_are_recorded_as_they_were_found() {
        let unit = "/etc/systemd/system/etcdproxy.service";
        for found in [FileState::text("old"), FileState::text("new")] {
            let mut host = upgraded().with(unit, found.clone());
            let mut receipt = host.load();
            let entry =
                receipt.entries.iter_mut().find(|entry| entry.path.ends_with("system/etcdproxy.service")).unwrap();
            (entry.state, entry.previous) = (FileState::text("new"), vec![FileState::text("old")]);
            host.receipt = Some(receipt);
            let after = host.run(&to_a).after.unwrap();
            let entry = after.entry(unit.as_ref()).unwrap();
            assert_eq!((&entry.state, entry.previous.len()), (&found, 0));
        }
    }

    #[test]
    fn whenever_it_is_interrupted_the_same_finishes_it() {
        upgraded().survives_interruption(&to_a);
    }
}
