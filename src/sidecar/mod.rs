//! The sidecar: etcd's gRPC proxy, started the way that works.

mod command;
mod port;

pub(crate) use command::grpc_proxy;
pub(crate) use port::{Taken, claim};
