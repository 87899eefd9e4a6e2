//! What a service's sandbox must let through, from the file that has its settings.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::Chars;

use super::endpoint::parse_list;
use super::{Error, ListenAddr, Scheme, Setting};

/// The part of the settings that systemd has to know.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Needs {
    /// Whether there is anything to connect to; without it the service does not start.
    pub configured: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// TCP ports that it listens on.
    pub ports: BTreeSet<u16>,
    /// Files of certificates and keys, which the service's user may not be able to read.
    pub files: Vec<(Setting, PathBuf)>,
    /// A private key stands in the file itself.
    pub holds_key: bool,
}

impl Needs {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// When it is not as systemd reads it (systemd.exec(5), `EnvironmentFile=`), or an address is none.
    pub(crate) fn read(file: &Path, text: &str) -> Result<Self, Error> {
        let error = |name: &str, problem: String| Error { setting: format!("{}: {name}", file.display()), problem };
        let variables = variables(text).map_err(|(line, problem)| error(&format!("line {line}"), problem))?;
        let get = |setting: Setting| {
            let value = variables.iter().rev().find(|(name, _)| name == setting.variable());
            value.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        let failed = |setting: Setting| move |problem| error(setting.variable(), problem);

        let mut needs = Self::default();
        let listen =
            get(Setting::ListenAddr).map(ListenAddr::parse).transpose().map_err(failed(Setting::ListenAddr))?;
        let metrics = get(Setting::MetricsAddr)
            .map(ListenAddr::parse_metrics)
            .transpose()
            .map_err(failed(Setting::MetricsAddr))?;
        for addr in std::iter::once(listen.unwrap_or_default()).chain(metrics) {
            let (host, port) = addr.target();
            needs.reach(host);
            needs.ports.insert(port);
        }
        let tls = [Setting::CaCert, Setting::Cert, Setting::Key].into_iter().any(|setting| get(setting).is_some());
        match get(Setting::Endpoints) {
            Some(endpoints) => {
                needs.configured = true;
                for endpoint in parse_list(endpoints, Scheme::usual(tls)).map_err(failed(Setting::Endpoints))? {
                    if let Some((host, _)) = endpoint.host_port() {
                        needs.reach(host);
                    }
                }
            }
            None => needs.reach("a name"),
        }
        for setting in [Setting::CaCert, Setting::Cert, Setting::Key] {
            match get(setting) {
                Some(path) if path.starts_with('/') => needs.files.push((setting, path.into())),
                Some(_) if setting == Setting::Key => needs.holds_key = true,
                _ => {}
            }
        }
        Ok(needs)
    }

    /// A name can have addresses of both kinds.
    fn reach(&mut self, host: &str) {
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => self.ipv4 = true,
            Ok(IpAddr::V6(_)) => self.ipv6 = true,
            Err(_) => (self.ipv4, self.ipv6) = (true, true),
        }
    }
}

/// Names and values in their order; else the line that is none, and why.
///
/// Quotation marks count at the beginning of a value only, and a backslash takes the meaning from what follows.
fn variables(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(first) = rest.peek() {
        if first.is_whitespace() {
            line += usize::from(rest.next() == Some('\n'));
            continue;
        }
        let begin = line;
        if "#;".contains(*first) {
            line += value(&mut rest, false).1;
            continue;
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| !"=\n".contains(*c)) {
            name.push(c);
        }
        if rest.next() != Some('=') || name.trim().contains(char::is_whitespace) {
            return Err((begin, "is not NAME=VALUE".to_owned()));
        }
        let (text, lines, is_whole) = value(&mut rest, true);
        if !is_whole {
            return Err((begin, "a quotation mark has no other".to_owned()));
        }
        line += lines;
        found.push((name.trim().to_owned(), text));
    }
    Ok(found)
}

/// A value, or a comment, to the end of its line; how many line ends are in it; whether its quotation marks are closed.
fn value(rest: &mut Peekable<Chars<'_>>, may_be_quoted: bool) -> (String, usize, bool) {
    let (mut text, mut lines, mut quoted, mut is_plain) = (String::new(), 0, None, !may_be_quoted);
    while let Some(c) = rest.next() {
        lines += usize::from(c == '\n');
        match (quoted, c) {
            (Some(mark), c) if c == mark => quoted = None,
            (Some('"') | None, '\\') => match rest.next() {
                Some('\n') => lines += 1,
                Some(c) if quoted.is_none() || "\"\\`$".contains(c) => text.push(c),
                Some(c) => text.extend(['\\', c]),
                None => {}
            },
            (Some(_), c) => text.push(c),
            (None, '\n') => return (text.trim_end().to_owned(), lines, true),
            (None, '\'' | '"') if !is_plain => quoted = Some(c),
            (None, c) => {
                is_plain |= !c.is_whitespace();
                if is_plain {
                    text.push(c);
                }
            }
        }
    }
    (text.trim_end().to_owned(), lines, quoted.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Needs, String> {
        Needs::read(Path::new("/x.env"), text).map_err(|err| err.to_string())
    }

    #[test]
    fn what_the_sandbox_lets_through() {
        let needs = read("").unwrap();
        assert!(!needs.configured && needs.ipv4 && needs.ipv6);
        assert_eq!(needs.ports, [2379].into());

        let needs = read("ETCDPROXY_ENDPOINTS=10.0.0.1:2379,10.0.0.2:2379").unwrap();
        assert!(needs.configured && needs.ipv4 && !needs.ipv6);

        let needs = read("ETCDPROXY_ENDPOINTS=etcd.example:2379").unwrap();
        assert!(needs.ipv4 && needs.ipv6, "a name can be either");

        let text = "# all
            ETCDPROXY_ENDPOINTS='unix:///run/etcd.sock'
            ETCDPROXY_LISTEN_ADDR=127.0.0.1:1
            ETCDPROXY_LISTEN_ADDR=\"[::1]:2\"
            ETCDPROXY_METRICS_ADDR=[::1]:3
            ETCDPROXY_CACERT=/etc/ca.pem\nETCDPROXY_KEY=\"-----BEGIN\nx\"\nOTHER=a \\\n  b";
        let needs = read(text).unwrap();
        assert!(!needs.ipv4 && needs.ipv6 && needs.holds_key);
        assert_eq!(needs.ports, [2, 3].into());
        assert_eq!(needs.files, [(Setting::CaCert, "/etc/ca.pem".into())]);
    }

    /// As systemd 252 reads it (`systemd-run --property EnvironmentFile=`).
    #[test]
    fn values_as_systemd_reads_them() {
        for (text, wanted) in [
            ("A=it's/", "it's/"),
            ("A= 'b c' # d", "b c# d"),
            ("A=b # c \n", "b # c"),
            ("A=\"b\\\"\\c\\\nd\"", "b\"\\cd"),
            ("A=b\\ c\\\n d", "b c d"),
            ("A='b\nc'\nB=", "b\nc"),
            ("# c\\\nA=x\n;\n  A=b", "b"),
            ("A=", ""),
        ] {
            assert_eq!(variables(text).unwrap()[0].1, wanted, "{text}");
        }
    }

    #[test]
    fn what_run_takes_is_taken() {
        let text = "ETCDPROXY_CACERT=/ca.pem\nETCDPROXY_ENDPOINTS=https://a:1,b:1\n\
            ETCDPROXY_METRICS_ADDR=http://127.0.0.1:9\n";
        assert_eq!(read(text).unwrap().ports, [9, 2379].into());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, problem) in [
            ("\nETCDPROXY", "/x.env: line 2: is not NAME=VALUE"),
            ("A='b", "/x.env: line 1: a quotation mark has no other"),
            ("ETCDPROXY_LISTEN_ADDR=1", "/x.env: ETCDPROXY_LISTEN_ADDR: \"1\" has no port"),
            ("ETCDPROXY_ENDPOINTS=http://a", "/x.env: ETCDPROXY_ENDPOINTS: \"a\" has no port"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.starts_with(problem), "{text}: {found}");
        }
    }
}
