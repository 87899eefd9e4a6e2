//! `start-etcdproxy`, a link to this binary in the layer of the Cloud Native Buildpack: starts the proxy beside the
//! application.
//!
//! The lifecycle's launcher runs it before it becomes the application, and reads variables for the application from
//! descriptor 3, to its end (<https://github.com/buildpacks/spec/blob/main/buildpack.md#execd>). If this fails, the
//! application does not start.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::buildpack::{DRAIN, EXEC_D};
use crate::os::env::Env;
use crate::os::log::{self, with_causes};
use crate::os::sys;
use crate::proxy::{Background, wait_for};
use crate::settings::{ETCDCTL_ENDPOINTS, Error, ListenAddr, Setting, Sources, duration, etcdctl_endpoints, switch};

/// Where the launcher reads.
const VARIABLES: i32 = 3;

/// How long the application waits for the cluster, at most.
const WAIT: &str = "ETCDPROXY_WAIT";

/// Whether this process was called by that name.
pub(crate) fn is_called(called_as: &OsStr) -> bool {
    Path::new(called_as).file_name().is_some_and(|name| name == EXEC_D)
}

/// Starts the proxy, waits if that is wanted, and writes the variables. A proxy that cannot start is the application's
/// business, so it only causes a line in the log.
///
/// # Errors
/// If the launcher has not opened the descriptor, or does not read.
pub(crate) fn run(env: &Env) -> Result<ExitCode> {
    let variables = sys::inherited(VARIABLES).with_context(|| {
        format!("descriptor {VARIABLES} cannot be used: {EXEC_D} is for the launcher of Cloud Native Buildpacks")
    })?;
    let sources = Sources::new([], env);
    if let Ok(format) = sources.log_format() {
        log::set_format(format);
    }
    let addr = sources.listen_addr();
    if let Err(err) = start(env, addr.as_ref()) {
        ::log::error!("{}: the application starts anyway", with_causes(&*err));
    }
    let endpoints = addr.ok().filter(|_| !env.has(ETCDCTL_ENDPOINTS)).and_then(|addr| etcdctl_endpoints(&addr, env));
    let set: BTreeMap<_, _> = endpoints.map(|endpoints| (ETCDCTL_ENDPOINTS, endpoints)).into_iter().collect();
    let text = toml::to_string(&set)?;
    File::from(variables).write_all(text.as_bytes()).context("the launcher does not read")?;
    Ok(ExitCode::SUCCESS)
}

fn start(env: &Env, addr: Result<&ListenAddr, &Error>) -> Result<()> {
    // It must end with the application, so it must not become etcd.
    let drain = match env.get(Setting::Drain.variable()).and_then(OsStr::to_str) {
        None => Some(DRAIN),
        Some(text) if switch(text.trim()) == Some(false) => Some("0s"),
        Some(_) => None,
    };
    let mut proxy = Background { exe: &env.exe, drain }.start()?;
    match wait(env)? {
        None => Ok(()),
        Some(timeout) => wait_for(&mut proxy, addr.map_err(Clone::clone)?, timeout),
    }
}

fn wait(env: &Env) -> Result<Option<Duration>, Error> {
    let Some(text) = env.get(WAIT) else { return Ok(None) };
    let text = text.to_string_lossy();
    let parsed = duration(text.trim());
    parsed.map(Some).map_err(|expected| Error::new(WAIT, format_args!("invalid duration {text:?}: {expected}")))
}
