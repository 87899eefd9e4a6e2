//! One run of the sidecar: claims the address, tries the endpoints, starts the backend and stays with it.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::admin::Port;
use super::backend::Backend;
use super::certificates::Waited;
use super::claim::{Attempt, Claim, ListenError, StandBy, try_claim};
use super::etcd::{EtcdChild, Launch, Output, Status, Supervision};
use super::native::Native;
use super::preflight::{self, Tried, Verdict};
use super::supervisor::supervise;
use crate::net::local::look_up;
use crate::os::env::Env;
use crate::os::log::{Throttle, warn_all};
use crate::os::process::exec;
use crate::os::signals::{Events, FOR_LAUNCHERS, pause};
use crate::release::{Executable, RELEASE, Store};
use crate::settings::{ListenAddr, Preflight, Run, Settings};

/// How often a proxy that stands by checks whether the port is free.
const STAND_BY_INTERVAL: Duration = Duration::from_millis(200);

/// How often to look up a name to listen on that has no address.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(1);

/// Forwards connections until a signal ends it, or execs etcd. `extra` are flags for etcd; `events` are the signals, if
/// somebody receives them already.
///
/// # Errors
/// When a setting cannot work, or nothing can be started.
pub(crate) fn run(settings: &Settings, extra: &[OsString], env: &Env, events: Option<Events>) -> Result<()> {
    match settings.run {
        Run::ExecEtcd => exec_etcd(settings, extra, env, events.as_ref()),
        Run::SuperviseEtcd { drain } | Run::Native { drain } => run_supervised(settings, drain, extra, env, events),
    }
}

/// Leaves the signals as they are, unless somebody receives them already: after exec, they are etcd's.
fn exec_etcd(settings: &Settings, extra: &[OsString], env: &Env, events: Option<&Events>) -> Result<()> {
    let Some(settings) = &wait_for_name(settings, events) else { return Ok(()) };
    let Some(claim) = stand_by(&settings.listen_addr, events)? else { return Ok(()) };
    warn_all(&settings.warnings);
    let preflight = preflight_mode(settings);
    let Waited::Usable(settings) = preflight::discover(settings, events, preflight)? else { return Ok(()) };
    let results = preflight::start(&settings, preflight)?;
    let (etcd, launch) = prepare_etcd(&settings, extra, env)?;
    let verdict = preflight::wait(&results, events, preflight, &settings.members_from)?;
    if matches!(verdict, Verdict::Interrupted(_)) || events.is_some_and(|events| events.ending().is_some()) {
        return Ok(());
    }
    log_mode(&settings);
    let mut command = launch.command(etcd.path());
    claim.pass_on(&mut command);
    Err(exec(command, "etcd", etcd.shown()).into())
}

/// Finds or unpacks etcd, and works out its command line.
fn prepare_etcd(settings: &Settings, extra: &[OsString], env: &Env) -> Result<(Executable, Launch)> {
    Ok((Store::new(env).obtain("etcd")?, Launch::new(settings, &RELEASE, extra, env)?))
}

/// Starts the backend and supervises it.
fn run_supervised(
    settings: &Settings,
    drain: Duration,
    extra: &[OsString],
    env: &Env,
    events: Option<Events>,
) -> Result<()> {
    let events = events.map_or_else(|| Events::new(&FOR_LAUNCHERS), Ok).context("cannot receive signals")?;
    let Some(settings) = &wait_for_name(settings, Some(&events)) else { return Ok(()) };
    let Some(_claim) = stand_by(&settings.listen_addr, Some(&events))? else { return Ok(()) };
    let preflight = preflight_mode(settings);
    let Waited::Usable(settings) = &preflight::discover(settings, Some(&events), preflight)? else { return Ok(()) };
    let mut prepared = Prepared::new(settings, extra, env, preflight)?;
    if prepared.wait(Some(&events))?.is_some() {
        return Ok(());
    }
    let mut backend = prepared.start(settings)?;
    Ok(supervise(&mut *backend, drain, &events)?)
}

/// Waits until the name to listen on has an address: its DNS may come later than this host. Returns `None` when a signal
/// comes first.
fn wait_for_name(settings: &Settings, events: Option<&Events>) -> Option<Settings> {
    let warnings = Throttle::default();
    loop {
        match looked_up(settings) {
            Ok(settings) => return Some(settings),
            Err(err) => warnings.warn(format_args!("{err}; trying again every second")),
        }
        if pause(events, LOOK_UP_INTERVAL).is_some() {
            return None;
        }
    }
}

/// The settings with the addresses that the names to listen on have now.
///
/// # Errors
/// [`ListenError::Unresolved`]
pub(super) fn looked_up(settings: &Settings) -> Result<Settings, ListenError> {
    let mut settings = settings.clone();
    if is_unknown_name(&settings.listen_addr) {
        settings = settings.with_listen_addr(looked_up_addr(&settings.listen_addr)?);
    }
    // etcd looks this one up itself.
    if settings.run != Run::ExecEtcd
        && let Some(addr) = settings.metrics_addr.take()
        && let ListenAddr::Tcp(addr) = looked_up_addr(&addr.into())?
    {
        settings.metrics_addr = Some(addr);
    }
    Ok(settings)
}

/// The address, with those that its name has now.
///
/// # Errors
/// [`ListenError::Unresolved`]
pub(super) fn looked_up_addr(addr: &ListenAddr) -> Result<ListenAddr, ListenError> {
    look_up(addr).map_err(|why| ListenError::Unresolved { addr: addr.clone(), why })
}

pub(super) fn is_unknown_name(addr: &ListenAddr) -> bool {
    matches!(addr, ListenAddr::Tcp(addr) if addr.addrs().next().is_none())
}

/// Waits until no other proxy serves the address. Returns `None` when a signal comes first.
fn stand_by(addr: &ListenAddr, events: Option<&Events>) -> Result<Option<Claim>> {
    if let Attempt::Ours(claim) = try_claim(addr)? {
        return Ok(Some(claim));
    }
    log::info!("another etcd proxy serves {addr}: standing by");
    let mut standing_by = StandBy::new(addr);
    while pause(events, STAND_BY_INTERVAL).is_none() {
        if let Attempt::Ours(claim) = standing_by.try_claim()? {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}

/// A backend that only needs to be started, and what is known about the endpoints.
pub(super) struct Prepared {
    start: Start,
    preflight: Preflight,
    results: Receiver<Tried>,
    /// The name of the setting that names the endpoints.
    members_from: String,
    /// What is known about the endpoints by now; the log already says what is wrong.
    tried: Vec<Tried>,
}

enum Start {
    Etcd { etcd: Executable, launch: Launch },
    Native,
}

impl Prepared {
    /// Begins to try the endpoints, and unpacks etcd meanwhile.
    ///
    /// # Errors
    /// When etcd cannot be unpacked.
    pub(super) fn new(settings: &Settings, extra: &[OsString], env: &Env, preflight: Preflight) -> Result<Self> {
        warn_all(&settings.warnings);
        let results = preflight::start(settings, preflight)?;
        // What etcd's proxy cannot do matters only when it starts.
        if !settings.run.mode().capabilities().runs_etcd {
            log_mode(settings);
        }
        let start = match settings.run {
            Run::ExecEtcd | Run::SuperviseEtcd { .. } => {
                let (etcd, launch) = prepare_etcd(settings, extra, env)?;
                Start::Etcd { etcd, launch }
            }
            Run::Native { .. } => Start::Native,
        };
        Ok(Self { start, preflight, results, members_from: settings.members_from.clone(), tried: Vec::new() })
    }

    /// Waits for the first usable endpoint. Returns the signal that comes before that, if one does.
    ///
    /// # Errors
    /// When no endpoint can be used and the preflight is strict, or one is the proxy's own address.
    pub(super) fn wait(&mut self, events: Option<&Events>) -> Result<Option<Signal>> {
        Ok(match preflight::wait(&self.results, events, self.preflight, &self.members_from)? {
            Verdict::Start(tried) => {
                self.tried = tried;
                None
            }
            Verdict::Interrupted(signal) => Some(signal),
        })
    }

    /// Starts the backend, which then needs a supervisor.
    ///
    /// # Errors
    /// When it cannot be executed, or cannot listen.
    pub(super) fn start(self, settings: &Settings) -> Result<Box<dyn Backend>> {
        let Self { start, results, tried, .. } = self;
        Ok(match start {
            Start::Etcd { etcd, launch } => {
                log_mode(settings);
                let output = Output::new(&preflight::failing(&tried));
                let later = output.clone();
                preflight::report_rest(results, move |endpoint, problem| later.report(endpoint, problem));
                let supervision = supervision(settings)?;
                Box::new(EtcdChild::start(launch, etcd, &settings.listen_addr, output, supervision)?)
            }
            // Its health checks find the same problems.
            Start::Native => Box::new(Native::start(settings, &tried)?),
        })
    }
}

/// What happens beside a supervised etcd.
fn supervision(settings: &Settings) -> Result<Supervision> {
    let status = Arc::new(Status::new(settings));
    let serves_metrics = matches!(settings.run, Run::SuperviseEtcd { .. });
    let metrics_addr = settings.metrics_addr.as_ref().filter(|_| serves_metrics);
    let metrics = metrics_addr.map(|addr| Port::open(addr, Arc::clone(&status))).transpose()?;
    // An etcd that uses an HTTP proxy reaches members that we may not reach, and the other way round.
    let watched = settings.http_proxy.is_none().then(|| settings.clone());
    Ok(Supervision { watched, status, metrics })
}

/// Says why `auto` chose the mode, or what the mode cannot do.
fn log_mode(settings: &Settings) {
    if let Some(why) = &settings.mode_reason {
        log::info!("mode {}: {why}", settings.run.mode());
    }
}

/// The preflight that the user chose; off if etcd may use an HTTP proxy, which the preflight cannot.
pub(super) fn preflight_mode(settings: &Settings) -> Preflight {
    match settings.http_proxy {
        Some(proxy) if settings.preflight != Preflight::Off => {
            log::info!("the endpoints are not tried: etcd may reach them through {proxy}");
            Preflight::Off
        }
        _ => settings.preflight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Setting, Sources};

    #[test]
    fn only_an_etcd_that_may_use_an_http_proxy_has_no_preflight() {
        let env = Env::from([("HTTPS_PROXY", "http://p:1")]);
        for (switch, expected) in [("true", Preflight::Off), ("false", Preflight::Warn)] {
            let flags = [(Setting::Endpoints, "h:1"), (Setting::UseHttpProxy, switch)];
            let sources = Sources::new(flags.map(|(setting, text)| (setting, text.into())), &env);
            assert_eq!(preflight_mode(&sources.resolve().unwrap()), expected, "{switch}");
        }
    }
}
