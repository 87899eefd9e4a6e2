//! What is known from the start, and the same in all modes.

use std::time::SystemTime;

use super::report::{Health, Line, Report, Setting};
use crate::os::clock::unix;
use crate::os::recent;
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Settings};

/// What does not change while the proxy runs.
#[derive(Debug)]
pub(in crate::proxy) struct Facts {
    report: Report,
    /// The names under which somebody of this host reaches the pages, besides `localhost` and addresses.
    pub hosts: Vec<String>,
}

impl Facts {
    pub(in crate::proxy) fn of(settings: &Settings) -> Self {
        let Settings { listen_addr, metrics_addr, .. } = settings;
        let shown = settings.shown.iter().map(|shown| Setting {
            name: shown.name.to_owned(),
            value: shown.value.clone(),
            source: shown.source.to_owned(),
            from: shown.from.clone(),
        });
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            etcd_version: RELEASE.version.to_owned(),
            mode: settings.run.mode().to_string(),
            mode_reason: settings.mode_reason.clone(),
            pid: std::process::id(),
            started: unix(SystemTime::now()),
            listen_addr: listen_addr.to_string(),
            metrics_addr: metrics_addr.as_ref().map(ToString::to_string),
            settings: shown.collect(),
            warnings: settings.warnings.clone(),
            ..Report::default()
        };
        let named = |addr: &ListenAddr| match addr {
            ListenAddr::Tcp(addr) => Some(addr.host().to_owned()),
            ListenAddr::Unix(_) => None,
        };
        let hosts = named(listen_addr).into_iter().chain(metrics_addr.as_ref().map(|addr| addr.host().to_owned()));
        Self { report, hosts: hosts.collect() }
    }

    /// A report of what is the same in all modes, with the log.
    pub(in crate::proxy) fn report(&self, health: Result<String, String>) -> Report {
        let health = match health {
            Ok(reason) => Health { ok: true, reason },
            Err(reason) => Health { ok: false, reason },
        };
        let line = |line: recent::Line| Line { at: unix(line.time), level: line.level.to_owned(), text: line.text };
        let log = recent::lines().into_iter().map(line).collect();
        Report { now: unix(SystemTime::now()), health, log, ..self.report.clone() }
    }
}
