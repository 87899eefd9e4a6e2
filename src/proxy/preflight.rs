//! Tries each endpoint before the start, since etcd's proxy itself does not say clearly why it cannot reach a cluster.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::certificates::Waited;
use crate::net::{self, Deadline, DialError, Dialer, Resolver, Step, Target};
use crate::os::log::{warn_all, without_errno};
use crate::os::signals::{Events, pause};
use crate::settings::{Endpoint, Preflight, Settings};

/// How often to look for a signal.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// The pause after a look-up that failed.
const RETRY: Duration = Duration::from_secs(2);

/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The result for one address of an endpoint, or for a name that does not resolve.
pub(super) type Tried = (Subject, Result<(), DialError>);

/// What a result is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Target(Target),
    Endpoint(Endpoint),
    /// The domain of SRV records.
    Domain(String),
}

impl Subject {
    fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Target(target) => Some(&target.endpoint),
            Self::Endpoint(endpoint) => Some(endpoint),
            Self::Domain(_) => None,
        }
    }

    fn target(&self) -> Option<&Target> {
        if let Self::Target(target) = self { Some(target) } else { None }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => target.fmt(f),
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Only if the preflight is strict.
    #[error("no endpoint can be used: {}", .0.join("; "))]
    NoneUsable(Vec<String>),
    /// `setting` names the endpoint.
    #[error("{setting}: {endpoint}: {own}", own = DialError::OwnAddress)]
    OwnAddress { setting: String, endpoint: Endpoint },
    #[error("cannot start a thread: {0}: is the number of processes limited?")]
    Thread(#[from] io::Error),
}

/// What to do after the trials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start. This is known by now, and the log already says what is wrong.
    Start(Vec<Tried>),
    /// This signal came.
    Interrupted(Signal),
}

/// Tries all endpoints at once, in a thread. Sends each result as soon as it is known, within 2 s; none when the
/// preflight is off.
///
/// # Errors
/// When the system allows no more threads.
pub(super) fn start(settings: &Settings, mode: Preflight) -> Result<Receiver<Tried>, Error> {
    let settings = settings.clone();
    let (results, receiver) = mpsc::channel();
    let try_them = move || {
        let deadline = Deadline::after(TIMEOUT);
        let tried = Dialer::new(&settings).and_then(|dialer| {
            let trials = try_all(&settings, Arc::new(dialer), deadline, &results);
            net::block_on(trials).map_err(|err| without_errno(&err))
        });
        // Nothing could be tried.
        if let Err(why) = tried {
            for endpoint in settings.endpoints {
                let _ = results.send((Subject::Endpoint(endpoint), Err(DialError::Unsupported(why.clone()))));
            }
        }
    };
    if mode != Preflight::Off {
        thread::Builder::new().spawn(try_them)?;
    }
    Ok(receiver)
}

async fn try_all(settings: &Settings, dialer: Arc<Dialer>, deadline: Deadline, results: &Sender<Tried>) {
    let resolver = Arc::new(Resolver::default());
    let mut endpoints = settings.endpoints.clone();
    if let Some(domain) = &settings.discovery_srv {
        let look_up = resolver.members(domain, settings.tls.is_configured());
        match deadline.step(Step::Resolve, look_up).await.flatten() {
            Ok(found) => endpoints = found.found,
            Err(err) => drop(results.send((Subject::Domain(domain.clone()), Err(err)))),
        }
    }
    let runs_etcd = settings.run.mode().capabilities().runs_etcd;
    let mut trials = JoinSet::new();
    for endpoint in endpoints {
        let (resolver, dialer, results) = (Arc::clone(&resolver), Arc::clone(&dialer), results.clone());
        trials.spawn(async move {
            let targets = match deadline.step(Step::Resolve, resolver.targets(&endpoint)).await.flatten() {
                Ok(targets) => targets.found,
                Err(err) => return drop(results.send((Subject::Endpoint(endpoint), Err(err)))),
            };
            if runs_etcd {
                warn_of_several_addresses(&endpoint, &targets);
            }
            let is_only = targets.len() == 1;
            let probes: JoinSet<()> = targets
                .into_iter()
                .map(|target| {
                    let (dialer, results) = (Arc::clone(&dialer), results.clone());
                    async move {
                        let (_, tried) = dialer.probe(&target, deadline).await;
                        // Where our TLS serves the application too, what it cannot do is a failure.
                        let tried = tried.map_err(|err| match err {
                            DialError::Unsupported(why) if !runs_etcd => DialError::Tls(why),
                            other => other,
                        });
                        let subject = match tried {
                            Err(DialError::OwnAddress) if is_only => Subject::Endpoint(target.endpoint),
                            _ => Subject::Target(target),
                        };
                        let _ = results.send((subject, tried));
                    }
                })
                .collect();
            probes.join_all().await;
        });
    }
    trials.join_all().await;
}

/// Finds the members by their SRV records for a proxy that cannot do that itself, however long it takes.
///
/// # Errors
/// When the first look-up fails and the preflight is strict.
pub(super) fn discover(settings: &Settings, events: Option<&Events>, mode: Preflight) -> Result<Waited, Error> {
    let Some(domain) = settings.discovery_srv.as_ref().filter(|_| !settings.run.mode().capabilities().follows_srv)
    else {
        return Ok(Waited::Usable(Box::new(settings.clone())));
    };
    let resolver = Resolver::default();
    let mut is_logged = false;
    loop {
        let deadline = Deadline::after(TIMEOUT);
        let look_up = deadline.step(Step::Resolve, resolver.members(domain, settings.tls.is_configured()));
        let problem = match net::block_on(look_up)?.flatten() {
            Ok(found) => {
                return Ok(Waited::Usable(Box::new(Settings { endpoints: found.found, ..settings.clone() })));
            }
            Err(err) => format!("{domain}: {err}"),
        };
        if mode == Preflight::Strict {
            return Err(Error::NoneUsable(vec![problem]));
        }
        if !is_logged {
            log::warn!("{problem}; retrying");
            is_logged = true;
        }
        if let Some(signal) = pause(events, RETRY) {
            return Ok(Waited::Interrupted(signal));
        }
    }
}

/// Warns of a name that stands for several addresses, if etcd's own proxy is to use it.
fn warn_of_several_addresses(endpoint: &Endpoint, targets: &[Target]) {
    let is_v4 = |target: &&Target| target.addr.is_some_and(|addr| addr.is_ipv4());
    // One address of each kind can be the same member.
    let (v4, v6): (Vec<_>, Vec<_>) = targets.iter().partition(is_v4);
    let count = v4.len().max(v6.len());
    if count > 1 {
        log::warn!(
            "{endpoint} has {count} addresses, of which etcd's grpc-proxy uses one at a time, even if it hangs: use \
             mode native, or name each member"
        );
    }
}

/// Waits for the first usable endpoint, or until none is left to wait for, and logs what is wrong with the others.
/// `setting` names the endpoints.
///
/// # Errors
/// When none is usable and the preflight is strict, or an endpoint is the proxy's own address.
pub(super) fn wait(
    results: &Receiver<Tried>,
    events: Option<&Events>,
    mode: Preflight,
    setting: &str,
) -> Result<Verdict, Error> {
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
    let Judgement { problems, usable } = judge(&tried, mode, setting)?;
    warn_all(&problems);
    if !usable {
        log::warn!("no endpoint can be used yet: starting anyway, and retrying");
    }
    Ok(Verdict::Start(tried))
}

/// The endpoints of which no address can be used.
pub(super) fn failing(tried: &[Tried]) -> Vec<Endpoint> {
    let mut failing: Vec<Endpoint> = Vec::new();
    for endpoint in tried.iter().filter_map(|(subject, _)| subject.endpoint()) {
        let is_usable = |(other, result): &Tried| other.endpoint() == Some(endpoint) && result.is_ok();
        if !failing.contains(endpoint) && !tried.iter().any(is_usable) {
            failing.push(endpoint.clone());
        }
    }
    failing
}

#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    /// What is wrong, one line for each address that cannot be used.
    problems: Vec<String>,
    /// Whether any endpoint may work.
    usable: bool,
}

/// What the results mean for the start.
fn judge(tried: &[Tried], mode: Preflight, setting: &str) -> Result<Judgement, Error> {
    let mut judgement = Judgement { problems: Vec::new(), usable: mode == Preflight::Off };
    for (subject, result) in tried {
        let Err(problem) = result else {
            judgement.usable = true;
            continue;
        };
        // One of several addresses does no harm.
        if let (DialError::OwnAddress, Subject::Endpoint(endpoint)) = (problem, subject) {
            return Err(Error::OwnAddress { setting: setting.to_owned(), endpoint: endpoint.clone() });
        }
        // An endpoint that our TLS cannot try may work with Go's.
        judgement.usable |= matches!(problem, DialError::Unsupported(_));
        if !is_spare(subject, tried) {
            judgement.problems.push(describe(subject, problem));
        }
    }
    if !judgement.usable && mode == Preflight::Strict {
        return Err(Error::NoneUsable(judgement.problems));
    }
    Ok(judgement)
}

/// Whether another address of the other kind (IPv4, IPv6) of the same endpoint works.
fn is_spare(subject: &Subject, tried: &[Tried]) -> bool {
    let Some(target) = subject.target() else { return false };
    let is_other_kind = |other: &Subject| other.target().is_some_and(|other| other.is_other_kind_of(target));
    tried.iter().any(|(other, result)| result.is_ok() && is_other_kind(other))
}

fn describe(subject: &Subject, problem: &DialError) -> String {
    match problem {
        DialError::Unsupported(why) => format!("{subject}: it cannot be tried before the start: {why}"),
        problem => format!("{subject}: {problem}"),
    }
}

/// Passes the failures that come after the start on to `report`, in a thread.
pub(super) fn report_rest(results: Receiver<Tried>, report: impl Fn(&Endpoint, &str) + Send + 'static) {
    let report = move || {
        for (subject, result) in results {
            if let (Some(endpoint), Err(problem)) = (subject.endpoint(), result) {
                report(endpoint, &describe(&subject, &problem));
            }
        }
    };
    let _ = thread::Builder::new().spawn(report); // without a thread, etcd's own log still shows them
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried<const N: usize>(results: [Result<(), DialError>; N]) -> Vec<Tried> {
        (1..).map(|port| Subject::Endpoint(Endpoint::loopback(port))).zip(results).collect()
    }

    #[test]
    fn one_usable_endpoint_is_enough_and_the_others_are_named() {
        let judged = judge(&tried([Err(DialError::Refused), Ok(())]), Preflight::Strict, "S").unwrap();
        assert!(judged.usable);
        assert_eq!(failing(&tried([Err(DialError::Refused), Ok(())])), [Endpoint::loopback(1)]);
        assert_eq!(judged.problems, ["http://127.0.0.1:1: the connection is refused: nothing listens there"]);
    }

    #[test]
    fn without_a_usable_endpoint_only_strict_refuses_to_start() {
        let results = || tried([Err(DialError::Refused), Err(DialError::NotGrpc)]);
        let judged = judge(&results(), Preflight::Warn, "S").unwrap();
        assert!(!judged.usable && judged.problems.len() == 2);
        let error = judge(&results(), Preflight::Strict, "S").unwrap_err().to_string();
        assert!(error.starts_with("no endpoint can be used: http://127.0.0.1:1: the connection is refused"), "{error}");
        assert!(error.contains("; http://127.0.0.1:2: the server is not etcd"), "{error}");
    }

    #[test]
    fn an_endpoint_that_cannot_be_tried_may_work() {
        let judged = judge(&tried([Err(DialError::Unsupported("P-521".to_owned()))]), Preflight::Strict, "S").unwrap();
        assert!(judged.usable);
        assert_eq!(judged.problems, ["http://127.0.0.1:1: it cannot be tried before the start: P-521"]);
    }

    #[test]
    fn the_proxys_own_address_is_never_an_endpoint() {
        let error = judge(&tried([Ok(()), Err(DialError::OwnAddress)]), Preflight::Warn, "S").unwrap_err();
        assert!(matches!(&error, Error::OwnAddress { endpoint, .. } if *endpoint == Endpoint::loopback(2)));
        assert!(error.to_string().starts_with("S: http://127.0.0.1:2: the proxy itself"), "{error}");
    }

    #[test]
    fn nothing_is_judged_when_the_preflight_is_off() {
        assert!(judge(&[], Preflight::Off, "S").unwrap().usable);
    }
}
