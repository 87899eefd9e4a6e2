//! The program's own log: one line per message, on stderr. The backend of the `log` crate.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::json;

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
struct Stderr {
    format: AtomicU8,
}

static STDERR: Stderr = Stderr { format: AtomicU8::new(Format::Text as u8) };

/// Makes the `log` crate's macros write to stderr, as text until [`set_format`] says otherwise.
pub(crate) fn init() {
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

pub(crate) fn set_format(format: Format) {
    STDERR.format.store(format as u8, Ordering::Relaxed);
}

pub(crate) fn format() -> Format {
    Format::ALL[usize::from(STDERR.format.load(Ordering::Relaxed))]
}

/// One warning for each text.
pub(crate) fn warn_all<T: Display>(texts: &[T]) {
    for text in texts {
        log::warn!("{text}");
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, prefix) = match record.level() {
            Level::Error => ("error", "error: "),
            Level::Warn => ("warn", "warning: "),
            Level::Info | Level::Debug | Level::Trace => ("info", ""),
        };
        // Names and other programs' messages may contain line ends.
        let text = record.args().to_string().replace('\n', " ");
        if format() == Format::Json {
            let ts = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
            verbatim(&json!({"level": level, "ts": ts, "logger": "etcdproxy", "msg": text}).to_string());
        } else {
            verbatim(&format!("etcdproxy: {prefix}{text}"));
        }
    }

    fn flush(&self) {}
}

/// Writes the line unchanged, and in one piece, so that lines of several threads do not mix. A closed stderr does not
/// end the program.
pub(crate) fn verbatim(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
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
