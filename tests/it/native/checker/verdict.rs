//! Compares what one stream said and heard with the truth.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::ids::check_ids;
use super::messages::{Event, WatchResponse};
use super::moments::{Moment, Past, Rules};
use super::watch::{Watch, around, classify, compare, describe, describe_create};

/// The watch id of answers that no watch has: failed creations, and the progress of a whole stream.
pub(super) const NO_WATCH: i64 = -1;

/// How many revisions a member may be behind another one in a calm cluster.
const LAG: i64 = 20;

pub(super) const PUT_NOT_SEEN: &str = "a put after the request is not seen";
pub(super) const NEW_IS_COMPACTED: &str = "a watch of what is new was canceled by a compaction";
pub(super) const STREAM_ENDED: &str = "the stream ended";

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// The create request, counted from 0.
    pub(super) watch: Option<usize>,
    pub(super) what: &'static str,
    /// With the events around it.
    pub(super) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watch = self.watch.map_or_else(String::new, |watch| format!("watch {watch}: "));
        write!(out, "{watch}{}\n{}", self.what, self.text)
    }
}

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) violations: Vec<Violation>,
    /// What must still come. Time makes violations of them.
    pub(super) late: Vec<Violation>,
    /// Responses with events that the truth does not have yet.
    pub(super) early: usize,
    pub(super) watches: usize,
    pub(super) events: usize,
    pub(super) refused: usize,
    pub(super) canceled: usize,
    pub(super) compacted: usize,
    pub(super) progress: usize,
    pub(super) fragments: usize,
    /// Watches that began before the revision in the header of `created`.
    pub(super) begun_earlier: usize,
    /// Events whose previous value etcd left out, although it was not compacted away.
    pub(super) without_prev: usize,
}

/// Judges one stream.
pub(super) fn judge(moments: &[Moment], past: Past<'_>, rules: Rules) -> Verdict {
    let mut judge = Judge {
        past,
        rules,
        watches: Vec::new(),
        waiting: VecDeque::new(),
        live: BTreeMap::new(),
        questions: 0,
        answer: 0,
        is_half_closed: false,
        cluster: None,
        verdict: Verdict::default(),
    };
    judge.verdict.violations = check_ids(moments, rules);
    let mut has_ended = false;
    for moment in moments {
        match moment {
            Moment::Create { create, known } => {
                judge.waiting.push_back(judge.watches.len());
                judge.watches.push(Watch::new(create, *known, judge.questions));
            }
            Moment::MustSee { create, revision } => judge.watches[*create].must_see = Some(*revision),
            Moment::Cancel(id) => judge.cancel(*id),
            Moment::Progress => judge.questions += 1,
            Moment::HalfClose => judge.is_half_closed = true,
            Moment::GiveUp => {
                has_ended = true;
                break;
            }
            Moment::Heard { response, compacted } => judge.hear(response, *compacted),
            Moment::Ended(how) => {
                has_ended = true;
                judge.report(None, STREAM_ENDED, how.clone());
            }
        }
    }
    judge.check_what_was_put();
    if !has_ended {
        judge.check_end();
    }
    judge.verdict
}

struct Judge<'a> {
    past: Past<'a>,
    rules: Rules,
    watches: Vec<Watch<'a>>,
    /// Not answered yet: etcd creates watches in the order of the requests.
    waiting: VecDeque<usize>,
    live: BTreeMap<i64, usize>,
    /// Requests for progress that are not answered.
    questions: usize,
    /// The highest revision that answered one.
    answer: i64,
    is_half_closed: bool,
    cluster: Option<u64>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    fn report(&mut self, watch: Option<usize>, what: &'static str, text: String) {
        self.verdict.violations.push(Violation { watch, what, text });
    }

    fn cancel(&mut self, id: i64) {
        let waiting = || self.waiting.iter().copied().find(|watch| self.watches[*watch].create.watch_id == id);
        if let Some(watch) = self.live.get(&id).copied().or_else(waiting) {
            self.watches[watch].is_cancel_asked = true;
        }
    }

    fn hear(&mut self, response: &'a WatchResponse, compacted: i64) {
        let Some(header) = &response.header else {
            return self.report(None, "a response without a header", format!("{response:?}"));
        };
        let is_same_cluster = *self.cluster.get_or_insert(header.cluster_id) == header.cluster_id;
        // etcd's own answer to a compaction has no revision.
        let has_revision = header.revision > 0 || response.compact_revision > 0;
        if !is_same_cluster || header.member_id == 0 || !has_revision || header.raft_term == 0 {
            self.report(None, "a header of no member", describe(response));
        }
        self.verdict.fragments += usize::from(response.fragment);
        for (id, watch) in &self.live {
            self.watches[*watch].is_new &= *id == response.watch_id;
        }
        if response.created {
            return self.created(response, header.revision);
        }
        if response.watch_id == NO_WATCH && response.events.is_empty() && !response.canceled {
            return self.progress_of_all(header.revision);
        }
        let Some(watch) = self.live.get(&response.watch_id).copied() else {
            let what = "a response for a watch that does not exist, or not any more";
            return self.report(None, what, describe(response));
        };
        if !response.events.is_empty() {
            self.events(watch, response, header.revision, compacted);
        }
        if response.canceled {
            self.canceled(watch, response, compacted);
        } else if response.events.is_empty() {
            if !self.watches[watch].create.progress_notify {
                self.report(Some(watch), "progress that it did not ask for", describe(response));
            }
            self.progress(watch, header.revision);
            self.verdict.progress += 1;
        }
    }

    fn created(&mut self, response: &'a WatchResponse, revision: i64) {
        let Some(number) = self.waiting.pop_front() else {
            return self.report(None, "created without a request", describe(response));
        };
        if !response.events.is_empty() {
            self.report(Some(number), "created with events", describe(response));
        }
        if response.canceled {
            self.watches[number].is_canceled = true;
            self.verdict.refused += 1;
            return;
        }
        self.verdict.watches += 1;
        let past = self.past;
        let watch = &mut self.watches[number];
        watch.is_created = true;
        watch.is_new = true;
        watch.from = if watch.create.start_revision > 0 { watch.create.start_revision } else { revision + 1 };
        watch.next = past.events.partition_point(|event| event.revision() < watch.from);
        self.live.insert(response.watch_id, number);
    }

    fn events(&mut self, number: usize, response: &'a WatchResponse, revision: i64, compacted: i64) {
        let watch = &self.watches[number];
        let first = response.events[0].revision();
        if watch.position() == first && !watch.is_in_fragments {
            self.report(Some(number), "a revision that was divided between responses", describe(response));
        }
        if response.fragment && !self.watches[number].create.fragment {
            self.report(Some(number), "a fragment that it did not ask for", describe(response));
        }
        self.begin_earlier(number, first);
        for event in &response.events {
            if event.revision() > revision {
                self.report(Some(number), "a header with a revision below its events", describe(response));
            }
            self.event(number, event, compacted);
        }
        self.watches[number].is_in_fragments = response.fragment;
    }

    /// etcd starts a watch of what is new, and then looks which revision it writes into the header of `created`. So the
    /// watch may show changes up to that revision, but only all of them from its first one on.
    fn begin_earlier(&mut self, number: usize, first: i64) {
        let watch = &mut self.watches[number];
        let may = watch.create.start_revision == 0 && watch.heard.is_empty() && first < watch.from;
        if may && first > watch.known - LAG {
            watch.from = first;
            watch.next = self.past.events.partition_point(|event| event.revision() < first);
            self.verdict.begun_earlier += 1;
        }
    }

    fn event(&mut self, number: usize, event: &'a Event, compacted: i64) {
        let (past, has_faults) = (self.past, self.rules.has_faults);
        let watch = &mut self.watches[number];
        if watch.is_spoilt {
            return;
        }
        watch.heard.push(event);
        if event.revision() > past.last {
            self.verdict.early += 1;
            watch.is_spoilt = true;
            return;
        }
        let expected = watch.rest(past).next();
        let is_compacted = compacted >= event.revision();
        if let Some((place, expected)) = expected
            && let Some(is_complete) = compare(event, expected, watch.create.prev_kv)
            // etcd also leaves out the previous value of what it sends before `created` is, or after the watch has ended.
            && (is_complete || is_compacted || watch.is_new || watch.is_cancel_asked || has_faults)
        {
            self.verdict.without_prev += usize::from(!is_complete && !is_compacted);
            watch.next = place + 1;
            self.verdict.events += 1;
            return;
        }
        watch.is_spoilt = true;
        let what = classify(watch, past, event);
        let text = format!("{}\n    compacted up to {compacted} or less", around(watch, past));
        self.report(Some(number), what, text);
    }

    fn progress_of_all(&mut self, revision: i64) {
        self.verdict.progress += 1;
        if self.questions == 0 {
            return self.report(None, "progress that nobody asked for", format!("revision {revision}"));
        }
        self.questions -= 1;
        self.answer = self.answer.max(revision);
        for number in self.live.values().copied().collect::<Vec<_>>() {
            let watch = &mut self.watches[number];
            let is_about_it = watch.older_questions == 0 || !watch.heard.is_empty();
            watch.older_questions = watch.older_questions.saturating_sub(1);
            if is_about_it {
                self.progress(number, revision);
            }
        }
    }

    /// All events up to this revision must have come.
    fn progress(&mut self, number: usize, revision: i64) {
        let past = self.past;
        let watch = &mut self.watches[number];
        if watch.is_spoilt || watch.is_cancel_asked {
            return;
        }
        watch.progress = watch.progress.max(revision);
        let is_ahead = watch.rest(past).next().is_some_and(|(_, event)| event.revision() <= revision);
        if is_ahead || revision < watch.position() {
            watch.is_spoilt = true;
            let what = if is_ahead { "progress ahead of an event" } else { "progress behind an event" };
            let text = format!("progress {revision}\n{}", around(watch, past));
            self.report(Some(number), what, text);
        }
    }

    fn canceled(&mut self, number: usize, response: &WatchResponse, compacted: i64) {
        let (past, is_calm) = (self.past, !self.rules.has_faults && !self.rules.is_slow);
        let watch = &mut self.watches[number];
        let was_canceled = std::mem::replace(&mut watch.is_canceled, true);
        let compaction = response.compact_revision;
        // The request and the compaction may meet. Then both are answered.
        if compaction == 0 || !watch.is_cancel_asked {
            self.live.remove(&response.watch_id);
        }
        let watch = &self.watches[number];
        let what = if compaction == 0 {
            self.verdict.canceled += 1;
            // The caller's own token may have become invalid when the watch is opened again: at another member, or after
            // its client has read slowly.
            let is_old = self.rules.may_refuse && response.cancel_reason.contains("auth");
            (!watch.is_cancel_asked && !is_old).then_some("canceled without a reason")
        } else {
            self.verdict.compacted += 1;
            let needs = watch.from.max(watch.position() + 1).max(watch.progress + 1);
            if was_canceled {
                Some("canceled twice")
            } else if compaction > compacted {
                Some("a compaction that never was")
            } else if compaction <= needs {
                Some("canceled by a compaction of what it does not need")
            } else if is_calm && watch.create.start_revision == 0 {
                Some(NEW_IS_COMPACTED)
            } else {
                None
            }
        };
        if let Some(what) = what {
            let text = format!("{}\n{}", describe(response), around(watch, past));
            self.report(Some(number), what, text);
        }
    }

    /// What the same connection put after the request belongs to the watch.
    fn check_what_was_put(&mut self) {
        for number in 0..self.watches.len() {
            let watch = &self.watches[number];
            if let Some(revision) = watch.must_see
                && watch.is_created
                && watch.create.start_revision == 0
                && watch.from > revision
                && self.past.events.iter().any(|event| event.revision() == revision && watch.create.wants(event))
            {
                let create = describe_create(watch.create);
                let text = format!("{create}\n    put at revision {revision}, the watch begins with {}", watch.from);
                self.report(Some(number), PUT_NOT_SEEN, text);
            }
        }
    }

    fn check_end(&mut self) {
        let (past, Some(end)) = (self.past, self.rules.end) else { return };
        let mut late = Vec::new();
        for (number, watch) in self.watches.iter().enumerate() {
            let mut add = |what, text| late.push(Violation { watch: Some(number), what, text });
            if watch.is_canceled || watch.is_spoilt {
                continue;
            }
            if !watch.is_created {
                add("never created", describe_create(watch.create));
            } else if watch.is_cancel_asked {
                add("never canceled", describe_create(watch.create));
            } else if watch.from < past.first {
                add("not told of a compaction", describe_create(watch.create));
            } else if watch.rest(past).next().is_some_and(|(_, event)| event.revision() <= end) {
                add("events are missing at the end", around(watch, past));
            }
        }
        // As long as a watch starts in the future, etcd does not answer; and never after a watch was compacted away.
        let has_reached = |watch: &usize| self.watches[*watch].from <= end;
        let is_answerable = !self.live.is_empty() && self.live.values().all(has_reached) && self.verdict.compacted == 0;
        if !self.is_half_closed && is_answerable && self.answer < end {
            let text = format!("the last answer: {}, the end: {end}", self.answer);
            late.push(Violation { watch: None, what: "no answer to a request for progress", text });
        }
        self.verdict.late = late;
    }
}
