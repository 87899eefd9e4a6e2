//! Where values come from: flags, then the environment, then the service binding.

use std::ffi::OsString;
use std::fmt;

use super::addr::ListenAddr;
use super::binding::{self, Binding, BindingMatch};
use super::error::Error;
use super::table::{Setting, switch};
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
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub origin: Origin,
    pub name: String,
    pub text: OsString,
}

impl Origin {
    pub(super) fn value(self, name: impl Into<String>, text: impl Into<OsString>) -> Value {
        Value { origin: self, name: name.into(), text: text.into() }
    }
}

impl Value {
    pub(super) fn error(&self, problem: impl fmt::Display) -> Error {
        Error::new(&self.name, problem)
    }

    pub(super) fn text(&self) -> Result<&str, Error> {
        self.text.to_str().map(str::trim).ok_or_else(|| self.error("it is not valid UTF-8"))
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
}

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
    /// The bound service of this name.
    Service(String),
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
            BindingMatch::One(binding) => Ok(Self::Service(binding.name)),
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
        Self { layers, bound: None, others: Vec::new(), warnings: Vec::new() }
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
        let wanted = content.settings.into_iter().filter(|(setting, ..)| *setting != Setting::Namespace || namespace);
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
        parse(value.text()?).map(Some).map_err(|problem| value.error(problem))
    }

    pub(super) fn switch(&self, key: Setting) -> Result<bool, Error> {
        let parsed = self.parsed(key, |text| switch(text).ok_or_else(|| key.invalid(text)))?;
        Ok(parsed.unwrap_or_default())
    }

    /// The address that the application connects to.
    pub(crate) fn listen_addr(&self) -> Result<ListenAddr, Error> {
        Ok(self.parsed(Setting::ListenAddr, ListenAddr::parse)?.unwrap_or_default())
    }

    /// The format of log lines.
    pub(crate) fn log_format(&self) -> Result<Format, Error> {
        let parse = |text: &str| Format::parse(text).ok_or_else(|| Setting::LogFormat.invalid(text));
        Ok(self.parsed(Setting::LogFormat, parse)?.unwrap_or_default())
    }
}
