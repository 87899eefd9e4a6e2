//! The web page: its file, its headers, and who may see it.

use std::net::IpAddr;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// One file that needs nothing else.
pub(in crate::proxy) const PAGE: &str = include_str!("../../../assets/status.html");

/// The headers of the page and of its values. Only the page's own script and style work, and it loads nothing from
/// anywhere else: whatever a name or a line of the log contains stays text.
pub(in crate::proxy) fn headers() -> &'static str {
    static HEADERS: LazyLock<String> = LazyLock::new(|| {
        let hash = |tag| STANDARD.encode(Sha256::digest(element(PAGE, tag)));
        let (script, style) = (hash("script"), hash("style"));
        format!(
            "Content-Security-Policy: default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n"
        )
    });
    &HEADERS
}

/// What stands in the one element of this name.
fn element<'a>(page: &'a str, tag: &str) -> &'a str {
    let inside = page.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    inside.map_or("", |(inside, _)| inside)
}

/// The `Host` of a request, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Host {
    /// Not a browser.
    None,
    /// Without the port.
    One(String),
    /// Not HTTP, or several.
    Invalid,
}

impl Host {
    /// Reads the whole head of a request.
    pub(in crate::proxy) fn of(head: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if !request.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
            return Self::Invalid;
        }
        let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        match (hosts.next().map(|header| std::str::from_utf8(header.value)), hosts.next()) {
            (None, _) => Self::None,
            (Some(Ok(host)), None) => Self::One(without_port(host.trim()).to_owned()),
            _ => Self::Invalid,
        }
    }
}

fn without_port(host: &str) -> &str {
    if let Some((ip, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return ip;
    }
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

/// Whether a browser of this host may see the page under this name: an address, `localhost`, or one of `own`. Any other
/// name may be that of a web site that has just moved to 127.0.0.1 (DNS rebinding), and whose scripts would read the
/// page.
pub(in crate::proxy) fn is_trusted(host: &Host, own: &[String]) -> bool {
    match host {
        Host::None => true,
        Host::One(name) => {
            name.parse::<IpAddr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || own.iter().any(|own| name.eq_ignore_ascii_case(own))
        }
        Host::Invalid => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_web_site_cannot_have() {
        let own = ["Etcd.internal".to_owned()];
        for (head, expected) in [
            ("Host: 127.0.0.1:2379", true),
            ("host: [::1]:2379", true),
            ("Host: LocalHost", true),
            ("HOST:\tetcd.internal:9", true),
            ("Accept: */*", true),
            ("Host: evil.example:2379", false),
            ("Host: localhost.evil.example", false),
            ("Host: 127.0.0.1.evil.example", false),
            ("Host: 127.0.0.1@evil.example", false),
            ("Host: ", false),
            ("Host: \u{ff}", false),
            ("Host: localhost\r\nHost: localhost", false),
        ] {
            let host = Host::of(format!("GET / HTTP/1.1\r\n{head}\r\n\r\n").as_bytes());
            assert_eq!(is_trusted(&host, &own), expected, "{head:?}: {host:?}");
        }
        assert_eq!(Host::of(b"GET / HTTP/1.1\r\nHost: localhost\r\n"), Host::Invalid);
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_else() {
        assert!(PAGE.len() < 16 * 1024, "{} bytes", PAGE.len());
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(element(PAGE, tag).len() > 100, "{tag}");
        }
        // Attributes with styles or code, which the policy forbids, and ways to make markup of text.
        for forbidden in
            ["style=", " on", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "src="]
        {
            let attributes: String = PAGE.split('<').skip(1).filter_map(|tag| tag.split('>').next()).collect();
            let place = if forbidden.starts_with([' ', 's']) { &attributes } else { PAGE };
            assert!(!place.contains(forbidden), "{forbidden:?}");
        }
        assert!(headers().contains("script-src 'sha256-") && !headers().contains("sha256-'"));
    }
}
