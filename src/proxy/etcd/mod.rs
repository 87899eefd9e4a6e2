//! etcd's own gRPC proxy: its start, its process, its output, and its state.

mod child;
mod launch;
mod log_filter;
mod status;
mod watchdog;

pub(crate) use child::EtcdChild;
pub(super) use child::Supervision;
pub(crate) use launch::Launch;
pub(super) use log_filter::Output;
pub(super) use status::Status;
