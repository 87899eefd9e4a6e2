//! `etcdproxy top`

mod figures;
mod screen;
mod style;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::cli;
use crate::net::etcd_health::Unreachable;
use crate::net::local::fetch;
use crate::os::env::Env;
use crate::os::signals::{Events, pause};
use crate::os::terminal::{self, Terminal};
use crate::proxy::Report;
use crate::settings::{ListenAddr, Sources};
use style::Palette;

/// How often to ask the proxy.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer, in bytes. Fifty lines of the log, and what else there is, have less than 200 kB.
const MAX_ANSWER: usize = 1024 * 1024;

/// The width of the output where there is no terminal, in characters.
const WIDTH: usize = 160;

pub(crate) fn run(args: cli::Top, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let once = args.once;
    let sources = Sources::new(args.settings.0, env);
    let addr = match sources.metrics_addr()? {
        Some(addr) => addr.into(),
        None => sources.listen_addr()?,
    };
    let (has_colour, is_terminal) = (terminal::takes_colour(env), terminal::is_stdout(env));
    if once {
        let report = ask(&addr)?;
        let palette = Palette { has_colour: has_colour && is_terminal };
        for line in screen::whole(&report) {
            writeln!(out, "{}", palette.line(&line, WIDTH))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let events = Events::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).context("cannot receive signals")?;
    if is_terminal {
        refresh(&addr, &events, Palette { has_colour }, out)?;
    } else {
        // What was never there is an error; what goes away comes back.
        let mut report = Ok(ask(&addr)?);
        loop {
            writeln!(out, "{}", figures::line(report.as_ref().map_err(|err: &Unreachable| err.to_string())))?;
            out.flush()?;
            if pause(Some(&events), INTERVAL).is_some() {
                break;
            }
            report = ask(&addr);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws the screen until a signal or `q` comes.
fn refresh(addr: &ListenAddr, events: &Events, palette: Palette, out: &mut impl Write) -> Result<()> {
    let terminal = Terminal::open().context("cannot use this terminal")?;
    let mut report = None;
    loop {
        let asked = Instant::now();
        let answer = ask(addr);
        let problem = answer.as_ref().err().map(ToString::to_string);
        if let Ok(answer) = answer {
            report = Some(answer);
        }
        let mut size = Terminal::size();
        loop {
            let (width, height) = size;
            let lines = screen::fitted(report.as_ref(), problem.as_deref(), height);
            Terminal::draw(lines.iter().map(|line| palette.line(line, width)), out)?;
            while size == Terminal::size() && asked.elapsed() < INTERVAL {
                if terminal.wants_to_quit(events) {
                    return Ok(());
                }
            }
            if size == Terminal::size() {
                break;
            }
            size = Terminal::size();
        }
    }
}

fn ask(addr: &ListenAddr) -> Result<Report, Unreachable> {
    let failed =
        |reason: String| Unreachable { addr: addr.clone(), wanted: "an etcdproxy", after: String::new(), reason };
    let (status, body) = fetch(addr, "/status.json", MAX_ANSWER, TIMEOUT).map_err(failed)?;
    let report =
        serde_json::from_slice(&body).ok().filter(|report: &Report| status == 200 && !report.version.is_empty());
    report.ok_or_else(|| {
        let remedy = "etcd's own proxy has none, but --metrics-addr of a supervised one has (--drain)";
        failed(format!("it has no status ({status}): {remedy}"))
    })
}
