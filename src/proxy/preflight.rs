//! Tries each endpoint before the start, since etcd's proxy itself does not say clearly why it cannot reach a cluster.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::net::{self, Deadline, DialError, Dialer};
use crate::os::log::{warn_all, without_errno};
use crate::os::signals::Events;
use crate::settings::{Endpoint, Preflight, Settings};

/// How often to look for a signal.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The result for one endpoint.
pub(super) type Tried = (Endpoint, Result<(), DialError>);

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Only if the preflight is strict.
    #[error("no endpoint can be used: {}", .0.join("; "))]
    NoneUsable(Vec<String>),
    #[error("--endpoints: {0}: {own}", own = DialError::OwnAddress)]
    OwnAddress(Endpoint),
    #[error("cannot start a thread: {0}: is the number of processes limited?")]
    Thread(#[from] io::Error),
}

/// What to do after the trials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start. The log already says that these endpoints cannot be used.
    Start(Vec<Endpoint>),
    /// This signal came.
    Interrupted(Signal),
}

/// Tries all endpoints at once, in a thread. Sends each result as soon as it is known, within 2 s; none when the
/// preflight is off.
///
/// # Errors
/// When the system allows no more threads.
pub(super) fn start(settings: &Settings, mode: Preflight) -> Result<Receiver<Tried>, Error> {
    let Settings { endpoints, tls, listen_addr, .. } = settings.clone();
    let runs_etcd = settings.run.mode().capabilities().runs_etcd;
    let (results, receiver) = mpsc::channel();
    let try_them = move || {
        let deadline = Deadline::after(TIMEOUT);
        let tried = Dialer::new(&tls, &endpoints, &listen_addr).and_then(|dialer| {
            let trials = try_all(&endpoints, Arc::new(dialer), runs_etcd, deadline, &results);
            net::block_on(trials).map_err(|err| without_errno(&err))
        });
        // Nothing could be tried.
        if let Err(why) = tried {
            for endpoint in endpoints {
                let _ = results.send((endpoint, Err(DialError::Unsupported(why.clone()))));
            }
        }
    };
    if mode != Preflight::Off {
        thread::Builder::new().spawn(try_them)?;
    }
    Ok(receiver)
}

async fn try_all(
    endpoints: &[Endpoint],
    dialer: Arc<Dialer>,
    runs_etcd: bool,
    deadline: Deadline,
    results: &Sender<Tried>,
) {
    let mut trials = JoinSet::new();
    for endpoint in endpoints.iter().cloned() {
        let (dialer, results) = (Arc::clone(&dialer), results.clone());
        trials.spawn(async move {
            let tried = dialer.connect_grpc(&endpoint, deadline).await.map(drop);
            // Where our TLS serves the application too, what it cannot do is a failure.
            let tried = tried.map_err(|err| match err {
                DialError::Unsupported(why) if !runs_etcd => DialError::Tls(why),
                other => other,
            });
            let _ = results.send((endpoint, tried));
        });
    }
    trials.join_all().await;
}

/// Waits for the first usable endpoint, or until none is left to wait for, and logs what is wrong with the others.
///
/// # Errors
/// When none is usable and the preflight is strict, or an endpoint is the proxy's own address.
pub(super) fn wait(results: &Receiver<Tried>, events: Option<&Events>, mode: Preflight) -> Result<Verdict, Error> {
    let mut tried = Vec::new();
    while mode != Preflight::Off && !tried.last().is_some_and(|(_, result): &Tried| result.is_ok()) {
        match results.recv_timeout(SIGNAL_INTERVAL) {
            Ok(result) => tried.push(result),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(signal) = events.and_then(Events::ending) {
                    return Ok(Verdict::Interrupted(signal));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Results that have already arrived cost no time.
    tried.extend(results.try_iter());
    let Judgement { failing, problems, usable } = judge(tried, mode)?;
    warn_all(&problems);
    if !usable {
        log::warn!("no endpoint can be used yet: starting anyway, and retrying");
    }
    Ok(Verdict::Start(failing))
}

#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    failing: Vec<Endpoint>,
    /// What is wrong with each of them, one line each.
    problems: Vec<String>,
    /// Whether any endpoint may work.
    usable: bool,
}

/// What the results mean for the start.
fn judge(tried: Vec<Tried>, mode: Preflight) -> Result<Judgement, Error> {
    let mut judgement = Judgement { failing: Vec::new(), problems: Vec::new(), usable: mode == Preflight::Off };
    for (endpoint, result) in tried {
        let problem = match result {
            Ok(()) => {
                judgement.usable = true;
                continue;
            }
            Err(DialError::OwnAddress) => return Err(Error::OwnAddress(endpoint)),
            Err(problem) => problem,
        };
        // An endpoint that our TLS cannot try may work with Go's.
        judgement.usable |= matches!(problem, DialError::Unsupported(_));
        judgement.problems.push(describe(&endpoint, &problem));
        judgement.failing.push(endpoint);
    }
    if !judgement.usable && mode == Preflight::Strict {
        return Err(Error::NoneUsable(judgement.problems));
    }
    Ok(judgement)
}

fn describe(endpoint: &Endpoint, problem: &DialError) -> String {
    match problem {
        DialError::Unsupported(why) => format!("{endpoint}: it cannot be tried before the start: {why}"),
        problem => format!("{endpoint}: {problem}"),
    }
}

/// Passes the failures that come after the start on to `report`, in a thread.
pub(super) fn report_rest(results: Receiver<Tried>, report: impl Fn(&Endpoint, &str) + Send + 'static) {
    let report = move || {
        for (endpoint, result) in results {
            if let Err(problem) = result {
                report(&endpoint, &describe(&endpoint, &problem));
            }
        }
    };
    let _ = thread::Builder::new().spawn(report); // without a thread, etcd's own log still shows them
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried<const N: usize>(results: [Result<(), DialError>; N]) -> Vec<Tried> {
        (1..).map(Endpoint::loopback).zip(results).collect()
    }

    #[test]
    fn one_usable_endpoint_is_enough_and_the_others_are_named() {
        let judged = judge(tried([Err(DialError::Refused), Ok(())]), Preflight::Strict).unwrap();
        assert!(judged.usable);
        assert_eq!(judged.failing, [Endpoint::loopback(1)]);
        assert_eq!(judged.problems, ["http://127.0.0.1:1: the connection is refused: nothing listens there"]);
    }

    #[test]
    fn without_a_usable_endpoint_only_strict_refuses_to_start() {
        let results = || tried([Err(DialError::Refused), Err(DialError::NotGrpc)]);
        let judged = judge(results(), Preflight::Warn).unwrap();
        assert!(!judged.usable && judged.failing.len() == 2);
        let error = judge(results(), Preflight::Strict).unwrap_err().to_string();
        assert!(error.starts_with("no endpoint can be used: http://127.0.0.1:1: the connection is refused"), "{error}");
        assert!(error.contains("; http://127.0.0.1:2: the server is not etcd"), "{error}");
    }

    #[test]
    fn an_endpoint_that_cannot_be_tried_may_work() {
        let judged = judge(tried([Err(DialError::Unsupported("P-521".to_owned()))]), Preflight::Strict).unwrap();
        assert!(judged.usable);
        assert_eq!(judged.problems, ["http://127.0.0.1:1: it cannot be tried before the start: P-521"]);
    }

    #[test]
    fn the_proxys_own_address_is_never_an_endpoint() {
        let error = judge(tried([Ok(()), Err(DialError::OwnAddress)]), Preflight::Warn).unwrap_err();
        assert!(matches!(error, Error::OwnAddress(endpoint) if endpoint == Endpoint::loopback(2)));
    }

    #[test]
    fn nothing_is_judged_when_the_preflight_is_off() {
        assert!(judge(Vec::new(), Preflight::Off).unwrap().usable);
    }
}
