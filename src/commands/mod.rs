//! One verb, one file: each turns parsed arguments into calls of the core and its results into output.

pub(crate) mod buildpack;
mod change;
pub(crate) mod cli;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod exec;
pub(crate) mod exit_code;
pub(crate) mod health;
pub(crate) mod install;
pub(crate) mod licenses;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod multicall;
pub(crate) mod prune;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod sbom;
pub(crate) mod uninstall;
pub(crate) mod unpack;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod wait;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;

use anyhow::Result;

use crate::os::env::Env;
use crate::os::log::{Format, Log};
use crate::proxy::preflight::{self, Tried};
use crate::proxy::{self, Carrier, Launch, Output, Proxy, tunnel};
use crate::release::{self, Executable, RELEASE, Store};
use crate::settings::{Endpoint, Layer, Mode, Preflight, Setting, Settings};

/// A program of the release, ready to be executed.
fn obtain(name: &str, env: &Env, log: Log) -> Result<Executable, release::Error> {
    let executable = Store::new(env).get(RELEASE.program(name)?)?;
    if let Executable::Memory { why, .. } = &executable {
        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
        log.warn(format_args!(
            "{name} runs from memory, which costs {} MB of it: {}",
            RELEASE.program(name)?.size.div_ceil(1_000_000),
            why.join("; ")
        ));
    }
    Ok(executable)
}

/// The settings that were given as flags.
fn proxy_flags(args: cli::Proxy, drain: Option<OsString>) -> Layer {
    Layer::flags([
        (Setting::Endpoints, args.endpoints),
        (Setting::ListenAddr, args.listen.listen_addr),
        (Setting::Mode, args.mode),
        (Setting::Service, args.service),
        (Setting::CaCert, args.cacert),
        (Setting::Cert, args.cert),
        (Setting::Key, args.key),
        (Setting::Namespace, args.namespace),
        (Setting::MetricsAddr, args.metrics_addr),
        (Setting::Preflight, args.preflight),
        (Setting::LogFormat, args.log_format),
        (Setting::Memory, args.memory),
        (Setting::Drain, drain),
    ])
}

/// A carrier that only needs to be started, got ready while the endpoints are tried.
enum Prepared {
    Etcd { etcd: Executable, launch: Launch },
    Tunnel,
}

impl Prepared {
    fn new(settings: &Settings, extra: &[OsString], env: &Env, log: Log) -> Result<Self> {
        if let Some(why) = &settings.mode_reason {
            log.info(format_args!("mode {}: {why}", settings.mode));
        }
        Ok(match settings.mode {
            Mode::GrpcProxy => {
                Self::Etcd { etcd: obtain("etcd", env, log)?, launch: Launch::new(settings, &RELEASE, extra, env)? }
            }
            Mode::Tunnel => Self::Tunnel,
        })
    }

    /// Starts it, to be looked after. That the endpoints `failing` cannot be reached was said; what is still to come
    /// of the `rest` is said then.
    fn start(
        self,
        settings: &Settings,
        failing: &[Endpoint],
        rest: Receiver<Tried>,
        log: Log,
    ) -> Result<Box<dyn Carrier>> {
        match self {
            Self::Etcd { etcd, launch } => {
                let output = Output::new(log, failing);
                preflight::report_rest(rest, output.clone());
                Ok(Box::new(Proxy::start(launch, etcd, &settings.listen_addr, output)?))
            }
            // Its probes find out and say the same.
            Self::Tunnel => Ok(Box::new(tunnel::start(settings, failing, log).map_err(proxy::Error::from)?)),
        }
    }
}

/// An error is reported where and how everything else was.
fn in_format(log: Log, done: Result<ExitCode>) -> Result<ExitCode> {
    match done {
        Err(err) if log.format == Format::Json => {
            log.error(format_args!("{err:#}"));
            Ok(exit_code::of(&err))
        }
        done => done,
    }
}

/// Begins to try the endpoints; when that is switched off, there are no results.
fn start_preflight(settings: &mut Settings, env: &Env, log: Log) -> Result<Receiver<Tried>> {
    let proxy =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].into_iter().find(|name| env.get(name).is_some());
    if let Some(proxy) = proxy
        && settings.use_http_proxy
        && settings.preflight != Preflight::Off
    {
        log.info(format_args!("the endpoints are not tried: etcd may reach them through {proxy}"));
        settings.preflight = Preflight::Off;
    }
    Ok(preflight::start(settings)?)
}
