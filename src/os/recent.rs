//! The last lines of the log, for the status page.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many lines to keep.
const LINES: usize = 50;

/// The longest text of one line, in bytes.
const MAX_TEXT: usize = 1024;

/// A line of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub time: SystemTime,
    /// `info`, `warn` or `error`; `etcd` for a line in etcd's own format.
    pub level: &'static str,
    /// One line, without control characters.
    pub text: String,
}

static RECENT: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// The last lines, the oldest first.
pub(crate) fn lines() -> Vec<Line> {
    recent().iter().cloned().collect()
}

pub(super) fn keep(level: &'static str, text: &str) {
    let kept = &text[..text.floor_char_boundary(MAX_TEXT)];
    let more = if kept.len() < text.len() { "…" } else { "" };
    let line = Line { time: SystemTime::now(), level, text: format!("{kept}{more}") };
    let mut recent = recent();
    if recent.len() >= LINES {
        recent.pop_front();
    }
    recent.push_back(line);
}

fn recent() -> MutexGuard<'static, VecDeque<Line>> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests log at the same time.
    #[test]
    fn the_last_lines_stay_and_long_ones_are_cut() {
        (0..2 * LINES).for_each(|n| keep("info", &format!("{n}")));
        keep("warn", &"é".repeat(MAX_TEXT));
        let lines = lines();
        assert_eq!(lines.len(), LINES);
        let long = lines.iter().find(|line| line.level == "warn" && line.text.starts_with("éé")).unwrap();
        assert_eq!(long.text, format!("{}…", "é".repeat(MAX_TEXT / 2)));
        assert!(lines.iter().all(|line| line.text != "1"));
    }
}
