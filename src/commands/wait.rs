//! `etcdproxy wait`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::commands::cli;
use crate::net::etcd_health::{self as health, Health, Waiting};
use crate::os::env::Env;
use crate::os::exec;
use crate::settings::{ListenAddr, Sources};

pub(crate) fn run(args: cli::Wait, env: &Env) -> Result<ExitCode> {
    let cli::Wait { settings, timeout, listening, command } = args;
    let addr = Sources::new(settings.0, env).listen_addr()?;
    let (check, wanted): (fn(&ListenAddr, Duration) -> Health, _) =
        if listening { (health::check_listening, "listening") } else { (health::check, "ready") };
    let mut waiting = Waiting::new(timeout);
    loop {
        let health = waiting.ask(|patience| check(&addr, patience));
        if if listening { health.listening } else { health.ready } {
            break;
        }
        // Opening the port is a matter of milliseconds, the cluster one of seconds.
        let pause = Duration::from_millis(if health.listening { 100 } else { 10 });
        if pause >= waiting.left() {
            return Err(waiting.failed(&addr, wanted).into());
        }
        std::thread::sleep(pause);
    }
    if command.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(exec::exec_command(&command).into()) }
}
