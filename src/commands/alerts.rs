//! `etcdproxy alerts`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    out.write_all(include_bytes!("../../assets/alerts.yml"))?;
    Ok(ExitCode::SUCCESS)
}
