//! `etcdproxy exec`

use std::process::ExitCode;

use anyhow::Result;

use super::cli;
use crate::os::env::Env;
use crate::os::log;
use crate::proxy::{Wrap, wrap};
use crate::release::Store;
use crate::settings::Sources;

pub(crate) fn run(args: cli::Exec, env: &Env) -> Result<ExitCode> {
    let sources = Sources::new(args.settings.0, env).with_etcd(Store::new(env).has("etcd"));
    log::set_format(sources.log_format()?);
    log::write_in_background();
    let addr = sources.listen_addr()?;
    let sources = sources.with_binding(env);
    wrap(Wrap { addr, sources, timeout: args.timeout, command: args.command }, env)
}
