//! `etcdproxy unpack DIR`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::release::{RELEASE, unpack_into};

pub(crate) fn run(args: &cli::Unpack, out: &mut impl Write) -> Result<ExitCode> {
    for program in RELEASE.programs {
        let (path, written) = unpack_into(program, &args.dir)?;
        writeln!(out, "{}{}", path.display(), if written { "" } else { " (already there)" })?;
    }
    Ok(ExitCode::SUCCESS)
}
