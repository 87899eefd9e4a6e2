//! Settings: from flags, environment and service bindings to one resolved value.
//!
//! The only place that knows where a setting came from. Each source says what it has as a [`Layer`];
//! the first layer that has a value for a [`Setting`] wins.

mod addr;
mod binding;
mod endpoint;
pub(crate) mod staging;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub(crate) use addr::ListenAddr;
pub(crate) use endpoint::{Endpoint, Scheme};

use crate::env::Env;

/// Everything that can be set from more than one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    Endpoints,
    ListenAddr,
    Mode,
    CaCert,
    Cert,
    Key,
    Namespace,
    MetricsAddr,
}

impl Setting {
    const ALL: [Self; 8] = [
        Self::Endpoints,
        Self::ListenAddr,
        Self::Mode,
        Self::CaCert,
        Self::Cert,
        Self::Key,
        Self::Namespace,
        Self::MetricsAddr,
    ];

    /// Its name in the environment.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Endpoints => "ETCDPROXY_ENDPOINTS",
            Self::ListenAddr => "ETCDPROXY_LISTEN_ADDR",
            Self::Mode => "ETCDPROXY_MODE",
            Self::CaCert => "ETCDPROXY_CACERT",
            Self::Cert => "ETCDPROXY_CERT",
            Self::Key => "ETCDPROXY_KEY",
            Self::Namespace => "ETCDPROXY_NAMESPACE",
            Self::MetricsAddr => "ETCDPROXY_METRICS_ADDR",
        }
    }

    /// Its name on the command line.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Endpoints => "--endpoints",
            Self::ListenAddr => "--listen-addr",
            Self::Mode => "--mode",
            Self::CaCert => "--cacert",
            Self::Cert => "--cert",
            Self::Key => "--key",
            Self::Namespace => "--namespace",
            Self::MetricsAddr => "--metrics-addr",
        }
    }
}

/// Where a layer's values were found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Flags,
    Environment,
    /// The service binding of this name.
    Binding(String),
}

/// What one source says.
#[derive(Debug)]
pub(crate) struct Layer {
    origin: Origin,
    values: BTreeMap<Setting, OsString>,
}

impl Layer {
    /// The values given on the command line.
    pub(crate) fn flags<const N: usize>(values: [(Setting, Option<OsString>); N]) -> Self {
        let values = values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Self { origin: Origin::Flags, values }
    }

    fn environment(env: &Env) -> Self {
        let values = Setting::ALL.into_iter().filter_map(|key| Some((key, env.get(key.variable())?.to_owned())));
        Self { origin: Origin::Environment, values: values.collect() }
    }
}

/// A setting that can never work. Its text names the setting, the problem, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub(crate) struct Error {
    setting: String,
    problem: String,
}

/// A value with the name its user knows it by.
#[derive(Debug)]
struct Value {
    name: String,
    text: OsString,
}

impl Value {
    fn error(&self, problem: impl fmt::Display) -> Error {
        Error { setting: self.name.clone(), problem: problem.to_string() }
    }

    fn text(&self) -> Result<&str, Error> {
        self.text.to_str().ok_or_else(|| self.error("is not valid UTF-8"))
    }
}

/// All sources, highest rank first.
#[derive(Debug)]
pub(crate) struct Sources {
    layers: Vec<Layer>,
}

impl Sources {
    pub(crate) fn new(flags: Layer, env: &Env) -> Self {
        Self { layers: vec![flags, Layer::environment(env)] }
    }

    /// Adds the service binding as the last source, where flags and environment leave the endpoints open.
    ///
    /// # Errors
    /// When there are bindings that cannot be read, or several that may be meant.
    pub(crate) fn with_binding(mut self, env: &Env) -> Result<Self, Error> {
        if self.get(Setting::Endpoints).is_none()
            && let Some(binding) = binding::find(env)?
        {
            let values = BTreeMap::from([(Setting::Endpoints, binding.endpoints()?.into())]);
            self.layers.push(Layer { origin: Origin::Binding(binding.name), values });
        }
        Ok(self)
    }

    fn get(&self, key: Setting) -> Option<Value> {
        self.layers.iter().find_map(|layer| {
            let name = match &layer.origin {
                Origin::Flags => key.flag().to_owned(),
                Origin::Environment => key.variable().to_owned(),
                Origin::Binding(name) => format!("service binding {name:?}"),
            };
            Some(Value { name, text: layer.values.get(&key)?.clone() })
        })
    }

    fn parsed<T>(&self, key: Setting, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(value.text()?.trim()).map(Some).map_err(|problem| value.error(problem))
    }

    /// The address the application connects to.
    pub(crate) fn listen_addr(&self) -> Result<ListenAddr, Error> {
        Ok(self.parsed(Setting::ListenAddr, ListenAddr::parse)?.unwrap_or_default())
    }

    /// Everything `run` needs, checked.
    ///
    /// # Errors
    /// The first setting that can never work.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        let tls = self.tls()?;
        let listen_addr = self.listen_addr()?;
        Ok(Settings {
            endpoints: self.endpoints(&listen_addr, tls != Tls::default())?,
            listen_addr,
            mode: self.parsed(Setting::Mode, Mode::parse)?.unwrap_or_default(),
            tls,
            namespace: self.parsed(Setting::Namespace, |text| Ok(text.to_owned()))?,
            metrics_addr: self
                .parsed(Setting::MetricsAddr, |text| ListenAddr::parse(text.strip_prefix("http://").unwrap_or(text)))?,
        })
    }

    fn endpoints(&self, listen_addr: &ListenAddr, tls: bool) -> Result<Vec<Endpoint>, Error> {
        let Some(value) = self.get(Setting::Endpoints) else {
            return Err(Error {
                setting: "endpoints".to_owned(),
                problem: format!(
                    "none are set and no etcd service is bound: give etcd's addresses with {} or {}, as in \
                     https://10.0.0.1:2379,https://10.0.0.2:2379",
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

    fn tls(&self) -> Result<Tls, Error> {
        let file = |key| -> Result<Option<PathBuf>, Error> {
            let Some(value) = self.get(key) else { return Ok(None) };
            let path = PathBuf::from(&value.text);
            match std::fs::File::open(&path) {
                Ok(_) => Ok(Some(path)),
                Err(err) => {
                    Err(value.error(format_args!("cannot read {}: {err}: name a readable PEM file", path.display())))
                }
            }
        };
        let tls = Tls { ca_cert: file(Setting::CaCert)?, cert: file(Setting::Cert)?, key: file(Setting::Key)? };
        let lone = |has: Setting, lacks: Setting| Error {
            setting: has.flag().to_owned(),
            problem: format!("a client certificate needs both files: {} is missing", lacks.flag()),
        };
        match (&tls.cert, &tls.key) {
            (Some(_), None) => Err(lone(Setting::Cert, Setting::Key)),
            (None, Some(_)) => Err(lone(Setting::Key, Setting::Cert)),
            _ => Ok(tls),
        }
    }
}

/// What `run` works with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one; all with the same scheme.
    pub endpoints: Vec<Endpoint>,
    pub listen_addr: ListenAddr,
    pub mode: Mode,
    pub tls: Tls,
    /// Prefix that etcd's proxy puts before every key.
    pub namespace: Option<String>,
    /// Where Prometheus metrics are served besides the listen address.
    pub metrics_addr: Option<ListenAddr>,
}

/// PEM files for the connection to the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub ca_cert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
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
    fn parse(text: &str) -> Result<Self, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sources<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Sources {
        let values = flags.iter().map(|(key, value)| (*key, OsString::from(value))).collect();
        Sources::new(Layer { origin: Origin::Flags, values }, &Env::from(env))
    }

    fn error<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> String {
        sources(flags, env).resolve().unwrap_err().to_string()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let env = [("ETCDPROXY_ENDPOINTS", "env:2379"), ("ETCDPROXY_LISTEN_ADDR", "127.0.0.1:9")];
        let settings = sources(&[(Setting::Endpoints, "flag:2379")], env).resolve().unwrap();
        assert_eq!(settings.endpoints[0].to_string(), "http://flag:2379");
        assert_eq!(settings.listen_addr.to_string(), "127.0.0.1:9");
        assert_eq!(settings.mode, Mode::Auto);
    }

    #[test]
    fn a_value_of_white_space_from_a_manifest_is_trimmed() {
        let settings = sources(&[], [("ETCDPROXY_ENDPOINTS", " a:1 , b:2 \n"), ("ETCDPROXY_MODE", "grpc-proxy\n")]);
        let settings = settings.resolve().unwrap();
        assert_eq!(
            settings.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a:1", "http://b:2"]
        );
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
        assert_eq!(
            error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_MODE", "fast")]),
            "ETCDPROXY_MODE: \"fast\" is no mode: use auto or grpc-proxy"
        );
    }

    #[test]
    fn the_proxy_is_not_its_own_cluster() {
        for own in ["127.0.0.1:2379", "http://localhost:2379", "[::1]:2379"] {
            assert!(error(&[(Setting::Endpoints, own)], []).contains("the proxy itself"), "{own}");
        }
        assert!(sources(&[(Setting::Endpoints, "127.0.0.1:2380")], []).resolve().is_ok());
        assert!(sources(&[(Setting::Endpoints, "127.0.0.2:2379")], []).resolve().is_ok());
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Cert, path)], []);
        assert_eq!(problem, "--cert: a client certificate needs both files: --key is missing");
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::CaCert, "/no/such.pem")], []);
        assert!(problem.starts_with("--cacert: cannot read /no/such.pem: No such file"), "{problem}");
    }

    #[test]
    fn bare_endpoints_use_tls_when_tls_is_configured() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ca = file.path().to_str().unwrap();
        let settings = sources(&[(Setting::Endpoints, "a:1"), (Setting::CaCert, ca)], []).resolve().unwrap();
        assert_eq!(settings.endpoints[0].to_string(), "https://a:1");
    }

    #[test]
    fn metrics_may_be_given_as_a_url() {
        for text in ["127.0.0.1:9", "http://127.0.0.1:9"] {
            let settings = sources(&[(Setting::Endpoints, "a:1"), (Setting::MetricsAddr, text)], []).resolve().unwrap();
            assert_eq!(settings.metrics_addr.unwrap().to_string(), "127.0.0.1:9");
        }
    }
}
