//! `etcdproxy package [--format FORMAT]`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::os::env::Env;
use crate::package::{self, Format, Package};

pub(crate) fn run(args: &cli::Package, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let format = Format::ALL.into_iter().find(|(name, _)| *name == args.format);
    let path = package::package(&Package {
        format: format.map_or(Format::Zip, |(_, format)| format),
        stack: args.stack.as_deref(),
        arch: args.arch.as_deref(),
        other: args.other.as_deref(),
        without_etcd: args.without_etcd,
        ca_bundle: args.ca_bundle.as_deref(),
        output: args.output.clone(),
        exe: &env.exe,
    })?;
    writeln!(out, "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}
