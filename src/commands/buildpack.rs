//! `etcdproxy detect`, `supply` and `compile`, which the scripts in `bin` call.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::buildpack::{self, Options, Supply};
use crate::commands::exit_code::Code;
use crate::os::env::Env;
use crate::release::RELEASE;

/// The answer is always no: this buildpack only supplies etcd to other buildpacks.
pub(crate) fn detect() -> ExitCode {
    Code::Failed.into()
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
