//! One binary with etcd inside.
//!
//! `argv[0]` or the sub-command picks a role: called as `etcd`, `etcdctl` or `etcdutl` (a link of that name)
//! it becomes that program; called as `start-etcdproxy` it starts the proxy beside an application, for the launcher of
//! Cloud Native Buildpacks; called by any other name it is the command line of `etcdproxy`.

mod api;
mod buildpack;
mod commands;
mod dev;
mod doctor;
mod fs;
mod install;
mod manifest;
mod net;
mod os;
mod package;
mod proxy;
mod release;
mod settings;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser as _;

use commands::cli::{Cli, Command};
use commands::{exit_code, secret_args};
use os::env::Env;

fn main() -> ExitCode {
    os::log::init();
    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let code = match run(&called_as, &args, &Env::of_process()) {
        Ok(code) => code,
        Err(err) if reader_has_gone(&err) => ExitCode::SUCCESS,
        Err(err) => {
            log::error!("{}", secret_args::safe_to_show(&os::log::with_causes(&*err), &args));
            exit_code::of(&err)
        }
    };
    log::logger().flush();
    code
}

fn run(called_as: &OsString, args: &[OsString], env: &Env) -> Result<ExitCode> {
    if let Some(program) = commands::multicall::program(called_as) {
        return commands::multicall::run(program, args, env);
    }
    if commands::exec_d::is_called(called_as) {
        return commands::exec_d::run(env);
    }
    if os::init::is_init() {
        return Ok(os::init::run(called_as, args, env)?);
    }
    let out = &mut os::stdout::Stdout::lock();
    if secret_args::contain_pem(args) {
        bail!(settings::Error::pem_in_arguments());
    }
    let parsed = match Cli::try_parse_from(std::iter::once(called_as).chain(args)) {
        Ok(parsed) => parsed,
        Err(err) => return Ok(commands::usage::report(err, args)),
    };
    match parsed.command {
        Command::Run(args) => commands::run::run(args, env, out),
        Command::Exec(args) => commands::exec::run(args, env),
        Command::Wait(args) => commands::wait::run(args, env),
        Command::Health(args) => commands::health::run(args, env, out),
        Command::Doctor(args) => commands::doctor::run(args, env, out),
        Command::Top(args) => commands::top::run(args, env, out),
        Command::Dev(args) => commands::dev::run(args, env, out),
        Command::Unpack(args) => commands::unpack::run(&args, out),
        Command::Verify(args) => commands::verify::run(&args, env, out),
        Command::Package(args) => commands::package::run(&args, env, out),
        Command::Detect { .. } => commands::buildpack::detect(env, out),
        Command::Supply { args } => commands::buildpack::supply(&args, env, out),
        Command::Build { .. } => commands::buildpack::build(env, out),
        Command::Compile { args } => Ok(commands::buildpack::compile(&args)),
        Command::Install(args) => commands::install::run(&args, env, out),
        Command::Uninstall(args) => commands::uninstall::run(&args, env, out),
        Command::Rollback(args) => commands::rollback::run(&args, env, out),
        Command::Prune(args) => commands::prune::run(&args, env, out),
        Command::List(args) => commands::list::run(&args, env, out),
        Command::Manifest(args) => commands::manifest::run(args, env, out),
        Command::Completions(args) => commands::completions::run(&args, out),
        Command::Man(args) => commands::man::run(&args, out),
        Command::Dashboard => commands::dashboard::run(out),
        Command::Alerts => commands::alerts::run(out),
        Command::Sbom(args) => commands::sbom::run(&args, out),
        Command::Licenses => commands::licenses::run(out),
        Command::Version => commands::version::run(out),
    }
}

/// Whether the reader of stdout has gone, as in `etcdproxy list | head -1`. That is no error.
fn reader_has_gone(err: &anyhow::Error) -> bool {
    err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe)
}
