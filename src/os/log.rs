//! What the program says while it runs: one line each, on stderr.

use std::fmt::Display;
use std::io::Write as _;
use std::time::SystemTime;

use serde_json::json;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One object per line, with the keys of etcd's own log: `level`, `ts`, `msg`.
    Json,
    /// As text; etcd's own lines are not touched.
    Raw,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Log {
    pub format: Format,
}

impl Log {
    pub(crate) fn info(self, text: impl Display) {
        self.line(Level::Info, text);
    }

    /// For what should not be.
    pub(crate) fn warn(self, text: impl Display) {
        self.line(Level::Warn, text);
    }

    pub(crate) fn warn_all<T: Display>(self, texts: &[T]) {
        for text in texts {
            self.warn(text);
        }
    }

    pub(crate) fn error(self, text: impl Display) {
        self.line(Level::Error, text);
    }

    pub(crate) fn line(self, level: Level, text: impl Display) {
        let (level, prefix) = match level {
            Level::Info => ("info", ""),
            Level::Warn => ("warn", "warning: "),
            Level::Error => ("error", "error: "),
        };
        // Whatever a name or another program's words bring along.
        let text = text.to_string().replace('\n', " ");
        if self.format == Format::Json {
            let ts = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
            Self::verbatim(&json!({"level": level, "ts": ts, "logger": "etcdproxy", "msg": text}).to_string());
        } else {
            Self::verbatim(&format!("etcdproxy: {prefix}{text}"));
        }
    }

    /// The line as it is. In one write, so that lines of several threads do not mix; a reader that has gone is no
    /// reason to end.
    pub(crate) fn verbatim(line: &str) {
        let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
    }
}

/// A system's error without its number.
pub(crate) fn words_of(err: &std::io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.trim_start_matches("failed to lookup address information: ").to_owned()
}
