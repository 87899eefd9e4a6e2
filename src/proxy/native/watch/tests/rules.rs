//! One scenario for each rule, with a member that is played by hand.

use std::time::{Duration, Instant};

use prost::Message;

use super::super::action::Identity;
use super::super::{Action, ClientTag, End, Hub, Question, Upstream};
use super::proto::{
    Create, Event, Headed, Header, KeyValue, Union, WatchRequest, WatchResponse, cancel, create, key, progress,
};
use crate::api::namespace::Namespace;
use crate::api::watch::put_watch_id;

const A: ClientTag = ClientTag(1);
const B: ClientTag = ClientTag(2);

/// A hub, and what it has said.
struct Scene {
    hub: Hub,
    begin: Instant,
    actions: Vec<Action>,
}

impl Scene {
    fn new() -> Self {
        Self::with(None, false)
    }

    fn with(namespace: Option<&str>, logs_in: bool) -> Self {
        let begin = Instant::now();
        let mut hub = Hub::new(namespace.map(Namespace::new), logs_in, begin);
        hub.open(A, Identity::Sidecar);
        hub.open(B, Identity::Sidecar);
        Self { hub, begin, actions: Vec::new() }
    }

    fn look(&mut self) {
        self.actions.extend(std::iter::from_fn(|| self.hub.next()));
    }

    fn asks(&mut self, client: ClientTag, request: Create) {
        self.hub.request(client, &create(request)).unwrap();
    }

    fn after(&mut self, time: Duration) {
        self.hub.tick(self.begin + time);
    }

    /// What was sent to this client since the last look.
    fn heard(&mut self, client: ClientTag) -> Vec<WatchResponse> {
        self.look();
        let mut heard = Vec::new();
        self.actions.retain(|action| match action {
            Action::Send { client: to, watch_id, body } if *to == client => {
                let mut message = body.to_vec();
                put_watch_id(*watch_id, &mut message);
                heard.push(WatchResponse::decode(&*message).unwrap());
                false
            }
            _ => true,
        });
        heard
    }

    /// What was sent to members since the last look.
    fn forwarded(&mut self) -> Vec<(Upstream, Union)> {
        self.look();
        let mut all = Vec::new();
        self.actions.retain(|action| match action {
            Action::Forward { upstream, message } => {
                all.push((*upstream, WatchRequest::decode(&**message).unwrap().union.unwrap()));
                false
            }
            _ => true,
        });
        all
    }

    /// The watchers that members were asked for since the last look.
    fn created(&mut self) -> Vec<Create> {
        let create = |(_, union)| match union {
            Union::Create(create) => Some(create),
            _ => None,
        };
        self.forwarded().into_iter().filter_map(create).collect()
    }

    fn canceled(&mut self) -> Vec<i64> {
        let cancel = |(_, union)| match union {
            Union::Cancel(cancel) => Some(cancel.id),
            _ => None,
        };
        self.forwarded().into_iter().filter_map(cancel).collect()
    }

    fn question(&mut self) -> Option<Question> {
        self.look();
        let is_question = |action: &Action| matches!(action, Action::AskNow { .. });
        let index = self.actions.iter().position(is_question)?;
        match self.actions.remove(index) {
            Action::AskNow { question, .. } => Some(question),
            _ => None,
        }
    }

    /// The stream that is open.
    fn stream(&self) -> Upstream {
        *self.hub.streams.keys().max().unwrap()
    }

    fn member_says(&mut self, message: &WatchResponse) {
        self.hub.answer(self.stream(), &message.encode_to_vec());
    }

    fn now_is(&mut self, question: Question, revision: i64) {
        let message = Headed { header: header(revision) };
        self.hub.now_is(question, Some(&message.encode_to_vec()));
    }

    /// A watcher of A that is created at revision 10 with the member's id 1.
    fn one_watcher() -> Self {
        let mut scene = Self::new();
        scene.asks(A, key("k", 0));
        scene.member_says(&created(1, 10));
        assert_eq!(scene.heard(A), [created(0, 10)]);
        scene.actions.clear();
        scene
    }

    /// A and B share it.
    fn two_watchers() -> Self {
        let mut scene = Self::one_watcher();
        scene.asks(B, key("k", 0));
        let question = scene.question().unwrap();
        scene.now_is(question, 10);
        assert_eq!(scene.heard(B), [created(0, 10)]);
        scene.actions.clear();
        scene
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the field is")]
fn header(revision: i64) -> Option<Header> {
    Some(Header { cluster: 7, member: 8, revision, term: 9 })
}

fn answer(id: i64, revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), id, ..WatchResponse::default() }
}

fn created(id: i64, revision: i64) -> WatchResponse {
    WatchResponse { created: true, ..answer(id, revision) }
}

fn refused(reason: &str) -> WatchResponse {
    WatchResponse { canceled: true, reason: reason.to_owned(), ..created(-1, 10) }
}

fn event(revision: i64) -> Event {
    let kv = KeyValue { key: b"k".to_vec(), mod_revision: revision, version: 1, ..KeyValue::default() };
    Event { kv: Some(kv), ..Event::default() }
}

/// An answer whose header is that of the last event.
fn events(id: i64, revisions: &[i64]) -> WatchResponse {
    let events = revisions.iter().map(|revision| event(*revision)).collect();
    WatchResponse { events, ..answer(id, *revisions.last().unwrap()) }
}

fn is_progress((_, union): &(Upstream, Union)) -> bool {
    matches!(union, Union::Progress(_))
}

#[test]
fn a_thousand_watchers_of_a_key_need_one_body() {
    let mut scene = Scene::one_watcher();
    for tag in 10..1010 {
        scene.hub.open(ClientTag(tag), Identity::Sidecar);
        scene.asks(ClientTag(tag), key("k", 0));
    }
    // One question for the first, and one for all who came before it was answered.
    for _ in 0..2 {
        let question = scene.question().unwrap();
        scene.now_is(question, 10);
    }
    assert_eq!(scene.question(), None);
    assert_eq!((scene.hub.counts().client_watchers, scene.hub.counts().upstream_watchers), (1001, 1));
    scene.look();
    scene.actions.clear();
    scene.member_says(&events(1, &[11]));
    scene.look();
    let bodies: std::collections::BTreeSet<_> = scene
        .actions
        .iter()
        .map(|action| match action {
            Action::Send { body, .. } => body.as_ptr(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((scene.actions.len(), bodies.len(), scene.hub.counts().events), (1001, 1, 1001));
}

#[test]
fn a_thousand_keys_need_one_stream() {
    let mut scene = Scene::new();
    for n in 0..1000 {
        scene.asks(A, key(&format!("k{n}"), 0));
    }
    assert_eq!(scene.created().len(), 1000);
    let opened = scene.actions.iter().filter(|action| matches!(action, Action::Open { .. })).count();
    assert_eq!(opened, 1);
}

#[test]
fn identities_share_nothing() {
    let mut scene = Scene::one_watcher();
    let other = ClientTag(3);
    scene.hub.open(other, Identity::Own(b"token".as_slice().into()));
    scene.asks(other, key("k", 0));
    scene.look();
    assert!(matches!(scene.actions[0], Action::Open { identity: Identity::Own(_), .. }), "{:?}", scene.actions);
    assert_eq!(scene.hub.counts().upstream_watchers, 2);
    assert!(!format!("{:?}", scene.actions).contains("token"));
    scene.hub.close(other);
    scene.look();
    assert!(matches!(scene.actions.last(), Some(Action::Close { .. })));
}

#[test]
fn who_joins_gets_only_what_comes_after_the_revision_that_it_hears() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("k", 0));
    let question = scene.question().unwrap();
    assert!(scene.hub.waits(B) && scene.heard(B).is_empty());
    scene.member_says(&events(1, &[11, 12]));
    // A put after this revision was handed out already, before B could hear that its watch is created.
    scene.now_is(question, 11);
    assert_eq!(scene.heard(B), [created(0, 12)]);
    assert!(!scene.hub.waits(B));
    assert_eq!(scene.actions.iter().filter(|action| matches!(action, Action::Settled { client: B })).count(), 1);
    scene.member_says(&events(1, &[13]));
    assert_eq!(scene.heard(A), [events(0, &[11, 12]), events(0, &[13])]);
    assert_eq!(scene.heard(B), [events(0, &[13])]);
}

#[test]
fn who_joins_ahead_of_the_source_gets_only_its_part_of_an_answer() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("k", 0));
    let question = scene.question().unwrap();
    scene.now_is(question, 12);
    assert_eq!(scene.heard(B), [created(0, 12)]);
    scene.member_says(&events(1, &[11, 12, 13]));
    assert_eq!(scene.heard(A), [events(0, &[11, 12, 13])]);
    assert_eq!(scene.heard(B), [events(0, &[13])]);
}

#[test]
fn without_an_answer_about_now_etcd_decides() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("k", 0));
    let question = scene.question().unwrap();
    scene.hub.now_is(question, None);
    assert_eq!(scene.created().len(), 1);
    scene.member_says(&refused("no"));
    assert_eq!(scene.heard(B), [refused("no")]);
    assert_eq!(scene.hub.counts().upstream_watchers, 1);
}

#[test]
fn an_old_start_gets_a_source_of_its_own_until_it_has_caught_up() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("k", 5));
    assert_eq!(scene.created()[0].start, 5);
    scene.member_says(&created(2, 10));
    scene.member_says(&events(2, &[6, 9]));
    assert_eq!(scene.hub.counts().upstream_watchers, 2);
    // The next event comes to one first.
    scene.member_says(&events(1, &[11]));
    scene.member_says(&events(2, &[11]));
    assert_eq!(scene.canceled(), [2]);
    // A late message of the one that is not needed.
    scene.member_says(&events(2, &[12]));
    scene.member_says(&events(1, &[12]));
    assert_eq!(scene.heard(B), [created(0, 10), events(0, &[6, 9]), events(0, &[11]), events(0, &[12])]);
    assert_eq!(scene.heard(A), [events(0, &[11]), events(0, &[12])]);
}

#[test]
fn a_revision_in_pieces_is_handed_out_whole() {
    let mut scene = Scene::two_watchers();
    scene.member_says(&WatchResponse { fragment: true, ..events(1, &[11, 12]) });
    assert_eq!(scene.heard(A), [WatchResponse { header: header(12), ..events(0, &[11]) }]);
    scene.member_says(&WatchResponse { fragment: true, ..events(1, &[12, 12]) });
    assert_eq!(scene.heard(A), []);
    scene.member_says(&events(1, &[12, 13]));
    assert_eq!(scene.heard(A), [events(0, &[12, 12, 12, 12, 13])]);
}

#[test]
fn watches_go_on_where_they_are_when_a_member_dies() {
    let mut scene = Scene::two_watchers();
    // The header is far ahead of the events of a catch-up.
    scene.member_says(&WatchResponse { header: header(90), fragment: true, ..events(1, &[11, 12]) });
    scene.heard(A);
    scene.heard(B);
    let stream = scene.stream();
    scene.hub.ended(stream, End::Lost);
    let created_again = scene.created();
    assert_eq!((created_again.len(), created_again[0].start, created_again[0].id), (1, 12, 2));
    scene.hub.answer(stream, &events(1, &[12]).encode_to_vec());
    scene.member_says(&created(2, 50));
    scene.member_says(&events(2, &[12, 12]));
    assert_eq!(scene.heard(A), [events(0, &[12, 12])]);
    assert_eq!(scene.heard(B), [events(0, &[12, 12])]);
    assert_eq!(scene.hub.counts().resumes, 1);
}

#[test]
fn a_request_that_no_member_has_answered_is_sent_again() {
    let mut scene = Scene::new();
    scene.asks(A, key("k", 0));
    scene.asks(A, key("k", 7));
    scene.created();
    scene.hub.ended(scene.stream(), End::Lost);
    // The second one waits for the answer about "now".
    assert_eq!(scene.created().iter().map(|create| create.start).collect::<Vec<_>>(), [0]);
    let question = scene.question().unwrap();
    scene.now_is(question, 10);
    assert!(scene.hub.waits(A) && scene.heard(A).is_empty());
    scene.member_says(&created(2, 10));
    assert_eq!(scene.heard(A), [created(0, 10)]);
    assert_eq!(scene.created()[0].start, 7);
    scene.member_says(&created(3, 10));
    assert_eq!(scene.heard(A), [created(1, 10)]);
}

#[test]
fn compaction_is_told_as_etcd_tells_it() {
    let mut scene = Scene::two_watchers();
    scene.hub.ended(scene.stream(), End::Lost);
    scene.created();
    scene.member_says(&created(2, 40));
    let compacted = WatchResponse { canceled: true, compact_revision: 30, ..answer(2, 0) };
    scene.member_says(&compacted);
    assert_eq!(scene.heard(A), [WatchResponse { id: 0, ..compacted.clone() }]);
    assert_eq!(scene.heard(B), [WatchResponse { id: 0, ..compacted }]);
    // etcd would not answer requests for progress as long as it has that watcher.
    assert_eq!(scene.canceled(), [2]);
    // The id is in use until the client cancels too.
    scene.asks(A, key("k", 0));
    scene.member_says(&created(3, 40));
    assert_eq!(scene.heard(A), [created(1, 40)]);
    scene.hub.request(A, &cancel(0)).unwrap();
    assert_eq!(scene.heard(A), [WatchResponse { canceled: true, ..answer(0, 40) }]);
}

#[test]
fn compaction_does_not_end_a_watcher_that_needs_nothing_old() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("k", 50));
    let question = scene.question().unwrap();
    scene.now_is(question, 10);
    assert_eq!(scene.heard(B), [created(0, 10)]);
    scene.member_says(&WatchResponse { canceled: true, compact_revision: 30, ..answer(1, 0) });
    assert_eq!(scene.heard(A).len(), 1);
    assert_eq!(scene.created()[0].start, 50);
    assert_eq!(scene.heard(B), []);
}

#[test]
fn a_status_that_is_no_loss_ends_the_clients() {
    let mut scene = Scene::two_watchers();
    scene.hub.ended(scene.stream(), End::Status(12, "unknown service".to_owned()));
    scene.look();
    let end = |client| Action::End { client, status: 12, message: "unknown service".to_owned() };
    assert!(scene.actions.contains(&end(A)) && scene.actions.contains(&end(B)));
    assert_eq!(scene.hub.counts().client_watchers, 0);
}

#[test]
fn ids_are_those_of_etcd() {
    let mut scene = Scene::new();
    for (id, range_end) in [(1, ""), (0, ""), (0, ""), (1, ""), (7, "a"), (7, ""), (0, "")] {
        scene.asks(A, Create { id, range_end: range_end.into(), start: 5, ..key("k", 0) });
    }
    while let Some(question) = scene.question() {
        scene.now_is(question, 10);
    }
    let mut asked = scene.created();
    while !asked.is_empty() {
        for create in asked {
            let is_empty = !create.range_end.is_empty();
            let answer = if is_empty { refused("mvcc: watcher range is empty") } else { created(create.id, 10) };
            scene.member_says(&answer);
        }
        asked = scene.created();
        while let Some(question) = scene.question() {
            scene.now_is(question, 10);
        }
    }
    let heard = scene.heard(A);
    let heard: Vec<_> = heard.iter().map(|answer| (answer.id, &*answer.reason)).collect();
    let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
    let empty = "mvcc: watcher range is empty";
    assert_eq!(heard, [(1, ""), (0, ""), (2, ""), (-1, duplicate), (-1, empty), (7, ""), (3, "")]);
}

#[test]
fn a_cancel_is_answered_once() {
    let mut scene = Scene::two_watchers();
    for id in [0, 0, 9] {
        scene.hub.request(A, &cancel(id)).unwrap();
    }
    assert_eq!(scene.heard(A), [WatchResponse { canceled: true, ..answer(0, 10) }]);
    assert_eq!(scene.canceled(), Vec::<i64>::new());
    scene.member_says(&events(1, &[11]));
    assert_eq!((scene.heard(A).len(), scene.heard(B).len()), (0, 1));
    scene.hub.close(B);
    assert_eq!(scene.canceled(), [1]);
}

#[test]
fn a_cancel_waits_for_its_request() {
    let mut scene = Scene::new();
    scene.asks(A, Create { id: 5, ..key("k", 0) });
    scene.hub.request(A, &cancel(5)).unwrap();
    assert_eq!(scene.heard(A), []);
    scene.member_says(&created(1, 10));
    assert_eq!(scene.heard(A), [created(5, 10), WatchResponse { canceled: true, ..answer(5, 10) }]);
    assert_eq!(scene.canceled(), [1]);
}

#[test]
fn progress_is_answered_when_the_answer_is_about_all_watchers() {
    let mut scene = Scene::one_watcher();
    scene.hub.request(A, &progress()).unwrap();
    assert!(scene.forwarded().iter().all(is_progress));
    // Asked for before the answer comes, so the answer may not know of it.
    scene.asks(A, key("other", 3));
    scene.member_says(&created(2, 20));
    scene.member_says(&answer(-1, 20));
    assert_eq!(scene.heard(A), [created(1, 20)]);
    scene.after(Duration::from_secs(1));
    assert!(scene.forwarded().iter().any(is_progress));
    scene.member_says(&answer(-1, 20));
    assert_eq!(scene.heard(A), [answer(-1, 20)]);
    scene.member_says(&answer(-1, 21));
    assert_eq!(scene.heard(A), []);
}

#[test]
fn a_client_without_watchers_hears_no_progress() {
    let mut scene = Scene::one_watcher();
    scene.hub.request(B, &progress()).unwrap();
    scene.member_says(&answer(-1, 20));
    assert_eq!(scene.heard(B), []);
}

#[test]
fn an_idle_watch_survives_a_compaction() {
    let mut scene = Scene::one_watcher();
    scene.after(Duration::from_secs(10));
    assert!(scene.forwarded().iter().any(is_progress));
    scene.member_says(&answer(-1, 500));
    scene.hub.ended(scene.stream(), End::Lost);
    assert_eq!(scene.created()[0].start, 501);
}

/// etcd before 3.5.8 answers before it has sent the events.
#[test]
fn progress_of_an_old_etcd_is_not_trusted() {
    let mut scene = Scene::new();
    scene.asks(A, key("k", 0));
    assert!(is_progress(&scene.forwarded()[0]));
    scene.member_says(&answer(-1, 10));
    scene.member_says(&created(1, 10));
    scene.member_says(&answer(-1, 500));
    scene.hub.ended(scene.stream(), End::Lost);
    assert_eq!(scene.created()[0].start, 11);
}

#[test]
fn a_watch_in_the_future_does_not_keep_others_from_progress() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, key("other", 100));
    scene.member_says(&created(2, 10));
    assert_eq!(scene.heard(B), [created(0, 10)]);
    scene.forwarded();
    scene.hub.request(A, &progress()).unwrap();
    assert_eq!(scene.created()[0].start, 0);
    scene.member_says(&created(3, 10));
    assert_eq!(scene.canceled(), [2]);
    scene.after(Duration::from_secs(1));
    assert!(scene.forwarded().iter().any(is_progress));
    scene.member_says(&answer(-1, 10));
    assert_eq!(scene.heard(A), [answer(-1, 10)]);
    scene.member_says(&events(3, &[99]));
    scene.member_says(&events(3, &[100]));
    assert_eq!(scene.heard(B), [events(0, &[100])]);
}

#[test]
fn progress_of_one_watcher_reaches_those_who_asked_for_it() {
    let mut scene = Scene::new();
    scene.asks(A, Create { notifies: true, ..key("k", 0) });
    scene.member_says(&created(1, 10));
    scene.asks(B, Create { notifies: true, ..key("k", 0) });
    let question = scene.question().unwrap();
    scene.now_is(question, 30);
    scene.heard(A);
    scene.heard(B);
    scene.member_says(&answer(1, 20));
    assert_eq!((scene.heard(A), scene.heard(B)), (vec![answer(0, 20)], vec![]));
    scene.member_says(&answer(1, 30));
    assert_eq!((scene.heard(A), scene.heard(B)), (vec![answer(0, 30)], vec![answer(0, 30)]));
}

#[test]
fn a_slow_client_leaves_and_comes_back() {
    let mut scene = Scene::two_watchers();
    scene.hub.room(B, 2 << 20);
    scene.member_says(&events(1, &[11]));
    assert_eq!((scene.heard(A).len(), scene.heard(B).len()), (1, 1));
    scene.member_says(&events(1, &[12]));
    assert_eq!((scene.heard(A).len(), scene.heard(B).len()), (1, 0));
    scene.hub.room(B, 300 << 10);
    assert_eq!(scene.created(), []);
    scene.hub.room(B, 1000);
    assert_eq!(scene.created()[0].start, 12);
    scene.member_says(&created(2, 12));
    scene.member_says(&events(2, &[12]));
    assert_eq!(scene.heard(B), [events(0, &[12])]);
    assert_eq!(scene.canceled(), [2]);
    scene.member_says(&events(1, &[13]));
    assert_eq!(scene.heard(B), [events(0, &[13])]);
}

#[test]
fn large_answers_come_in_pieces_to_those_who_want_pieces() {
    let mut scene = Scene::one_watcher();
    scene.asks(B, Create { fragment: true, ..key("k", 0) });
    let question = scene.question().unwrap();
    scene.now_is(question, 10);
    scene.heard(B);
    let mut large = events(1, &[11, 11, 11]);
    for event in &mut large.events {
        event.kv.as_mut().unwrap().value = vec![1; 1_000_000];
    }
    scene.member_says(&large);
    assert_eq!(scene.heard(A).len(), 1);
    let pieces: Vec<_> = scene.heard(B).iter().map(|piece| (piece.fragment, piece.events.len())).collect();
    assert_eq!(pieces, [(true, 1), (true, 1), (false, 1)]);
}

#[test]
fn a_new_token_lets_everything_go_on() {
    let mut scene = Scene::with(None, true);
    scene.asks(A, key("k", 0));
    scene.created();
    let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    scene.member_says(&refused(reason));
    assert_eq!(scene.heard(A), []);
    assert!(scene.actions.contains(&Action::Renew { identity: Identity::Sidecar }));
    scene.asks(B, key("other", 0));
    assert_eq!(scene.created(), []);
    scene.hub.renew(&Identity::Sidecar);
    assert_eq!(scene.created().len(), 2);
    // Not for ever.
    for _ in 0..9 {
        scene.member_says(&refused(reason));
        scene.member_says(&refused(reason));
        scene.hub.renew(&Identity::Sidecar);
        scene.created();
    }
    scene.member_says(&refused(reason));
    scene.member_says(&refused(reason));
    assert_eq!((scene.heard(A), scene.heard(B)), (vec![refused(reason)], vec![refused(reason)]));
}

#[test]
fn a_namespace_is_put_on_and_taken_off() {
    let mut scene = Scene::with(Some("app/"), false);
    scene.asks(A, Create { range_end: vec![0], ..key("k", 0) });
    let asked = scene.created().remove(0);
    assert_eq!((&*asked.key, &*asked.range_end), (&b"app/k"[..], &b"app0"[..]));
    scene.member_says(&created(1, 10));
    let mut message = events(1, &[11]);
    message.events[0].kv.as_mut().unwrap().key = b"app/k".to_vec();
    scene.member_says(&message);
    assert_eq!(scene.heard(A)[1], events(0, &[11]));
    // A member that answers with other keys is not listened to.
    scene.member_says(&events(1, &[12]));
    scene.look();
    assert!(matches!(scene.actions.last(), Some(Action::End { status: 13, .. })));
}

#[test]
fn the_engine_hears_when_to_look() {
    let mut scene = Scene::one_watcher();
    assert_eq!(scene.hub.wake(), Some(scene.begin + Duration::from_secs(2)));
    scene.hub.close(A);
    assert_eq!(scene.hub.wake(), None);
}

#[test]
fn what_is_no_request_is_refused() {
    let mut scene = Scene::new();
    assert_eq!(scene.hub.request(A, b"\xff").unwrap_err().0, 13);
    assert_eq!(scene.hub.request(A, b""), Ok(()));
    assert_eq!(scene.hub.request(ClientTag(99), b"\xff"), Ok(()));
}

/// A field that a later etcd understands must reach it.
#[test]
fn unknown_fields_are_passed_on_and_keep_watchers_apart() {
    let mut scene = Scene::one_watcher();
    let unknown = b"\x0a\x06\x0a\x01k\xc8\x01\x01\xd0\x01\x01";
    scene.hub.request(B, unknown).unwrap();
    scene.look();
    let is_it = |action: &Action| match action {
        Action::Forward { message, .. } => {
            let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
            has(b"\xc8\x01\x01") && message.ends_with(b"\xd0\x01\x01")
        }
        _ => false,
    };
    assert!(scene.actions.iter().any(is_it), "{:?}", scene.actions);
}
