//! `etcdproxy doctor`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::cli;
use super::cli::Output;
use super::exit_code::Code;
use crate::doctor::{Chapter, Level, examine};
use crate::os::env::Env;
use crate::os::log::escaped;
use crate::os::terminal;
use crate::release::{RELEASE, Store, VERSION};
use crate::settings::Sources;

#[derive(Serialize)]
struct Report<'a> {
    version: &'a str,
    etcd_version: &'a str,
    arch: &'a str,
    /// Whether nothing is a fault.
    ok: bool,
    chapters: &'a [Chapter],
}

pub(crate) fn run(args: cli::Doctor, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let sources = Sources::new(args.settings.0, env).with_etcd(Store::new(env).has("etcd"));
    let chapters = examine(sources.with_binding(env), env);
    let ok = chapters.iter().flat_map(|chapter| &chapter.findings).all(|finding| finding.level != Level::Fault);
    match args.output {
        Output::Json => {
            let report =
                Report { version: VERSION, etcd_version: RELEASE.version, arch: RELEASE.arch, ok, chapters: &chapters };
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Output::Text => print(&chapters, env, out)?,
    }
    Ok(if ok { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn print(chapters: &[Chapter], env: &Env, out: &mut impl Write) -> Result<()> {
    let has_colour = terminal::is_stdout(env) && terminal::takes_colour(env);
    writeln!(out, "etcdproxy {VERSION} with etcd {}, linux {}", RELEASE.version, RELEASE.arch)?;
    for Chapter { name, findings } in chapters.iter().filter(|chapter| !chapter.findings.is_empty()) {
        writeln!(out, "\n{name}")?;
        for finding in findings {
            let (word, colour) = match finding.level {
                Level::Ok => ("ok", 32),
                Level::Warning => ("warning", 33),
                Level::Fault => ("fault", 31),
            };
            let word = format!("{word:<8}");
            let word = if has_colour { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
            writeln!(out, "  {word} {}: {}", escaped(&finding.about), escaped(&finding.text))?;
            if let Some(advice) = &finding.advice {
                writeln!(out, "           -> {}", escaped(advice))?;
            }
        }
    }
    Ok(())
}
