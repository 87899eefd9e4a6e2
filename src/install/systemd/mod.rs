//! The service: its unit, its settings file, and the manager that runs it.

mod env_file;
pub(super) mod manager;
pub(super) mod settings_file;
pub(super) mod unit;
