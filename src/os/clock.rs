//! Dates as text. A clock may show any time: a host without a battery starts before 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999: RFC 3339 has four digits for the year.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// As in `2026-11-26T21:50:01Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(within_range(time)).to_string()
}

/// As in `2026-11-26T21:50:01.123456Z`.
pub(crate) fn rfc3339_micros(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(within_range(time)).to_string()
}

/// The nearest time that can be written.
fn within_range(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + since_epoch(time).min(LAST)
}

/// The time since 1970; zero before it.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970, to a millisecond.
pub(crate) fn unix(time: SystemTime) -> f64 {
    (since_epoch(time).as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written() {
        let day = Duration::from_hours(24);
        assert_eq!(rfc3339(UNIX_EPOCH + day), "1970-01-02T00:00:00Z");
        assert_eq!(rfc3339_micros(UNIX_EPOCH - day), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(UNIX_EPOCH - day), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH + day * 365 * 9000), "9999-12-31T23:59:59Z");
    }
}
