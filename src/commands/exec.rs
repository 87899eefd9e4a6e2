//! `etcdproxy exec`

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

use crate::commands::cli;
use crate::net::etcd_health::{self as health, Waiting};
use crate::os::child::{Events, FOR_COMMANDS};
use crate::os::env::Env;
use crate::os::log::Log;
use crate::os::{child, exec, sys};
use crate::proxy::preflight::{self, Verdict};
use crate::proxy::{self, Attempt, Carrier, Claim};
use crate::settings::{self, ListenAddr, Setting, Settings, Sources};

use super::{Prepared, in_format, start_preflight};

/// How often the cluster is asked whether it answers.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether another's proxy is still there.
const LOOK: Duration = Duration::from_secs(1);
/// When there is nothing to look after.
const LONG: Duration = Duration::from_hours(1);

pub(crate) fn run(args: cli::Exec, env: &Env) -> Result<ExitCode> {
    let sources = Sources::new(args.settings.0, env);
    let log = Log { format: sources.log_format()? };
    let done = sources.listen_addr().map_err(Into::into).and_then(|addr| {
        let settings = sources.with_binding(env).and_then(|sources| sources.resolve());
        with_proxy(addr, settings, args.timeout, &args.command, env, log)
    });
    in_format(log, done)
}

fn with_proxy(
    addr: ListenAddr,
    settings: Result<Settings, settings::Error>,
    timeout: Duration,
    command: &[OsString],
    env: &Env,
    log: Log,
) -> Result<ExitCode> {
    let file_limit = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let events = Events::new(&FOR_COMMANDS).context("cannot receive signals")?;
    let waiting = Waiting::new(timeout);
    let mut beside = Beside { addr, settings, carrier: None, claim: None, env, log };
    let addr = beside.addr.to_string();
    if let Attempt::Ours(claim) = proxy::try_claim(&beside.addr)? {
        beside.claim = Some(claim);
        let mut settings = beside.settings.clone()?;
        log.warn_all(&settings.warnings);
        let tried = start_preflight(&mut settings, env, log)?;
        let prepared = Prepared::new(&settings, &[], env, log)?;
        match preflight::wait(&tried, Some(&events), &settings, log)? {
            Verdict::Start(failing) => beside.carrier = Some(prepared.start(&settings, &failing, tried, log)?),
            Verdict::Interrupted(signal) => return Ok(child::signal_code(signal)),
        }
    } else {
        log.info(format_args!("{addr} is served by another etcd proxy, which is used with the settings it has"));
    }
    if let Some(signal) = beside.wait_ready(waiting, &events)? {
        return Ok(child::signal_code(signal));
    }
    let (program, program_args) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(program_args).env(Setting::ListenAddr.variable(), &addr).env("ETCDCTL_ENDPOINTS", &addr);
    sys::with_file_limit(&mut command, file_limit);
    let command = command.spawn().map_err(|cause| exec::Error::new(program, cause))?;
    let status = child::run_to_end(command, &events, || beside.tend_or_say())?;
    Ok(child::exit_code(status))
}

/// The proxy beside the command: started here, if no other was there.
struct Beside<'a> {
    addr: ListenAddr,
    /// Only a proxy that is started here needs them to be good.
    settings: Result<Settings, settings::Error>,
    carrier: Option<Box<dyn Carrier>>,
    claim: Option<Claim>,
    env: &'a Env,
    log: Log,
}

impl Beside<'_> {
    /// Sees to it that there is a proxy: ours, or another's as long as that lives.
    fn tend(&mut self) -> Result<Duration> {
        let addr = &self.addr;
        if let Some(carrier) = &mut self.carrier {
            return Ok(carrier.tend()?);
        }
        if !health::check_listening(addr, LOOK).listening
            && let Attempt::Ours(claim) = proxy::try_claim(addr)?
        {
            let cannot = || format!("{addr} is served no more, and no proxy can be started");
            let settings = self.settings.clone().with_context(cannot)?;
            self.log.info(format_args!("{addr} is served no more: starting a proxy"));
            self.log.warn_all(&settings.warnings);
            self.claim = Some(claim);
            let untried = mpsc::channel().1;
            let prepared = Prepared::new(&settings, &[], self.env, self.log)?;
            self.carrier = Some(prepared.start(&settings, &[], untried, self.log)?);
        }
        Ok(LOOK)
    }

    /// The command is not to suffer from what its proxy does.
    fn tend_or_say(&mut self) -> Duration {
        self.tend().unwrap_or_else(|err| {
            self.log.error(format_args!("{err:#}"));
            self.carrier = None;
            self.claim = None;
            LONG
        })
    }

    /// Until the cluster answers through the proxy; gives the signal that came before that.
    fn wait_ready(&mut self, mut waiting: Waiting, events: &Events) -> Result<Option<Signal>> {
        loop {
            let pause = self.tend()?.min(PAUSE);
            if waiting.ask(|patience| health::check(&self.addr, patience)).ready {
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
