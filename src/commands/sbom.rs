//! `etcdproxy sbom [--format FORMAT]`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::release::{Document, document};

pub(crate) fn run(args: &cli::Sbom, out: &mut impl Write) -> Result<ExitCode> {
    let format = if args.format == "spdx" { Document::Spdx } else { Document::CycloneDx };
    out.write_all(&document(format)?)?;
    Ok(ExitCode::SUCCESS)
}
