//! Why the settings cannot work.

use std::fmt::Display;
use std::path::Path;

/// A setting that cannot work. The text names the setting, the problem, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub(crate) struct Error {
    setting: String,
    problem: String,
    time_can_mend: bool,
}

impl Error {
    /// `setting` as its user knows it: `--mode`, `ETCDPROXY_MODE`, or the service binding.
    pub(crate) fn new(setting: impl Into<String>, problem: impl Display) -> Self {
        Self { setting: setting.into(), problem: problem.to_string(), time_can_mend: false }
    }

    /// A problem that goes away without a change of the settings: a file is not there yet, a certificate is not valid
    /// yet.
    pub(super) fn not_yet(setting: impl Into<String>, problem: impl Display) -> Self {
        Self { time_can_mend: true, ..Self::new(setting, problem) }
    }

    /// Whether it is worth waiting.
    pub(crate) fn time_can_mend(&self) -> bool {
        self.time_can_mend
    }

    /// The same, for a setting that is in `file`.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        Self { setting: format!("{}: {}", file.display(), self.setting), ..self }
    }

    /// Reported before the command line is parsed, because the parser would print what it does not understand.
    pub(crate) fn pem_in_arguments() -> Self {
        Self::new(
            "command line",
            "it contains a certificate or key as PEM text, which every program on this host can read: name a file, or \
             set the environment variable",
        )
    }
}
