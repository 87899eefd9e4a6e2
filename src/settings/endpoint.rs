//! Addresses of the cluster's members.

use std::fmt;
use std::path::Path;

use super::host_port::{refuse_odd, split_host_port, write_host_port};
use super::table::{Setting, invalid};

/// How a member is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    Unix,
}

impl Scheme {
    /// The scheme of an endpoint without one: https if certificates are configured.
    pub(super) fn default_for(tls: bool) -> Self {
        if tls { Self::Https } else { Self::Http }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
        })
    }
}

/// One member's client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub scheme: Scheme,
    /// Host without brackets, or path of the socket.
    host: String,
    /// 0 if it is a socket.
    port: u16,
}

impl Endpoint {
    /// Plain HTTP on this host.
    pub(crate) fn loopback(port: u16) -> Self {
        Self { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port }
    }

    /// The host and port of an SRV record; `None` if the record says that there is no service (RFC 2782).
    pub(crate) fn found(scheme: Scheme, host: &str, port: u16) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host);
        (!host.is_empty() && port > 0).then(|| Self { scheme, host: host.to_owned(), port })
    }

    /// Host without brackets, and port. `None` if it is a socket.
    pub(crate) fn host_port(&self) -> Option<(&str, u16)> {
        (self.scheme != Scheme::Unix).then_some((&self.host, self.port))
    }

    /// Its name in etcd's log: without the scheme.
    pub(crate) fn address(&self) -> String {
        let text = self.to_string();
        text.split_once("://").map_or_else(|| text.clone(), |(_, address)| address.to_owned())
    }

    /// Path of the socket, if it is one.
    pub(crate) fn socket_path(&self) -> &Path {
        Path::new(&self.host)
    }

    /// Reads `scheme://host:port`, `unix:///path` or bare `host:port`, which gets the scheme `default`.
    fn parse(text: &str, default: Scheme) -> Result<Self, String> {
        refuse_odd(text)?;
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(format!("{text:?} has no path: write unix:///path/of/socket"));
            }
            if !path.starts_with('/') {
                return Err(format!("{text:?} has a relative path: write unix:///path/of/socket"));
            }
            return Ok(Self { scheme: Scheme::Unix, host: path.to_owned(), port: 0 });
        }
        let (scheme, rest) = match text.split_once("://") {
            None if text.contains(":/") => return Err(format!("{text:?} lacks a slash: write http://host:port")),
            None => (default, text),
            Some((http, rest)) if http.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((https, rest)) if https.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            // Some services write these. They say nothing about TLS, or ask for it.
            Some((etcd, rest)) if etcd.eq_ignore_ascii_case("etcd") => (default, rest),
            Some((etcds, rest)) if etcds.eq_ignore_ascii_case("etcds") => (Scheme::Https, rest),
            Some((other, _)) => return Err(invalid("scheme", other, &["http", "https", "unix"])),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(at) = rest.find(['/', '?', '#']) {
            return Err(format!("{text:?} has a path: write {scheme}://{}", &rest[..at]));
        }
        let (host, port) = split_host_port(rest)?;
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match self.host_port() {
            Some((host, port)) => write_host_port(f, host, port),
            None => f.write_str(&self.host),
        }
    }
}

/// The parts of a list, separated by commas, semicolons or white space. The list and its parts can have quotes, and the
/// list can be in brackets: `["a:1", "b:2"]`.
pub(super) fn split(list: &str) -> Vec<&str> {
    let list = list.trim();
    let inner = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    // [::1]:1,[::2] has an address in brackets at each end.
    let is_list = |inner: &str| {
        inner.find(']').is_none_or(|end| inner.find('[').is_some_and(|start| start < end))
            && inner.parse::<std::net::Ipv6Addr>().is_err()
    };
    let list = inner.filter(|inner| is_list(inner)).unwrap_or(list);
    let parts = list.split(|c: char| c.is_whitespace() || c == ',' || c == ';');
    // A manifest can turn a line end into the two characters \n.
    let parts = parts.flat_map(|part| part.split("\\n"));
    parts.map(|part| part.trim_matches(['"', '\''])).filter(|part| !part.is_empty()).collect()
}

/// Reads a [list](split). All schemes must be the same, because etcd uses the first one for all endpoints.
pub(super) fn parse_list(text: &str, default: Scheme) -> Result<Vec<Endpoint>, String> {
    let parts = split(text);
    // Checked before an error shows any of the text: a password can be before an @, and it can contain commas.
    if parts.iter().any(|part| part.contains('@') && !part.starts_with("unix:")) {
        return Err(format!(
            "an endpoint has a user name or password (something before an @): remove it, and give them with {} and {}, \
             or let the application log in",
            Setting::Username.variable(),
            Setting::Password.variable()
        ));
    }
    let endpoints = parts.into_iter().map(|part| Endpoint::parse(part, default)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = endpoints.first() else {
        return Err("the list is empty: write host:port, separated by commas".to_owned());
    };
    match endpoints.iter().find(|endpoint| endpoint.scheme != first.scheme) {
        Some(other) => Err(format!("{first} and {other} have different schemes: use one for all")),
        None => Ok(endpoints),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let list = parse_list(text, Scheme::Http)?;
        Ok(list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn what_is_accepted() {
        for (text, expected) in [
            ("h:2379", "http://h:2379"),
            (" http://h:1/, http://[::1]:2 ,", "http://h:1,http://[::1]:2"),
            ("https://a.b-c_d:2379", "https://a.b-c_d:2379"),
            ("unix:///run/etcd.sock", "unix:///run/etcd.sock"),
            ("unix:/run/etcd.sock", "unix:///run/etcd.sock"),
            ("HTTP://h:1", "http://h:1"),
            ("etcd://h:1", "http://h:1"),
            ("etcds://h:1", "https://h:1"),
            ("a:1\nb:2\n", "http://a:1,http://b:2"),
            ("a:1\\nb:2", "http://a:1,http://b:2"),
            ("a:1; b:2;c:3 d:4", "http://a:1,http://b:2,http://c:3,http://d:4"),
            ("\"a:1,b:2\"", "http://a:1,http://b:2"),
            ("\"a:1\", 'b:2'", "http://a:1,http://b:2"),
            ("[\"https://a:1\", \"https://b:2\"]", "https://a:1,https://b:2"),
            ("[a:1, b:2]", "http://a:1,http://b:2"),
            ("[::1]:1,[::2]:2", "http://[::1]:1,http://[::2]:2"),
            ("[[::1]:1,[::2]:2]", "http://[::1]:1,http://[::2]:2"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn each_problem_has_its_own_message() {
        for (text, problem) in [
            (" , ", "the list is empty"),
            ("h", "has no port: write host:port, as in h:2379"),
            ("h;1", "has no port: write host:port, as in h:2379"),
            ("h|1", "has no port: write host:port, as in 127.0.0.1:2379"),
            ("[::1]", "has no port"),
            ("http:/h:1", "lacks a slash"),
            ("https://h", "has no port"),
            ("ftp://h:1", "invalid scheme \"ftp\": expected http, https or unix"),
            ("http://h:1/v2/keys", "has a path: write http://h:1"),
            ("http://a:1,https://b:1", "http://a:1 and https://b:1 have different schemes"),
            ("a:1,https://b:1", "different schemes"),
            ("unix:", "has no path"),
            ("unix:etcd.sock", "has a relative path"),
            ("a\0b:1", "it contains '\\0'"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(problem), "{text:?}: {found}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "https://root:s3cret@h:1",
            "root:s3cret@h:1",
            "https://root:s3cret/@x@h:1/p",
            "https://root:s3cret,x@h:1",
            "https://root:s3cret x@h:1",
            "unix:/s,root:s3cret;x@h:1",
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains("user name or password") && !found.contains("s3cret"), "{text:?}: {found}");
        }
    }
}
