//! One run of the sidecar: claims the address, tries the endpoints, starts the backend and stays with it.

use std::ffi::OsString;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::backend::Backend;
use super::claim::{Attempt, Claim, try_claim};
use super::etcd::{EtcdChild, Launch, Output};
use super::preflight::{self, Tried, Verdict};
use super::supervisor::supervise;
use super::tunnel::Tunnel;
use crate::os::env::Env;
use crate::os::log::warn_all;
use crate::os::process::exec;
use crate::os::signals::{ENDING, Events};
use crate::release::{Executable, RELEASE, Store};
use crate::settings::{Endpoint, ListenAddr, Preflight, Run, Settings};

/// How often a proxy that stands by checks whether the port is free.
const STAND_BY_INTERVAL: Duration = Duration::from_millis(200);

/// Forwards connections until a signal ends it, or execs etcd. `extra` are flags for etcd; `events` are the signals, if
/// somebody receives them already.
///
/// # Errors
/// When a setting cannot work, or nothing can be started.
pub(crate) fn run(settings: &Settings, extra: &[OsString], env: &Env, events: Option<Events>) -> Result<()> {
    match settings.run {
        Run::ExecEtcd => exec_etcd(settings, extra, env, events.as_ref()),
        Run::SuperviseEtcd { drain } | Run::Tunnel { drain } => run_supervised(settings, drain, extra, env, events),
    }
}

/// Leaves the signals as they are, unless somebody receives them already: after exec, they are etcd's.
fn exec_etcd(settings: &Settings, extra: &[OsString], env: &Env, events: Option<&Events>) -> Result<()> {
    let Some(claim) = stand_by(&settings.listen_addr, events)? else { return Ok(()) };
    warn_all(&settings.warnings);
    let preflight = preflight_mode(settings, env);
    let results = preflight::start(settings, preflight)?;
    let (etcd, launch) = prepare_etcd(settings, extra, env)?;
    let verdict = preflight::wait(&results, events, preflight)?;
    if matches!(verdict, Verdict::Interrupted(_)) || events.is_some_and(|events| events.ending().is_some()) {
        return Ok(());
    }
    let mut command = launch.command(&etcd.path());
    claim.pass_on(&mut command);
    Err(exec(command, "etcd").into())
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
    let events = events.map_or_else(|| Events::new(&ENDING), Ok).context("cannot receive signals")?;
    let Some(_claim) = stand_by(&settings.listen_addr, Some(&events))? else { return Ok(()) };
    let mut prepared = Prepared::new(settings, extra, env, preflight_mode(settings, env))?;
    if prepared.wait(Some(&events))?.is_some() {
        return Ok(());
    }
    let mut backend = prepared.start(settings)?;
    Ok(supervise(&mut *backend, drain, &events)?)
}

/// Waits until no other proxy serves the address. Returns `None` when a signal comes first.
fn stand_by(addr: &ListenAddr, events: Option<&Events>) -> Result<Option<Claim>> {
    let mut logged = false;
    loop {
        match try_claim(addr)? {
            Attempt::Ours(claim) => return Ok(Some(claim)),
            Attempt::Served if !logged => {
                log::info!("another etcd proxy serves {addr}: standing by");
                logged = true;
            }
            Attempt::Served => {}
        }
        match events {
            None => std::thread::sleep(STAND_BY_INTERVAL),
            Some(events) if events.next(STAND_BY_INTERVAL).ending().is_some() => return Ok(None),
            Some(_) => {}
        }
    }
}

/// A backend that only needs to be started, and what is known about the endpoints.
pub(super) struct Prepared {
    start: Start,
    preflight: Preflight,
    results: Receiver<Tried>,
    /// The log already says that these cannot be used.
    failing: Vec<Endpoint>,
}

enum Start {
    Etcd { etcd: Executable, launch: Launch },
    Tunnel,
}

impl Prepared {
    /// Begins to try the endpoints, and unpacks etcd meanwhile.
    ///
    /// # Errors
    /// When etcd cannot be unpacked.
    pub(super) fn new(settings: &Settings, extra: &[OsString], env: &Env, preflight: Preflight) -> Result<Self> {
        warn_all(&settings.warnings);
        let results = preflight::start(settings, preflight)?;
        if let Some(why) = &settings.mode_reason {
            log::info!("mode {}: {why}", settings.run.mode());
        }
        let start = match settings.run {
            Run::ExecEtcd | Run::SuperviseEtcd { .. } => {
                let (etcd, launch) = prepare_etcd(settings, extra, env)?;
                Start::Etcd { etcd, launch }
            }
            Run::Tunnel { .. } => Start::Tunnel,
        };
        Ok(Self { start, preflight, results, failing: Vec::new() })
    }

    /// Waits for the first usable endpoint. Returns the signal that comes before that, if one does.
    ///
    /// # Errors
    /// When no endpoint can be used and the preflight is strict, or one is the proxy's own address.
    pub(super) fn wait(&mut self, events: Option<&Events>) -> Result<Option<Signal>> {
        Ok(match preflight::wait(&self.results, events, self.preflight)? {
            Verdict::Start(failing) => {
                self.failing = failing;
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
        let Self { start, results, failing, .. } = self;
        Ok(match start {
            Start::Etcd { etcd, launch } => {
                let output = Output::new(&failing);
                let later = output.clone();
                preflight::report_rest(results, move |endpoint, problem| later.report(endpoint, problem));
                Box::new(EtcdChild::start(launch, etcd, &settings.listen_addr, output)?)
            }
            // Its health checks find the same problems.
            Start::Tunnel => Box::new(Tunnel::start(settings, &failing)?),
        })
    }
}

/// The preflight that the user chose; off if etcd may use an HTTP proxy, which the preflight cannot.
pub(super) fn preflight_mode(settings: &Settings, env: &Env) -> Preflight {
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    let proxy = proxies.into_iter().find(|name| env.get(name).is_some());
    let may_use_one = settings.use_http_proxy && settings.run.mode().capabilities().runs_etcd;
    match proxy {
        Some(proxy) if may_use_one && settings.preflight != Preflight::Off => {
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
        for (mode, use_http_proxy, expected) in [
            ("grpc-proxy", "true", Preflight::Off),
            ("grpc-proxy", "false", Preflight::Warn),
            ("tunnel", "true", Preflight::Warn),
        ] {
            let flags = [(Setting::Endpoints, "h:1"), (Setting::Mode, mode), (Setting::UseHttpProxy, use_http_proxy)];
            let sources = Sources::new(flags.map(|(setting, text)| (setting, text.into())), &Env::default());
            let env = Env::from([("HTTPS_PROXY", "http://p:1")]);
            assert_eq!(preflight_mode(&sources.resolve().unwrap(), &env), expected, "{mode} {use_http_proxy}");
        }
    }
}
