//! Counts, for the campaign's table.

use std::fmt;

use super::verdict::Verdict;
use crate::attack::number;

/// What has been counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) histories: usize,
    pub(super) calls: usize,
    pub(super) failed_calls: usize,
    pub(super) streams: usize,
    pub(super) watches: usize,
    pub(super) events: usize,
    pub(super) refused: usize,
    pub(super) canceled: usize,
    pub(super) compacted: usize,
    pub(super) progress: usize,
    pub(super) fragments: usize,
    pub(super) begun_earlier: usize,
    pub(super) without_prev: usize,
    pub(super) pauses: usize,
    pub(super) faults: usize,
    pub(super) changes_of_users: usize,
    /// Streams that were spoilt on purpose, and noticed.
    pub(super) sabotaged: usize,
    pub(super) known: usize,
    pub(super) violations: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.histories, "histories"),
            (self.calls, "calls"),
            (self.failed_calls, "of them failed"),
            (self.streams, "streams"),
            (self.watches, "watches"),
            (self.events, "events compared"),
            (self.refused, "watches refused"),
            (self.canceled, "canceled"),
            (self.compacted, "compacted away"),
            (self.progress, "progress answers"),
            (self.fragments, "fragments"),
            (self.begun_earlier, "begun before their header"),
            (self.without_prev, "previous values left out by etcd"),
            (self.pauses, "slow readers"),
            (self.changes_of_users, "changes of users"),
            (self.faults, "faults"),
            (self.sabotaged, "sabotages noticed"),
            (self.known, "known violations"),
            (self.violations, "violations"),
        ];
        let counts: Vec<String> = counts.iter().map(|(count, what)| format!("{} {what}", number(*count))).collect();
        out.write_str(&counts.join(", "))
    }
}

impl Tally {
    pub(super) fn add(&mut self, verdict: &Verdict) {
        self.streams += 1;
        self.watches += verdict.watches;
        self.events += verdict.events;
        self.refused += verdict.refused;
        self.canceled += verdict.canceled;
        self.compacted += verdict.compacted;
        self.progress += verdict.progress;
        self.fragments += verdict.fragments;
        self.begun_earlier += verdict.begun_earlier;
        self.without_prev += verdict.without_prev;
    }
}
