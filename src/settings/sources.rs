//! Where values come from: flags, then the environment, then the service binding.

use std::ffi::OsString;
use std::fmt;

use super::addr::{ListenAddr, TcpAddr};
use super::binding::{self, Binding, BindingMatch};
use super::error::Error;
use super::table::{Kind, OTHER_VARIABLES, PREFIX, Setting, switch};
use super::unknown::unknown_variables;
use crate::os::env::Env;
use crate::os::log::Format;

/// The kind of source that a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Flags,
    Environment,
    Binding,
}

/// A value, with the name that its user knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub origin: Origin,
    pub name: String,
    pub text: OsString,
}

impl Origin {
    pub(super) fn value(self, name: impl Into<String>, text: impl Into<OsString>) -> Value {
        Value { origin: self, name: name.into(), text: text.into() }
    }

    /// The name of a setting for somebody who uses this source. What a binding cannot say, the environment can.
    pub(super) fn name_of(self, setting: Setting) -> &'static str {
        match self {
            Self::Flags => setting.flag(),
            Self::Environment | Self::Binding => setting.variable(),
        }
    }

    /// How somebody who uses this source gives a setting a value.
    pub(super) fn assignment(self, setting: Setting, value: &str) -> String {
        let name = self.name_of(setting);
        if name.starts_with("--") { format!("{name} {value}") } else { format!("{name}={value}") }
    }
}

impl Value {
    /// The error for a value that cannot work with the rest.
    pub(super) fn error(&self, problem: impl fmt::Display) -> Error {
        Error::new(&self.name, problem)
    }

    /// The error for a text that the setting does not take.
    pub(super) fn invalid(&self, problem: impl fmt::Display) -> Error {
        match self.origin {
            Origin::Flags => Error::usage(&self.name, problem),
            Origin::Environment | Origin::Binding => self.error(problem),
        }
    }

    pub(super) fn text(&self) -> Result<&str, Error> {
        self.text.to_str().map(str::trim).ok_or_else(|| self.invalid("it is not valid UTF-8"))
    }
}

/// The values of one source.
type Layer = Vec<(Setting, Value)>;

/// All sources, in order: the first that has a value for a setting wins.
#[derive(Debug)]
pub(crate) struct Sources {
    layers: Vec<Layer>,
    /// The service binding that is used.
    pub(super) bound: Option<Bound>,
    /// Names of the bound services, if none of them is used.
    pub(super) others: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// Whether there is an etcd to run.
    pub(super) has_etcd: bool,
    /// The variable with an HTTP proxy that etcd could use.
    pub(super) http_proxy: Option<&'static str>,
}

/// Variables with an HTTP proxy, which Go's programs use for endpoints with and without TLS.
const HTTP_PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// The service binding that is used.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub name: String,
    /// Whether clients log in with a password.
    pub has_password: bool,
}

/// Where the addresses of the cluster will come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClusterSource {
    /// This setting has a value.
    Set(Setting),
    /// The bound service.
    Service {
        name: String,
        /// Why it will not do. One line each.
        warnings: Vec<String>,
    },
    /// Nothing is known yet, for this reason.
    Unknown(String),
}

impl ClusterSource {
    /// Looks for the addresses without checking them.
    ///
    /// # Errors
    /// If the service bindings cannot be read, or several services could be etcd.
    pub(crate) fn find(env: &Env) -> Result<Self, Error> {
        let sources = Sources::new([], env);
        if let Some((setting, _)) = sources.members()? {
            return Ok(Self::Set(setting));
        }
        match sources.find_binding(env)? {
            BindingMatch::One(binding) => {
                let warnings = match binding.content(true) {
                    Ok(content) => content.warning.into_iter().collect(),
                    // The platform's launcher may still put the credentials here.
                    Err(_) if binding.is_reference() => Vec::new(),
                    Err(err) => vec![err.to_string()],
                };
                Ok(Self::Service { name: binding.name, warnings })
            }
            BindingMatch::Several(names) => Err(binding::several(&names)),
            BindingMatch::None { others } => {
                Ok(Self::Unknown(binding::none_is_etcd(&others, Setting::Service.variable())))
            }
        }
    }
}

impl Sources {
    /// The values that were given as flags, and the environment.
    pub(crate) fn new(flags: impl IntoIterator<Item = (Setting, OsString)>, env: &Env) -> Self {
        let flags = flags.into_iter().map(|(key, text)| (key, Origin::Flags.value(key.flag(), text)));
        let variable = |key: &Setting| {
            let text = env.get(key.variable())?;
            Some((*key, Origin::Environment.value(key.variable(), text)))
        };
        let layers = vec![flags.collect(), Setting::ALL.iter().filter_map(variable).collect()];
        let warnings =
            unknown_variables(env, PREFIX, Setting::ALL.iter().map(|key| key.variable()).chain(OTHER_VARIABLES));
        let http_proxy = HTTP_PROXIES.into_iter().find(|name| env.get(name).is_some());
        Self { layers, bound: None, others: Vec::new(), warnings, has_etcd: true, http_proxy }
    }

    /// Adds a value that counts if no other source has one.
    pub(super) fn set_default(&mut self, key: Setting, text: &str) {
        self.layers.push(vec![(key, Origin::Environment.value(key.variable(), text))]);
    }

    /// Says whether there is an etcd to run. Without this, there is one.
    pub(crate) fn with_etcd(self, has_etcd: bool) -> Self {
        Self { has_etcd, ..self }
    }

    /// Problems that were found so far and do not prevent a start. One line each.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds the service binding as the last source.
    ///
    /// # Errors
    /// If the bindings cannot be read, or several services could be etcd.
    pub(crate) fn with_binding(mut self, env: &Env) -> Result<Self, Error> {
        let members = self.members()?;
        match (self.find_binding(env)?, members) {
            (BindingMatch::One(binding), members) => self.add(&binding, members.is_none())?,
            (BindingMatch::None { others }, _) => self.others = others,
            (BindingMatch::Several(names), None) => return Err(binding::several(&names)),
            (BindingMatch::Several(names), Some((_, given))) => self.warnings.push(format!(
                "no service binding is used, because {} is set and several services could be etcd ({}): choose one \
                 with {}",
                given.name,
                names.join(", "),
                Setting::Service.variable()
            )),
        }
        Ok(self)
    }

    fn find_binding(&self, env: &Env) -> Result<BindingMatch, Error> {
        let service = self.get(Setting::Service);
        let service = service.as_ref().map(|value| Ok((value.name.as_str(), value.text()?))).transpose()?;
        binding::find(env, service)
    }

    /// `members`: whether the binding must name the members.
    fn add(&mut self, binding: &Binding, members: bool) -> Result<(), Error> {
        let content = binding.content(members)?;
        // The prefix may be meant for other things.
        let namespace = self.switch(Setting::NamespaceFromBinding)?;
        let login = self.switch(Setting::LoginFromBinding)?;
        let wanted = content.settings.into_iter().filter(|(setting, ..)| match setting {
            Setting::Namespace => namespace,
            Setting::Username | Setting::Password => login,
            _ => true,
        });
        let name = binding.title();
        let value = |entry: String, text: String| Origin::Binding.value(format!("{name}, {entry}"), text);
        self.layers.push(wanted.map(|(setting, entry, text)| (setting, value(entry, text))).collect());
        self.warnings.extend(content.warning);
        self.bound = Some(Bound { name: binding.name.clone(), has_password: content.has_password });
        Ok(())
    }

    pub(super) fn get(&self, key: Setting) -> Option<Value> {
        self.layers.iter().flatten().find(|(setting, _)| *setting == key).map(|(_, value)| value.clone())
    }

    /// What names the cluster's members: the endpoints or the SRV domain of the first source that has one of them.
    ///
    /// # Errors
    /// If that source has both.
    pub(super) fn members(&self) -> Result<Option<(Setting, Value)>, Error> {
        for layer in &self.layers {
            let find = |key: Setting| layer.iter().find(|(setting, _)| *setting == key).cloned();
            match (find(Setting::Endpoints), find(Setting::DiscoverySrv)) {
                (Some((_, endpoints)), Some((_, srv))) => {
                    let remedy = match srv.origin {
                        Origin::Binding => format!("choose with {}", Setting::Endpoints.variable()),
                        Origin::Flags | Origin::Environment => "remove one".to_owned(),
                    };
                    return Err(srv.error(format_args!("{} names the cluster's members too: {remedy}", endpoints.name)));
                }
                (Some(found), None) | (None, Some(found)) => return Ok(Some(found)),
                (None, None) => {}
            }
        }
        Ok(None)
    }

    pub(super) fn parsed<T>(
        &self,
        key: Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.text()?;
        let lower = text.to_ascii_lowercase();
        let text = if matches!(key.kind(), Kind::Choice(..)) { &lower } else { text };
        parse(text).map(Some).map_err(|problem| value.invalid(problem))
    }

    pub(super) fn switch(&self, key: Setting) -> Result<bool, Error> {
        let parsed = self.parsed(key, |text| switch(text).ok_or_else(|| key.invalid(text)))?;
        Ok(parsed.unwrap_or(key.default() == Some("true")))
    }

    /// Whether the service binding has a value for the setting, even if another source overrides it.
    pub(super) fn binding_has(&self, key: Setting) -> bool {
        let all = self.layers.iter().flatten();
        all.filter(|(_, value)| value.origin == Origin::Binding).any(|(setting, _)| *setting == key)
    }

    /// The address that the application connects to.
    pub(crate) fn listen_addr(&self) -> Result<ListenAddr, Error> {
        Ok(self.parsed(Setting::ListenAddr, ListenAddr::parse)?.unwrap_or_default())
    }

    /// The address of the port for metrics, if there is one.
    pub(crate) fn metrics_addr(&self) -> Result<Option<TcpAddr>, Error> {
        self.parsed(Setting::MetricsAddr, TcpAddr::parse_metrics)
    }

    /// The format of log lines.
    pub(crate) fn log_format(&self) -> Result<Format, Error> {
        let parse = |text: &str| Format::parse(text).ok_or_else(|| Setting::LogFormat.invalid(text));
        Ok(self.parsed(Setting::LogFormat, parse)?.unwrap_or_default())
    }
}
