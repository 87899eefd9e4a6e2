//! `etcdproxy list`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install;
use crate::os::env::Env;
use crate::release::{RELEASE, Store};

pub(crate) fn run(args: &cli::List, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let store = Store::new(env);
    writeln!(out, "etcd {} linux-{} from {}", RELEASE.version, RELEASE.arch, RELEASE.origin)?;
    for program in RELEASE.programs {
        let path = store.find(program).map_or_else(|| "not unpacked yet".to_owned(), |path| path.display().to_string());
        writeln!(out, "{:<8} {:>9} bytes  sha256 {}  {path}", program.name, program.size, program.sha256)?;
    }
    let Some((prefix, versions)) = install::list(&(&args.location).into(), env)? else { return Ok(ExitCode::SUCCESS) };
    writeln!(out, "installed in {}:", prefix.display())?;
    for version in versions {
        write!(out, "{} with etcd {}, {}", version.name, version.etcd, version.installed)?;
        if version.is_current {
            write!(out, ", current")?;
        }
        if !version.pids.is_empty() {
            let pids: Vec<String> = version.pids.iter().map(ToString::to_string).collect();
            write!(out, ", runs as process {}", pids.join(", "))?;
        }
        writeln!(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
