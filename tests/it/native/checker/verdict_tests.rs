//! The verdict finds each kind of fault.

use prost::bytes::Bytes;

use super::messages::{Create, DELETE, Event, Header, KeyValue, PUT, WatchResponse};
use super::moments::{Moment, Past, Rules};
use super::verdict::{STREAM_ENDED, Verdict, judge};

/// Changes of the keys `a`, `b` and `c`: two in revision 4, three in revision 7.
fn history() -> Vec<Event> {
    let changes = [
        (2, "a"),
        (3, "b"),
        (4, "a"),
        (4, "b"),
        (5, "-a"),
        (6, "a"),
        (7, "a"),
        (7, "b"),
        (7, "c"),
        (8, "-b"),
        (9, "c"),
    ];
    let mut now = std::collections::BTreeMap::new();
    let event = |(revision, change): &(i64, &str)| {
        let key = change.trim_start_matches('-');
        let prev_kv: Option<KeyValue> = now.remove(key);
        let mut kv =
            KeyValue { key: Bytes::copy_from_slice(key.as_bytes()), mod_revision: *revision, ..KeyValue::default() };
        let kind = if change.starts_with('-') { DELETE } else { PUT };
        if kind == PUT {
            kv.create_revision = prev_kv.as_ref().map_or(*revision, |prev| prev.create_revision);
            kv.version = prev_kv.as_ref().map_or(1, |prev| prev.version + 1);
            kv.value = revision.to_string().into();
            now.insert(key.to_owned(), kv.clone());
        }
        Event { kind, kv: Some(kv), prev_kv }
    };
    changes.iter().map(event).collect()
}

/// What happens on a stream, in short words.
struct Script {
    moments: Vec<Moment>,
    events: Vec<Event>,
    compacted: i64,
    rules: Rules,
}

fn script() -> Script {
    let rules = Rules { only: None, may_refuse: false, has_faults: false, is_slow: false, end: Some(9) };
    Script { moments: Vec::new(), events: history(), compacted: 0, rules }
}

impl Script {
    fn create(mut self, create: Create) -> Self {
        self.moments.push(Moment::Create { create, known: 0 });
        self
    }

    /// All keys from the beginning, without previous values.
    fn all(self) -> Self {
        self.create(Create { start_revision: 1, ..keys("a", "d") }).created(0, 9)
    }

    fn hear(mut self, revision: i64, response: WatchResponse) -> Self {
        let header = Some(Header { cluster_id: 1, member_id: 2, revision, raft_term: 3 });
        let response = WatchResponse { header, ..response };
        self.moments.push(Moment::Heard { response, compacted: self.compacted });
        self
    }

    fn created(self, watch_id: i64, revision: i64) -> Self {
        self.hear(revision, WatchResponse { watch_id, created: true, ..WatchResponse::default() })
    }

    fn refused(self) -> Self {
        self.hear(9, WatchResponse { watch_id: -1, created: true, canceled: true, ..WatchResponse::default() })
    }

    /// These events of the history, by their places, in one response of watch 0.
    fn events(self, places: &[usize]) -> Self {
        self.response(places, false)
    }

    fn response(self, places: &[usize], fragment: bool) -> Self {
        let events: Vec<Event> =
            places.iter().map(|place| Event { prev_kv: None, ..self.events[*place].clone() }).collect();
        let revision = events.iter().map(Event::revision).max().unwrap();
        self.hear(revision, WatchResponse { fragment, events, ..WatchResponse::default() })
    }

    fn edited(self, place: usize, edit: impl FnOnce(&mut Event)) -> Self {
        let mut event = self.events[place].clone();
        edit(&mut event);
        self.hear(9, WatchResponse { events: vec![event], ..WatchResponse::default() })
    }

    /// `watch_id` -1: of the whole stream.
    fn progress(self, watch_id: i64, revision: i64) -> Self {
        self.hear(revision, WatchResponse { watch_id, ..WatchResponse::default() })
    }

    fn canceled(self, compact_revision: i64) -> Self {
        self.hear(9, WatchResponse { canceled: true, compact_revision, ..WatchResponse::default() })
    }

    fn says(mut self, moment: Moment) -> Self {
        self.moments.push(moment);
        self
    }

    fn half_close(self) -> Self {
        self.says(Moment::HalfClose)
    }

    fn with(mut self, edit: impl FnOnce(&mut Rules)) -> Self {
        edit(&mut self.rules);
        self
    }

    fn compacting(mut self, revision: i64) -> Self {
        self.compacted = revision;
        self
    }

    fn judge(&self) -> Verdict {
        judge(&self.moments, Past { events: &self.events, first: 1, last: 9 }, self.rules)
    }

    #[track_caller]
    fn passes(self) -> Verdict {
        let verdict = self.judge();
        assert!(verdict.violations.is_empty() && verdict.late.is_empty(), "{verdict:#?}");
        assert_eq!(verdict.early, 0);
        verdict
    }

    #[track_caller]
    fn fails(self, what: &str) {
        self.fails_with(&[what]);
    }

    /// These, and no others.
    #[track_caller]
    fn fails_with(self, what: &[&str]) {
        let verdict = self.judge();
        let found: Vec<&str> = verdict.violations.iter().chain(&verdict.late).map(|found| found.what).collect();
        assert_eq!(found, what, "{verdict:#?}");
    }
}

fn keys(key: &'static str, end: &'static str) -> Create {
    Create { key: key.into(), range_end: end.into(), ..Create::default() }
}

/// Everything, in order.
const ALL: [usize; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

#[test]
fn a_watch_that_hears_everything_in_order_passes() {
    assert_eq!(script().all().events(&ALL).half_close().passes().events, 11);
    let piecemeal = script().all().events(&[0]).events(&[1, 2, 3]).events(&[4, 5, 6, 7, 8]).events(&[9, 10]);
    piecemeal.half_close().passes();
    let now = script().create(keys("a", "d")).created(0, 7).events(&[9, 10]);
    now.half_close().passes();
    let one = script().create(Create { start_revision: 4, ..keys("b", "") }).created(0, 9);
    one.events(&[3, 7, 9]).half_close().passes();
    let from = script().create(Create { start_revision: 5, ..keys("b", "\0") }).created(0, 9);
    from.events(&[7, 8, 9, 10]).half_close().passes();
    let puts = Create { filters: vec![DELETE], start_revision: 5, ..keys("a", "d") };
    script().create(puts).created(0, 9).events(&[5, 6, 7, 8, 10]).half_close().passes();
    let deletes = Create { filters: vec![PUT], start_revision: 5, ..keys("a", "d") };
    script().create(deletes).created(0, 9).events(&[4, 9]).half_close().passes();
    let future = script().create(Create { start_revision: 40, ..keys("a", "d") }).created(0, 9);
    future.half_close().passes();
}

#[test]
fn events_that_are_lost_doubled_or_out_of_order() {
    let begun = || script().all().events(&[0, 1, 2, 3]).half_close();
    begun().events(&[5, 6, 7, 8, 9, 10]).fails("an event is missing, or out of order");
    begun().events(&[4, 5, 6, 8, 9, 10]).fails("an event is missing, or out of order");
    begun().events(&[4, 6, 5]).fails("an event is missing, or out of order");
    begun().events(&[4, 4, 5]).fails("an event twice");
    begun().events(&[0, 1, 2]).fails("an event twice");
    begun().events(&[4, 5, 7, 6, 8]).fails("an event is missing, or out of order");
    // At the end.
    begun().fails("events are missing at the end");
    begun().events(&[4, 5, 6, 7, 8, 9]).fails("events are missing at the end");
    let last_twice = script().all().events(&ALL).events(&[10]).half_close();
    last_twice.fails_with(&["a revision that was divided between responses", "an event twice"]);
    let doubled = script().all().events(&ALL).events(&[8, 9]).half_close();
    doubled.fails("an event twice");
}

#[test]
fn events_that_do_not_belong_to_the_watch() {
    let now = || script().create(keys("a", "d")).created(0, 7).half_close();
    // Two of the three changes of revision 7: etcd may begin early, but never with a part of a revision.
    now().events(&[7, 8, 9, 10]).fails("an event is missing, or out of order");
    assert_eq!(now().events(&[6, 7, 8, 9, 10]).passes().begun_earlier, 1);
    let from = || script().create(Create { start_revision: 8, ..keys("a", "d") }).created(0, 9).half_close();
    from().events(&[8, 9, 10]).fails("an event from before its start");
    let one = || script().create(Create { start_revision: 5, ..keys("b", "") }).created(0, 9).half_close();
    one().events(&[6, 7]).fails("an event that it did not ask for");
    let puts = Create { filters: vec![DELETE], start_revision: 5, ..keys("a", "d") };
    script().create(puts).created(0, 9).events(&[4, 5]).half_close().fails("an event that it did not ask for");
    // Far in the past of a watch of what is new.
    let mut late = now();
    late.moments[0] = Moment::Create { create: keys("a", "d"), known: 30 };
    late.events(&[6, 7, 8, 9, 10]).fails("an event from before its start");
}

#[test]
fn events_with_other_contents() {
    const WHAT: &str = "an event with other contents";
    let begun =
        || script().create(Create { start_revision: 7, prev_kv: true, ..keys("a", "") }).created(0, 9).half_close();
    let other = |edit: fn(&mut KeyValue)| begun().edited(6, |event| edit(event.kv.as_mut().unwrap()));
    begun().edited(6, |_| {}).passes();
    other(|kv| kv.value = "x".into()).fails(WHAT);
    other(|kv| kv.version += 1).fails(WHAT);
    other(|kv| kv.create_revision += 1).fails(WHAT);
    other(|kv| kv.lease = 7).fails(WHAT);
    begun().edited(6, |event| event.kind = DELETE).fails(WHAT);
    begun().edited(6, |event| event.prev_kv = event.kv.clone()).fails(WHAT);
    other(|kv| kv.mod_revision = 1).fails("an event from before its start");
    other(|kv| kv.key = "b".into()).fails("an event that it did not ask for");
    // Previous values that nobody asked for, or that are missing without a reason.
    let without = script().create(Create { start_revision: 7, ..keys("a", "") }).created(0, 9).half_close();
    without.edited(6, |_| {}).fails(WHAT);
    let begun = || {
        let begun = script().create(Create { start_revision: 6, prev_kv: true, ..keys("a", "") }).created(0, 9);
        begun.edited(5, |_| {})
    };
    let lost = |script: Script| script.edited(6, |event| event.prev_kv = None).half_close();
    let later = || begun().says(Moment::Progress).progress(-1, 6);
    lost(later()).fails(WHAT);
    // What etcd does: right after `created`, and when it is compacted away.
    assert_eq!(lost(begun()).passes().without_prev, 1);
    lost(later().compacting(7)).passes();
    lost(later().compacting(6)).fails(WHAT);
    lost(later().with(|rules| rules.has_faults = true)).passes();
}

#[test]
fn a_revision_belongs_into_one_response() {
    const WHAT: &str = "a revision that was divided between responses";
    let begun = || script().all().events(&[0, 1, 2, 3, 4, 5]).half_close();
    begun().events(&[6, 7]).events(&[8, 9, 10]).fails(WHAT);
    begun().response(&[6, 7], true).events(&[8, 9, 10]).fails("a fragment that it did not ask for");
    let asked = || {
        let create = Create { start_revision: 1, fragment: true, ..keys("a", "d") };
        script().create(create).created(0, 9).response(&[0, 1, 2, 3, 4, 5, 6], true).half_close()
    };
    assert_eq!(asked().response(&[7], true).events(&[8, 9, 10]).passes().fragments, 2);
    asked().events(&[7]).events(&[8, 9, 10]).fails(WHAT);
}

#[test]
fn progress_and_headers_that_say_too_much() {
    const AHEAD: &str = "progress ahead of an event";
    let asked = || script().all().says(Moment::Progress).events(&[0, 1, 2, 3]);
    asked().progress(-1, 4).events(&ALL[4..]).half_close().passes();
    asked().progress(-1, 5).events(&ALL[4..]).half_close().fails(AHEAD);
    asked().progress(-1, 3).events(&ALL[4..]).half_close().fails("progress behind an event");
    asked().progress(-1, 4).progress(-1, 4).events(&ALL[4..]).half_close().fails("progress that nobody asked for");
    // The end is one of the revisions of which a client may ask to be told.
    asked().events(&ALL[4..]).progress(-1, 9).passes();
    asked().events(&ALL[4..]).fails("no answer to a request for progress");
    asked().events(&ALL[4..9]).progress(-1, 7).events(&[9, 10]).fails("no answer to a request for progress");
    asked().progress(0, 4).events(&ALL[4..]).half_close().fails("progress that it did not ask for");
    let notified = || {
        let create = Create { start_revision: 1, progress_notify: true, ..keys("a", "d") };
        script().create(create).created(0, 9).events(&[0, 1, 2, 3]).half_close()
    };
    notified().progress(0, 4).events(&ALL[4..]).passes();
    notified().progress(0, 5).events(&ALL[4..]).fails(AHEAD);
    // An answer that another watch is behind of.
    let two = script().all().create(Create { start_revision: 5, ..keys("c", "") }).created(1, 9);
    let two = two.says(Moment::Progress).events(&ALL).progress(-1, 9).half_close();
    assert_eq!(two.judge().violations[0].watch, Some(1));
    two.fails(AHEAD);
    // The answer to a question from before the watch may come later.
    let late = script().create(keys("x", "")).says(Moment::Progress).created(0, 9);
    let late = late.create(Create { start_revision: 5, ..keys("c", "") }).created(1, 9);
    late.progress(-1, 9).half_close().fails("events are missing at the end");
    // A header below its events, and one without anything.
    let low =
        WatchResponse { events: vec![Event { prev_kv: None, ..history()[0].clone() }], ..WatchResponse::default() };
    script().all().hear(1, low).events(&ALL[1..]).half_close().fails("a header with a revision below its events");
    let mut script = script().all().events(&ALL).half_close();
    let empty = WatchResponse::default();
    script.moments.push(Moment::Heard { response: empty, compacted: 0 });
    script.fails("a response without a header");
}

#[test]
fn watches_are_created_once_with_the_right_id() {
    script().all().created(1, 9).events(&ALL).half_close().fails("created without a request");
    script().create(keys("a", "d")).half_close().fails("never created");
    script().events(&[0]).fails("a response for a watch that does not exist, or not any more");
    let wrong = |create: Create, id| script().create(create).created(id, 9).half_close();
    wrong(keys("a", "d"), 1).fails("the wrong watch id");
    wrong(Create { watch_id: 5, ..keys("a", "d") }, 0).fails("the wrong watch id");
    wrong(Create { watch_id: 5, ..keys("a", "d") }, 5).passes();
    // Ids of one's own, and those that etcd gives.
    let mixed = script().create(Create { watch_id: 1, ..keys("a", "d") }).created(1, 9);
    let mixed = mixed.create(keys("a", "d")).created(0, 9).create(keys("a", "d")).created(2, 9);
    mixed.half_close().passes();
    let again =
        || script().all().events(&ALL).half_close().create(Create { watch_id: 7, ..keys("a", "d") }).created(7, 9);
    let twice = || again().create(Create { watch_id: 7, ..keys("a", "d") });
    assert_eq!(twice().refused().passes().refused, 1);
    let in_use = ["a watch that etcd refuses was created", "a watch id that is in use"];
    twice().created(7, 9).fails_with(&in_use);
    // Two created responses in the wrong order.
    let swapped = script().create(Create { watch_id: 5, ..keys("a", "d") }).create(keys("a", "d"));
    swapped.created(0, 9).created(5, 9).half_close().fails_with(&["the wrong watch id"; 2]);
}

#[test]
fn what_etcd_refuses() {
    const REFUSED: &str = "refused without a reason";
    const CREATED: &str = "a watch that etcd refuses was created";
    script().create(keys("d", "a")).refused().half_close().passes();
    script().create(keys("d", "a")).created(0, 9).half_close().fails(CREATED);
    script().create(keys("a", "d")).refused().half_close().fails(REFUSED);
    let user = |key, end| script().with(|rules| rules.only = Some("a/")).create(keys(key, end));
    for (key, end) in [("a/", "a0"), ("a/x", ""), ("a/x", "a/y")] {
        user(key, end).created(0, 9).half_close().passes();
        user(key, end).refused().half_close().fails(REFUSED);
    }
    for (key, end) in [("a", ""), ("a/", "\0"), ("a/", "a1"), ("b", "c")] {
        user(key, end).refused().half_close().passes();
        user(key, end).created(0, 9).half_close().fails(CREATED);
    }
    script().with(|rules| rules.may_refuse = true).create(keys("a", "d")).refused().half_close().passes();
}

#[test]
fn the_end_of_a_watch() {
    let begun = || script().all().events(&[0, 1, 2, 3]);
    assert_eq!(begun().says(Moment::Cancel(0)).events(&[4]).canceled(0).half_close().passes().canceled, 1);
    begun().says(Moment::Cancel(0)).half_close().fails("never canceled");
    begun().canceled(0).fails("canceled without a reason");
    let gone = "a response for a watch that does not exist, or not any more";
    begun().says(Moment::Cancel(0)).canceled(0).events(&[4]).half_close().fails(gone);
    begun().says(Moment::Cancel(0)).canceled(0).canceled(0).half_close().fails(gone);
    begun().says(Moment::Cancel(3)).events(&ALL[4..]).half_close().passes();
    let ended = begun().says(Moment::Ended("status 14".into()));
    ended.fails(STREAM_ENDED);
    begun().says(Moment::GiveUp).says(Moment::Ended("canceled".into())).passes();
}

#[test]
fn compactions() {
    let begun = || script().all().events(&[0, 1, 2, 3]).compacting(7);
    assert_eq!(begun().canceled(7).half_close().passes().compacted, 1);
    begun().canceled(8).half_close().fails("a compaction that never was");
    begun().canceled(5).half_close().fails("canceled by a compaction of what it does not need");
    let told = || begun().says(Moment::Progress).progress(-1, 4);
    told().canceled(5).half_close().fails("canceled by a compaction of what it does not need");
    told().canceled(6).half_close().passes();
    begun().canceled(7).canceled(7).half_close().fails("a response for a watch that does not exist, or not any more");
    begun().canceled(7).events(&[6]).half_close().fails("a response for a watch that does not exist, or not any more");
    // It meets the client's own wish.
    begun().says(Moment::Cancel(0)).canceled(7).canceled(0).half_close().passes();
    // What is new is never compacted away, unless somebody was slow or failed.
    let now = || script().create(keys("a", "d")).created(0, 7).compacting(9);
    now().canceled(9).half_close().fails("a watch of what is new was canceled by a compaction");
    now().canceled(9).half_close().with(|rules| rules.is_slow = true).passes();
    now().canceled(9).half_close().with(|rules| rules.has_faults = true).passes();
    // A start that nobody can know any more.
    let old = script().create(Create { start_revision: 3, ..keys("a", "d") }).created(0, 9).half_close();
    let past = Past { events: &old.events[5..], first: 6, last: 9 };
    let verdict = judge(&old.moments, past, old.rules);
    assert_eq!(verdict.late.iter().map(|late| late.what).collect::<Vec<_>>(), ["not told of a compaction"]);
}

#[test]
fn a_put_behind_the_request_is_seen() {
    let begun = |header| {
        let begun = script().create(keys("a", "d")).says(Moment::MustSee { create: 0, revision: 9 });
        begun.created(0, header).half_close()
    };
    begun(8).events(&[10]).passes();
    begun(9).fails("a put after the request is not seen");
    begun(9).events(&[10]).passes();
    // Another key.
    let other = script().create(keys("a", "")).says(Moment::MustSee { create: 0, revision: 9 }).created(0, 9);
    other.half_close().passes();
}

#[test]
fn what_the_truth_does_not_know_yet() {
    let script = script().all().events(&ALL).half_close();
    let past = Past { events: &script.events[..9], first: 1, last: 7 };
    let verdict = judge(&script.moments, past, Rules { end: Some(7), ..script.rules });
    assert_eq!((verdict.early, verdict.violations.len(), verdict.late.len(), verdict.events), (1, 0, 0, 9));
}

#[test]
fn a_report_shows_the_events_around_the_first_wrong_one() {
    let verdict = script().all().events(&[0, 1, 2, 3, 5]).half_close().judge();
    let text = verdict.violations[0].to_string();
    println!("{text}");
    for part in ["watch 0", "[a, d) start 1", "a@4 put", "a@6 put", "then:\n      a@5 delete"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}
