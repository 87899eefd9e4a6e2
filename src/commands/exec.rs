//! `etcdproxy exec`

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::env::Env;
use crate::health::{self, Waiting};
use crate::log::Log;
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Setting, Settings, Sources};
use crate::sidecar::{self, Attempt, Claim, Launch, Output, Proxy, preflight};
use crate::{child, cli, exec};

use super::{ENDING, in_format, obtain, proxy_flags, start_preflight};

/// How often the cluster is asked whether it answers.
const PAUSE: Duration = Duration::from_millis(50);
/// With no proxy to look after, only signals matter.
const LONG: Duration = Duration::from_hours(1);

pub(crate) fn run(args: cli::Exec, env: &Env) -> Result<ExitCode> {
    let sources = Sources::new(proxy_flags(args.proxy, None), env);
    let log = Log { format: sources.log_format()? };
    let done = sources.with_binding(env).map_err(Into::into).and_then(|sources| {
        let settings = sources.resolve()?;
        log.warn_all(&settings.warnings);
        with_proxy(&settings, args.timeout, &args.command, env, log)
    });
    in_format(log, done)
}

fn with_proxy(settings: &Settings, timeout: Duration, command: &[OsString], env: &Env, log: Log) -> Result<ExitCode> {
    let addr = &settings.listen_addr;
    let signals = child::signals(&ENDING).context("cannot receive signals")?;
    let mut ours = Ours::start(settings, env, log)?;
    if let Some(signal) = ours.wait_ready(addr, timeout, &signals)? {
        return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1)));
    }
    let (program, program_args) = command.split_first().context("no command")?;
    let command = Command::new(program)
        .args(program_args)
        .env(Setting::ListenAddr.variable(), addr.to_string())
        .env("ETCDCTL_ENDPOINTS", addr.to_string())
        .spawn()
        .map_err(|cause| exec::Error::new(program, cause))?;
    let status = child::run_to_end(command, &signals, || ours.tend())?;
    Ok(child::exit_code(status))
}

/// The proxy that was started here, if none was there.
struct Ours {
    proxy: Option<Proxy>,
    _claim: Option<Claim>,
}

impl Ours {
    fn start(settings: &Settings, env: &Env, log: Log) -> Result<Self> {
        let addr = &settings.listen_addr;
        let claim = match sidecar::try_claim(addr)? {
            Attempt::Served => {
                log.info(format_args!("{addr} is served by another etcd proxy, which is used"));
                return Ok(Self { proxy: None, _claim: None });
            }
            Attempt::Ours(claim) => claim,
        };
        let tried = start_preflight(settings);
        let etcd = obtain("etcd", env, log)?;
        let launch = Launch::new(settings, &RELEASE, &[], env)?;
        let failing = preflight::wait(&tried, settings, log)?;
        preflight::report_rest(tried, log);
        let proxy = Proxy::start(launch, etcd.path(), addr, Output::new(log, &failing))?;
        Ok(Self { proxy: Some(proxy), _claim: claim })
    }

    fn tend(&mut self) -> Result<Duration> {
        Ok(self.proxy.as_mut().map_or(Ok(LONG), Proxy::tend)?)
    }

    /// Until the cluster answers through the proxy; gives the signal that came before that.
    fn wait_ready(
        &mut self,
        addr: &ListenAddr,
        timeout: Duration,
        signals: &Receiver<Signal>,
    ) -> Result<Option<Signal>> {
        let mut waiting = Waiting::new(timeout);
        loop {
            let pause = self.tend()?.min(PAUSE);
            if waiting.ask(|patience| health::check(addr, patience)).ready {
                return Ok(None);
            }
            if pause >= waiting.left() {
                return Err(waiting.failed(addr, timeout, "ready").into());
            }
            match child::next_signal(signals, pause) {
                Signal::SIGCHLD => {}
                signal => return Ok(Some(signal)),
            }
        }
    }
}
