//! Figures as people read them. The status page shows them in the same way.

use std::time::{Duration, UNIX_EPOCH};

use crate::os::clock::rfc3339;
use crate::os::log::escaped;
use crate::proxy::Report;

/// As in `7`, `12.3 k` or `1.2 M`.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn count(count: u64) -> String {
    rate(count as f64)
}

/// The same with one digit after the point, if it is not 0.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        million if million >= 1e6 => format!("{:.1} M", million / 1e6),
        thousand if thousand >= 1e4 => format!("{:.1} k", thousand / 1e3),
        whole if (whole * 10.0).round() % 10.0 == 0.0 => format!("{whole:.0}"),
        other => format!("{other:.1}"),
    }
}

/// How long something took: as in `0.42 ms` or `1.3 s`; `-` if that is not known.
pub(super) fn took(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// A span of time as in `42 s`, `3 min`, `5 h` or `9 d`.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{:.0} s", seconds.max(0.0)),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86400.0),
    }
}

/// Date and time, as in `2026-11-27T05:37:32Z`; 1970 if the time makes no sense.
pub(super) fn date(unix: f64) -> String {
    rfc3339(
        UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default().min(Duration::from_hours(24 * 365 * 8000)),
    )
}

/// A bar for each value, the highest for the largest one.
pub(super) fn bars(values: impl Iterator<Item = f64> + Clone) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = values.clone().fold(0.0, f64::max);
    let bar = |value: f64| {
        let full =
            BARS.iter().enumerate().rev().find(|(n, _)| value / top * 8.0 > f64::from(u8::try_from(*n).unwrap_or(7)));
        full.map_or(BARS[0], |(_, bar)| *bar)
    };
    values.map(bar).collect()
}

/// One line about the proxy, where nobody can draw; or why there is none.
pub(super) fn line(report: Result<&Report, String>) -> String {
    let report = match report {
        Ok(report) => report,
        Err(why) => return format!("{} {}", rfc3339(std::time::SystemTime::now()), escaped(&why)),
    };
    let mut parts = vec![report.summary.headline.clone()];
    if let Some(calls) = &report.calls {
        let last = calls.history.last().cloned().unwrap_or_default();
        parts.push(format!("{} calls/s", rate(last.calls)));
        parts.push(format!("{} failed/s", rate(last.failed)));
        parts.push(format!("p50 {}", took(last.p50)));
        parts.push(format!("p99 {}", took(last.p99)));
        parts.push(format!("{} in flight", calls.in_flight));
    }
    if let Some(watches) = &report.watches {
        parts.push(format!("{} watchers", watches.watchers));
    }
    let members = &report.members;
    if !members.is_empty() {
        parts.push(format!("{} of {} members up", members.iter().filter(|it| it.state == "up").count(), members.len()));
    }
    if report.summary.level != "good" {
        parts.extend(report.summary.why.clone());
    }
    format!("{} {}", date(report.now), escaped(&parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!([0, 7, 9999, 12_345, 1_200_000].map(count), ["0", "7", "9999", "12.3 k", "1.2 M"]);
        assert_eq!([0.5, 3.0, 12.34].map(rate), ["0.5", "3", "12.3"]);
        let spans = [0.000_42, 0.0123, 2.5].map(|seconds| took(Some(seconds)));
        assert_eq!(spans, ["0.42 ms", "12 ms", "2.5 s"]);
        assert_eq!([-1.0, 89.0, 600.0, 7200.0, 864_000.0].map(span), ["0 s", "89 s", "10 min", "2 h", "10 d"]);
        assert_eq!(date(1_795_757_852.5), "2026-11-27T05:37:32Z");
        assert_eq!([f64::NAN, -1.0, 1e30].map(date), ["1970-01-01T00:00:00Z"; 3]);
        assert_eq!(bars([0.0, 1.0, 4.0, 8.0].into_iter()), "▁▁▄█");
        assert_eq!(bars([0.0, 0.0].into_iter()), "▁▁");
    }

    #[test]
    fn one_line_for_pipes() {
        let mut report = Report { now: 1.0, ..Report::default() };
        report.summary.headline = "Healthy\x1b".to_owned();
        report.summary.level = "good".to_owned();
        assert_eq!(line(Ok(&report)), "1970-01-01T00:00:01Z Healthy\\u{1b}");
        report.calls = Some(crate::proxy::Report::default().calls.unwrap_or_default());
        assert!(
            line(Ok(&report)).ends_with("0 calls/s, 0 failed/s, p50 -, p99 -, 0 in flight"),
            "{}",
            line(Ok(&report))
        );
    }
}
