//! Names to addresses.

use std::net::SocketAddr;

use super::error::DialError;
use crate::os::log::without_errno;

/// All addresses of a host, at least one.
///
/// # Errors
/// [`DialError::Unresolved`]
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addrs: Vec<_> = found.map_err(|err| DialError::Unresolved(without_errno(&err)))?.collect();
    if addrs.is_empty() { Err(DialError::Unresolved("it has no address".to_owned())) } else { Ok(addrs) }
}
