//! Runs the user's command with the proxy beside it: starts the proxy, waits for the cluster, runs the command, stops
//! the proxy.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

use super::backend::Backend;
use super::certificates::{self, Waited};
use super::claim::{Attempt, Claim, ListenError, may_be_free, try_claim};
use super::preflight;
use super::session::{Prepared, is_unknown_name, looked_up, looked_up_addr, preflight_mode};
use crate::net::etcd_health::{self, Waiting};
use crate::os::env::Env;
use crate::os::log::Throttle;
use crate::os::process::{self, ExecError, FOREVER};
use crate::os::signals::{Events, FOR_COMMANDS};
use crate::os::sys;
use crate::settings::{self, ETCDCTL_ENDPOINTS, ListenAddr, Preflight, Setting, Settings, Sources, etcdctl_endpoints};

/// How often to ask whether the cluster answers.
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// How often to check that another process's proxy still listens.
const LISTENING_INTERVAL: Duration = Duration::from_secs(1);

/// What to run, and with which proxy.
pub(crate) struct Wrap {
    pub addr: ListenAddr,
    /// They need to be valid only if a proxy is started here.
    pub sources: Result<Sources, settings::Error>,
    /// How long to wait for the cluster at most.
    pub timeout: Duration,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// Runs the command beside a proxy and returns its exit code. A proxy that serves the address already is used.
///
/// # Errors
/// When no proxy can be started, the cluster does not answer in time, or the command cannot be executed.
pub(crate) fn wrap(wrap: Wrap, env: &Env) -> Result<ExitCode> {
    let file_limit = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let events = Events::new(&FOR_COMMANDS).context("cannot receive signals")?;
    let waiting = Waiting::new(wrap.timeout);
    // Once: later, a look-up would keep signals from the command.
    let addr = looked_up_addr(&wrap.addr)?;
    let attempt = try_claim(&addr)?;
    let settings = match (&attempt, wrap.sources) {
        (Attempt::Ours(_), Ok(sources)) => match certificates::wait(sources, Some(waiting.left()), &events)? {
            Waited::Usable(settings) => Ok(*settings),
            Waited::Interrupted(signal) => return Ok(process::signal_code(signal)),
        },
        (_, sources) => sources.and_then(|sources| sources.resolve()),
    };
    let settings = settings.map(|settings| {
        let is_unknown = is_unknown_name(&settings.listen_addr);
        if is_unknown { settings.with_listen_addr(addr.clone()) } else { settings }
    });
    let mut sidecar = Sidecar { addr, settings, backend: None, claim: None, warnings: Throttle::default(), env };
    if let Attempt::Ours(claim) = attempt {
        let settings = looked_up(sidecar.settings.as_ref().map_err(Clone::clone)?)?;
        let preflight = preflight_mode(&settings);
        let settings = match preflight::discover(&settings, Some(&events), preflight)? {
            Waited::Usable(settings) => *settings,
            Waited::Interrupted(signal) => return Ok(process::signal_code(signal)),
        };
        let mut prepared = Prepared::new(&settings, &[], env, preflight)?;
        if let Some(signal) = prepared.wait(Some(&events))? {
            return Ok(process::signal_code(signal));
        }
        sidecar.backend = Some(prepared.start(&settings)?);
        sidecar.settings = Ok(settings);
        sidecar.claim = Some(claim);
    } else {
        log::info!("another etcd proxy serves {}: it is used with its own settings", sidecar.addr);
    }
    if let Some(signal) = sidecar.wait_ready(waiting, &events)? {
        return Ok(process::signal_code(signal));
    }
    let (program, args) = wrap.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(args).env(Setting::ListenAddr.variable(), sidecar.addr.to_string());
    command.envs(etcdctl_endpoints(&sidecar.addr, env).map(|addr| (ETCDCTL_ENDPOINTS, addr)));
    sys::with_file_limit(&mut command, file_limit);
    let command = command.spawn().map_err(|cause| ExecError::new(program, cause))?;
    let status = process::run_to_end(command, &events, || sidecar.tend_or_log())?;
    Ok(process::exit_code(status))
}

/// The proxy beside the command: started here, unless another one already serves the address.
struct Sidecar<'a> {
    addr: ListenAddr,
    settings: Result<Settings, settings::Error>,
    backend: Option<Box<dyn Backend>>,
    claim: Option<Claim>,
    warnings: Throttle,
    env: &'a Env,
}

impl Sidecar<'_> {
    /// Makes sure that there is a proxy: ours, or another one as long as it runs.
    fn tend(&mut self) -> Result<Duration> {
        if let Some(backend) = &mut self.backend {
            return Ok(backend.tend()?);
        }
        match self.take_over() {
            Err(err) if matches!(err.downcast_ref(), Some(ListenError::Unresolved { .. })) => {
                self.warnings.warn(format_args!("{err}; trying again every second"));
            }
            taken => taken?,
        }
        Ok(LISTENING_INTERVAL)
    }

    /// Starts a proxy if the other one has ended.
    fn take_over(&mut self) -> Result<()> {
        let addr = &self.addr;
        if may_be_free(addr)
            && let Attempt::Ours(claim) = try_claim(addr)?
        {
            let cannot = || format!("the proxy at {addr} has ended, and no other can be started");
            let settings = looked_up(self.settings.as_ref().map_err(Clone::clone).with_context(cannot)?)?;
            log::info!("the proxy at {addr} has ended: starting another");
            self.claim = Some(claim);
            self.backend = Some(Prepared::new(&settings, &[], self.env, Preflight::Off)?.start(&settings)?);
        }
        Ok(())
    }

    /// The command must not suffer from a fault of its proxy.
    fn tend_or_log(&mut self) -> Duration {
        self.tend().unwrap_or_else(|err| {
            log::error!("{err:#}");
            self.backend = None;
            self.claim = None;
            FOREVER
        })
    }

    /// Waits until the cluster answers through the proxy. Returns the signal that comes before that, if one does.
    fn wait_ready(&mut self, mut waiting: Waiting, events: &Events) -> Result<Option<Signal>> {
        loop {
            let pause = self.tend()?.min(READY_INTERVAL);
            if waiting.ask(|timeout| etcd_health::check(&self.addr, timeout)).ready {
                return Ok(None);
            }
            if pause >= waiting.left() {
                return Err(waiting.failed(&self.addr, "ready").into());
            }
            if let Some(signal) = events.next(pause).ending() {
                return Ok(Some(signal));
            }
        }
    }
}
