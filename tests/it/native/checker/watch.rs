//! A create request, what came of it, and words for what is wrong with it.

use super::messages::{Create, DELETE, Event, PUT, WatchResponse};
use super::moments::Past;

/// A create request, and what came of it.
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub(super) struct Watch<'a> {
    pub(super) create: &'a Create,
    pub(super) known: i64,
    /// Requests for progress from before it. etcd may send their answers after `created`.
    pub(super) older_questions: usize,
    /// Changes from this revision on belong to it. Known when it is created.
    pub(super) from: i64,
    pub(super) must_see: Option<i64>,
    pub(super) is_created: bool,
    pub(super) is_cancel_asked: bool,
    /// It was canceled, by a compaction or at the client's request.
    pub(super) is_canceled: bool,
    /// The place in the past of the next event.
    pub(super) next: usize,
    pub(super) heard: Vec<&'a Event>,
    /// The last response was a part of a larger one.
    pub(super) is_in_fragments: bool,
    /// Nothing else was heard on the stream since it was created.
    pub(super) is_new: bool,
    pub(super) progress: i64,
    /// A wrong event makes all later ones look wrong.
    pub(super) is_spoilt: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(create: &'a Create, known: i64, older_questions: usize) -> Self {
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

    pub(super) fn position(&self) -> i64 {
        self.heard.last().map_or(0, |event| event.revision())
    }

    /// The events of the past that it has not heard.
    pub(super) fn rest(&self, past: Past<'a>) -> impl Iterator<Item = (usize, &'a Event)> + use<'a, '_> {
        past.events.iter().enumerate().skip(self.next).filter(|(_, event)| self.create.wants(event))
    }
}

/// Whether an event is the expected one: with its previous value, or at least without it.
pub(super) fn compare(heard: &Event, expected: &Event, wants_prev: bool) -> Option<bool> {
    let is_same = heard.kind == expected.kind && heard.kv == expected.kv;
    match &heard.prev_kv {
        None => is_same.then_some(!wants_prev || expected.prev_kv.is_none()),
        Some(_) => (is_same && wants_prev && heard.prev_kv == expected.prev_kv).then_some(true),
    }
}

/// What is wrong with an event that is not the next one.
pub(super) fn classify(watch: &Watch<'_>, past: Past<'_>, event: &Event) -> &'static str {
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
pub(super) fn around(watch: &Watch<'_>, past: Past<'_>) -> String {
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

pub(super) fn describe_create(create: &Create) -> String {
    let Create { key, range_end, start_revision, progress_notify, filters, prev_kv, watch_id, fragment } = create;
    let (key, end) = (key.escape_ascii(), range_end.escape_ascii());
    let flags = [(*progress_notify, " progress_notify"), (*prev_kv, " prev_kv"), (*fragment, " fragment")];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    format!("    create: [{key}, {end}) start {start_revision} filters {filters:?} id {watch_id}{flags}")
}

pub(super) fn describe(response: &WatchResponse) -> String {
    let WatchResponse { header, watch_id, created, canceled, compact_revision, cancel_reason, fragment, events } =
        response;
    let header = header.as_ref().map_or(0, |header| header.revision);
    let events: Vec<String> = events.iter().take(4).map(Event::short).collect();
    format!(
        "    response: header {header}, watch {watch_id}, created {created}, canceled {canceled} {cancel_reason:?}, \
         compact_revision {compact_revision}, fragment {fragment}, events {events:?}"
    )
}
