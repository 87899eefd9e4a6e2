//! `host:port`, as in the address that the application connects to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

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
        // A connection to 0.0.0.0 goes to this host.
        let local = |ip: IpAddr| match ip.to_canonical() {
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        let own = self.ip();
        let ip = local(addr.ip());
        let is_of_this_host = || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok();
        addr.port() == self.port && if own.is_unspecified() { is_of_this_host() } else { ip == local(own) }
    }

    /// Whether only this host can connect to it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.ip().is_loopback()
    }

    fn ip(&self) -> IpAddr {
        self.host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()) // "localhost"
    }
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
