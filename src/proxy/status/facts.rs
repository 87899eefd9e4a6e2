//! What is known from the start, and the same in all modes.

use std::time::SystemTime;

use super::report::{Certificate, Health, Line, Report, Setting};
use crate::net::{SOON, days_left};
use crate::os::clock::unix;
use crate::os::recent;
use crate::release::RELEASE;
use crate::settings::{ListenAddr, Settings, Tls};

/// How many authorities to name.
const MAX_AUTHORITIES: usize = 3;

/// What does not change while the proxy runs.
#[derive(Debug)]
pub(in crate::proxy) struct Facts {
    report: Report,
    /// The names under which somebody of this host reaches the pages, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// The subjects of the client certificate and of the authorities.
    pub client: Option<String>,
    pub ca: Option<String>,
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
        let Tls { identity, ca, .. } = &settings.tls;
        let client = identity.as_ref().map(|identity| identity.cert.subjects(1));
        let ca = ca.as_ref().map(|ca| ca.subjects(MAX_AUTHORITIES));
        Self { report, hosts: hosts.collect(), client, ca }
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

/// A certificate that ends at this time, in seconds since 1970.
#[allow(clippy::cast_precision_loss, reason = "years have few seconds")]
pub(in crate::proxy) fn certificate(what: &str, subject: Option<&str>, end: i64) -> Certificate {
    let (what, subject) = (what.to_owned(), subject.unwrap_or_default().to_owned());
    let days_left = days_left(end);
    let level = match days_left {
        ..3 => "bad",
        3..SOON => "warn",
        _ => "good",
    };
    Certificate { what, subject, expires: end as f64, days_left, level: level.to_owned() }
}
