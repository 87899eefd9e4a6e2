//! `host:port`, as in the address that the application connects to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::endpoint::Endpoint;
use super::host_port::{split_host_port, write_host_port};

/// A host and port to listen on; `127.0.0.1:2379` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenAddr {
    host: String,
    port: u16,
}

impl Default for ListenAddr {
    fn default() -> Self {
        Self { host: Ipv4Addr::LOCALHOST.to_string(), port: 2379 }
    }
}

impl ListenAddr {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!("{text:?} is a URL: write host:port, as in {}", Self::default()));
        }
        let (host, port) = split_host_port(text)?;
        if host.parse::<IpAddr>().is_err() && host != "localhost" {
            return Err(format!(
                "{host:?} is not an IP address: write an address of this host, as in {}",
                Self::default()
            ));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// As [`parse`](Self::parse), for the metrics address: etcd takes a URL here.
    pub(super) fn parse_metrics(text: &str) -> Result<Self, String> {
        Self::parse(text.strip_prefix("http://").unwrap_or(text))
    }

    /// Loopback and the given port.
    pub(crate) fn loopback(port: u16) -> Self {
        Self { port, ..Self::default() }
    }

    /// Host (without brackets) and port to connect to.
    pub(crate) fn target(&self) -> (&str, u16) {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        (host, self.port)
    }

    /// Whether a connection with the local address `local` was accepted here.
    pub(crate) fn accepts(&self, local: SocketAddr) -> bool {
        let own = self.ip();
        let ip = local.ip().to_canonical();
        local.port() == self.port && (own.is_unspecified() || ip.is_unspecified() || ip == own)
    }

    /// Whether a connection to `endpoint` would arrive here. Names other than `localhost` are not resolved.
    pub(super) fn is_reached_by(&self, endpoint: &Endpoint) -> bool {
        let Some((host, port)) = endpoint.host_port() else { return false };
        match host.parse::<IpAddr>() {
            Ok(ip) => self.is_reached_at((ip, port).into()),
            Err(_) => port == self.port && host == "localhost" && self.is_loopback(),
        }
    }

    /// Whether a connection to `addr` would arrive here.
    pub(crate) fn is_reached_at(&self, addr: SocketAddr) -> bool {
        addr.port() == self.port && reaches(addr.ip(), self.ip())
    }

    /// Whether only this host can connect to it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.ip().is_loopback()
    }

    fn ip(&self) -> IpAddr {
        self.host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()) // "localhost"
    }
}

/// Whether a connection to `ip` arrives at a socket that listens on `own`.
fn reaches(ip: IpAddr, own: IpAddr) -> bool {
    // A connection to 0.0.0.0 or [::] goes to this host. The loopback addresses of the two families differ.
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if !own.is_unspecified() {
        return ip == own.to_canonical();
    }
    // [::] is for both families, 0.0.0.0 only for its own.
    let is_of_this_host = || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok();
    (own.is_ipv6() || ip.is_ipv4()) && is_of_this_host()
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        for text in ["127.0.0.1:2379", "localhost:1", "0.0.0.0:65535", "[::1]:2379"] {
            assert_eq!(ListenAddr::parse(text).unwrap().to_string(), text);
        }
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
            ("example.com:2379", "is not an IP address"),
            ("a b:2379", "it contains ' '"),
        ] {
            let found = ListenAddr::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text:?}: {found}");
        }
    }
}
