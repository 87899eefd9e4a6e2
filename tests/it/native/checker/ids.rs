//! The ids of watches, and the reasons for which etcd refuses one.

use std::collections::BTreeSet;

use super::messages::Create;
use super::moments::{Moment, Rules};
use super::verdict::{NO_WATCH, Violation};
use super::watch::{describe, describe_create};

pub(super) const CREATED: &str = "a watch that etcd refuses was created";
pub(super) const REFUSED: &str = "refused without a reason";
pub(super) const WRONG_ID: &str = "the wrong watch id";
const IN_USE: &str = "a watch id that is in use";

fn is_allowed(create: &Create, rules: Rules) -> bool {
    let Some(prefix) = rules.only else { return true };
    let below = |key: &[u8]| key.starts_with(prefix.as_bytes());
    // The end may be the first key above the prefix.
    let end = &create.range_end;
    let above = [&prefix.as_bytes()[..prefix.len() - 1], &[prefix.as_bytes()[prefix.len() - 1] + 1]].concat();
    below(&create.key) && (end.is_empty() || below(end) || **end == above[..])
}

/// Creations fail for the reasons for which etcd lets them fail, and watches get the ids that etcd would give them.
pub(super) fn check_ids(moments: &[Moment], rules: Rules) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut answers = moments.iter().filter_map(|moment| match moment {
        Moment::Heard { response, .. } if response.created => Some(response),
        _ => None,
    });
    let has_compacted =
        moments.iter().any(|moment| matches!(moment, Moment::Heard { response, .. } if response.compact_revision > 0));
    let (mut used, mut next) = (BTreeSet::new(), 0);
    let mut number = 0;
    for moment in moments {
        if let Moment::Cancel(id) = moment {
            used.remove(id);
        }
        let Moment::Create { create, .. } = moment else { continue };
        let Some(answer) = answers.next() else { break };
        let mut expected = create.watch_id;
        let is_duplicate = expected != 0 && used.contains(&expected);
        if create.is_empty() || !is_allowed(create, rules) || is_duplicate {
            expected = NO_WATCH;
        } else if expected == 0 {
            while used.contains(&next) {
                next += 1;
            }
            expected = next;
        }
        // After a compaction, etcd holds the id of a canceled watch until the client cancels it, too.
        let is_free = has_compacted && (is_duplicate || expected != NO_WATCH);
        let what = match (expected == NO_WATCH, answer.canceled) {
            (true, false) => Some(CREATED).filter(|_| !is_free),
            (false, true) => Some(REFUSED).filter(|_| !(rules.may_refuse || is_free && create.watch_id != 0)),
            (false, false) => Some(WRONG_ID).filter(|_| expected != answer.watch_id && !is_free),
            (true, true) => None,
        };
        if let Some(what) = what {
            let text = format!("{}, expected id {expected}\n{}", describe_create(create), describe(answer));
            violations.push(Violation { watch: Some(number), what, text });
        }
        if !answer.canceled {
            if !used.insert(answer.watch_id) && !has_compacted {
                violations.push(Violation { watch: Some(number), what: IN_USE, text: describe(answer) });
            }
            if create.watch_id == 0 && answer.watch_id >= next {
                next = answer.watch_id + 1;
            }
        }
        number += 1;
    }
    violations
}
