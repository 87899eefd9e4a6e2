//! What `top` shows.

use super::figures::{bars, count, date, rate, span, took};
use super::style::{Line, Style, part};
use crate::proxy::Report;

/// How many lines of the log `--once` shows.
const LOG_LINES: usize = 20;

/// Everything, for output of any length.
pub(super) fn whole(report: &Report) -> Vec<Line> {
    let mut lines = above(report);
    lines.push(Line::new());
    lines.extend(settings(report));
    lines.push(Line::new());
    lines.extend(log(report, LOG_LINES));
    lines
}

/// As much as fits into `height` lines. `problem`: why the report is not new.
pub(super) fn fitted(report: Option<&Report>, problem: Option<&str>, height: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(problem) = problem {
        lines.push(vec![part(Style::Bad, "● "), part(Style::Bad, problem)]);
        lines.push(Line::new());
    }
    if let Some(report) = report {
        lines.extend(above(report));
        lines.push(Line::new());
        // The last line of the screen says how to leave.
        let left = height.saturating_sub(lines.len() + 2);
        if left > 0 {
            lines.extend(log(report, left));
        }
    }
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::new());
    lines.push(vec![part(Style::Quiet, "q: quit")]);
    lines
}

/// Everything but settings and log.
fn above(report: &Report) -> Vec<Line> {
    let mut lines = vec![title(report), Line::new()];
    let level = Style::of(&report.summary.level);
    lines.push(vec![part(level, "● "), part(level, &report.summary.headline)]);
    lines.extend(report.summary.why.iter().map(|why| vec![part(Style::Plain, "  "), part(Style::Plain, why)]));
    lines.push(Line::new());
    lines.extend(figures(report));
    if !report.members.is_empty() {
        lines.push(Line::new());
        lines.extend(members(report));
    }
    if !report.certificates.is_empty() {
        lines.push(Line::new());
        lines.extend(certificates(report));
    }
    lines
}

fn title(report: &Report) -> Line {
    let started = span(report.now - report.started);
    let about = format!(
        " {} with etcd {}, mode {}, on {}, process {}, started {started} ago",
        report.version, report.etcd_version, report.mode, report.listen_addr, report.pid
    );
    vec![part(Style::Bold, "etcdproxy"), part(Style::Quiet, about)]
}

fn figures(report: &Report) -> Vec<Line> {
    let row = |name: &str, text: String| vec![part(Style::Quiet, format!("{name:<10}")), part(Style::Plain, text)];
    let mut lines = Vec::new();
    if let Some(calls) = &report.calls {
        let last = calls.history.last().cloned().unwrap_or_default();
        let (now, p50, p99) = (rate(last.calls), took(last.p50), took(last.p99));
        lines.push(row(
            "calls",
            format!("{now:>7} a second   median {p50}   99% within {p99}   {} in flight", calls.in_flight),
        ));
        let bars = bars(calls.history.iter().rev().take(60).rev().map(|point| point.calls));
        lines.push(vec![part(Style::Plain, " ".repeat(12)), part(Style::Good, bars)]);
        let (total, failed, repeated) = (count(calls.total), count(calls.failed), count(calls.repeated));
        lines.push(row("", format!("{total:>7} since the start   {failed} failed   {repeated} sent again")));
    }
    if let Some(watches) = &report.watches {
        let (watchers, events) = (count(watches.watchers), count(watches.events));
        lines.push(row(
            "watchers",
            format!("{watchers:>7} ({} at the member)   {events} events", watches.watchers_at_member),
        ));
    }
    if let Some(leases) = &report.leases {
        lines.push(row(
            "leases",
            format!("{:>7} streams   {} keepalives", count(leases.streams), count(leases.keepalives)),
        ));
    }
    if let Some(clients) = &report.clients {
        let limit = clients.limit.map(|limit| format!(" of {limit} at most")).unwrap_or_default();
        lines.push(row("clients", format!("{:>7}{limit}", clients.connected)));
    }
    if let Some(etcd) = &report.etcd {
        let state = match (etcd.listening, etcd.pid) {
            (true, _) => "runs",
            (false, Some(_)) => "starts",
            (false, None) => "does not run",
        };
        lines.push(row("etcd", format!("{state:>7}   {} restarts", etcd.restarts)));
    }
    lines
}

fn members(report: &Report) -> Vec<Line> {
    let head = ["STATE", "MEMBER", "ROLE", "ETCD", "ROUND TRIP", "SINCE", "LAST ERROR"];
    let mut rows = vec![head.map(|name| part(Style::Quiet, name))];
    for member in &report.members {
        let mut role = Vec::new();
        role.extend(member.serves.then(|| "serves calls".to_owned()));
        role.extend(member.leads.then(|| "leader".to_owned()));
        role.extend(member.retired.then(|| "retired".to_owned()));
        role.extend(member.alarms.iter().map(|alarm| format!("alarm {alarm}")));
        let level = Style::of(&member.state);
        let past = || {
            let (why, at) = (member.last_error.as_ref()?, member.last_error_at?);
            Some(part(Style::Quiet, format!("{why} ({} ago)", span(report.now - at))))
        };
        let error = member.error.as_ref().map(|error| part(level, error)).or_else(past);
        rows.push([
            part(level, format!("● {}", member.state)),
            part(Style::Plain, &member.address),
            part(Style::Plain, role.join(", ")),
            part(Style::Plain, member.version.as_deref().unwrap_or_default()),
            part(Style::Plain, took(member.round_trip)),
            part(Style::Plain, span(report.now - member.since)),
            error.unwrap_or_else(|| part(Style::Plain, "")),
        ]);
    }
    table(&rows)
}

fn certificates(report: &Report) -> Vec<Line> {
    let mut rows = vec![["EXPIRES", "CERTIFICATE", "SUBJECT"].map(|name| part(Style::Quiet, name))];
    for certificate in &report.certificates {
        let level = Style::of(&certificate.level);
        let left = if certificate.days_left < 0 {
            "● expired".to_owned()
        } else {
            format!("● in {} days", certificate.days_left)
        };
        rows.push([part(level, left), part(Style::Plain, &certificate.what), part(Style::Plain, &certificate.subject)]);
    }
    table(&rows)
}

fn settings(report: &Report) -> Vec<Line> {
    let mut rows = vec![["SETTING", "VALUE", "SOURCE"].map(|name| part(Style::Quiet, name))];
    rows.extend(report.settings.iter().map(|setting| {
        let source = match &setting.from {
            from if *from == setting.name => setting.source.clone(),
            from => format!("{} {from}", setting.source),
        };
        [part(Style::Plain, &setting.name), part(Style::Plain, &setting.value), part(Style::Quiet, source)]
    }));
    let mut lines = table(&rows);
    lines.extend(report.warnings.iter().map(|warning| vec![part(Style::Warn, format!("warning: {warning}"))]));
    lines
}

/// The last lines, the newest last.
fn log(report: &Report, most: usize) -> Vec<Line> {
    let first = report.log.len().saturating_sub(most);
    let line = |line: &crate::proxy::LogLine| {
        let date = date(line.at);
        let time = date.get(11..19).unwrap_or_default();
        vec![part(Style::Quiet, format!("{time}  ")), part(Style::of(&line.level), &line.text)]
    };
    report.log[first..].iter().map(line).collect()
}

/// Columns below each other. The last one is as wide as it is.
fn table<const N: usize>(rows: &[[(Style, String); N]]) -> Vec<Line> {
    let width = |column: usize| rows.iter().map(|row| row[column].1.chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[(Style, String); N]| {
        let cells = row.iter().zip(&widths).enumerate();
        cells
            .map(|(n, ((style, text), width))| {
                let width = if n + 1 < N { width + 2 } else { 0 };
                (*style, format!("{text:<width$}"))
            })
            .collect()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::style::Palette;

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| Palette { has_colour: false }.line(line, 200)).collect()
    }

    #[test]
    fn a_screen_has_its_height_whatever_there_is() {
        let report: Report = serde_json::from_str(
            r#"{"members": [{"address": "a\u001b[2Jb", "state": "down", "error": "x\ny"}, {"address": "c", "state": "up"}],
                "log": [{"at": 1, "level": "warn", "text": "first"}, {"at": 2, "text": "second"}],
                "certificates": [{"what": "w", "days_left": -3}], "calls": {}, "clients": {"connected": 2}, "etcd": {}}"#,
        )
        .unwrap();
        for height in 0..40 {
            for report in [None, Some(&report)] {
                for problem in [None, Some("gone\r")] {
                    let lines = text(&fitted(report, problem, height));
                    assert_eq!(lines.len(), height.max(1));
                    assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
                }
            }
        }
        let lines = text(&whole(&report)).join("\n");
        for expected in [
            "STATE   MEMBER       ROLE  ETCD  ROUND TRIP  SINCE  LAST ERROR",
            "\n● down  a\\u{1b}[2Jb              -           0 s    x\\ny\n",
            "\n● expired  w\n",
            "00:00:01  first\n00:00:02  second",
        ] {
            assert!(lines.contains(expected), "{expected}\n{lines}");
        }
    }
}
