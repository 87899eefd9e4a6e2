//! Settings: flags, environment and service binding to one checked value.
//!
//! - [`table`]: what there is to set, one row per setting
//! - [`sources`]: where each value comes from; the first source that has one wins
//! - [`resolve`]: the values, checked
//! - [`mode`]: what each mode can do, and what becomes of the process
//! - [`binding`], [`pem`], [`tls`], [`addr`], [`host_port`], [`endpoint`], [`duration`]: the kinds of values
//! - [`etcd_flags`]: the flags that are passed on to etcd
//! - [`etcdctl`]: the variable that tells etcdctl the proxy's address
//! - [`unknown`]: variables that look like ours and are not
//! - [`shown`]: the settings as people may see them
//! - [`elsewhere`]: the settings for another place, without secrets
//! - [`service`]: what the sandbox of an installed service must allow

mod addr;
mod binding;
mod duration;
mod elsewhere;
mod endpoint;
mod error;
mod etcd_flags;
mod etcdctl;
mod host_port;
mod login;
mod mode;
mod pem;
#[cfg(test)]
mod property_tests;
mod resolve;
mod service;
mod shown;
mod sources;
mod table;
mod tls;
mod unknown;

pub(crate) use addr::{ListenAddr, TcpAddr, target};
pub(crate) use duration::duration;
pub(crate) use elsewhere::{Elsewhere, Secret, SecretOrigin};
pub(crate) use endpoint::{Endpoint, Scheme};
pub(crate) use error::Error;
pub(crate) use etcd_flags::check_etcd_flags;
pub(crate) use etcdctl::{ETCDCTL_ENDPOINTS, etcdctl_endpoints};
pub(crate) use login::{Login, Prefer};
pub(crate) use mode::{Mode, Run};
pub(crate) use pem::Pem;
pub(crate) use resolve::{Preflight, Settings};
pub(crate) use service::Needs;
pub(crate) use sources::{ClusterSource, Sources};
pub(crate) use table::{Kind, SECRETS, Setting, invalid, switch};
pub(crate) use tls::{Identity, Tls};
pub(crate) use unknown::unknown_variables;
