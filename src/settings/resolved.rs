//! The sources' values, checked.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::tls::{Kind, check_ca, check_identity};
use super::{Endpoint, Error, ListenAddr, Pem, Scheme, Setting, Sources, Tls, binding, endpoint};
use crate::duration;
use crate::log::Format;

/// What `run` works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one; all with the same scheme.
    pub endpoints: Vec<Endpoint>,
    pub listen_addr: ListenAddr,
    pub mode: Mode,
    /// Why `auto` took another mode than the usual one.
    pub mode_reason: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `etcd grpc-proxy`.
    GrpcProxy,
    /// This program itself, byte for byte.
    Tunnel,
}

impl Mode {
    /// Nothing for `auto`.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "auto" => Ok(None),
            "grpc-proxy" => Ok(Some(Self::GrpcProxy)),
            "tunnel" => Ok(Some(Self::Tunnel)),
            other => Err(format!("{other:?} is no mode: use auto, grpc-proxy or tunnel")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GrpcProxy => "grpc-proxy",
            Self::Tunnel => "tunnel",
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

/// 2 s less than Cloud Foundry gives a process between SIGTERM and SIGKILL.
const TUNNEL_DRAIN: Duration = Duration::from_secs(8);

/// In MB. Idle, etcd's proxy has 26.
const LEAST_MEMORY: u32 = 32;
/// In MB. Idle, it has 4.
const TUNNEL_LEAST_MEMORY: u32 = 8;

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
        let namespace = self.parsed(Setting::Namespace, |text| Ok(text.to_owned()))?;
        let (mode, mode_reason) = self.mode(&tls, has_password == Some(true), namespace.is_some())?;
        if has_password == Some(true) && mode == Mode::GrpcProxy {
            warnings.push(
                "the service binding has a password: through etcd's grpc-proxy a watch falls silent, with no error, \
                 when the first login's token expires (after 300 s by default): use --mode tunnel"
                    .to_owned(),
            );
        }
        if !listen_addr.is_loopback() {
            warnings.push(format!(
                "{listen_addr} is not loopback: whoever reaches it acts in the cluster as this sidecar does"
            ));
        }
        let drain = self.parsed(Setting::Drain, drain)?;
        Ok(Settings {
            endpoints,
            mode,
            mode_reason,
            binding,
            tls,
            namespace,
            metrics_addr: self.parsed(Setting::MetricsAddr, |text| {
                let addr = ListenAddr::parse_metrics(text)?;
                if addr == listen_addr {
                    return Err(format!("{addr} is the address the application connects to: choose another"));
                }
                Ok(addr)
            })?,
            listen_addr,
            drain: match mode {
                Mode::GrpcProxy => drain.flatten(),
                Mode::Tunnel => Some(drain.unwrap_or(Some(TUNNEL_DRAIN)).unwrap_or_default()),
            },
            preflight: self.parsed(Setting::Preflight, Preflight::parse)?.unwrap_or_default(),
            log_format: self.log_format()?,
            memory: self.parsed(Setting::Memory, |text| memory(text, mode))?,
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
                    binding::none_is_etcd(&self.others, Setting::Service.flag()),
                    Setting::Endpoints.flag(),
                    Setting::Endpoints.variable()
                ),
            });
        };
        let endpoints =
            endpoint::parse_list(value.text()?, Scheme::usual(tls)).map_err(|problem| value.error(problem))?;
        match endpoints.iter().find(|endpoint| listen_addr.is_reached_by(endpoint)) {
            Some(endpoint) => Err(value.error(format_args!(
                "{endpoint} is the address the proxy itself listens on: name the cluster's members, or change {}",
                Setting::ListenAddr.flag()
            ))),
            None => Ok(endpoints),
        }
    }

    /// What is asked for; with `auto`, etcd's grpc-proxy wherever it can serve correctly.
    fn mode(&self, tls: &Tls, password: bool, namespace: bool) -> Result<(Mode, Option<String>), Error> {
        let named = tls.identity.as_ref().and_then(|it| Some((&it.cert.name, it.common_name.as_ref()?)));
        let chosen = match (self.parsed(Setting::Mode, Mode::parse)?.flatten(), named) {
            (Some(Mode::GrpcProxy), Some((cert, name))) => {
                return Err(Error {
                    setting: cert.clone(),
                    problem: format!(
                        "the client certificate has the common name {name:?}, and etcd's grpc-proxy takes none that \
                         has one: use --mode tunnel, which takes any, or a certificate without a common name"
                    ),
                });
            }
            (Some(mode), _) => (mode, None),
            (None, Some((_, name))) => {
                let why = format!("etcd's grpc-proxy takes no client certificate with a common name, as {name:?} is");
                (Mode::Tunnel, Some(why))
            }
            (None, None) if password && !namespace => {
                let why = "through etcd's grpc-proxy, watches fall silent where clients log in with a password";
                (Mode::Tunnel, Some(why.to_owned()))
            }
            (None, None) => (Mode::GrpcProxy, None),
        };
        match self.get(Setting::Namespace) {
            Some(namespace) if chosen.0 == Mode::Tunnel => Err(namespace.error(
                "the tunnel carries bytes untouched and can put no prefix before keys: remove it, or use what etcd's \
                 grpc-proxy can serve, with --mode grpc-proxy",
            )),
            _ => Ok(chosen),
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
        Ok(Tls { ca, identity })
    }
}

fn drain(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration::parse(text).map(Some).map_err(|problem| format!("{problem}, or off"))
}

pub(super) fn memory(text: &str, mode: Mode) -> Result<u32, String> {
    let least = if mode == Mode::Tunnel { TUNNEL_LEAST_MEMORY } else { LEAST_MEMORY };
    let number: Option<u32> = text.strip_suffix('M').unwrap_or(text).parse().ok();
    match number {
        Some(mb) if mb >= least => Ok(mb),
        Some(_) => Err(format!("{text:?} is too little: mode {mode} needs {least} MB or more")),
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
        assert_eq!((settings.mode, settings.drain, settings.preflight), (Mode::GrpcProxy, None, Preflight::Warn));
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
        let warnings = resolve(&[(Setting::Mode, "grpc-proxy")], [("VCAP_SERVICES", services)]).warnings;
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
            (Setting::Mode, "fast", "--mode: \"fast\" is no mode: use auto, grpc-proxy or tunnel"),
            (Setting::Preflight, "yes", "--preflight: \"yes\" is no preflight: use warn, strict or off"),
            (Setting::Drain, "8", "--drain: \"8\" is no duration: write one as in 8s, or off"),
            (Setting::LogFormat, "xml", "--log-format: \"xml\" is no format: use json, text or raw"),
            (Setting::Memory, "1", "--memory: \"1\" is too little: mode grpc-proxy needs 32 MB or more"),
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
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Mode, "grpc-proxy")], env);
        assert!(problem.starts_with("ETCDPROXY_CERT: the client certificate has the common name \"app\""), "{problem}");
        assert!(problem.contains("--mode tunnel"), "{problem}");
    }

    #[test]
    fn auto_takes_the_tunnel_where_etcds_proxy_cannot_serve() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let settings = resolve(&[(Setting::Endpoints, "a:1")], env);
        assert_eq!((settings.mode, settings.drain), (Mode::Tunnel, Some(TUNNEL_DRAIN)));
        assert!(settings.mode_reason.unwrap().contains("\"app\""));
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/")], env);
        assert!(problem.starts_with("--namespace: the tunnel carries bytes untouched"), "{problem}");

        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","password":"s3cret"}}]}"#;
        let bound = [("VCAP_SERVICES", services)];
        let settings = resolve(&[], bound);
        assert_eq!((settings.mode, settings.warnings.len()), (Mode::Tunnel, 0));
        assert_eq!(resolve(&[(Setting::Namespace, "p/")], bound).mode, Mode::GrpcProxy);
        let settings = resolve(&[(Setting::Mode, "grpc-proxy")], bound);
        assert_eq!((settings.mode, settings.drain, settings.warnings.len()), (Mode::GrpcProxy, None, 1));
        let off = resolve(&[(Setting::Mode, "tunnel"), (Setting::Drain, "off")], bound);
        assert_eq!((off.mode_reason, off.drain), (None, Some(Duration::ZERO)));
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
