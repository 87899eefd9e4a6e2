//! etcd's own gRPC proxy: its start, its process, and its output.

mod child;
mod launch;
mod log_filter;

pub(crate) use child::EtcdChild;
pub(crate) use launch::Launch;
pub(super) use log_filter::Output;
