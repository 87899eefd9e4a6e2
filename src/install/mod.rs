//! The offline installer: one binary on a host becomes etcd, the proxy and a service. Everything it does can be shown
//! beforehand, verified afterwards and undone.
//!
//! `run` has what the verbs do. A plan compares what is wanted with what is there (`plan`). The receipt is written
//! with everything that may be there from then on, and the steps are done one by one (`apply`). If that is interrupted,
//! the same command finishes it.

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
pub(crate) use error::Error;
pub(crate) use locate::Location;
pub(crate) use plan::Step;
pub(crate) use run::{Options, Outcome, ServiceHint, Started, Target, install, list, prune, rollback, uninstall};
pub(crate) use verify::{Carried, Finding, Report, verify};
