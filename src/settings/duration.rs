//! Durations as a person writes them. A leaf: `build.rs` includes this file as well.

use std::time::Duration;

/// Reads a duration such as `500ms`, `8s` or `2m`. Anything longer than a hundred years counts as a hundred years.
///
/// # Errors
/// What was expected, if `text` is not a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|_| "expected a number with a unit, as in 8s")?;
    Ok(parsed.min(Duration::from_hours(100 * 365 * 24)))
}
