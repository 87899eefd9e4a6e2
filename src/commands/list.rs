//! `etcdproxy list`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::env::Env;
use crate::place;
use crate::release::RELEASE;

pub(crate) fn run(env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let store = place::store(env);
    writeln!(out, "etcd {} linux-{} from {}", RELEASE.version, RELEASE.arch, RELEASE.origin)?;
    for program in RELEASE.programs {
        let place =
            store.find(program).map_or_else(|| "not unpacked yet".to_owned(), |path| path.display().to_string());
        writeln!(out, "{:<8} {:>9} bytes  sha256 {}  {place}", program.name, program.size, program.sha256)?;
    }
    Ok(ExitCode::SUCCESS)
}
