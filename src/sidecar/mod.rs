//! The sidecar: etcd's gRPC proxy, started the way that works.

mod command;

pub(crate) use command::grpc_proxy;
