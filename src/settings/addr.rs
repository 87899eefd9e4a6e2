//! `host:port`, as in the address that the application connects to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::Endpoint;

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

pub(super) fn write_host_port(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

/// Rejects characters that are in no address, before an error of one line shows the text.
pub(super) fn refuse_odd(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(odd) => Err(format!("invalid address {text:?}: it contains {odd:?}")),
        None => Ok(()),
    }
}

fn is_in_host(c: char) -> bool {
    c.is_alphanumeric() || "-._:%".contains(c)
}

/// Splits `host:port` and `[ipv6]:port`. Returns the host without brackets.
pub(super) fn split_host_port(text: &str) -> Result<(&str, u16), String> {
    refuse_odd(text)?;
    let no_port = || {
        let is_host = text.contains(char::is_alphabetic) || text.contains('.');
        let example = if is_host && !text.contains(|c: char| !is_in_host(c)) { text } else { "127.0.0.1" };
        format!("{text:?} has no port: write host:port, as in {example}:2379")
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| format!("{text:?} has a [ without a ]"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
            (host, rest.strip_prefix(':').ok_or_else(no_port)?)
        }
        None => text.rsplit_once(':').ok_or_else(no_port)?,
    };
    if host.is_empty() {
        return Err(format!("{text:?} has no host: write host:port, as in 127.0.0.1{text}"));
    }
    if host.contains(':') && !text.starts_with('[') {
        return Err(format!("{text:?} is ambiguous: write an IPv6 address in brackets, as in [::1]:2379"));
    }
    if let Some(odd) = host.chars().find(|c| !is_in_host(*c)) {
        return Err(format!("invalid host name {host:?}: it contains {odd:?}"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err(format!("invalid port {port:?}: expected a number from 1 to 65535")),
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
