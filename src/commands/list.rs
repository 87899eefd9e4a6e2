//! `etcdproxy list`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::install::{Receipt, running};
use crate::os::env::Env;
use crate::place;
use crate::release::RELEASE;

pub(crate) fn run(args: &cli::List, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let store = place::store(env);
    writeln!(out, "etcd {} linux-{} from {}", RELEASE.version, RELEASE.arch, RELEASE.origin)?;
    for program in RELEASE.programs {
        let place =
            store.find(program).map_or_else(|| "not unpacked yet".to_owned(), |path| path.display().to_string());
        writeln!(out, "{:<8} {:>9} bytes  sha256 {}  {place}", program.name, program.size, program.sha256)?;
    }
    let layout = place::installation(&args.place, None, env)?;
    let Some(receipt) = Receipt::load_installed(&layout)? else { return Ok(ExitCode::SUCCESS) };
    writeln!(out, "installed in {}:", layout.real(&layout.prefix).display())?;
    for version in &receipt.versions {
        let mut words = vec![format!("{} with etcd {}, {}", version.name, version.etcd, version.installed)];
        if receipt.current.as_ref() == Some(&version.name) {
            words.push("current".to_owned());
        }
        let pids: Vec<String> = running(&layout, version).iter().map(ToString::to_string).collect();
        if !pids.is_empty() {
            words.push(format!("runs as process {}", pids.join(", ")));
        }
        writeln!(out, "{}", words.join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}
