//! `host:port` as text.

use std::fmt;

/// Writes `host:port`, with brackets around an IPv6 address.
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

/// Reads the name of a domain, such as `example.com`. Returns it without the dot that can end it.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    // The error does not show the text, which may be a URL with a password.
    if let Some(odd) = name.chars().find(|c| !c.is_alphanumeric() && !"-_.".contains(*c)) {
        return Err(format!("it contains {odd:?}: write only the domain, as in example.com"));
    }
    if name.split('.').any(str::is_empty) {
        return Err("it is not a domain: write its name, as in example.com".to_owned());
    }
    Ok(name.to_owned())
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
