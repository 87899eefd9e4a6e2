//! Why the settings cannot work.

use std::fmt::Display;
use std::path::Path;

use super::mode::NO_ETCD;

/// A setting that cannot work. The text names the setting, the problem, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub(crate) struct Error {
    setting: String,
    problem: String,
    is_usage: bool,
    time_can_mend: bool,
}

impl Error {
    /// `setting` as its user knows it: `--mode`, `ETCDPROXY_MODE`, or the service binding.
    pub(crate) fn new(setting: impl Into<String>, problem: impl Display) -> Self {
        Self { setting: setting.into(), problem: problem.to_string(), is_usage: false, time_can_mend: false }
    }

    /// A mistake that the command line alone shows, such as a value that a flag does not take.
    pub(crate) fn usage(setting: impl Into<String>, problem: impl Display) -> Self {
        Self { is_usage: true, ..Self::new(setting, problem) }
    }

    /// Whether the command line alone shows the mistake.
    pub(crate) fn is_usage(&self) -> bool {
        self.is_usage
    }

    /// A problem that goes away without a change of the settings: a file is not there yet, a certificate is not valid
    /// yet.
    pub(super) fn not_yet(setting: impl Into<String>, problem: impl Display) -> Self {
        Self { time_can_mend: true, ..Self::new(setting, problem) }
    }

    /// The files with certificates are not read within `seconds`.
    pub(crate) fn hung_files(seconds: u64) -> Self {
        Self::not_yet(
            "certificates",
            format_args!("their files cannot be read within {seconds} s: is a file system hung?"),
        )
    }

    /// Whether it is worth waiting.
    pub(crate) fn time_can_mend(&self) -> bool {
        self.time_can_mend
    }

    /// The small launcher is called as a program of etcd, which it does not have.
    pub(crate) fn needs_etcd(name: &str) -> Self {
        Self::new(
            name,
            format_args!(
                "{NO_ETCD}: use \"etcdproxy run\" in the command instead, which needs none, or a build with etcd (on \
                 Cloud Foundry, stage without BP_ETCDPROXY_MODE)"
            ),
        )
    }

    /// The same, for a setting that is in `file`.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        Self { setting: format!("{}: {}", file.display(), self.setting), ..self }
    }

    /// Reported before the command line is parsed, because the parser would print what it does not understand.
    pub(crate) fn pem_in_arguments() -> Self {
        Self::usage(
            "command line",
            "it contains a certificate or key as PEM text, which every program on this host can read: name a file, or \
             set the environment variable",
        )
    }
}
