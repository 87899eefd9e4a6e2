//! The sources' values, checked.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::tls::{Kind, check_ca, check_identity};
use super::{Endpoint, Error, ListenAddr, Pem, Scheme, Setting, Sources, Tls, endpoint};
use crate::log::Format;

/// What `run` works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one; all with the same scheme.
    pub endpoints: Vec<Endpoint>,
    pub listen_addr: ListenAddr,
    pub mode: Mode,
    /// Name of the service binding that is used.
    pub binding: Option<String>,
    pub tls: Tls,
    /// Prefix that etcd's proxy puts before every key.
    pub namespace: Option<String>,
    /// Where Prometheus metrics are served besides the listen address.
    pub metrics_addr: Option<ListenAddr>,
    /// How long at most the proxy serves on after SIGTERM. Without it, the launcher becomes etcd and cannot.
    pub drain: Option<Duration>,
    pub preflight: Preflight,
    pub log_format: Format,
    /// What the proxy may use, in MiB.
    pub memory: Option<u32>,
    /// Whether etcd may reach the cluster through the HTTP proxy of the environment.
    pub use_http_proxy: bool,
    /// What should not be, but can work. One line each.
    pub warnings: Vec<String>,
}

/// What carries the application's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The best that serves correctly.
    #[default]
    Auto,
    /// `etcd grpc-proxy`.
    GrpcProxy,
}

impl Mode {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "grpc-proxy" => Ok(Self::GrpcProxy),
            "tunnel" => Err("this version has no tunnel mode: use grpc-proxy or auto".to_owned()),
            other => Err(format!("{other:?} is no mode: use auto or grpc-proxy")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::GrpcProxy => "grpc-proxy",
        })
    }
}

/// Whether the endpoints are tried before the start, and what follows when none is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Preflight {
    #[default]
    Warn,
    /// No start.
    Strict,
    Off,
}

impl Preflight {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "warn" => Ok(Self::Warn),
            "strict" => Ok(Self::Strict),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?} is no preflight: use warn, strict or off")),
        }
    }
}

/// Idle, it has 26 MB.
const LEAST_MEMORY: u32 = 32;

impl Sources {
    /// Everything `run` needs, checked.
    ///
    /// # Errors
    /// The first setting that can never work.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        let mut warnings = self.warnings.clone();
        let tls = self.tls(&mut warnings)?;
        let listen_addr = self.listen_addr()?;
        let endpoints = self.endpoints(&listen_addr, tls.is_configured())?;
        if tls.is_configured() && endpoints[0].scheme == Scheme::Http {
            warnings.push(format!(
                "{} is plain http, so the certificates that are configured are not used: write https",
                endpoints[0]
            ));
        }
        let (binding, has_password) = self.binding.clone().unzip();
        if has_password == Some(true) {
            warnings.push(
                "the service binding has a password: through etcd's grpc-proxy a watch falls silent, with no error, \
                 when the first login's token expires (after 300 s by default): let an application that watches connect \
                 to the members itself, or raise the members' --auth-token-ttl"
                    .to_owned(),
            );
        }
        Ok(Settings {
            endpoints,
            mode: self.parsed(Setting::Mode, Mode::parse)?.unwrap_or_default(),
            binding,
            tls,
            namespace: self.parsed(Setting::Namespace, |text| Ok(text.to_owned()))?,
            metrics_addr: self.parsed(Setting::MetricsAddr, |text| {
                let addr = ListenAddr::parse(text.strip_prefix("http://").unwrap_or(text))?;
                if addr == listen_addr {
                    return Err(format!("{addr} is the address the application connects to: choose another"));
                }
                Ok(addr)
            })?,
            listen_addr,
            drain: self.parsed(Setting::Drain, drain)?.flatten(),
            preflight: self.parsed(Setting::Preflight, Preflight::parse)?.unwrap_or_default(),
            log_format: self.log_format()?,
            memory: self.parsed(Setting::Memory, memory)?,
            use_http_proxy: self.switch(Setting::UseHttpProxy)?,
            warnings,
        })
    }

    /// How log lines look.
    pub(crate) fn log_format(&self) -> Result<Format, Error> {
        Ok(self.parsed(Setting::LogFormat, Format::parse)?.unwrap_or_default())
    }

    fn endpoints(&self, listen_addr: &ListenAddr, tls: bool) -> Result<Vec<Endpoint>, Error> {
        let Some(value) = self.get(Setting::Endpoints) else {
            return Err(Error {
                setting: "endpoints".to_owned(),
                problem: format!(
                    "none are set and {}: give etcd's addresses with {} or {}, as in \
                     https://10.0.0.1:2379,https://10.0.0.2:2379",
                    if self.others.is_empty() {
                        "no etcd service is bound".to_owned()
                    } else {
                        let (flag, names) = (Setting::Service.flag(), self.others.join(", "));
                        format!(
                            "no bound service is known to be etcd (if one of these is, name it with {flag}: {names})"
                        )
                    },
                    Setting::Endpoints.flag(),
                    Setting::Endpoints.variable()
                ),
            });
        };
        let default = if tls { Scheme::Https } else { Scheme::Http };
        let endpoints = endpoint::parse_list(value.text()?, default).map_err(|problem| value.error(problem))?;
        match endpoints.iter().find(|endpoint| listen_addr.is_reached_by(endpoint)) {
            Some(endpoint) => Err(value.error(format_args!(
                "{endpoint} is the address the proxy itself listens on: name the cluster's members, or change {}",
                Setting::ListenAddr.flag()
            ))),
            None => Ok(endpoints),
        }
    }

    fn tls(&self, warnings: &mut Vec<String>) -> Result<Tls, Error> {
        let now = SystemTime::now();
        let pem = |key, kind| self.get(key).map(|value| Pem::read(&value, kind)).transpose();
        let ca = pem(Setting::CaCert, Kind::Public)?;
        if let Some(ca) = &ca {
            warnings.extend(check_ca(ca, now)?);
        }
        let lone = |has: Pem, lacks: Setting| Error {
            setting: has.name,
            problem: format!(
                "a client certificate and its key belong together: give the other one with {} or {}",
                lacks.flag(),
                lacks.variable()
            ),
        };
        let identity = match (pem(Setting::Cert, Kind::Public)?, pem(Setting::Key, Kind::Secret)?) {
            (None, None) => None,
            (Some(cert), None) => return Err(lone(cert, Setting::Key)),
            (None, Some(key)) => return Err(lone(key, Setting::Cert)),
            (Some(cert), Some(key)) => {
                let (identity, warning) = check_identity(cert, key, now)?;
                warnings.extend(warning);
                Some(identity)
            }
        };
        if let Some(identity) = &identity
            && let Some(name) = &identity.common_name
        {
            return Err(Error {
                setting: identity.cert.name.clone(),
                problem: format!(
                    "the client certificate has the common name {name:?}, and etcd's grpc-proxy takes none that has \
                     one: use a certificate without a common name; --mode tunnel, which takes any, is not in this \
                     version"
                ),
            });
        }
        Ok(Tls { ca, identity })
    }
}

fn drain(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|problem| format!("{problem}, or off"))
}

/// As in `500ms`, `8s`, `2m`. More than a hundred years count as that.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map(|duration| duration.min(Duration::from_hours(100 * 365 * 24)));
    parsed.map_err(|_| format!("{text:?} is no duration: write one as in 8s"))
}

pub(super) fn memory(text: &str) -> Result<u32, String> {
    let number: Option<u32> = text.strip_suffix('M').unwrap_or(text).parse().ok();
    match number {
        Some(mb) if mb >= LEAST_MEMORY => Ok(mb),
        Some(_) => Err(format!("{text:?} is too little: etcd's proxy needs {LEAST_MEMORY} MB or more")),
        None => Err(format!("{text:?} is no memory: write MB, as in 64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::settings::Layer;
    use crate::settings::tls::tests::{Certificate, days};

    fn sources<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Sources {
        let env = Env::from(env);
        let mut sources = Sources::new(Layer::flags([]), &env);
        let flag = |(key, text): &(Setting, &str)| Layer::flags([(*key, Some(text.into()))]);
        sources.layers.splice(..1, flags.iter().map(flag));
        sources.with_binding(&env).unwrap()
    }

    fn resolve<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Settings {
        sources(flags, env).resolve().unwrap()
    }

    fn error<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> String {
        sources(flags, env).resolve().unwrap_err().to_string()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_binding_and_that_over_the_default() {
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"bound:1","prefix":"p/"}}]}"#;
        let env = [
            ("ETCDPROXY_ENDPOINTS", "env:2379"),
            ("ETCDPROXY_LISTEN_ADDR", "127.0.0.1:9"),
            ("VCAP_SERVICES", services),
        ];
        let settings = resolve(&[(Setting::Endpoints, "flag:2379")], env);
        assert_eq!(settings.endpoints[0].to_string(), "http://flag:2379");
        assert_eq!(settings.listen_addr.to_string(), "127.0.0.1:9");
        assert_eq!((settings.mode, settings.drain, settings.preflight), (Mode::Auto, None, Preflight::Warn));
        assert_eq!(resolve(&[], env).endpoints[0].to_string(), "http://env:2379");

        let settings = resolve(&[], [("VCAP_SERVICES", services)]);
        assert_eq!(settings.endpoints[0].to_string(), "http://bound:1");
        assert_eq!((settings.binding.as_deref(), settings.namespace), (Some("e"), None));
        let opted_in = [("VCAP_SERVICES", services), ("ETCDPROXY_NAMESPACE_FROM_BINDING", "1")];
        assert_eq!(resolve(&[], opted_in).namespace.as_deref(), Some("p/"));
    }

    #[test]
    fn several_bindings_do_not_matter_where_the_endpoints_are_given() {
        let services = r#"{"etcd":[{"name":"a","credentials":{"uri":"a:1","ca":"x"}},{"name":"b"}]}"#;
        let settings = resolve(&[(Setting::Endpoints, "h:1")], [("VCAP_SERVICES", services)]);
        assert_eq!(settings.binding, None);
        assert_eq!(
            settings.warnings,
            [
                "no service binding is used, since --endpoints is given and several may be meant: a, b; name one with ETCDPROXY_SERVICE"
            ]
        );
    }

    #[test]
    fn a_password_in_the_binding_is_a_warning_about_watches() {
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","username":"u","password":"s3cret"}}]}"#;
        let warnings = resolve(&[], [("VCAP_SERVICES", services)]).warnings;
        assert!(warnings[0].contains("a watch falls silent") && !warnings[0].contains("s3cret"), "{warnings:?}");
    }

    #[test]
    fn a_value_of_white_space_from_a_manifest_is_trimmed() {
        let settings = resolve(&[], [("ETCDPROXY_ENDPOINTS", " a:1 , b:2 \n"), ("ETCDPROXY_MODE", "grpc-proxy\n")]);
        let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!(settings.mode, Mode::GrpcProxy);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert!(error(&[], [("ETCDPROXY_ENDPOINTS", "")]).starts_with("endpoints: none are set"));
    }

    #[test]
    fn errors_name_the_setting_as_its_user_wrote_it() {
        assert!(error(&[(Setting::Endpoints, "a")], []).starts_with("--endpoints: "));
        assert!(error(&[], [("ETCDPROXY_ENDPOINTS", "a")]).starts_with("ETCDPROXY_ENDPOINTS: "));
        for (key, text, problem) in [
            (Setting::Mode, "fast", "--mode: \"fast\" is no mode: use auto or grpc-proxy"),
            (Setting::Preflight, "yes", "--preflight: \"yes\" is no preflight: use warn, strict or off"),
            (Setting::Drain, "8", "--drain: \"8\" is no duration: write one as in 8s, or off"),
            (Setting::LogFormat, "xml", "--log-format: \"xml\" is no format: use json, text or raw"),
            (Setting::Memory, "1", "--memory: \"1\" is too little: etcd's proxy needs 32 MB or more"),
            (Setting::Memory, "1G", "--memory: \"1G\" is no memory: write MB, as in 64"),
            (Setting::UseHttpProxy, "yes", "ETCDPROXY_USE_HTTP_PROXY: \"yes\" is neither true nor false"),
        ] {
            assert_eq!(error(&[(Setting::Endpoints, "a:1"), (key, text)], []), problem);
        }
    }

    #[test]
    fn the_proxy_is_not_its_own_cluster() {
        for own in ["127.0.0.1:2379", "http://localhost:2379", "[::1]:2379", "0.0.0.0:2379", "[::ffff:127.0.0.1]:2379"]
        {
            assert!(error(&[(Setting::Endpoints, own)], []).contains("the proxy itself"), "{own}");
        }
        for other in ["127.0.0.1:2380", "127.0.0.2:2379"] {
            assert!(sources(&[(Setting::Endpoints, other)], []).resolve().is_ok());
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_key_its_certificate() {
        let pair = Certificate::new(None, days(-1), days(365));
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_CERT", &pair.cert)]);
        assert_eq!(
            problem,
            "ETCDPROXY_CERT: a client certificate and its key belong together: give the other one with --key or \
             ETCDPROXY_KEY"
        );
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_KEY", &pair.key)]);
        assert!(problem.starts_with("ETCDPROXY_KEY: ") && problem.contains("--cert"), "{problem}");
    }

    #[test]
    fn a_common_name_is_refused_with_the_remedy() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let problem = error(&[(Setting::Endpoints, "a:1")], env);
        assert!(problem.starts_with("ETCDPROXY_CERT: the client certificate has the common name \"app\""), "{problem}");
        assert!(problem.contains("--mode tunnel"), "{problem}");
    }

    #[test]
    fn endpoints_use_tls_when_it_is_configured() {
        let ca = Certificate::new(None, days(-1), days(365)).cert;
        let with = |endpoint| resolve(&[(Setting::Endpoints, endpoint)], [("ETCDPROXY_CACERT", &ca)]);
        let bare = with("a:1");
        assert_eq!((bare.endpoints[0].to_string().as_str(), &bare.warnings[..]), ("https://a:1", &[][..]));
        assert!(with("http://a:1").warnings[0].contains("the certificates that are configured are not used"));
    }

    #[test]
    fn metrics_may_be_given_as_a_url() {
        for text in ["127.0.0.1:9", "http://127.0.0.1:9"] {
            let settings = resolve(&[(Setting::Endpoints, "a:1"), (Setting::MetricsAddr, text)], []);
            assert_eq!(settings.metrics_addr.unwrap().to_string(), "127.0.0.1:9");
        }
    }

    #[test]
    fn supervising_is_switched_on_and_off() {
        let drain = |text| resolve(&[(Setting::Endpoints, "a:1"), (Setting::Drain, text)], []).drain;
        assert_eq!(
            (drain("8s"), drain("0s"), drain("off")),
            (Some(Duration::from_secs(8)), Some(Duration::ZERO), None)
        );
        let longest = drain("300000000000y").unwrap();
        assert!(std::time::Instant::now().checked_add(longest).is_some());
    }
}
