//! A steady client: a put and a get every 20 ms and one watch, which remember what they saw.

#![allow(clippy::unwrap_used, reason = "a poisoned lock means that a task has panicked")]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, EventType, GetOptions, WatchOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(2);
/// How long the watch may take to deliver what was written before the end.
const CATCH_UP: Duration = Duration::from_secs(15);

/// What one kind of call went through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// The longest time without a success.
    pub(crate) longest_gap: Duration,
    last: Option<Instant>,
}

impl Calls {
    fn success(&mut self) {
        let now = Instant::now();
        let last = self.last.replace(now).unwrap_or(now);
        self.longest_gap = self.longest_gap.max(now - last);
        self.done += 1;
    }
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

/// What a whole run went through.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) puts: Calls,
    pub(crate) gets: Calls,
    pub(crate) events: Calls,
    /// Writes that etcd acknowledged and that were not there at the end.
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, calls) in [("puts", &self.puts), ("gets", &self.gets), ("events", &self.events)] {
            let Calls { done, failed, longest_gap, .. } = calls;
            writeln!(
                f,
                "{name:<7} {done:>6} done, {failed:>3} failed, longest gap {:.2} s",
                longest_gap.as_secs_f64()
            )?;
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
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
}

/// Connects as an application would: short deadlines, and it stays on its one address.
pub(crate) async fn connect(endpoint: &str) -> Result<Client, Error> {
    let options = ConnectOptions::new().with_connect_timeout(DEADLINE).with_timeout(DEADLINE);
    Client::connect([endpoint], Some(options)).await
}

impl Load {
    /// Begins to write below `prefix` through `endpoint`.
    pub(crate) async fn start(endpoint: &str, prefix: &str) -> Result<Self, Error> {
        let client = connect(endpoint).await?;
        // A watch lives as long as it may: its client has no deadline.
        let watching = Client::connect([endpoint], None).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = watch::Sender::new(false);
        let revision = client.kv_client().get(prefix, None).await?.header().map_or(1, |header| header.revision() + 1);
        let watcher = tokio::spawn(watch_all(watching, prefix.to_owned(), revision, Arc::clone(&seen)));
        let tasks = vec![
            tokio::spawn(put_all(client.clone(), prefix.to_owned(), Arc::clone(&seen), stop.subscribe())),
            tokio::spawn(get_all(client.clone(), prefix.to_owned(), Arc::clone(&seen), stop.subscribe())),
        ];
        Ok(Self { client, prefix: prefix.to_owned(), seen, stop, tasks, watcher })
    }

    /// Acknowledged writes so far.
    pub(crate) fn writes(&self) -> u64 {
        self.seen.lock().unwrap().puts.done
    }

    /// Ends the load, reads everything back, and reports.
    pub(crate) async fn stop(self) -> Result<Report, Error> {
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
        let deadline = Instant::now() + CATCH_UP;
        let behind = || {
            let seen = self.seen.lock().unwrap();
            seen.acknowledged.difference(&seen.watched).count()
        };
        while behind() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.watcher.abort();

        let options = GetOptions::new().with_prefix().with_keys_only();
        let stored = self.client.kv_client().get(self.prefix.as_str(), Some(options)).await?;
        let stored: BTreeSet<u64> = stored.kvs().iter().filter_map(|kv| number(kv.key(), &self.prefix)).collect();
        let lost_events = behind();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        Ok(Report {
            lost_writes: seen.acknowledged.difference(&stored).count(),
            lost_events,
            stale_reads: seen.stale_reads,
            watch_resumed: seen.watch_resumed,
            puts: seen.puts,
            gets: seen.gets,
            events: seen.events,
        })
    }
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:08}")
}

fn number(key: &[u8], prefix: &str) -> Option<u64> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)?.parse().ok()
}

async fn put_all(client: Client, prefix: String, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    let mut kv = client.kv_client();
    let mut ticks = tokio::time::interval(EVERY);
    for n in 0.. {
        ticks.tick().await;
        if *stop.borrow() {
            return;
        }
        let done = tokio::time::timeout(DEADLINE, kv.put(key(&prefix, n), n.to_string(), None)).await;
        let mut seen = seen.lock().unwrap();
        if matches!(done, Ok(Ok(_))) {
            seen.puts.success();
            seen.acknowledged.insert(n);
        } else {
            seen.puts.failed += 1;
        }
    }
}

async fn get_all(client: Client, prefix: String, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    let mut kv = client.kv_client();
    let mut ticks = tokio::time::interval(EVERY);
    while !*stop.borrow() {
        ticks.tick().await;
        let last = seen.lock().unwrap().acknowledged.last().copied();
        let done = tokio::time::timeout(DEADLINE, kv.get(key(&prefix, last.unwrap_or(0)), None)).await;
        let mut seen = seen.lock().unwrap();
        if let Ok(Ok(answer)) = done {
            seen.gets.success();
            seen.stale_reads += u64::from(last.is_some() && answer.kvs().is_empty());
        } else {
            seen.gets.failed += 1;
        }
    }
}

/// Watches from `revision` on; when the stream breaks, from after the last event, as etcd's own clients do.
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
        tokio::time::sleep(EVERY).await;
    }
}
