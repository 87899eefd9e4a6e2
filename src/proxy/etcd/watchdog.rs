//! Notices when etcd's proxy does not reconnect to its members.
//!
//! While a member is down, etcd waits longer and longer before it tries it again: up to two minutes (grpc-go's connection
//! backoff), and no flag of etcd's proxy changes that. A new start begins with a short wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::status::Status;
use crate::net::{Deadline, Dialer, Resolver, Step, block_on, etcd_health};
use crate::settings::{ListenAddr, Settings};

/// How often to ask a proxy that works for its health. Each answer costs the cluster a read.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often to look for a member that serves, while the cluster does not answer through the proxy.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two questions to a proxy that may be stuck. It takes 1 s to answer.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// How long a member must serve while the proxy fails before the proxy counts as stuck.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a member may take to answer.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// The number of questions at once: etcd spreads them over the members, and one of these may be hung.
const QUESTIONS: usize = 3;

/// Watches one run of etcd's proxy. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watchdog {
    state: Arc<State>,
    _stop: Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The cluster has answered through the proxy.
    has_worked: AtomicBool,
    in_trouble: AtomicBool,
    stuck: AtomicBool,
}

impl Watchdog {
    pub(super) fn start(settings: &Arc<Settings>, status: &Arc<Status>) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let (stop, stopped) = mpsc::channel();
        let (settings, status, shared) = (Arc::clone(settings), Arc::clone(status), Arc::clone(&state));
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch(&settings, &status, &shared, &stopped))?;
        Ok(Self { state, _stop: stop })
    }

    /// Whether the proxy is to be started again: a member serves, and the proxy does not notice.
    pub(super) fn is_stuck(&self) -> bool {
        self.state.stuck.load(Ordering::Relaxed)
    }

    /// Whether it may be stuck soon.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.state.in_trouble.load(Ordering::Relaxed)
    }

    /// Whether the cluster has answered through the proxy since its start.
    pub(super) fn has_worked(&self) -> bool {
        self.state.has_worked.load(Ordering::Relaxed)
    }
}

fn watch(settings: &Settings, status: &Status, state: &State, stopped: &Receiver<()>) {
    let mut asked = None;
    // Since when a member has served while the proxy failed.
    let mut since: Option<Instant> = None;
    let mut dialer = None;
    let mut pause = TROUBLE_INTERVAL;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let in_trouble = state.in_trouble.load(Ordering::Relaxed);
        let serves = in_trouble && a_member_serves(settings, &mut dialer);
        if serves {
            since.get_or_insert_with(Instant::now);
        } else {
            since = None;
            state.stuck.store(false, Ordering::Relaxed);
        }
        // Without a member, the proxy's health is only for the metrics.
        if in_trouble && !serves && asked.is_some_and(|asked: Instant| asked.elapsed() < INTERVAL) {
            pause = TROUBLE_INTERVAL;
            continue;
        }
        asked = Some(Instant::now());
        let health = ask(&settings.listen_addr, if serves { QUESTIONS } else { 1 });
        let trouble = is_trouble(&health);
        state.has_worked.fetch_or(health.is_ok(), Ordering::Relaxed);
        state.in_trouble.store(trouble, Ordering::Relaxed);
        status.set_health(health);
        if !trouble {
            (since, dialer) = (None, None);
        }
        state.stuck.store(since.is_some_and(|since| since.elapsed() >= PATIENCE), Ordering::Relaxed);
        pause = match (trouble, serves) {
            (true, true) => SHORT_PAUSE,
            (true, false) => TROUBLE_INTERVAL,
            (false, _) => INTERVAL,
        };
    }
}

/// Asks the proxy for its health, several times at once. One good answer is enough.
fn ask(addr: &ListenAddr, questions: usize) -> Result<(), String> {
    thread::scope(|scope| {
        let ask = || {
            let health = etcd_health::check(addr, etcd_health::TIMEOUT);
            if health.ready { Ok(()) } else { Err(health.reason.unwrap_or_default()) }
        };
        let others: Vec<_> =
            (1..questions).filter_map(|_| thread::Builder::new().spawn_scoped(scope, ask).ok()).collect();
        let first = ask();
        others.into_iter().filter_map(|other| other.join().ok()).find(Result::is_ok).unwrap_or(first)
    })
}

/// Whether a new start may help. An error that a member has sent (`etcdserver: no leader`) shows that the proxy is
/// connected.
fn is_trouble(health: &Result<(), String>) -> bool {
    health.as_ref().is_err_and(|why| !why.contains("etcdserver: "))
}

/// Whether any member serves. Keeps the dialer for the next time.
fn a_member_serves(settings: &Settings, dialer: &mut Option<Arc<Dialer>>) -> bool {
    if dialer.is_none() {
        *dialer = Dialer::new(settings).map(Arc::new).ok();
    }
    let Some(dialer) = dialer else { return false };
    let deadline = Deadline::after(TIMEOUT);
    let any = async {
        dialer.refresh().await;
        let resolver = Arc::new(Resolver::default());
        let mut asked = JoinSet::new();
        for endpoint in &settings.endpoints {
            let (dialer, resolver, endpoint) = (Arc::clone(dialer), Arc::clone(&resolver), endpoint.clone());
            asked.spawn(async move {
                let targets = deadline.step(Step::Resolve, resolver.targets(&endpoint)).await.flatten();
                for target in targets.map(|targets| targets.found).unwrap_or_default() {
                    if dialer.probe(&target, deadline).await.1.is_ok() {
                        return true;
                    }
                }
                false
            });
        }
        while let Some(answer) = asked.join_next().await {
            if answer.is_ok_and(|serves| serves) {
                return true;
            }
        }
        false
    };
    block_on(any).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_cluster_is_no_trouble() {
        for (health, trouble) in [
            (Ok(()), false),
            (Err("the cluster does not answer: context deadline exceeded"), true),
            (Err("the cluster does not answer: etcdserver: no leader"), false),
            (Err("it does not answer"), true),
        ] {
            assert_eq!(is_trouble(&health.map_err(ToOwned::to_owned)), trouble, "{health:?}");
        }
    }
}
