//! `etcdproxy run`

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::env::Env;
use crate::release::RELEASE;
use crate::settings::{Layer, Setting, Settings, Sources};
use crate::{cli, exec, sidecar};

use super::{obtain, say};

pub(crate) fn run(args: cli::Run, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let flags = Layer::flags([
        (Setting::Endpoints, args.endpoints),
        (Setting::ListenAddr, args.listen.listen_addr),
        (Setting::Mode, args.mode),
        (Setting::CaCert, args.cacert),
        (Setting::Cert, args.cert),
        (Setting::Key, args.key),
        (Setting::Namespace, args.namespace),
        (Setting::MetricsAddr, args.metrics_addr),
    ]);
    let settings = Sources::new(flags, env).with_binding(env)?.resolve()?;
    let etcd_args = sidecar::grpc_proxy(&settings, &RELEASE, &args.extra);
    if args.dry_run {
        return print(&settings, &etcd_args, out);
    }
    let etcd = obtain("etcd", env)?;
    let addr = &settings.listen_addr;
    let _claim = sidecar::claim(addr, || say(&format!("{addr} is served by another etcd proxy: standing by")))?;
    Err(exec::exec(&etcd.path(), "etcd", &etcd_args).into())
}

fn print(settings: &Settings, etcd_args: &[OsString], out: &mut impl Write) -> Result<ExitCode> {
    writeln!(out, "# mode {}: etcd's grpc-proxy", settings.mode)?;
    write!(out, "etcd")?;
    for arg in etcd_args {
        let arg = arg.to_string_lossy();
        write!(out, " {}", shlex::try_quote(&arg).context("an argument holds a NUL byte")?)?;
    }
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}
