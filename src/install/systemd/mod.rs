//! The service: its unit, its settings file, and the manager that runs it.

pub(super) mod env_file;
pub(super) mod manager;
pub(super) mod unit;
