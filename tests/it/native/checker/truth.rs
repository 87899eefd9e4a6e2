//! What really happens in the cluster, read from its members directly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use prost::bytes::Bytes;
use tokio::task::JoinHandle;

use super::messages::{Create, Event, KeyValue, PUT, Progress, WatchRequest, WatchResponse};
use super::moments::Past;
use crate::api::auth;
use crate::grpc::{Call, Server};
use crate::native::WATCH;

/// A member that says nothing for this long, although it was asked, is left for the next one.
const PATIENCE: Duration = Duration::from_secs(1);

/// How to call the members: where they are, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    pub(super) members: Vec<String>,
    /// The password of `root`.
    pub(super) root: Option<&'static str>,
}

impl Direct {
    /// A connection to one of the members, and a token for it.
    pub(super) async fn connect(&self, n: usize) -> Option<(Server, Option<String>)> {
        let connect = async {
            let server = Server::try_connect(&self.members[n % self.members.len()]).await.ok()?;
            let Some(password) = self.root else { return Some((server, None)) };
            let outcome = server.call(auth::AUTHENTICATE, &auth::request("root", password)).await;
            let token = auth::token(outcome.messages.first()?)?.to_owned();
            Some((server, Some(token)))
        };
        tokio::time::timeout(PATIENCE, connect).await.ok()?
    }
}

/// A call as the user of this token.
pub(super) fn call(path: &str, message: &[u8], token: Option<&str>) -> Call {
    let call = Call::new(path, message);
    if let Some(token) = token { call.with("token", token) } else { call }
}

/// All events since the cluster began.
pub(super) struct Truth {
    log: Arc<Mutex<Log>>,
    watch: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    /// The events before this revision are forgotten.
    first: i64,
    last: i64,
    /// What is in the cluster, to know the previous values.
    now: BTreeMap<Bytes, KeyValue>,
    problems: Vec<String>,
    resumed: usize,
    total: usize,
}

impl Truth {
    pub(super) fn watch(direct: Direct) -> Self {
        let log = Arc::new(Mutex::new(Log { first: 1, ..Log::default() }));
        let watch = tokio::spawn(follow(direct, Arc::clone(&log)));
        Self { log, watch }
    }

    /// Up to this revision, everything is known.
    pub(super) fn position(&self) -> i64 {
        self.log.lock().unwrap().last
    }

    /// How many events there were, and how often the watch changed to another member.
    pub(super) fn counts(&self) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        (log.total, log.resumed)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(Past<'_>) -> T) -> T {
        let log = self.log.lock().unwrap();
        look(Past { events: &log.events, first: log.first, last: log.last })
    }

    /// Forgets what nobody can ask for any more.
    pub(super) fn forget_before(&self, revision: i64) {
        let mut log = self.log.lock().unwrap();
        let count = log.events.partition_point(|event| event.revision() < revision);
        log.events.drain(..count);
        log.first = log.first.max(revision);
    }

    /// The acknowledged puts that the truth does not have, and whatever is wrong with the truth itself.
    pub(super) fn problems(&self, acknowledged: &[(i64, Bytes)]) -> Vec<String> {
        let mut log = self.log.lock().unwrap();
        let mut problems = std::mem::take(&mut log.problems);
        for (revision, key) in acknowledged {
            let begin = log.events.partition_point(|event| event.revision() < *revision);
            let mut events = log.events[begin..].iter().take_while(|event| event.revision() == *revision);
            if *revision >= log.first && !events.any(|event| event.key() == key) {
                problems.push(format!("the truth does not have {} at {revision}", key.escape_ascii()));
            }
        }
        problems
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Watches everything, from one member after another.
async fn follow(direct: Direct, log: Arc<Mutex<Log>>) {
    for n in 0.. {
        if let Some((server, token)) = direct.connect(n).await {
            follow_one(&server, token.as_deref(), &log).await;
        }
        log.lock().unwrap().resumed += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow_one(server: &Server, token: Option<&str>, log: &Mutex<Log>) {
    let everything = Bytes::from_static(b"\0");
    let create = Create {
        key: everything.clone(),
        range_end: everything,
        start_revision: log.lock().unwrap().last + 1,
        prev_kv: true,
        ..Create::default()
    };
    let create = WatchRequest { create: Some(create), ..WatchRequest::default() };
    let ask = WatchRequest { progress: Some(Progress {}), ..WatchRequest::default() }.encode_to_vec();
    let Ok(mut stream) = server.begin(&call(WATCH, &create.encode_to_vec(), token), false).await else { return };
    let mut body = stream.take_body();
    let mut is_asked = false;
    loop {
        match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(Some(message)) => {
                is_asked = false;
                let response = WatchResponse::decode(Bytes::from(message)).unwrap();
                if response.canceled {
                    log.lock().unwrap().problems.push(format!("the truth's watch was canceled: {response:?}"));
                    return;
                }
                log.lock().unwrap().add(response.events);
            }
            Ok(None) => return,
            Err(_) if is_asked || body.say(&ask).is_err() => return,
            Err(_) => is_asked = true,
        }
    }
}

impl Log {
    fn add(&mut self, events: Vec<Event>) {
        let known = self.last;
        for mut event in events {
            let Some(kv) = event.kv.clone() else { continue };
            if kv.mod_revision <= known {
                self.problems.push(format!("the truth's watch goes back to {}", event.short()));
                continue;
            }
            self.last = kv.mod_revision;
            let prev = if event.kind == PUT { self.now.insert(kv.key.clone(), kv) } else { self.now.remove(&kv.key) };
            // etcd leaves it out when it is compacted away.
            if event.prev_kv.is_some() && event.prev_kv != prev {
                self.problems.push(format!("expected {prev:?} before {}", event.short()));
            }
            event.prev_kv = prev;
            self.total += 1;
            self.events.push(event);
        }
    }
}
