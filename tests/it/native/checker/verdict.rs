//! Compares what one stream said and heard with the truth.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::messages::{Create, DELETE, Event, PUT, WatchResponse};

/// The watch id of answers that no watch has: failed creations, and the progress of a whole stream.
const NO_WATCH: i64 = -1;

/// How many revisions a member may be behind another one in a calm cluster.
const LAG: i64 = 20;

pub(super) const CREATED: &str = "a watch that etcd refuses was created";
pub(super) const REFUSED: &str = "refused without a reason";
pub(super) const WRONG_ID: &str = "the wrong watch id";
pub(super) const PUT_NOT_SEEN: &str = "a put after the request is not seen";
pub(super) const STREAM_ENDED: &str = "the stream ended";

/// What a client did or heard on a stream, in the order in which it noticed.
#[derive(Debug, Clone)]
pub(super) enum Moment {
    Create {
        create: Create,
        /// The revision of the cluster at that time, or less.
        known: i64,
    },
    /// A change that the client has made after the create request with this number, counted from 0.
    MustSee {
        create: usize,
        revision: i64,
    },
    Cancel(i64),
    Progress,
    /// The client asks for nothing more.
    HalfClose,
    /// The client does not want to hear more.
    GiveUp,
    Heard {
        response: WatchResponse,
        /// Up to this revision, somebody may have compacted.
        compacted: i64,
    },
    /// The other side ended the stream.
    Ended(String),
}

/// What really happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past<'a> {
    /// In their order, with the previous values.
    pub(super) events: &'a [Event],
    /// All events from this revision on are there, ...
    pub(super) first: i64,
    /// ... up to this one.
    pub(super) last: i64,
}

/// What depends on the test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The user may read only keys with this prefix.
    pub(super) only: Option<&'static str>,
    /// The user's token may be of no use any more.
    pub(super) may_refuse: bool,
    /// Members failed.
    pub(super) has_faults: bool,
    /// A slow reader may find that its events are compacted away.
    pub(super) is_slow: bool,
    /// Every watch must have seen the events up to this revision.
    pub(super) end: Option<i64>,
}

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
    judge.check_ids(moments);
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

/// A create request, and what came of it.
struct Watch<'a> {
    create: &'a Create,
    known: i64,
    /// Requests for progress from before it. etcd may send their answers after `created`.
    older_questions: usize,
    /// Changes from this revision on belong to it. Known when it is created.
    from: i64,
    must_see: Option<i64>,
    is_created: bool,
    is_cancel_asked: bool,
    /// It was canceled, by a compaction or at the client's request.
    is_canceled: bool,
    /// The place in the past of the next event.
    next: usize,
    heard: Vec<&'a Event>,
    /// The last response was a part of a larger one.
    is_in_fragments: bool,
    /// Nothing else was heard on the stream since it was created.
    is_new: bool,
    progress: i64,
    /// A wrong event makes all later ones look wrong.
    is_spoilt: bool,
}

impl<'a> Watch<'a> {
    fn new(create: &'a Create, known: i64, older_questions: usize) -> Self {
        Self {
            create,
            known,
            older_questions,
            from: 0,
            must_see: None,
            is_created: false,
            is_cancel_asked: false,
            is_canceled: false,
            next: 0,
            heard: Vec::new(),
            is_in_fragments: false,
            is_new: false,
            progress: 0,
            is_spoilt: false,
        }
    }

    fn position(&self) -> i64 {
        self.heard.last().map_or(0, |event| event.revision())
    }

    /// The events of the past that it has not heard.
    fn rest(&self, past: Past<'a>) -> impl Iterator<Item = (usize, &'a Event)> + use<'a, '_> {
        past.events.iter().enumerate().skip(self.next).filter(|(_, event)| self.create.wants(event))
    }
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

    fn is_allowed(&self, create: &Create) -> bool {
        let Some(prefix) = self.rules.only else { return true };
        let below = |key: &[u8]| key.starts_with(prefix.as_bytes());
        // The end may be the first key above the prefix.
        let end = &create.range_end;
        let above = [&prefix.as_bytes()[..prefix.len() - 1], &[prefix.as_bytes()[prefix.len() - 1] + 1]].concat();
        below(&create.key) && (end.is_empty() || below(end) || **end == above[..])
    }

    /// Creations fail for the reasons for which etcd lets them fail, and watches get the ids that etcd would give them.
    fn check_ids(&mut self, moments: &[Moment]) {
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
            let Some(answer) = answers.next() else { return };
            let mut expected = create.watch_id;
            if create.is_empty() || !self.is_allowed(create) || used.contains(&expected) && expected != 0 {
                expected = NO_WATCH;
            } else if expected == 0 {
                while used.contains(&next) {
                    next += 1;
                }
                expected = next;
            }
            // After a compaction, etcd holds the id of a canceled watch for a while.
            let is_free = has_compacted && expected != NO_WATCH;
            let what = match (expected == NO_WATCH, answer.canceled) {
                (true, false) => Some(CREATED),
                (false, true) => Some(REFUSED).filter(|_| !self.rules.may_refuse && !(is_free && create.watch_id != 0)),
                (false, false) => Some(WRONG_ID).filter(|_| expected != answer.watch_id && !is_free),
                (true, true) => None,
            };
            if let Some(what) = what {
                let text = format!("{}, expected id {expected}\n{}", describe_create(create), describe(answer));
                self.report(Some(number), what, text);
            }
            if !answer.canceled {
                if !used.insert(answer.watch_id) {
                    self.report(Some(number), "a watch id that is in use", format!("{answer:?}"));
                }
                if create.watch_id == 0 && answer.watch_id >= next {
                    next = answer.watch_id + 1;
                }
            }
            number += 1;
        }
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
            (!watch.is_cancel_asked).then_some("canceled without a reason")
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
                Some("a watch of what is new was canceled by a compaction")
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
        let is_answerable =
            !self.live.is_empty() && self.live.values().all(has_reached) && self.verdict.compacted == 0;
        if !self.is_half_closed && is_answerable && self.answer < end {
            let text = format!("the last answer: {}, the end: {end}", self.answer);
            late.push(Violation { watch: None, what: "no answer to a request for progress", text });
        }
        self.verdict.late = late;
    }
}

/// Whether an event is the expected one: with its previous value, or at least without it.
fn compare(heard: &Event, expected: &Event, wants_prev: bool) -> Option<bool> {
    let is_same = heard.kind == expected.kind && heard.kv == expected.kv;
    match &heard.prev_kv {
        None => is_same.then_some(!wants_prev || expected.prev_kv.is_none()),
        Some(_) => (is_same && wants_prev && heard.prev_kv == expected.prev_kv).then_some(true),
    }
}

/// What is wrong with an event that is not the next one.
fn classify(watch: &Watch<'_>, past: Past<'_>, event: &Event) -> &'static str {
    let is_it = |other: &Event| other.revision() == event.revision() && other.key() == event.key();
    if event.revision() < watch.from {
        return "an event from before its start";
    }
    if ![PUT, DELETE].contains(&event.kind) || !watch.create.wants(event) {
        return "an event that it did not ask for";
    }
    let count = watch.heard.iter().filter(|heard| is_it(heard)).count();
    match past.events.iter().position(is_it) {
        _ if count > 1 => "an event twice",
        None => "an event that never was",
        Some(place) if place < watch.next => "an event out of order",
        Some(place) if watch.rest(past).next().is_some_and(|(next, _)| next == place) => "an event with other contents",
        Some(_) => "an event is missing, or out of order",
    }
}

/// The last events that a watch has heard, and those that it should have heard.
fn around(watch: &Watch<'_>, past: Past<'_>) -> String {
    let list = |events: &mut dyn Iterator<Item = &Event>| {
        events.map(|event| format!("\n      {}", event.short())).collect::<String>()
    };
    let tail = watch.heard.len().saturating_sub(4);
    let before = past.events[..watch.next].iter().rev().filter(|event| watch.create.wants(event));
    let mut before: Vec<&Event> = before.take_while(|event| event.revision() >= watch.from).take(3).collect();
    before.reverse();
    let rest = watch.rest(past).map(|(_, event)| event).take(3);
    format!(
        "{}, from revision {}\n    heard:{}\n    right:{}\n    then:{}",
        describe_create(watch.create),
        watch.from,
        list(&mut watch.heard[tail..].iter().copied()),
        list(&mut before.into_iter()),
        list(&mut rest.into_iter()),
    )
}

fn describe_create(create: &Create) -> String {
    let Create { key, range_end, start_revision, progress_notify, filters, prev_kv, watch_id, fragment } = create;
    let (key, end) = (key.escape_ascii(), range_end.escape_ascii());
    let flags = [(*progress_notify, " progress_notify"), (*prev_kv, " prev_kv"), (*fragment, " fragment")];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    format!("    create: [{key}, {end}) start {start_revision} filters {filters:?} id {watch_id}{flags}")
}

fn describe(response: &WatchResponse) -> String {
    let WatchResponse { header, watch_id, created, canceled, compact_revision, cancel_reason, fragment, events } =
        response;
    let header = header.as_ref().map_or(0, |header| header.revision);
    let events: Vec<String> = events.iter().take(4).map(Event::short).collect();
    format!(
        "    response: header {header}, watch {watch_id}, created {created}, canceled {canceled} {cancel_reason:?}, \
         compact_revision {compact_revision}, fragment {fragment}, events {events:?}"
    )
}
