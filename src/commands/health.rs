//! `etcdproxy health`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::commands::cli;
use crate::commands::exit_code::Code;
use crate::net::etcd_health::{self, Health, Unreachable};
use crate::os::env::Env;
use crate::settings::Sources;

#[derive(Serialize)]
struct Report {
    listen_addr: String,
    #[serde(flatten)]
    health: Health,
}

pub(crate) fn run(args: cli::Health, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let addr = Sources::new(args.settings.0, env).listen_addr()?;
    let health = etcd_health::check(&addr, etcd_health::TIMEOUT);
    let ready = health.ready;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&Report { listen_addr: addr.to_string(), health })?)?;
        return Ok(if ready { ExitCode::SUCCESS } else { Code::Unreachable.into() });
    }
    if let Some(reason) = health.reason {
        return Err(Unreachable { addr, wanted: "ready", after: String::new(), reason }.into());
    }
    writeln!(out, "{addr} is ready")?;
    Ok(ExitCode::SUCCESS)
}
