//! What the sandbox of an installed service must allow, from the service's settings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::addr::{ListenAddr, TcpAddr};
use super::endpoint::{Scheme, parse_list};
use super::error::Error;
use super::sources::Sources;
use super::table::Setting;
use crate::os::env::Env;

const TLS_SETTINGS: [Setting; 3] = [Setting::CaCert, Setting::Cert, Setting::Key];

/// Settings whose files the service's user may not be able to read.
const FILES: [Setting; 4] = [Setting::CaCert, Setting::Cert, Setting::Key, Setting::PasswordFile];

/// The part of the settings that systemd needs to know.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Needs {
    /// The endpoints or the SRV domain are set. Without them the service does not start.
    pub configured: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// TCP ports that it listens on.
    pub ports: BTreeSet<u16>,
    /// Files of certificates, keys and a password. The service's user may not be able to read them.
    pub files: Vec<(Setting, PathBuf)>,
    /// The settings contain a private key or a password.
    pub holds_secret: bool,
}

impl Needs {
    /// `env` is the environment of the service.
    ///
    /// # Errors
    /// If an address in it is invalid.
    pub(crate) fn of(env: &Env) -> Result<Self, Error> {
        let sources = Sources::new([], env);
        let mut needs = Self::default();
        let metrics_addr = sources.parsed(Setting::MetricsAddr, TcpAddr::parse_metrics)?;
        for addr in [sources.listen_addr()?].into_iter().chain(metrics_addr.map(Into::into)) {
            // A socket needs neither an address family of the Internet nor a port.
            if let ListenAddr::Tcp(addr) = addr {
                needs.reach(addr.host());
                needs.ports.insert(addr.port());
            }
        }
        for setting in FILES {
            match sources.get(setting) {
                Some(value) if value.text()?.starts_with('/') => {
                    let path = value.text()?;
                    // The value is not shown, because it may be a key without its first line.
                    if path.contains(char::is_control) || path.ends_with('\\') {
                        return Err(value.error(
                            "the path contains a control character, such as a line end, or ends with a backslash, which a \
                             systemd unit cannot use: choose another path",
                        ));
                    }
                    needs.files.push((setting, path.into()));
                }
                Some(_) if setting == Setting::Key => needs.holds_secret = true,
                _ => {}
            }
        }
        needs.holds_secret |= sources.get(Setting::Password).is_some();
        let tls = TLS_SETTINGS.iter().chain([&Setting::ServerName]).any(|setting| sources.get(*setting).is_some());
        let endpoints = sources.parsed(Setting::Endpoints, |text| parse_list(text, Scheme::default_for(tls)))?;
        needs.configured = sources.members()?.is_some();
        match endpoints {
            Some(endpoints) => {
                endpoints.iter().filter_map(|it| it.host_port()).for_each(|(host, _)| needs.reach(host));
            }
            None => needs.reach("any name"),
        }
        Ok(needs)
    }

    /// A name can have addresses of both families.
    fn reach(&mut self, host: &str) {
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => self.ipv4 = true,
            Ok(IpAddr::V6(_)) => self.ipv6 = true,
            Err(_) => (self.ipv4, self.ipv6) = (true, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs<const N: usize>(vars: [(&str, &str); N]) -> Needs {
        Needs::of(&Env::from(vars)).unwrap()
    }

    #[test]
    fn what_the_sandbox_allows() {
        let nothing = needs([]);
        assert!(!nothing.configured && nothing.ipv4 && nothing.ipv6);
        assert_eq!(nothing.ports, [2379].into());

        let addresses = needs([("ETCDPROXY_ENDPOINTS", "10.0.0.1:2379,10.0.0.2:2379")]);
        assert!(addresses.configured && addresses.ipv4 && !addresses.ipv6);

        let srv = needs([("ETCDPROXY_DISCOVERY_SRV", "example.com")]);
        assert!(srv.configured && srv.ipv4 && srv.ipv6);

        let name = needs([("ETCDPROXY_ENDPOINTS", "etcd.example:2379")]);
        assert!(name.ipv4 && name.ipv6, "a name can be either");

        let all = needs([
            ("ETCDPROXY_ENDPOINTS", "unix:///run/etcd.sock"),
            ("ETCDPROXY_LISTEN_ADDR", "[::1]:2"),
            ("ETCDPROXY_METRICS_ADDR", "[::1]:3"),
            ("ETCDPROXY_CACERT", "/etc/ca.pem"),
            ("ETCDPROXY_KEY", "-----BEGIN\nx"),
            ("ETCDPROXY_PASSWORD_FILE", "/etc/password"),
        ]);
        assert!(!all.ipv4 && all.ipv6 && all.holds_secret);
        assert!(
            needs([("ETCDPROXY_PASSWORD", "x")]).holds_secret && !needs([("ETCDPROXY_USERNAME", "x")]).holds_secret
        );
        assert_eq!(all.ports, [2, 3].into());
        let password = (Setting::PasswordFile, "/etc/password".into());
        assert_eq!(all.files, [(Setting::CaCert, "/etc/ca.pem".into()), password]);
    }

    #[test]
    fn a_unix_socket_needs_no_port_and_a_name_needs_both_families() {
        let endpoints = ("ETCDPROXY_ENDPOINTS", "10.0.0.1:2379");
        let socket = needs([endpoints, ("ETCDPROXY_LISTEN_ADDR", "unix:///run/etcdproxy/etcd.sock")]);
        assert!(socket.ipv4 && !socket.ipv6 && socket.ports.is_empty());
        let name = needs([endpoints, ("ETCDPROXY_LISTEN_ADDR", "localhost:2379")]);
        assert!(name.ipv4 && name.ipv6);
        assert_eq!(name.ports, [2379].into());
    }

    #[test]
    fn what_run_accepts_is_accepted() {
        let needs = needs([
            ("ETCDPROXY_CACERT", "/ca.pem"),
            ("ETCDPROXY_ENDPOINTS", "https://a:1,b:1"),
            ("ETCDPROXY_METRICS_ADDR", "http://127.0.0.1:9"),
        ]);
        assert_eq!(needs.ports, [9, 2379].into());
    }

    #[test]
    fn a_problem_is_reported_with_its_setting() {
        for (name, value, problem) in [
            ("ETCDPROXY_LISTEN_ADDR", "1", "\"1\" has no port"),
            ("ETCDPROXY_ENDPOINTS", "http://a", "\"a\" has no port"),
            ("ETCDPROXY_CACERT", "/a\nExecStartPre=/bin/x", "the path contains a control character"),
            (
                "ETCDPROXY_KEY",
                "/a\\",
                "the path contains a control character, such as a line end, or ends with a backslash",
            ),
        ] {
            let found = Needs::of(&Env::from([(name, value)])).unwrap_err().to_string();
            assert!(found.starts_with(&format!("{name}: {problem}")), "{found}");
        }
    }
}
