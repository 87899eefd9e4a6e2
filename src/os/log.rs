//! The program's own log: one line per message, on stderr. The backend of the `log` crate.

use std::borrow::Cow;
use std::fmt::Display;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::json;

use super::clock::rfc3339_micros;
use super::queue::Queue;
pub(crate) use super::queue::To;
use super::recent;

/// The longest text of one line, in bytes. What another program says may be longer.
const MAX_TEXT: usize = 8 * 1024;

/// How long the end of the program waits for a reader of the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One object per line, with the keys of etcd's own log: `level`, `ts`, `msg`.
    Json,
    /// As text; etcd's own lines stay unchanged.
    Raw,
}

impl Format {
    const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Raw];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }
}

/// The program's one logger.
struct Logger {
    format: AtomicU8,
}

static LOGGER: Logger = Logger { format: AtomicU8::new(Format::Text as u8) };
static STDOUT: Queue = Queue::new(To::Stdout, dropped);
static STDERR: Queue = Queue::new(To::Stderr, dropped);

/// Makes the `log` crate's macros, and a panic, write to stderr, as text until [`set_format`] says otherwise.
pub(crate) fn init() {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    // The standard hook would wait for ever for a reader who does not read.
    std::panic::set_hook(Box::new(|info| {
        log::error!("this is a bug of etcdproxy, please report it: {info}");
        LOGGER.flush();
    }));
}

/// From now on, nobody waits for the reader of the log, and lines that he leaves waiting for too long are dropped. To be
/// called by what serves others.
pub(crate) fn write_in_background() {
    STDERR.start_writer();
}

pub(crate) fn set_format(format: Format) {
    LOGGER.format.store(format as u8, Ordering::Relaxed);
}

pub(crate) fn format() -> Format {
    Format::ALL[usize::from(LOGGER.format.load(Ordering::Relaxed))]
}

/// One warning for each text.
pub(crate) fn warn_all<T: Display>(texts: &[T]) {
    for text in texts {
        log::warn!("{text}");
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = printable(&record.args().to_string()).into_owned();
            recent::keep(names(record.level()).0, &text);
            STDERR.push(&line(record.level(), &text));
        }
    }

    /// Waits until all lines are written, for 1 s at most. To be called before this program ends or becomes another.
    fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        STDERR.flush(deadline);
        STDOUT.flush(deadline);
    }
}

/// The name of a level, and what comes before a text of that level.
fn names(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Error => ("error", "error: "),
        Level::Warn => ("warn", "warning: "),
        Level::Info | Level::Debug | Level::Trace => ("info", ""),
    }
}

/// The line of the log for this text, which is printable.
fn line(level: Level, text: &str) -> String {
    let (level, prefix) = names(level);
    if format() == Format::Json {
        let ts = rfc3339_micros(SystemTime::now());
        json!({"level": level, "ts": ts, "logger": "etcdproxy", "msg": text}).to_string()
    } else {
        format!("etcdproxy: {prefix}{text}")
    }
}

/// The line about lines for which there was no room.
fn dropped(count: u64) -> String {
    line(Level::Warn, &format!("{count} lines of the log were dropped: nobody had read the lines before them"))
}

/// Writes a line of another program's log, without a prefix of ours.
pub(crate) fn copy_line(to: To, line: &str) {
    let queue = match to {
        To::Stdout => &STDOUT,
        To::Stderr => &STDERR,
    };
    if to == To::Stdout {
        queue.start_writer();
    }
    let line = escaped(line);
    recent::keep("etcd", &line);
    queue.push(&line);
}

/// The text as one line of limited length. Names, and what other programs say, may contain anything.
fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return escaped(text);
    }
    let kept = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut shortened = escaped(kept).into_owned();
    let _ = write!(shortened, "… ({} more bytes)", text.len() - kept.len()); // writing to a string cannot fail
    shortened.into()
}

/// The text with escapes in place of what could move a terminal's cursor, or make one line look like several.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    // Controls, and those of Unicode for the direction of text and the ends of lines.
    let is_harmful = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped.into()
}

/// The text of a system error, without its number and without the resolver's prefix.
pub(crate) fn without_errno(err: &std::io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.trim_start_matches("failed to lookup address information: ").to_owned()
}

/// The error and its causes, in one line. Leaves out a cause that the text before it contains already.
pub(crate) fn with_causes(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    for cause in std::iter::successors(err.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A warning that may come in floods and is logged once per [`Throttle::INTERVAL`] at most.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    const INTERVAL: Duration = Duration::from_secs(30);

    pub(crate) fn warn(&self, text: impl Display) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Self::INTERVAL) {
            *last = Some(Instant::now());
            log::warn!("{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_one_line_of_limited_length_without_control_characters() {
        let hostile = "a\nb\r\u{1b}[2Jc\u{7f}\u{9b}31m\u{202e}d\u{2028}e";
        let harmless = r"a\nb\r\u{1b}[2Jc\u{7f}\u{9b}31m\u{202e}d\u{2028}e";
        assert_eq!(printable(hostile), harmless);
        assert_eq!(escaped(hostile), harmless);
        for text in ["", "naïve\tC:\\x \"…\" 中", &"é".repeat(MAX_TEXT / 2)] {
            assert_eq!(printable(text), text);
        }
        let long = printable(&"é".repeat(30_000)).into_owned();
        assert_eq!(long, format!("{}… ({} more bytes)", "é".repeat(MAX_TEXT / 2), 60_000 - MAX_TEXT));
        assert!(printable(&"\u{1b}".repeat(60_000)).len() < 8 * MAX_TEXT);
    }
}
