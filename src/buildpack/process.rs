//! The sidecar: the process that runs the proxy beside the application.

use super::options::Options;

/// How long the proxy serves after SIGTERM: 2 s less than Cloud Foundry gives a process before SIGKILL. The user can change
/// it at launch.
pub(crate) const DRAIN: &str = "8s";

/// What the platform needs to know about the process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sidecar<'a> {
    pub name: &'a str,
    /// Process types of the application that get it.
    pub process_types: &'a [String],
    /// A line for the shell.
    pub command: String,
    /// In MB. The platform subtracts it from the memory of the application's process.
    pub memory: Option<u32>,
}

impl<'a> Sidecar<'a> {
    /// `launcher` is the path of etcdproxy at launch; the shell expands variables in it.
    pub(super) fn new(options: &'a Options, launcher: &str) -> Self {
        let mode = options.mode.map(|mode| format!(" --mode {mode}")).unwrap_or_default();
        let memory = options.memory.map(|mb| format!(" --memory {mb}")).unwrap_or_default();
        Self {
            name: &options.name,
            process_types: &options.process_types,
            command: format!("exec \"{launcher}\" run --drain \"${{ETCDPROXY_DRAIN:-{DRAIN}}}\"{mode}{memory}"),
            memory: options.memory,
        }
    }
}
