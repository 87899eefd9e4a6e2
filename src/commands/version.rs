//! `etcdproxy version`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::release::RELEASE;

/// This program's own version.
pub(crate) const SHORT: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    writeln!(out, "etcdproxy {SHORT} with etcd {} linux-{}", RELEASE.version, RELEASE.arch)?;
    Ok(ExitCode::SUCCESS)
}
