//! The sidecar: etcd's gRPC proxy, started the way that works, and looked after where that is wanted.

mod command;
mod etcd_log;
mod http2;
mod port;
pub(crate) mod preflight;
mod sockets;
mod supervise;
mod trust;
pub(crate) mod tunnel;

pub(crate) use command::Launch;
pub(crate) use port::{Attempt, Claim, Unusable, claim, try_claim};
pub(crate) use sockets::seems_to_listen;
pub(crate) use supervise::{Carrier, Error, Output, Proxy, supervise};
