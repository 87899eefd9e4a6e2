//! The operating system: environment, processes, signals, log lines. `sys` holds the only unsafe code.

pub(crate) mod child;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod log;
pub(crate) mod sys;
