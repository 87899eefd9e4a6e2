//! `etcdproxy dashboard`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    out.write_all(include_bytes!("../../assets/dashboard.json"))?;
    Ok(ExitCode::SUCCESS)
}
