//! `etcdproxy verify [DIR]`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::commands::cli;
use crate::commands::exit_code::Code;
use crate::install::{self, Finding, Receipt};
use crate::os::env::Env;
use crate::place;
use crate::release::{self, Program, RELEASE, Store};

#[derive(Serialize)]
struct Report {
    sound: bool,
    /// Of the programs inside this binary.
    carried: Vec<Carried>,
    files: Vec<Finding>,
}

#[derive(Serialize)]
struct Carried {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
    problem: Option<String>,
}

pub(crate) fn run(args: &cli::Verify, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let store = place::store(env);
    let mut report = Report { sound: true, carried: Vec::new(), files: Vec::new() };
    for program in RELEASE.programs {
        if release::has_payload() {
            let problem = release::check(program).err().map(|err| err.to_string());
            let (name, sha256) = (program.name, program.sha256);
            report.carried.push(Carried { name, version: RELEASE.version, sha256, problem });
        }
        for path in files(program, args, &store) {
            let problem = release::difference(program, &path)?;
            report.files.push(Finding::new(path, problem));
        }
    }
    if args.dir.is_none() {
        let installed = installed(&args.place, env)?;
        report.files.retain(|file| installed.iter().all(|other| other.path != file.path));
        report.files.extend(installed);
    }
    if report.carried.is_empty() && report.files.is_empty() {
        let looked_for = RELEASE.programs.iter().flat_map(|program| store.places(program));
        let looked_for: Vec<String> = looked_for.map(|path| path.display().to_string()).collect();
        bail!(
            "nothing to verify: this is the small launcher, which has no etcd inside, and there is no {}: name the directory",
            looked_for.join(", ")
        );
    }
    let problems = report.carried.iter().map(|one| &one.problem).chain(report.files.iter().map(|one| &one.problem));
    report.sound = problems.into_iter().all(Option::is_none);
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.sound { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn print(report: &Report, out: &mut impl Write) -> Result<()> {
    let mut line = |what: String, problem: &Option<String>| match problem {
        None => writeln!(out, "ok      {what}"),
        Some(problem) => writeln!(out, "DIFFERS {what}: {problem}"),
    };
    for Carried { name, version, sha256, problem } in &report.carried {
        line(format!("{name} {version} in this binary, sha256 {sha256}"), problem)?;
    }
    for Finding { path, problem, yours } in &report.files {
        let yours = if *yours { ", changed by you" } else { "" };
        line(format!("{}{yours}", path.display()), problem)?;
    }
    Ok(())
}

/// The file in the directory that was named, which must be there; else whatever stands where `run` would look, which is
/// on this host.
fn files(program: &Program, args: &cli::Verify, store: &Store) -> Vec<PathBuf> {
    match &args.dir {
        Some(dir) => vec![dir.join(program.name)],
        None if args.place.root.is_some() => Vec::new(),
        None => store.places(program).into_iter().filter(|path| path.symlink_metadata().is_ok()).collect(),
    }
}

/// All that the installation's receipt lists. One that was named must be there.
fn installed(place: &cli::Place, env: &Env) -> Result<Vec<Finding>> {
    let is_named = place.prefix.is_some() || place.root.is_some() || place.user;
    let layout = place::installation(place, None, env)?;
    match Receipt::load_installed(&layout)? {
        Some(receipt) => Ok(install::verify(&layout, &receipt)),
        None if is_named => Err(install::Error::NothingThere { path: layout.real(&layout.prefix) }.into()),
        None => Ok(Vec::new()),
    }
}
