//! One verb, one file: each turns parsed arguments into calls of the core and its results into output.

pub(crate) mod alerts;
pub(crate) mod buildpack;
mod change;
pub(crate) mod cli;
pub(crate) mod completions;
pub(crate) mod dashboard;
pub(crate) mod dev;
pub(crate) mod exec;
pub(crate) mod exit_code;
pub(crate) mod health;
pub(crate) mod install;
pub(crate) mod licenses;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod multicall;
pub(crate) mod prune;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod sbom;
pub(crate) mod secret_args;
pub(crate) mod top;
pub(crate) mod uninstall;
pub(crate) mod unpack;
pub(crate) mod usage;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod wait;
