//! What is known about a supervised etcd, for the port of `--metrics-addr`.
//!
//! etcd's own metrics port would serve the metrics of a *member*, which etcd relays. Ours serves the launcher's metrics
//! and, after them, those of etcd's proxy: one port, as in mode native.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::net::local::connect;
use crate::net::sockets;
use crate::proxy::admin::Subject;
use crate::proxy::metrics::Sheet;
use crate::proxy::status::{Clients, Etcd, Facts, Report};
use crate::settings::{ListenAddr, Settings};

/// How long etcd may take to send its metrics.
const TIMEOUT: Duration = Duration::from_secs(2);

/// In bytes. etcd's metrics have about 100 kB.
const MAX_METRICS: u64 = 4 * 1024 * 1024;

/// The state of a supervised etcd.
#[derive(Debug)]
pub(in crate::proxy) struct Status {
    facts: Facts,
    /// Where etcd listens.
    addr: ListenAddr,
    /// 0 while it does not run.
    pid: AtomicU32,
    listening: AtomicBool,
    /// Whether the cluster answers through it, and why not.
    health: Mutex<Result<(), String>>,
    /// Starts after it ended by itself.
    pub(super) ended: AtomicU64,
    /// Starts because it did not reconnect to its members.
    pub(super) stuck: AtomicU64,
    /// Connections to the metrics port that made room for others.
    evicted: AtomicU64,
}

impl Status {
    pub(in crate::proxy) fn new(settings: &Settings) -> Self {
        Self {
            facts: Facts::of(settings),
            addr: settings.listen_addr.clone(),
            pid: AtomicU32::new(0),
            listening: AtomicBool::new(false),
            health: Mutex::new(Err("etcd's proxy does not listen yet".to_owned())),
            ended: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub(super) fn set_running(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
        self.listening.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_ended(&self) {
        self.set_running(0);
        self.set_health(Err("etcd's proxy does not run".to_owned()));
    }

    pub(super) fn set_health(&self, health: Result<(), String>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    fn render(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let one = |value: u64| [(vec![], value)];
        let pid = self.pid.load(Ordering::Relaxed);
        let mut sheet = Sheet::new("grpc-proxy");
        let up = pid != 0 && self.listening.load(Ordering::Relaxed);
        sheet.gauge("etcd_up", "1 while etcd's proxy runs and listens", one(up.into()));
        let healthy = up && self.health().is_ok();
        sheet.gauge(
            "etcd_healthy",
            "1 if the cluster answered the last check through etcd's proxy",
            one(healthy.into()),
        );
        let restarts = [("ended", &self.ended), ("stuck", &self.stuck)];
        let restarts = restarts.map(|(reason, counter)| (vec![("reason", reason.to_owned())], count(counter)));
        let help = "How often etcd's proxy was started again: it had ended, or did not connect to its members again";
        sheet.counter("etcd_restarts", help, restarts);
        if let Some(clients) = sockets::clients(&self.addr, pid) {
            sheet.gauge("etcd_clients", "Clients that are connected now", one(clients as u64));
        }
        let help = "Connections to this port that were closed, because too many others came after them";
        sheet.counter("metrics_refused_connections", help, one(count(&self.evicted)));
        sheet.render()
    }

    /// The metrics of etcd's proxy itself, if it answers.
    async fn metrics_of_etcd(&self) -> Option<String> {
        let fetch = async {
            let mut stream = connect(&self.addr).await.ok()?;
            // With HTTP/1.0, the end of the connection ends the body, so there are no chunks.
            stream.write_all(b"GET /proxy/metrics HTTP/1.0\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            stream.take(MAX_METRICS).read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            (head.split(' ').nth(1)? == "200").then(|| body.to_owned())
        };
        tokio::time::timeout(TIMEOUT, fetch).await.ok()?
    }
}

impl Subject for Status {
    fn health(&self) -> Result<String, String> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone().map(|()| String::new())
    }

    async fn metrics(&self) -> String {
        let of_etcd = self.metrics_of_etcd().await.unwrap_or_default();
        self.render() + &of_etcd
    }

    fn report(&self) -> Report {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pid = self.pid.load(Ordering::Relaxed);
        let clients = sockets::clients(&self.addr, pid);
        let etcd = Etcd {
            pid: (pid != 0).then_some(pid),
            listening: pid != 0 && self.listening.load(Ordering::Relaxed),
            restarts: count(&self.ended) + count(&self.stuck),
        };
        Report {
            clients: clients.map(|connected| Clients { connected, limit: None }),
            etcd: Some(etcd),
            ..self.facts.report(self.health())
        }
    }

    fn hosts(&self) -> &[String] {
        &self.facts.hosts
    }

    fn count_evicted(&self, count: u64) {
        self.evicted.fetch_add(count, Ordering::Relaxed);
    }
}
