//! `etcdproxy wait`

use std::process::ExitCode;

use anyhow::Result;

use super::cli;
use crate::net::etcd_health::{Wanted, wait};
use crate::os::env::Env;
use crate::os::log::warn_all;
use crate::os::process::exec_command;
use crate::settings::Sources;

pub(crate) fn run(args: cli::Wait, env: &Env) -> Result<ExitCode> {
    let cli::Wait { settings, timeout, listening, command } = args;
    let sources = Sources::new(settings.0, env);
    warn_all(sources.warnings());
    let addr = sources.listen_addr()?;
    wait(&addr, if listening { Wanted::Listening } else { Wanted::Ready }, timeout)?;
    if command.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(exec_command(&command).into()) }
}
