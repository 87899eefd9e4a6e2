//! Plans to remove an installation.

use super::goal::Goal;
use super::planner::Planner;
use super::snapshot::Snapshot;
use super::step::Plan;
use crate::install::error::Error;
use crate::install::layout::Layout;
use crate::install::receipt::Receipt;

/// With `purge`, also removes files that were changed after they were installed.
pub(in crate::install) fn plan(layout: &Layout, receipt: &Receipt, purge: bool) -> Result<Plan, Error> {
    plan_with(layout, receipt, purge, Snapshot::take)
}

fn plan_with(
    layout: &Layout,
    receipt: &Receipt,
    purge: bool,
    snapshot: impl FnOnce(&Goal<'_>) -> Snapshot,
) -> Result<Plan, Error> {
    let goal = Goal { purge, ..Goal::new(layout, receipt) };
    let mut planner = Planner::compare(&goal, snapshot(&goal))?;
    let config = layout.config();
    if receipt.entry(&config).is_none() && planner.state(&config)?.is_some() {
        let note = format!("kept, because install did not write it: {}", planner.shown(&config));
        planner.note(note);
    }
    if !planner.leaves_something() {
        return Ok(planner.finish(None));
    }
    let note = format!("kept for a later install or uninstall --purge: {}", planner.shown(&layout.receipt()));
    planner.note(note);
    let left = Receipt { versions: Vec::new(), current: None, previous: None, enabled: false, ..receipt.clone() };
    Ok(planner.finish(Some(left)))
}

#[cfg(test)]
mod tests {
    use super::super::install::tests::plan_of;
    use super::super::simulation::{Host, Planning, in_short, link, own_file, static_layout};
    use super::*;
    use crate::install::file_state::FileState;

    const ETCD: &str = "/usr/local/bin/etcd";
    const CONFIG: &str = "/etc/etcdproxy/etcdproxy.env";

    fn install(host: &Host) -> Result<Plan, Error> {
        plan_of("1.0-a", host, false)
    }

    fn uninstall(host: &Host) -> Result<Plan, Error> {
        plan_with(static_layout(), &host.load(), false, |goal| host.snapshot(goal))
    }

    fn purge(host: &Host) -> Result<Plan, Error> {
        plan_with(static_layout(), &host.load(), true, |goal| host.snapshot(goal))
    }

    fn installed() -> Host {
        let mut host = Host::new();
        host.run(&install);
        host
    }

    #[test]
    fn nothing_is_left() {
        let mut host = installed();
        let plan = host.run(&uninstall);
        assert_eq!(host, Host::new());
        assert!(plan.removes_service(static_layout()));
    }

    #[test]
    fn whenever_an_installation_is_interrupted_it_can_be_removed() {
        let plan = install(&Host::new()).unwrap();
        for killed_after in 0..=plan.steps.len() {
            let mut host = Host::new();
            host.run_until(&plan, killed_after);
            host.run(&uninstall);
            assert_eq!(host, Host::new(), "killed after {killed_after} steps");
        }
    }

    #[test]
    fn whenever_it_is_interrupted_the_same_finishes_it() {
        installed().survives_interruption(&uninstall);
        let mut host = Host::new().with(ETCD, own_file());
        host.run(&|host: &Host| plan_of("1.0-a", host, true));
        host.survives_interruption(&uninstall);
    }

    #[test]
    fn the_users_own_file_comes_back() {
        for before in [own_file(), link("/usr/bin/etcd")] {
            let mut host = Host::new().with(ETCD, before);
            let original = host.clone();
            host.run(&|host: &Host| plan_of("1.0-a", host, true));
            host.run(&uninstall);
            assert_eq!(host, original);
        }
    }

    #[test]
    fn the_users_own_file_stays_if_an_interrupted_run_has_brought_it_back() {
        for planning in [&uninstall as Planning<'_>, &purge] {
            let original = Host::new().with(ETCD, own_file());
            let mut host = original.clone();
            host.run(&|host: &Host| plan_of("1.0-a", host, true));
            host.survives_interruption(planning);
            let plan = planning(&host).unwrap();
            host.run_until(&plan, plan.steps.len());
            assert_eq!(host.run(planning).notes, [] as [&str; 0], "nothing was changed by the user");
            assert_eq!(host, original);
        }
    }

    #[test]
    fn changed_settings_stay_and_are_remembered_until_a_purge() {
        let mut host = installed().with(CONFIG, own_file());
        let plan = host.run(&uninstall);
        assert_eq!(host.at(CONFIG), Some(&own_file()));
        assert_eq!(
            plan.notes,
            [
                format!("kept, because it was changed after it was installed: {CONFIG}"),
                "kept for a later install or uninstall --purge: /opt/etcdproxy/receipt.json".to_owned(),
            ]
        );
        let left = plan.after.unwrap();
        assert!(left.versions.is_empty() && left.current.is_none());
        assert!(host.at(ETCD).is_none() && host.at("/opt/etcdproxy/versions").is_none());

        let mut again = host.clone();
        again.run(&install);
        assert_eq!(again.at(CONFIG), Some(&own_file()), "another install goes on with them");
        for mut host in [host, again] {
            host.run(&purge);
            assert_eq!(host, Host::new());
        }
    }

    #[test]
    fn another_changed_file_stays_and_is_remembered_until_a_purge() {
        let mut host = installed().with(ETCD, own_file());
        let plan = host.run(&uninstall);
        assert_eq!(
            plan.notes,
            [
                format!("kept, because it was changed after it was installed: {ETCD}"),
                "kept for a later install or uninstall --purge: /opt/etcdproxy/receipt.json".to_owned(),
            ]
        );
        assert_eq!(host.at(ETCD), Some(&own_file()));
        host.survives_interruption(&purge);
        host.run(&purge);
        assert_eq!(host, Host::new());
    }

    #[test]
    fn a_purge_replaces_a_changed_file_by_the_users_own_from_before() {
        let original = Host::new().with(ETCD, link("/usr/bin/etcd"));
        let mut host = original.clone();
        host.run(&|host: &Host| plan_of("1.0-a", host, true));
        let mut host = host.with(ETCD, own_file());
        host.survives_interruption(&purge);
        host.run(&purge);
        assert_eq!(host, original);
    }

    #[test]
    fn what_leads_to_a_file_goes_before_it() {
        let steps = in_short(&uninstall(&installed()).unwrap());
        let at = |step: &str| steps.iter().position(|other| other.starts_with(step)).expect(step);
        let order = [
            "remove /usr/local/bin/etcd",
            "remove /etc/systemd/system/etcdproxy.service",
            "remove /opt/etcdproxy/current",
            "remove /opt/etcdproxy/versions/1.0-a/bin/",
            "rmdir /opt/etcdproxy/versions/1.0-a/bin",
        ]
        .map(at);
        assert!(order.is_sorted(), "{steps:#?}");
    }

    #[test]
    fn settings_from_before_the_first_install_are_never_removed() {
        let mut host = Host::new().with("/etc/etcdproxy", FileState::Directory).with(CONFIG, own_file());
        let original = host.clone();
        host.run(&install);
        let plan = host.run(&purge);
        assert_eq!(plan.notes, [format!("kept, because install did not write it: {CONFIG}")]);
        assert_eq!(host, original);
    }

    #[test]
    fn a_directory_with_the_users_own_files_stays() {
        let mut host = installed();
        host = host.with("/etc/etcdproxy/ca.pem", own_file());
        let plan = host.run(&uninstall);
        assert_eq!(plan.notes, ["kept, because it is not empty: /etc/etcdproxy (ca.pem)"]);
        assert!(!in_short(&plan).contains(&"rmdir /etc/etcdproxy".to_owned()), "what a dry run shows is what is done");
        assert_eq!(host.at("/etc/etcdproxy/ca.pem"), Some(&own_file()));
        assert_eq!(host.at("/etc/etcdproxy"), Some(&FileState::Directory));
        assert!(host.at(CONFIG).is_none() && host.at("/opt/etcdproxy").is_none());
    }
}
