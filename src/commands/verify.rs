//! `etcdproxy verify [DIR]`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::cli;
use crate::commands::exit_code::Code;
use crate::install::{self, Embedded, Finding, Report};
use crate::os::env::Env;
use crate::release::Difference;

pub(crate) fn run(args: &cli::Verify, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let report = install::verify(args.dir.as_deref(), &(&args.location).into(), env)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.sound { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn print(report: &Report, out: &mut impl Write) -> Result<()> {
    let mut line = |what: String, problem: &Option<Difference>| match problem {
        None => writeln!(out, "ok       {what}"),
        Some(Difference::Missing) => writeln!(out, "MISSING  {what}"),
        Some(Difference::Mismatch(problem)) => writeln!(out, "MISMATCH {what}: {problem}"),
    };
    for Embedded { name, version, sha256, problem } in &report.embedded {
        line(format!("{name} {version} in this binary, sha256 {sha256}"), problem)?;
    }
    for Finding { path, problem, yours } in &report.files {
        let yours = if *yours { ", changed by you" } else { "" };
        line(format!("{}{yours}", path.display()), problem)?;
    }
    Ok(())
}
