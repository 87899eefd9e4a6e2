//! How a duration is written. A leaf: build.rs reads this file, too, for the command line's types.

use std::time::Duration;

/// As in `500ms`, `8s`, `2m`. More than a hundred years count as a hundred years.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map(|duration| duration.min(Duration::from_hours(100 * 365 * 24)));
    parsed.map_err(|_| format!("{text:?} is no duration: write one as in 8s"))
}
