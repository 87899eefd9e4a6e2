//! `etcdproxy licenses`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::release::{Document, document};

pub(crate) fn run(out: &mut impl Write) -> Result<ExitCode> {
    out.write_all(&document(Document::Licenses)?)?;
    Ok(ExitCode::SUCCESS)
}
