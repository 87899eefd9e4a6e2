//! The sidecar: forwards the application's connections to the cluster, with etcd's own gRPC proxy or our own.

mod admin;
mod backend;
mod background;
mod certificates;
mod claim;
mod detect;
mod etcd;
mod health_check;
mod limit;
mod listener;
mod members;
mod metrics;
mod names;
mod native;
mod preflight;
mod reach;
mod session;
mod status;
mod supervisor;
mod wrap;

pub(crate) use admin::PortError;
pub(crate) use backend::Error;
pub(crate) use background::{Background, wait_for};
pub(crate) use certificates::await_settings;
pub(crate) use claim::{ListenError, claim};
pub(crate) use etcd::Launch;
pub(crate) use native::Error as NativeError;
pub(crate) use preflight::Error as PreflightError;
pub(crate) use session::run;
pub(crate) use status::{Line as LogLine, Report};
pub(crate) use wrap::{Wrap, wrap};
