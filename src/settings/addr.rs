//! Addresses to listen on: `host:port`, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use super::endpoint::Endpoint;
use super::host_port::{refuse_odd, split_host_port, write_host_port};

/// The longest path of a Unix socket, in bytes (`sun_path` in unix(7), without the NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Where the application connects to; `127.0.0.1:2379` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    Tcp(TcpAddr),
    /// The absolute path of a socket.
    Unix(PathBuf),
}

/// A host of this machine, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpAddr {
    /// As the user wrote it, without brackets.
    host: String,
    port: u16,
    /// The addresses of the host. Empty as long as nobody has looked the name up.
    ips: Vec<IpAddr>,
}

impl Default for ListenAddr {
    fn default() -> Self {
        Self::loopback(2379)
    }
}

impl From<TcpAddr> for ListenAddr {
    fn from(addr: TcpAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl ListenAddr {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        refuse_odd(text)?;
        match text.strip_prefix("unix:") {
            Some(path) => socket_path(text, path.strip_prefix("//").unwrap_or(path)).map(Self::Unix),
            None => TcpAddr::parse(text).map(Self::Tcp),
        }
    }

    /// Loopback and the given port.
    pub(crate) fn loopback(port: u16) -> Self {
        TcpAddr::new(Ipv4Addr::LOCALHOST.into(), port).into()
    }

    /// 0 if it is a socket.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp(addr) => addr.port,
            Self::Unix(_) => 0,
        }
    }

    /// The path, if it is a socket.
    pub(crate) fn socket_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }

    /// Whether a connection with the local address `local` was accepted here.
    pub(crate) fn accepts(&self, local: SocketAddr) -> bool {
        let Self::Tcp(TcpAddr { port, ips, .. }) = self else { return false };
        let ip = local.ip().to_canonical();
        local.port() == *port && (ip.is_unspecified() || ips.iter().any(|own| own.is_unspecified() || ip == *own))
    }

    /// Whether a connection to `endpoint` would arrive here. Resolves no name.
    pub(super) fn is_reached_by(&self, endpoint: &Endpoint) -> bool {
        match (self, endpoint.host_port()) {
            (Self::Unix(path), None) => path == endpoint.socket_path(),
            (Self::Tcp(own), Some((host, port))) => {
                let ips = ips_of(host);
                port == own.port && host == own.host || ips.iter().any(|ip| self.is_reached_at((*ip, port).into()))
            }
            _ => false,
        }
    }

    /// Whether a connection to `addr` would arrive here.
    pub(crate) fn is_reached_at(&self, addr: SocketAddr) -> bool {
        let Self::Tcp(TcpAddr { port, ips, .. }) = self else { return false };
        // A connection to 0.0.0.0 or [::] goes to loopback.
        let ip = target(SocketAddr::new(addr.ip().to_canonical(), addr.port())).ip();
        let is_of_this_host = || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok();
        // A port that is open on [::] accepts IPv4 too.
        let arrives = |own: &IpAddr| {
            if own.is_unspecified() { (own.is_ipv6() || ip.is_ipv4()) && is_of_this_host() } else { ip == *own }
        };
        addr.port() == *port && ips.iter().any(arrives)
    }

    /// A warning, if others than this host can connect to it.
    pub(crate) fn exposure(&self) -> Option<String> {
        let Self::Tcp(TcpAddr { ips, .. }) = self else { return None };
        (!ips.iter().all(IpAddr::is_loopback)).then(|| {
            format!(
                "{self} is not a loopback address: everyone who can reach it has this sidecar's access to the cluster"
            )
        })
    }

    /// Whether one program cannot listen on both, because they share an IP address and a port.
    pub(super) fn overlaps(&self, other: &TcpAddr) -> bool {
        let Self::Tcp(own) = self else { return false };
        let meet =
            |a: &IpAddr, b: &IpAddr| a == b || (a.is_unspecified() || b.is_unspecified()) && a.is_ipv4() == b.is_ipv4();
        own.port == other.port
            && (own.host == other.host || own.ips.iter().any(|a| other.ips.iter().any(|b| meet(a, b))))
    }

    /// For a program that listens on one IP address only, as etcd does: the address that it takes of several. Go prefers
    /// IPv4 (`net.Listen`: "at most one of the host's IP addresses").
    pub(crate) fn single(&self) -> Option<Self> {
        let Self::Tcp(TcpAddr { port, ips, .. }) = self else { return None };
        let first = ips.iter().find(|ip| ip.is_ipv4()).or(ips.first())?;
        (ips.len() > 1).then(|| TcpAddr::new(*first, *port).into())
    }
}

impl TcpAddr {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let default = ListenAddr::default();
        if text.contains("://") {
            return Err(format!("{text:?} is a URL: write host:port, as in {default}"));
        }
        let (host, port) = split_host_port(text)?;
        Ok(Self { host: host.to_owned(), port, ips: ips_of(host) })
    }

    /// As [`parse`](Self::parse), for the metrics address: etcd takes a URL here.
    pub(super) fn parse_metrics(text: &str) -> Result<Self, String> {
        if text.starts_with("unix:") {
            return Err(format!("{text:?} is a Unix socket: metrics need host:port, as in 127.0.0.1:9090"));
        }
        Self::parse(text.strip_prefix("http://").unwrap_or(text))
    }

    pub(crate) fn new(ip: IpAddr, port: u16) -> Self {
        Self { host: ip.to_string(), port, ips: vec![ip] }
    }

    /// Without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where to listen. Empty as long as nobody has looked the name up.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, self.port))
    }

    /// The same name, with the addresses that it has.
    pub(crate) fn with_ips(&self, ips: Vec<IpAddr>) -> Self {
        Self { ips, ..self.clone() }
    }
}

/// Where to connect to, to reach a program that listens on `addr`.
pub(crate) fn target(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The addresses that a host has by its text alone: an IP address, or `localhost`, which is loopback whatever a resolver
/// says (RFC 6761, section 6.3). Empty for other names.
fn ips_of(host: &str) -> Vec<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}

fn socket_path(text: &str, path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("{text:?} is not the path of a socket: write unix:///path/of/socket"));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("{text:?} is too long: the path of a socket has at most {MAX_SOCKET_PATH} bytes"));
    }
    Ok(path.into())
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for TcpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Scheme, parse_list};
    use super::*;

    fn addr(text: &str) -> ListenAddr {
        ListenAddr::parse(text).unwrap()
    }

    #[test]
    fn what_is_read_is_shown_again() {
        for text in [
            "127.0.0.1:2379",
            "localhost:1",
            "0.0.0.0:65535",
            "[::1]:2379",
            "etcd.internal:2379",
            "unix:///run/etcd.sock",
        ] {
            assert_eq!(addr(text).to_string(), text);
        }
        assert_eq!(addr("unix:/run/etcd.sock").to_string(), "unix:///run/etcd.sock");
    }

    #[test]
    fn connections_that_arrive_at_an_address() {
        for (own, reached, others) in [
            (
                "127.0.0.1:1",
                &["127.0.0.1:1", "0.0.0.0:1", "[::ffff:127.0.0.1]:1"][..],
                &["127.0.0.1:2", "127.0.0.2:1", "[::1]:1", "[::]:1"][..],
            ),
            ("[::1]:1", &["[::1]:1", "[::]:1"], &["127.0.0.1:1", "0.0.0.0:1"]),
            ("0.0.0.0:1", &["127.0.0.1:1", "127.0.0.2:1", "0.0.0.0:1"], &["[::1]:1", "192.0.2.1:1", "127.0.0.1:2"]),
            ("[::]:1", &["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "[::]:1"], &["192.0.2.1:1", "[2001:db8::1]:1"]),
        ] {
            let own = ListenAddr::parse(own).unwrap();
            for (addrs, expected) in [(reached, true), (others, false)] {
                for addr in addrs {
                    assert_eq!(own.is_reached_at(addr.parse().unwrap()), expected, "{own} {addr}");
                }
            }
        }
    }

    #[test]
    fn each_problem_has_its_own_message() {
        for (text, problem) in [
            ("http://127.0.0.1:2379", "is a URL"),
            ("127.0.0.1", "has no port"),
            ("", "\"\" has no port: write host:port, as in 127.0.0.1:2379"),
            ("2379", "as in 127.0.0.1:2379"),
            (":2379", "has no host: write host:port, as in 127.0.0.1:2379"),
            ("::1:2379", "in brackets"),
            ("[::1:2379", "a [ without a ]"),
            ("[no]:2379", "not an IPv6 address"),
            ("127.0.0.1:0", "invalid port \"0\""),
            ("127.0.0.1:65536", "invalid port"),
            ("127.0.0.1:http", "invalid port"),
            ("a b:2379", "it contains ' '"),
            ("unix://run/etcd.sock", "is not the path of a socket: write unix:///path/of/socket"),
            ("unix:", "is not the path of a socket"),
            ("unix:///run/", "is not the path of a socket"),
            (&format!("unix:///{}", "x".repeat(107)), "the path of a socket has at most 107 bytes"),
        ] {
            let found = ListenAddr::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text:?}: {found}");
        }
        let found = TcpAddr::parse_metrics("unix:///run/m.sock").unwrap_err();
        assert!(found.ends_with("metrics need host:port, as in 127.0.0.1:9090"), "{found}");
    }

    #[test]
    fn localhost_is_all_loopback_addresses() {
        let localhost = addr("localhost:2379");
        assert_eq!(localhost.exposure(), None);
        for (local, accepted) in [("127.0.0.1:2379", true), ("[::1]:2379", true), ("127.0.0.2:2379", false)] {
            assert_eq!(localhost.accepts(local.parse().unwrap()), accepted, "{local}");
        }
        assert_eq!(localhost.single(), Some(addr("127.0.0.1:2379")));
        assert_eq!(addr("[::1]:2379").single(), None);
    }

    #[test]
    fn a_name_has_the_addresses_that_were_looked_up() {
        let ListenAddr::Tcp(name) = addr("etcd.internal:2379") else { unreachable!() };
        assert_eq!((name.addrs().count(), ListenAddr::from(name.clone()).exposure()), (0, None));
        assert!(ListenAddr::from(name.with_ips(vec!["192.0.2.1".parse().unwrap()])).exposure().is_some());
        let looked_up = ListenAddr::from(name.with_ips(vec!["127.0.0.7".parse().unwrap()]));
        assert!(looked_up.exposure().is_none() && looked_up.accepts("127.0.0.7:2379".parse().unwrap()));
        assert!(looked_up.is_reached_at("127.0.0.7:2379".parse().unwrap()));
        assert_eq!(looked_up.to_string(), "etcd.internal:2379");
    }

    #[test]
    fn the_own_address_among_the_endpoints() {
        for (own, endpoint, reached) in [
            ("localhost:2379", "[::1]:2379", true),
            ("localhost:2379", "127.0.0.1:2379", true),
            ("127.0.0.1:2379", "localhost:2379", true),
            ("127.0.0.1:2379", "localhost:2380", false),
            ("127.0.0.1:2379", "[::1]:2379", false),
            ("127.0.0.1:2379", "0.0.0.0:2379", true),
            ("127.0.0.1:2379", "[::ffff:127.0.0.1]:2379", true),
            ("127.0.0.1:2379", "127.0.0.2:2379", false),
            ("[::1]:2379", "127.0.0.1:2379", false),
            ("[::1]:2379", "[::]:2379", true),
            ("[::]:2379", "127.0.0.1:2379", true),
            ("0.0.0.0:2379", "[::1]:2379", false),
            ("0.0.0.0:2379", "192.0.2.1:2379", false),
            ("0.0.0.0:2379", "localhost:2379", true),
            ("etcd.internal:2379", "etcd.internal:2379", true),
            ("etcd.internal:2379", "etcd-1.internal:2379", false),
            ("unix:///run/etcd.sock", "unix:///run/etcd.sock", true),
            ("unix:///run/etcd.sock", "unix:///run/other.sock", false),
            ("unix:///run/etcd.sock", "127.0.0.1:2379", false),
        ] {
            let endpoint = parse_list(endpoint, Scheme::Http).unwrap().remove(0);
            assert_eq!(addr(own).is_reached_by(&endpoint), reached, "{own} {endpoint}");
        }
    }

    #[test]
    fn addresses_that_exclude_each_other() {
        for (one, other, overlap) in [
            ("127.0.0.1:9", "127.0.0.1:9", true),
            ("127.0.0.1:9", "127.0.0.1:8", false),
            ("localhost:9", "[::1]:9", true),
            ("0.0.0.0:9", "127.0.0.1:9", true),
            ("0.0.0.0:9", "[::1]:9", false),
            ("name:9", "name:9", true),
            ("unix:///run/x", "127.0.0.1:9", false),
        ] {
            assert_eq!(addr(one).overlaps(&TcpAddr::parse(other).unwrap()), overlap, "{one} {other}");
        }
    }
}
