//! `etcdproxy man [DIR]`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::fs::{atomic, dirs};
use crate::release::help;

const REMEDY: &str = "choose another directory";

pub(crate) fn run(args: &cli::Man, out: &mut impl Write) -> Result<ExitCode> {
    let Some(dir) = &args.dir else {
        for (_, page) in help("man/", "etcdproxy.1")? {
            out.write_all(&page)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    dirs::ensure(dir, REMEDY)?;
    for (name, page) in help("man/", "")? {
        let path = dir.join(name);
        atomic::replace(&path, 0o644, REMEDY, |file| file.write_all(&page))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
