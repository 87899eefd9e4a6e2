//! Settings: from flags, environment and service bindings to one resolved value.
//!
//! The only place that knows where a setting came from. Each source says what it has as a [`Layer`];
//! the first layer that has a value for a [`Setting`] wins. [`resolved`] checks what comes out of it.

mod addr;
mod binding;
mod endpoint;
#[cfg(test)]
mod generated;
mod resolved;
mod service;
pub(crate) mod staging;
mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

pub(crate) use addr::ListenAddr;
pub(crate) use endpoint::{Endpoint, Scheme};
pub(crate) use resolved::{Mode, Preflight, Settings};
pub(crate) use service::Needs;
#[cfg(test)]
pub(crate) use tls::Identity;
pub(crate) use tls::{Pem, Tls};

use crate::env::Env;

/// Everything that can be set from more than one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    Endpoints,
    ListenAddr,
    Mode,
    Service,
    CaCert,
    Cert,
    Key,
    Namespace,
    NamespaceFromBinding,
    MetricsAddr,
    Drain,
    Preflight,
    LogFormat,
    Memory,
    UseHttpProxy,
}

impl Setting {
    const ALL: [Self; 15] = [
        Self::Endpoints,
        Self::ListenAddr,
        Self::Mode,
        Self::Service,
        Self::CaCert,
        Self::Cert,
        Self::Key,
        Self::Namespace,
        Self::NamespaceFromBinding,
        Self::MetricsAddr,
        Self::Drain,
        Self::Preflight,
        Self::LogFormat,
        Self::Memory,
        Self::UseHttpProxy,
    ];

    /// Its name in the environment.
    pub(crate) const fn variable(self) -> &'static str {
        match self {
            Self::Endpoints => "ETCDPROXY_ENDPOINTS",
            Self::ListenAddr => "ETCDPROXY_LISTEN_ADDR",
            Self::Mode => "ETCDPROXY_MODE",
            Self::Service => "ETCDPROXY_SERVICE",
            Self::CaCert => "ETCDPROXY_CACERT",
            Self::Cert => "ETCDPROXY_CERT",
            Self::Key => "ETCDPROXY_KEY",
            Self::Namespace => "ETCDPROXY_NAMESPACE",
            Self::NamespaceFromBinding => "ETCDPROXY_NAMESPACE_FROM_BINDING",
            Self::MetricsAddr => "ETCDPROXY_METRICS_ADDR",
            Self::Drain => "ETCDPROXY_DRAIN",
            Self::Preflight => "ETCDPROXY_PREFLIGHT",
            Self::LogFormat => "ETCDPROXY_LOG_FORMAT",
            Self::Memory => "ETCDPROXY_MEMORY",
            Self::UseHttpProxy => "ETCDPROXY_USE_HTTP_PROXY",
        }
    }

    /// Its name on the command line; in the environment, when it is only there.
    pub(crate) const fn flag(self) -> &'static str {
        match self {
            Self::Endpoints => "--endpoints",
            Self::ListenAddr => "--listen-addr",
            Self::Mode => "--mode",
            Self::Service => "--service",
            Self::CaCert => "--cacert",
            Self::Cert => "--cert",
            Self::Key => "--key",
            Self::Namespace => "--namespace",
            Self::MetricsAddr => "--metrics-addr",
            Self::Drain => "--drain",
            Self::Preflight => "--preflight",
            Self::LogFormat => "--log-format",
            Self::Memory => "--memory",
            Self::NamespaceFromBinding | Self::UseHttpProxy => self.variable(),
        }
    }
}

/// Variables that can hold secrets. They are not handed on to etcd, which has no use for them.
pub(crate) const SECRETS: [&str; 4] =
    [Setting::CaCert.variable(), Setting::Cert.variable(), Setting::Key.variable(), "VCAP_SERVICES"];

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flags,
    Environment,
    Binding,
}

/// What one source says.
#[derive(Debug)]
pub(crate) struct Layer(BTreeMap<Setting, Value>);

impl Layer {
    /// The values given on the command line.
    pub(crate) fn flags<const N: usize>(values: [(Setting, Option<OsString>); N]) -> Self {
        let value = |(key, text): (Setting, Option<OsString>)| Some((key, Origin::Flags.value(key.flag(), text?)));
        Self(values.into_iter().filter_map(value).collect())
    }

    fn environment(env: &Env) -> Self {
        let value = |key: Setting| {
            let text = env.get(key.variable())?.to_owned();
            Some((key, Origin::Environment.value(key.variable(), text)))
        };
        Self(Setting::ALL.into_iter().filter_map(value).collect())
    }
}

/// A setting that can never work. Its text names the setting, the problem, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub(crate) struct Error {
    setting: String,
    problem: String,
}

impl Error {
    /// Said before the command line is parsed, for the parser would show what it does not understand.
    pub(crate) fn pem_in_arguments() -> Self {
        Self {
            setting: "command line".to_owned(),
            problem: "a certificate or key stands there as PEM text, where every program on this host can read it: \
                      name a file, or set the environment variable"
                .to_owned(),
        }
    }
}

/// Flags of etcd's that would undo what was checked.
const OURS: [(&str, Setting); 5] = [
    ("--endpoints", Setting::Endpoints),
    ("--listen-addr", Setting::ListenAddr),
    ("--cacert", Setting::CaCert),
    ("--cert", Setting::Cert),
    ("--key", Setting::Key),
];

/// Checks what is to be handed to etcd as it is.
///
/// # Errors
/// For a flag that has one of our own, and for a word that etcd would ignore.
pub(crate) fn check_etcd_flags(flags: &[OsString], mode: Mode) -> Result<(), Error> {
    let error = |flag: &OsString, problem: String| Error { setting: format!("-- {}", flag.display()), problem };
    if let (Mode::Tunnel, Some(first)) = (mode, flags.first()) {
        return Err(error(first, "is for etcd, which the tunnel does not start: remove it".to_owned()));
    }
    if let Some(first) = flags.first().filter(|first| !first.as_encoded_bytes().starts_with(b"-")) {
        return Err(error(first, "is no flag, and etcd would ignore it: remove it".to_owned()));
    }
    for flag in flags {
        let name = flag.to_string_lossy();
        let name = name.split('=').next().unwrap_or_default();
        if let Some((_, own)) = OURS.iter().find(|(etcds, _)| *etcds == name) {
            return Err(error(flag, format!("would undo what is checked: use {} before the --", own.flag())));
        }
    }
    Ok(())
}

/// A value with the name its user knows it by.
#[derive(Debug, Clone)]
struct Value {
    origin: Origin,
    name: String,
    text: OsString,
}

impl Origin {
    fn value(self, name: impl Into<String>, text: impl Into<OsString>) -> Value {
        Value { origin: self, name: name.into(), text: text.into() }
    }
}

impl Value {
    fn error(&self, problem: impl fmt::Display) -> Error {
        Error { setting: self.name.clone(), problem: problem.to_string() }
    }

    fn text(&self) -> Result<&str, Error> {
        self.text.to_str().map(str::trim).ok_or_else(|| self.error("is not valid UTF-8"))
    }
}

/// All sources, highest rank first.
#[derive(Debug)]
pub(crate) struct Sources {
    layers: Vec<Layer>,
    /// The service binding that is used, and whether its clients log in with a password.
    binding: Option<(String, bool)>,
    /// Services that are bound when none is used.
    others: Vec<String>,
    warnings: Vec<String>,
}

impl Sources {
    pub(crate) fn new(flags: Layer, env: &Env) -> Self {
        Self { layers: vec![flags, Layer::environment(env)], binding: None, others: Vec::new(), warnings: Vec::new() }
    }

    /// Adds the service binding as the last source.
    ///
    /// # Errors
    /// When there are bindings that cannot be read, or several that may be meant.
    pub(crate) fn with_binding(mut self, env: &Env) -> Result<Self, Error> {
        let service = self.get(Setting::Service);
        let service = service.as_ref().map(|value| Ok((value.name.as_str(), value.text()?))).transpose()?;
        let endpoints_given = self.get(Setting::Endpoints);
        let found = match (binding::find(env, service)?, &endpoints_given) {
            (binding::Found::Several(names), Some(given)) => {
                self.warnings.push(format!(
                    "no service binding is used, since {} is given and several may be meant: {}; name one with {}",
                    given.name,
                    names.join(", "),
                    Setting::Service.variable()
                ));
                None
            }
            (binding::Found::Nothing(names), _) => {
                self.others = names;
                None
            }
            (binding::Found::Several(names), None) => return Err(binding::several(&names)),
            (binding::Found::One(binding), _) => Some(binding),
        };
        let Some(binding) = found else { return Ok(self) };

        let name = format!("service binding {:?}", binding.name);
        let mut values = BTreeMap::new();
        if endpoints_given.is_none() {
            values.insert(Setting::Endpoints, Origin::Binding.value(&name, binding.endpoints()?));
        }
        // A prefix in a binding may be meant for other things.
        let namespace = self.switch(Setting::NamespaceFromBinding)?;
        for binding::Offer { setting, credential, value } in binding.offers() {
            if setting != Setting::Namespace || namespace {
                values.insert(setting, Origin::Binding.value(format!("{name}, {credential}"), value));
            }
        }
        self.layers.push(Layer(values));
        self.binding = Some((binding.name.clone(), binding.has_password()));
        Ok(self)
    }

    fn get(&self, key: Setting) -> Option<Value> {
        self.layers.iter().find_map(|layer| layer.0.get(&key)).cloned()
    }

    fn parsed<T>(&self, key: Setting, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(value.text()?).map(Some).map_err(|problem| value.error(problem))
    }

    fn switch(&self, key: Setting) -> Result<bool, Error> {
        let parsed = self.parsed(key, |text| match text {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        })?;
        Ok(parsed.unwrap_or_default())
    }

    /// The address the application connects to.
    pub(crate) fn listen_addr(&self) -> Result<ListenAddr, Error> {
        Ok(self.parsed(Setting::ListenAddr, ListenAddr::parse)?.unwrap_or_default())
    }
}
