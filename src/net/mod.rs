//! The network: addresses are dialled, TLS is spoken, and what answers is recognised.

pub(crate) mod dial;
pub(crate) mod etcd_health;
pub(crate) mod http2;
pub(crate) mod sockets;
pub(crate) mod tls;
