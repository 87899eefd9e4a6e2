//! What the proxy needs of its platform.

use std::time::Duration;

use crate::settings::{Elsewhere, Mode, Run, Setting};

/// Keeps serving after SIGTERM, and with etcd's proxy, restarts it when it is stuck.
const DRAIN: &str = "8s";

/// What the proxy needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// `--memory`, in MiB.
    memory: u32,
    /// The least memory of the container, in MiB.
    pub memory_request: u32,
    /// The most memory of the container, in MiB: the proxy, the launcher that supervises etcd, and a probe.
    pub memory_limit: u32,
    /// In thousandths of a processor: for 1000 gets a second and the probes.
    pub cpu_request: u32,
    /// From SIGTERM to SIGKILL, for application and proxy, in seconds.
    pub grace: u64,
}

impl Need {
    /// By `docs/benchmarks.md`. With 32 clients, native takes 5 MB, and 18 µs of a processor for each get; etcd's proxy
    /// 40 MB and 170 µs. A probe takes 4 MB, and so does the launcher that supervises etcd.
    pub(super) fn of(elsewhere: &Elsewhere) -> Self {
        // Whoever leaves the choice to `auto` may get etcd's proxy, if a secret is still unknown.
        let is_native =
            elsewhere.settings.run.mode() == Mode::Native && (elsewhere.names_members || elsewhere.names_mode);
        let (memory, beside, memory_request, cpu_request) = if is_native { (24, 8, 16, 30) } else { (80, 16, 64, 200) };
        let memory = elsewhere.settings.memory.unwrap_or(memory);
        let drain = match elsewhere.settings.run {
            Run::ExecEtcd => Duration::ZERO,
            Run::SuperviseEtcd { drain } | Run::Native { drain } => drain,
        };
        Self {
            memory,
            memory_request: memory_request.min(memory + beside),
            memory_limit: memory + beside,
            cpu_request,
            grace: 30.max(drain.as_secs() + 20),
        }
    }

    /// The settings that are no secrets, with those that a container should have.
    pub(super) fn environment(&self, elsewhere: &Elsewhere) -> Vec<(&'static str, String)> {
        let given = elsewhere.plain.iter().filter(|(setting, _)| *setting != Setting::Memory);
        let mut all: Vec<_> = given.map(|(setting, text)| (setting.variable(), text.clone())).collect();
        let has = |setting| elsewhere.plain.iter().any(|(it, _)| *it == setting);
        if !has(Setting::Drain) {
            all.push((Setting::Drain.variable(), DRAIN.to_owned()));
        }
        all.push((Setting::Memory.variable(), self.memory.to_string()));
        all
    }
}
