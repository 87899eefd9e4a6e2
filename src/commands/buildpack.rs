//! `etcdproxy detect`, `build`, `supply` and `compile`, which the scripts in `bin` call.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::buildpack::{self, Build, Detected, Options, Platform, Supply};
use crate::commands::exit_code::Code;
use crate::os::env::Env;
use crate::release::RELEASE;

/// Cloud Foundry and the lifecycles of Cloud Native Buildpacks call it. The answer to Cloud Foundry is always no: there,
/// this buildpack only supplies etcd to other buildpacks.
pub(crate) fn detect(env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let Some(platform) = Platform::of_lifecycle(env) else { return Ok(Code::Failed.into()) };
    let options = Options::resolve(&platform.environment(env)?, &RELEASE)?;
    let detected = buildpack::detect(&options, env.path("CNB_BUILD_PLAN_PATH").as_deref())?;
    let (Detected::Pass(why) | Detected::Fail(why)) = &detected;
    writeln!(out, "Etcdproxy Buildpack: {why}.")?;
    Ok(detected.code().into())
}

/// The lifecycles of Cloud Native Buildpacks call it.
pub(crate) fn build(env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let (platform, layers) = Platform::of_lifecycle(env).zip(env.path("CNB_LAYERS_DIR")).context(
        "CNB_BUILDPACK_DIR and CNB_LAYERS_DIR are not set: bin/build is for the lifecycle of Cloud Native Buildpacks",
    )?;
    let env = platform.environment(env)?;
    let options = Options::resolve(&env, &RELEASE)?;
    let waits = env.get("ETCDPROXY_WAIT").is_some();
    buildpack::build(&Build { layers: &layers, exe: &env.exe, waits }, &options, &RELEASE, out)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn supply(args: &[OsString], env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let [build, _cache, deps, index] = args else {
        return Ok(usage("supply BUILD_DIR CACHE_DIR DEPS_DIR INDEX"));
    };
    let Some(index) = index.to_str().filter(|index| !index.is_empty() && index.chars().all(|c| c.is_ascii_digit()))
    else {
        return Ok(usage("supply BUILD_DIR CACHE_DIR DEPS_DIR INDEX (a number, such as 0)"));
    };
    let deps = Path::new(deps);
    if !deps.is_dir() {
        bail!("{} is not a directory: DEPS_DIR must be the one that the platform makes for buildpacks", deps.display());
    }
    let options = Options::resolve(env, &RELEASE)?;
    buildpack::supply(
        &Supply { build: Path::new(build), deps, index, exe: &env.exe, waits: env.get("ETCDPROXY_WAIT").is_some() },
        &options,
        &RELEASE,
        out,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The platform calls this if the buildpack is the last one or the only one.
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

fn usage(text: &str) -> ExitCode {
    eprintln!("usage: bin/{text}");
    Code::Usage.into()
}
