//! This host's side: what the name to listen on means, and connections to a proxy here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UnixStream;

use super::block_on;
use super::deadline::Deadline;
use super::dial::race;
use super::error::{DialError, Step};
use super::http1::get;
use super::resolve::Resolver;
use super::stream::Stream;
use crate::os::log::without_errno;
use crate::settings::{ListenAddr, TcpAddr, target};

/// How long a look-up may take: silent DNS servers and search domains add up, and signals wait meanwhile.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The answer of a proxy to a GET: its status and body, of `longest` bytes at most. Blocks, for `timeout` at most.
///
/// # Errors
/// Why there is no answer.
pub(crate) fn fetch(
    addr: &ListenAddr,
    path: &str,
    longest: usize,
    timeout: Duration,
) -> Result<(u16, Vec<u8>), String> {
    let answer = block_on(async {
        let ask = async { get(&mut connect(addr).await?, path, longest).await };
        tokio::time::timeout(timeout, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    });
    answer.flatten().map_err(|err| match err.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => "nothing listens there".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => without_errno(&err),
    })
}

/// Looks up the addresses of a name, and blocks meanwhile, for 2 s at most. Returns other addresses as they are.
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
    let resolver = Resolver::default();
    let look_up = Deadline::after(LOOK_UP_TIMEOUT).step(Step::Resolve, resolver.addresses(addr.host()));
    let mut ips = look_up.await.flatten()?.found;
    ips.sort_unstable();
    ips.dedup();
    Ok(addr.with_ips(ips))
}
