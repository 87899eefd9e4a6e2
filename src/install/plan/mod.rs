//! Compares the wanted state (`goal`) with the one on disk (`snapshot`) and finds the steps between them (`planner`). Only
//! `snapshot` reads the disk, and nothing here changes it.

mod goal;
pub(super) mod install;
mod planner;
pub(super) mod prune;
pub(super) mod rollback;
#[cfg(test)]
mod simulation;
mod snapshot;
mod step;
pub(super) mod uninstall;

pub(crate) use goal::Source;
pub(super) use goal::backup_of;
pub(super) use planner::kept_not_empty;
pub(super) use step::Plan;
pub(crate) use step::Step;
