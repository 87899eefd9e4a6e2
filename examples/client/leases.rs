//! Many leases that are kept alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::flags;

/// From `ADDR,… --leases N --clients N --ttl S`.
#[derive(Debug)]
pub(crate) struct Leases {
    addrs: Vec<String>,
    count: usize,
    clients: usize,
    ttl: usize,
}

impl Leases {
    pub(crate) fn parse(args: &[&str]) -> Result<Self, Error> {
        let (addrs, [count, clients, ttl]) = flags(args, ["--leases", "--clients", "--ttl"])?;
        Ok(Self { addrs, count, clients, ttl })
    }

    /// Grants the leases, keeps them alive, prints a line of JSON, `{"leases": N}`, and looks at them when `ends` is done.
    pub(crate) async fn run(self, ends: impl Future<Output = ()>) -> Result<Value, Error> {
        let Self { addrs, count, clients, ttl } = self;
        let (kept, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let mut all = Vec::new();
        for n in 0..clients {
            let mut client = Client::connect([&addrs[n % addrs.len()]], None).await?;
            for _ in (n..count).step_by(clients) {
                let id = client.lease_grant(i64::try_from(ttl).unwrap_or(i64::MAX), None).await?.id();
                all.push(id);
                let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
                let (kept, broken) = (Arc::clone(&kept), Arc::clone(&broken));
                let third = Duration::from_secs(ttl as u64) / 3;
                tasks.spawn(async move {
                    loop {
                        if keeper.keep_alive().await.is_err() || !matches!(answers.message().await, Ok(Some(_))) {
                            broken.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        kept.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(third).await;
                    }
                });
            }
        }
        println!("{}", json!({ "leases": all.len() }));
        ends.await;
        let mut client = Client::connect(&addrs, None).await?;
        let mut expired = 0;
        for id in all {
            expired += usize::from(client.lease_time_to_live(id, None).await?.ttl() <= 0);
        }
        tasks.shutdown().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(json!({ "expired": expired, "broken": count(&broken), "keepalives": count(&kept) }))
    }
}
