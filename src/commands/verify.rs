//! `etcdproxy verify [DIR]`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::env::Env;
use crate::exit_code::Code;
use crate::release::{self, Program, RELEASE, Store};
use crate::{cli, place};

pub(crate) fn run(args: &cli::Verify, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let store = place::store(env);
    let mut sound = true;
    for program in RELEASE.programs {
        let mut report = |what: String, problem: Option<String>| -> Result<()> {
            sound &= problem.is_none();
            match problem {
                None => writeln!(out, "ok      {what}")?,
                Some(problem) => writeln!(out, "DIFFERS {what}: {problem}")?,
            }
            Ok(())
        };
        if release::is_carried() {
            let carried = format!("{} {} in this binary, sha256 {}", program.name, RELEASE.version, program.sha256);
            report(carried, release::check(program).err().map(|err| err.to_string()))?;
        }
        for file in files(program, args.dir.as_deref(), &store) {
            report(file.display().to_string(), release::difference(program, &file)?)?;
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { Code::Failed.into() })
}

/// The file in the directory that was named, which must be there; else whatever stands where `run` would look.
fn files(program: &Program, dir: Option<&Path>, store: &Store) -> Vec<PathBuf> {
    match dir {
        Some(dir) => vec![dir.join(program.name)],
        None => store.places(program).into_iter().filter(|path| path.symlink_metadata().is_ok()).collect(),
    }
}
