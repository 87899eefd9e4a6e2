//! `etcdproxy wait`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::env::Env;
use crate::health::{self, Health, Unreachable};
use crate::settings::{Layer, ListenAddr, Setting, Sources};
use crate::{cli, exec};

pub(crate) fn run(args: cli::Wait, env: &Env) -> Result<ExitCode> {
    let cli::Wait { listen, timeout, listening, command } = args;
    let addr = Sources::new(Layer::flags([(Setting::ListenAddr, listen.listen_addr)]), env).listen_addr()?;
    let check = |patience: Duration| -> Health {
        let ask: fn(&ListenAddr, Duration) -> Health = if listening { health::check_listening } else { health::check };
        ask(&addr, patience)
    };
    let good = |health: &Health| if listening { health.listening } else { health.ready };
    health::wait(timeout, check, good).map_err(|health| Unreachable {
        addr: addr.clone(),
        wanted: if listening { "listening" } else { "ready" },
        after: format!(" after {}", humantime::format_duration(timeout)),
        reason: health.reason.unwrap_or_default(),
    })?;
    if command.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(exec::exec_command(&command).into()) }
}
