//! `etcdproxy detect`, `supply`, `compile`, `package`: what the scripts in `bin` call, and the zip they are in.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::buildpack::{self, Package, Supply};
use crate::commands::cli;
use crate::commands::exit_code::Code;
use crate::os::env::Env;
use crate::release::RELEASE;
use crate::settings::staging::Staging;

/// No: a buildpack that supplies to others is never the one that an application is detected as.
pub(crate) fn detect() -> ExitCode {
    Code::Failed.into()
}

pub(crate) fn supply(args: &[OsString], env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let [_build, _cache, deps, index] = args else {
        return Ok(usage("supply BUILD_DIR CACHE_DIR DEPS_DIR INDEX"));
    };
    let Some(index) = index.to_str().filter(|index| !index.is_empty() && index.chars().all(|c| c.is_ascii_digit()))
    else {
        return Ok(usage("supply BUILD_DIR CACHE_DIR DEPS_DIR INDEX (a number, as in 0)"));
    };
    let deps = Path::new(deps);
    if !deps.is_dir() {
        bail!("{} is no directory: the platform gives the one it made for the buildpacks' results", deps.display());
    }
    let staging = Staging::resolve(env, &RELEASE)?;
    buildpack::supply(&Supply { deps, index, exe: &env.exe }, &staging, &RELEASE, out)?;
    Ok(ExitCode::SUCCESS)
}

/// The platform calls this when the buildpack is the last one or the only one.
pub(crate) fn compile(args: &[OsString]) -> ExitCode {
    let [_build, _cache] = args else {
        return usage("compile BUILD_DIR CACHE_DIR");
    };
    eprintln!(
        "The etcdproxy buildpack supplies etcd to another buildpack, and cannot be the last one or the only one."
    );
    eprintln!("Name the application's own buildpack after it, as in: cf push -b etcdproxy_buildpack -b ruby_buildpack");
    Code::Failed.into()
}

pub(crate) fn package(args: cli::Package, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let task = Package {
        stack: args.stack.as_deref(),
        arch: args.arch.as_deref(),
        other: args.other.as_deref(),
        output: args.output,
        exe: &env.exe,
    };
    let path = buildpack::package(task, &RELEASE)?;
    writeln!(out, "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn usage(text: &str) -> ExitCode {
    eprintln!("usage: bin/{text}");
    Code::Usage.into()
}
