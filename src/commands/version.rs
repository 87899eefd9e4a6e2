//! `etcdproxy version`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::VERSION;
use crate::release::RELEASE;

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    writeln!(out, "etcdproxy {VERSION} with etcd {} linux-{}", RELEASE.version, RELEASE.arch)?;
    Ok(ExitCode::SUCCESS)
}
