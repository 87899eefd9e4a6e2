//! Many watchers, each with a connection of its own, and puts that they all wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, EventType};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::bench::percentile_ms;
use crate::flags;

/// The time between two puts.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a put may take; then it is made again.
const PUT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a watcher waits for the next event after the last put.
const PATIENCE: Duration = Duration::from_secs(20);

/// From `ADDR,… --watchers N --keys N --puts N`. Watchers, and puts, take turns with the keys.
#[derive(Debug)]
pub(crate) struct Watchers {
    addrs: Vec<String>,
    count: usize,
    keys: usize,
    puts: usize,
}

/// What a watcher has seen: the put of each event, and when it came.
#[derive(Debug, Default)]
struct Seen {
    events: Vec<(usize, Instant)>,
    is_broken: bool,
}

impl Watchers {
    pub(crate) fn parse(args: &[&str]) -> Result<Self, Error> {
        let (addrs, [count, keys, puts]) = flags(args, ["--watchers", "--keys", "--puts"])?;
        Ok(Self { addrs, count, keys, puts })
    }

    /// Opens the watchers and prints a line of JSON, `{"watching": N}`. When `begins` is done, it puts.
    pub(crate) async fn run(self, begins: impl Future<Output = ()>) -> Result<Value, Error> {
        let Self { addrs, count, keys, puts } = self;
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let mut client = Client::connect([&addrs[n % addrs.len()]], None).await?;
            let mut stream = client.watch(key(n % keys), None).await?;
            let wanted = (0..puts).filter(|put| put % keys == n % keys).count();
            let done = Arc::clone(&done);
            tasks.spawn(async move {
                let mut seen = Seen::default();
                while seen.events.len() < wanted {
                    let Ok(answer) = timeout(PATIENCE, stream.message()).await else {
                        // Puts may fail for a while.
                        if done.load(Ordering::Relaxed) < puts {
                            continue;
                        }
                        break;
                    };
                    let Ok(Some(answer)) = answer else {
                        seen.is_broken = true;
                        break;
                    };
                    let now = Instant::now();
                    let puts = answer.events().iter().filter(|event| event.event_type() == EventType::Put);
                    let puts = puts.filter_map(|event| event.kv()?.value_str().ok()?.parse().ok());
                    seen.events.extend(puts.map(|put: usize| (put, now)));
                }
                drop(client);
                (n % keys, seen)
            });
        }
        println!("{}", json!({ "watching": count }));
        begins.await;
        let acknowledged = put_all(&addrs, keys, puts, &done).await?;
        Ok(report(&acknowledged, &tasks.join_all().await, keys))
    }
}

fn key(n: usize) -> String {
    format!("/watched/{n:06}")
}

/// The first attempt of each put.
async fn put_all(addrs: &[String], keys: usize, puts: usize, done: &AtomicUsize) -> Result<Vec<Instant>, Error> {
    let options = ConnectOptions::new().with_timeout(PUT_TIMEOUT);
    let mut kv = Client::connect(addrs, Some(options)).await?.kv_client();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut began = Vec::new();
    for put in 0..puts {
        ticks.tick().await;
        began.push(Instant::now());
        while kv.put(key(put % keys), put.to_string(), None).await.is_err() {
            ticks.tick().await;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(began)
}

/// A put that was made again may have two events. The latency is that of the first one.
fn report(began: &[Instant], seen: &[(usize, Seen)], keys: usize) -> Value {
    let (mut times, mut gap, mut missing, mut disorder) = (Vec::new(), Duration::ZERO, 0, 0);
    for (key, seen) in seen {
        let mut first = BTreeMap::new();
        for (put, at) in &seen.events {
            first.entry(*put).or_insert(*at);
        }
        let wanted = (0..began.len()).filter(|put| put % keys == *key);
        missing += wanted.filter(|put| !first.contains_key(put)).count();
        disorder += seen.events.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        times.extend(first.iter().map(|(put, at)| at.saturating_duration_since(began[*put])));
        let gaps = seen.events.windows(2).map(|pair| pair[1].1 - pair[0].1);
        gap = gap.max(gaps.max().unwrap_or_default());
    }
    times.sort_unstable();
    json!({
        "events": times.len(), "lost": missing, "out_of_order": disorder,
        "broken": seen.iter().filter(|(_, seen)| seen.is_broken).count(),
        "p50_ms": percentile_ms(&times, 50), "p99_ms": percentile_ms(&times, 99), "longest_gap": gap.as_secs_f64(),
    })
}
