//! `etcdproxy completions SHELL`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::release::help;

pub(crate) fn run(args: &cli::Completions, out: &mut impl Write) -> Result<ExitCode> {
    for (_, script) in help("completions/", &args.shell)? {
        out.write_all(&script)?;
    }
    Ok(ExitCode::SUCCESS)
}
