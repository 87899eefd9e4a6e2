//! This host's side: what the name to listen on means, and connections to a proxy here.

use std::io;
use std::net::SocketAddr;

use tokio::net::UnixStream;

use super::block_on;
use super::dial::{Stream, race};
use super::error::DialError;
use super::resolve::Resolver;
use crate::os::log::without_errno;
use crate::settings::{ListenAddr, TcpAddr, target};

/// Connects to a proxy of this host, at any of its addresses.
pub(crate) async fn connect(addr: &ListenAddr) -> io::Result<Box<dyn Stream>> {
    match addr {
        ListenAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        ListenAddr::Tcp(addr) => {
            let addrs = look_up_name(addr).await.map_err(io::Error::other)?;
            let targets: Vec<SocketAddr> = addrs.addrs().map(target).collect();
            Ok(Box::new(race(&targets).await?))
        }
    }
}

/// Looks up the addresses of a name, and blocks meanwhile. Returns other addresses as they are.
///
/// # Errors
/// The reason why the name has no address now.
pub(crate) fn look_up(addr: &ListenAddr) -> Result<ListenAddr, String> {
    let ListenAddr::Tcp(name) = addr else { return Ok(addr.clone()) };
    let found = block_on(look_up_name(name)).map_err(|err| without_errno(&err))?;
    found.map(Into::into).map_err(|err| err.to_string())
}

async fn look_up_name(addr: &TcpAddr) -> Result<TcpAddr, DialError> {
    if addr.addrs().next().is_some() {
        return Ok(addr.clone());
    }
    let mut ips = Resolver::default().addresses(addr.host()).await?.found;
    ips.sort_unstable();
    ips.dedup();
    Ok(addr.with_ips(ips))
}
