//! The sidecar: what stands between the application and the cluster.

mod admin;
mod claim;
mod detect;
mod etcd;
mod health_check;
mod members;
pub(crate) mod preflight;
mod supervisor;
pub(crate) mod tunnel;

pub(crate) use claim::{Attempt, Claim, Unusable, claim, try_claim};
pub(crate) use etcd::Launch;
pub(crate) use supervisor::{Carrier, Error, Output, Proxy, supervise};
