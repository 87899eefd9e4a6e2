//! Plans to remove old versions.

use super::goal::Goal;
use super::planner::Planner;
use super::snapshot::Snapshot;
use super::step::Plan;
use crate::install::error::Error;
use crate::install::layout::Layout;
use crate::install::receipt::Receipt;
use crate::install::versions;

/// Plans to keep only the newest `keep` versions, the current one, and those that a process is running.
pub(in crate::install) fn plan(layout: &Layout, receipt: &Receipt, keep: usize) -> Result<Plan, Error> {
    let (removed, notes) = versions::to_prune(receipt, keep, |version| versions::running(layout, version));
    plan_with(layout, receipt, &removed, notes, Snapshot::take)
}

/// Keeps everything that does not belong to a removed version.
fn plan_with(
    layout: &Layout,
    receipt: &Receipt,
    removed: &[String],
    notes: Vec<String>,
    snapshot: impl FnOnce(&Goal<'_>) -> Snapshot,
) -> Result<Plan, Error> {
    let is_removed = |version: &str| removed.iter().any(|removed| removed == version);
    let kept = receipt.entries.iter().filter(|entry| !layout.version_of(&entry.path).is_some_and(is_removed));
    let goal = Goal { kept: kept.collect(), purge: true, notes, ..Goal::new(layout, receipt) };
    let mut after = receipt.clone();
    after.versions.retain(|version| !is_removed(&version.name));
    after.previous = after.previous.filter(|previous| !is_removed(previous));
    Ok(Planner::compare(&goal, snapshot(&goal))?.finish(Some(after)))
}

#[cfg(test)]
mod tests {
    use super::super::install::tests::{plan_of, upgraded};
    use super::super::simulation::{Host, in_short, own_file, static_layout};
    use super::*;

    fn without_a(host: &Host) -> Result<Plan, Error> {
        plan_with(static_layout(), &host.load(), &["1.0-a".to_owned()], Vec::new(), |goal| host.snapshot(goal))
    }

    #[test]
    fn only_the_old_version_goes() {
        let mut host = upgraded();
        let plan = host.run(&without_a);
        assert!(in_short(&plan).iter().all(|step| step.contains(" /opt/etcdproxy/versions/1.0-a")), "{plan:?}");
        assert!(!host.disk.keys().any(|path| path.starts_with("/opt/etcdproxy/versions/1.0-a")));
        let after = plan.after.unwrap();
        assert_eq!((after.current.as_deref(), after.previous), (Some("1.1-b"), None));
        assert_eq!((plan.during.versions.len(), after.versions.len()), (2, 1), "installed until the end");
        let mut new = Host::new();
        new.run(&|host: &Host| plan_of("1.1-b", host, false));
        assert_eq!(host.disk, new.disk);
    }

    #[test]
    fn a_damaged_program_goes_with_its_version() {
        let mut host = upgraded().with("/opt/etcdproxy/versions/1.0-a/bin/etcd", own_file());
        let plan = host.run(&without_a);
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        assert!(host.at("/opt/etcdproxy/versions/1.0-a").is_none());
    }

    #[test]
    fn whenever_it_is_interrupted_the_same_finishes_it() {
        upgraded().survives_interruption(&without_a);
    }
}
