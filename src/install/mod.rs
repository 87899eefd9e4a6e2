//! The offline installer: turns one binary on a host into etcd, the proxy and a service. Users can see beforehand what it
//! will do, verify it afterwards, and undo it.
//!
//! `run` does the work of the verbs. `plan` compares what is wanted with what is there. `apply` first writes a receipt with
//! every path that may exist from then on, and then carries out the steps. If it is interrupted, the same command finishes
//! the work.

mod apply;
mod error;
mod file_state;
mod guard;
mod layout;
mod locate;
mod lock;
mod plan;
mod receipt;
mod run;
mod selinux;
mod systemd;
mod verify;
mod versions;

pub(crate) use apply::Progress;
pub(crate) use error::{Error, LocationError};
pub(crate) use layout::UNIT;
pub(crate) use locate::Location;
pub(crate) use plan::Step;
pub(crate) use run::{
    Options, Outcome, ServiceHint, Started, Target, install, list, prune, rollback, uninstall, unit_text,
};
pub(crate) use systemd::manager::ServiceState;
pub(crate) use verify::{Embedded, Finding, Report, verify};
