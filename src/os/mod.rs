//! The operating system: environment, processes, signals, log lines. `sys` holds the only unsafe code.

pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod companion;
pub(crate) mod env;
pub(crate) mod init;
pub(crate) mod log;
pub(crate) mod process;
mod queue;
pub(crate) mod recent;
pub(crate) mod signals;
pub(crate) mod stdout;
pub(crate) mod sys;
pub(crate) mod terminal;
pub(crate) mod usage;
