//! `etcdproxy version`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::release::{RELEASE, VERSION};

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    writeln!(out, "etcdproxy {VERSION} with etcd {} linux-{}", RELEASE.version, RELEASE.arch)?;
    Ok(ExitCode::SUCCESS)
}
