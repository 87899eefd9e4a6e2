//! etcd's own gRPC proxy: how it is started, and what it writes.

mod launch;
pub(crate) mod log_filter;

pub(crate) use launch::Launch;
