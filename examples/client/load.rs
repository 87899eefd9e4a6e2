//! A steady load: a put and a get every 20 ms, and a watch. It records what it sees, and when.

#![allow(clippy::unwrap_used, reason = "a poisoned lock means that a task has panicked")]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use etcd_client::{Client, ConnectOptions, Error, EventType, GetOptions, GetResponse, WatchOptions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

const INTERVAL: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the watch may take, at the end, to deliver all writes, and the cluster to return all keys.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(15);

/// The results of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    successes: Vec<Instant>,
    failed: u64,
}

impl Calls {
    fn success(&mut self) {
        self.successes.push(Instant::now());
    }

    pub(crate) fn done(&self) -> usize {
        self.successes.len()
    }

    /// The longest time without a success. The time before the first and after the last one counts, too.
    fn longest_gap(&self, Span { started, ended, .. }: &Span) -> Duration {
        let from = std::iter::once(started).chain(&self.successes);
        let to = self.successes.iter().chain([ended]);
        from.zip(to).map(|(from, to)| to.saturating_duration_since(*from)).max().unwrap_or_default()
    }

    fn json(&self, span: &Span) -> Value {
        let since_start = |at: &Instant| (*at - span.started).as_secs_f64();
        json!({
            "done": self.done(),
            "failed": self.failed,
            "longest_gap": self.longest_gap(span).as_secs_f64(),
            "successes": self.successes.iter().map(since_start).collect::<Vec<_>>(),
        })
    }
}

/// When the load started and ended.
#[derive(Debug)]
struct Span {
    started: Instant,
    started_at: SystemTime,
    ended: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    puts: Calls,
    gets: Calls,
    events: Calls,
    acknowledged: BTreeSet<u64>,
    watched: BTreeSet<u64>,
    watch_resumed: u64,
    stale_reads: u64,
}

/// The results of a whole run.
#[derive(Debug)]
pub(crate) struct Report {
    span: Span,
    pub(crate) puts: Calls,
    pub(crate) gets: Calls,
    pub(crate) events: Calls,
    /// Writes that etcd acknowledged but did not return at the end.
    pub(crate) lost_writes: usize,
    /// Acknowledged writes that the watch did not deliver.
    pub(crate) lost_events: usize,
    /// Acknowledged writes that a later linearizable get did not find.
    pub(crate) stale_reads: u64,
    /// How often the watch had to be opened again.
    pub(crate) watch_resumed: u64,
}

impl Report {
    pub(crate) fn nothing_lost(&self) -> bool {
        self.lost_writes == 0 && self.lost_events == 0 && self.stale_reads == 0
    }

    /// The same as the text, and the time of each success, for programs. Times are in seconds: `started` since 1970,
    /// the others since `started`.
    pub(crate) fn json(&self) -> Value {
        let Span { started, started_at, ended } = &self.span;
        json!({
            "started": started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            "ended": (*ended - *started).as_secs_f64(),
            "puts": self.puts.json(&self.span),
            "gets": self.gets.json(&self.span),
            "events": self.events.json(&self.span),
            "lost_writes": self.lost_writes,
            "lost_events": self.lost_events,
            "stale_reads": self.stale_reads,
            "watch_resumed": self.watch_resumed,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, calls) in [("puts", &self.puts), ("gets", &self.gets), ("events", &self.events)] {
            let (done, failed) = (calls.done(), calls.failed);
            let gap = calls.longest_gap(&self.span).as_secs_f64();
            writeln!(f, "{name:<7} {done:>6} done, {failed:>3} failed, longest gap {gap:.2} s")?;
        }
        write!(
            f,
            "lost: {} acknowledged writes, {} watch events; {} stale reads; the watch was resumed {} times",
            self.lost_writes, self.lost_events, self.stale_reads, self.watch_resumed
        )
    }
}

/// A running load.
pub(crate) struct Load {
    client: Client,
    prefix: String,
    started: (Instant, SystemTime),
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
}

/// Connects as an application would: with short timeouts, and to the given addresses only (`ADDR,ADDR,…`).
pub(crate) async fn connect(endpoints: &str) -> Result<Client, Error> {
    let options = ConnectOptions::new().with_connect_timeout(TIMEOUT).with_timeout(TIMEOUT);
    Client::connect(split(endpoints), Some(options)).await
}

fn split(endpoints: &str) -> Vec<&str> {
    endpoints.split(',').collect()
}

impl Load {
    /// Starts to write below `prefix`, through `endpoints`.
    pub(crate) async fn start(endpoints: &str, prefix: &str) -> Result<Self, Error> {
        let client = connect(endpoints).await?;
        // A watch may live forever, so its client has no timeout.
        let watching = Client::connect(split(endpoints), None).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = watch::Sender::new(false);
        let revision = client.kv_client().get(prefix, None).await?.header().map_or(1, |header| header.revision() + 1);
        let started = (Instant::now(), SystemTime::now());
        let watcher = tokio::spawn(watch_all(watching, prefix.to_owned(), revision, Arc::clone(&seen)));
        let tasks = vec![
            tokio::spawn(put_all(client.clone(), prefix.to_owned(), Arc::clone(&seen), stop.subscribe())),
            tokio::spawn(get_all(client.clone(), prefix.to_owned(), Arc::clone(&seen), stop.subscribe())),
        ];
        Ok(Self { client, prefix: prefix.to_owned(), started, seen, stop, tasks, watcher })
    }

    /// Acknowledged writes so far.
    pub(crate) fn writes(&self) -> usize {
        self.seen.lock().unwrap().puts.done()
    }

    /// The number of successful calls so far, for programs.
    pub(crate) fn done_json(&self) -> Value {
        let seen = self.seen.lock().unwrap();
        json!({ "puts": seen.puts.done(), "gets": seen.gets.done(), "events": seen.events.done() })
    }

    /// Ends the load, reads everything back, and reports.
    pub(crate) async fn stop(mut self) -> Result<Report, Error> {
        self.stop.send_replace(true);
        for task in &mut self.tasks {
            let _ = task.await;
        }
        let (started, started_at) = self.started;
        let span = Span { started, started_at, ended: Instant::now() };
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let behind = || {
            let seen = self.seen.lock().unwrap();
            seen.acknowledged.difference(&seen.watched).count()
        };
        while behind() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.watcher.abort();

        let stored = self.read_back().await?;
        let stored: BTreeSet<u64> = stored.kvs().iter().filter_map(|kv| number(kv.key(), &self.prefix)).collect();
        let lost_events = behind();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        Ok(Report {
            span,
            lost_writes: seen.acknowledged.difference(&stored).count(),
            lost_events,
            stale_reads: seen.stale_reads,
            watch_resumed: seen.watch_resumed,
            puts: seen.puts,
            gets: seen.gets,
            events: seen.events,
        })
    }

    /// All keys. Asks again after an error, because some of several addresses may be dead.
    async fn read_back(&self) -> Result<GetResponse, Error> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let options = GetOptions::new().with_prefix().with_keys_only();
            let read = self.client.kv_client().get(self.prefix.as_str(), Some(options)).await;
            if read.is_ok() || Instant::now() > deadline {
                return read;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:08}")
}

fn number(key: &[u8], prefix: &str) -> Option<u64> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)?.parse().ok()
}

/// The times of the calls. Those that a slow call misses are skipped, so that no burst of calls follows it.
fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn put_all(client: Client, prefix: String, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    let mut kv = client.kv_client();
    let mut ticks = ticks();
    for n in 0.. {
        ticks.tick().await;
        if *stop.borrow() {
            return;
        }
        let result = tokio::time::timeout(TIMEOUT, kv.put(key(&prefix, n), n.to_string(), None)).await;
        let mut seen = seen.lock().unwrap();
        if matches!(result, Ok(Ok(_))) {
            seen.puts.success();
            seen.acknowledged.insert(n);
        } else {
            seen.puts.failed += 1;
        }
    }
}

async fn get_all(client: Client, prefix: String, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    let mut kv = client.kv_client();
    let mut ticks = ticks();
    while !*stop.borrow() {
        ticks.tick().await;
        let last = seen.lock().unwrap().acknowledged.last().copied();
        let result = tokio::time::timeout(TIMEOUT, kv.get(key(&prefix, last.unwrap_or(0)), None)).await;
        let mut seen = seen.lock().unwrap();
        if let Ok(Ok(answer)) = result {
            seen.gets.success();
            seen.stale_reads += u64::from(last.is_some() && answer.kvs().is_empty());
        } else {
            seen.gets.failed += 1;
        }
    }
}

/// Watches from `revision` on. When the stream breaks, it continues after the last event, as etcd's own clients do.
async fn watch_all(client: Client, prefix: String, mut revision: i64, seen: Arc<Mutex<Seen>>) {
    loop {
        let options = WatchOptions::new().with_prefix().with_start_revision(revision);
        if let Ok(mut stream) = client.watch_client().watch(prefix.as_str(), Some(options)).await {
            while let Ok(Some(answer)) = stream.message().await {
                if answer.canceled() {
                    break;
                }
                for event in answer.events().iter().filter(|event| event.event_type() == EventType::Put) {
                    let Some(kv) = event.kv() else { continue };
                    revision = revision.max(kv.mod_revision() + 1);
                    let mut seen = seen.lock().unwrap();
                    seen.events.success();
                    seen.watched.extend(number(kv.key(), &prefix));
                }
            }
        }
        seen.lock().unwrap().watch_resumed += 1;
        tokio::time::sleep(INTERVAL).await;
    }
}
