//! Turns the credentials of a service into settings. [`names`](super::names) knows what their names mean.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::names::{self, GROUPS, Role, TLS_GROUPS};
use crate::settings::endpoint;
use crate::settings::error::Error;
use crate::settings::table::{Setting, switch};

/// How many names a message shows.
const SHOWN: usize = 8;

/// The bound service that is used.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::settings) struct Binding {
    pub name: String,
    credentials: Map<String, Value>,
}

/// What a binding says.
#[derive(Debug, Default, PartialEq)]
pub(in crate::settings) struct Content {
    /// The settings that it has: each with the name of its entry and its value. The endpoints are separated by commas,
    /// and have no user names, passwords and paths.
    pub settings: Vec<(Setting, String, String)>,
    /// Whether there is a password to log in with, with or without a user.
    pub has_password: bool,
    /// What was not understood: names only, one line.
    pub warning: Option<String>,
}

/// Where an entry is. The first that has a role counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// In `connection.grpc`, where IBM's services have their credentials for etcd.
    Grpc,
    Top,
    /// In another group.
    Group,
    /// In an object that nobody knows.
    Unknown,
}

/// A value, and what its name means.
#[derive(Debug)]
struct Entry<'a> {
    /// As in `tls.ca`.
    path: String,
    scope: Scope,
    below_tls: bool,
    role: Option<(Role, usize)>,
    /// Whether the name is that of a member, a certificate or a key.
    telling: bool,
    value: &'a Value,
}

impl Content {
    /// Adds the user and the password of the members, which are at `path`, as far as no entry has them.
    fn add_login(&mut self, path: &str, listed: &[Member]) {
        let has = |setting| self.settings.iter().any(|(it, ..)| *it == setting);
        let (has_user, has_password) = (has(Setting::Username), has(Setting::Password));
        if has_password && has_user {
            return;
        }
        let Some((user, password)) = listed.iter().find_map(Member::login) else { return };
        if !has_password {
            // The password belongs to its own user.
            self.settings.retain(|(setting, ..)| *setting != Setting::Username);
            self.settings.push((Setting::Password, path.to_owned(), password));
        }
        self.settings.push((Setting::Username, path.to_owned(), user));
    }
}

impl Binding {
    pub(super) fn new(name: String, credentials: Map<String, Value>) -> Self {
        let credentials = credentials.into_iter().map(|(name, value)| (name, unpack(value))).collect();
        Self { name, credentials }
    }

    pub(super) fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::new(self.title(), problem)
    }

    /// Its name in messages.
    pub(in crate::settings) fn title(&self) -> String {
        format!("service binding {:?}", self.name)
    }

    /// Whether it only says where the credentials are.
    pub(in crate::settings) fn is_reference(&self) -> bool {
        Entries::of(&self.credentials).has(Role::Reference)
    }

    /// Everything that it says. `members`: whether it must name the members; otherwise it need not.
    ///
    /// # Errors
    /// If it must name the members and does not, or names some for an API that etcd 3 no longer has.
    pub(in crate::settings) fn content(&self, members: bool) -> Result<Content, Error> {
        let mut entries = Entries::of(&self.credentials);
        let mut content = entries.settings();
        let by_srv = content.settings.iter().any(|(setting, ..)| *setting == Setting::DiscoverySrv);
        let (path, listed) = entries.members();
        content.has_password |= listed.iter().any(|member| member.text.contains('@'));
        content.add_login(&path, &listed);
        let unresolved = entries.has(Role::Reference);
        let unknown = entries.unknown();
        let unknown = if unknown.is_empty() { None } else { Some(shown(&unknown)) };
        if members {
            let endpoints = self.endpoints(&listed, entries.scheme())?;
            if !endpoints.is_empty() {
                content.settings.push((Setting::Endpoints, path, endpoints));
            } else if unresolved {
                return Err(self.error(
                    "its credentials are in CredHub, and the platform has not put them here (it has only \"credhub-ref\"): \
                     in cf ssh, run /tmp/lifecycle/shell first; elsewhere, ask the platform's operator",
                ));
            } else if !by_srv {
                let seen = unknown.map(|names| format!(" (not understood: {names})")).unwrap_or_default();
                return Err(self.error(format_args!(
                    "it has no endpoints{seen}: its credentials need \"endpoints\", as in [\"https://10.0.0.1:2379\"]"
                )));
            }
        } else {
            content.settings.retain(|(setting, ..)| *setting != Setting::DiscoverySrv);
        }
        content.warning = match unknown {
            Some(names) => Some(format!(
                "{}: not understood and not used: {names}. If one of these is a member, a certificate or a key, set {}, \
                 _CACERT, _CERT or _KEY",
                self.title(),
                Setting::Endpoints.variable()
            )),
            None if unresolved => Some(format!(
                "{}: its credentials are in CredHub, and the platform has not put them here: they are not used",
                self.title()
            )),
            None => None,
        };
        Ok(content)
    }

    fn endpoints(&self, listed: &[Member], scheme: Option<&str>) -> Result<String, Error> {
        if listed.iter().any(|member| member.text.contains("/v2/keys")) {
            return Err(
                self.error("it speaks etcd's version 2 API, which etcd 3 no longer has: bind an etcd 3 service")
            );
        }
        let addresses: Vec<String> = listed.iter().map(Member::address).filter(|address| !address.is_empty()).collect();
        // In "https://a:1,b:2" the scheme applies to all.
        let scheme = addresses.iter().find_map(|address| Some(address.split_once("://")?.0)).or(scheme);
        let with_scheme = |address: &String| match scheme {
            Some(scheme) if scheme != "unix" && !address.contains("://") => format!("{scheme}://{address}"),
            _ => address.clone(),
        };
        Ok(addresses.iter().map(with_scheme).collect::<Vec<_>>().join(","))
    }
}

/// The entries of a binding, the most important first.
struct Entries<'a> {
    all: Vec<Entry<'a>>,
    /// Indices of those that are used, or say the same as one that is used.
    used: BTreeSet<usize>,
}

impl<'a> Entries<'a> {
    fn of(credentials: &'a Map<String, Value>) -> Self {
        let mut all = Vec::new();
        collect(credentials, "", Scope::Top, false, &mut all);
        all.sort_by_key(|entry| (entry.scope, entry.below_tls, entry.role.map_or(usize::MAX, |(_, rank)| rank)));
        // IBM's other connections are for other clients.
        if all.iter().any(|entry| entry.path.starts_with("connection.grpc.")) {
            all.retain(|entry| entry.scope != Scope::Unknown);
        }
        Self { all, used: BTreeSet::new() }
    }

    /// Indices of the known entries with this role.
    fn with(&self, role: Role) -> Vec<usize> {
        let has_role =
            |entry: &Entry<'_>| entry.scope != Scope::Unknown && entry.role.is_some_and(|(it, _)| it == role);
        (0..self.all.len()).filter(|index| has_role(&self.all[*index])).collect()
    }

    fn has(&self, role: Role) -> bool {
        !self.with(role).is_empty()
    }

    /// The first text with this role: its place and itself.
    fn take(&mut self, role: Role) -> Option<(String, String)> {
        let read = match role {
            Role::Setting(Setting::Username) => username,
            Role::Setting(Setting::Password) => scalar,
            _ => text,
        };
        let texts = self.with(role).into_iter().filter_map(|index| Some((index, read(self.all[index].value)?)));
        let texts: Vec<(usize, String)> = texts.collect();
        let (first, taken) = texts.first()?;
        // Others do not matter if they say the same.
        let same = |text: &str| text.split_whitespace().eq(taken.split_whitespace());
        self.used.extend(texts.iter().filter(|(_, text)| same(text)).map(|(index, _)| index));
        Some((self.all[*first].path.clone(), taken.clone()))
    }

    /// Everything but the members.
    fn settings(&mut self) -> Content {
        let mut settings = Vec::new();
        for setting in [
            Setting::CaCert,
            Setting::Cert,
            Setting::Key,
            Setting::ServerName,
            Setting::Username,
            Setting::Password,
            Setting::Namespace,
            Setting::DiscoverySrv,
        ] {
            let found = self.take(Role::Setting(setting));
            settings.extend(found.map(|(path, text)| (setting, path, text)));
        }
        // The specification of service bindings gives the chain of a client certificate this name, beside a
        // private-key. Others give it to the certificates to trust.
        let has = |setting| settings.iter().any(|(it, ..)| *it == setting);
        let certificates = match (has(Setting::Key), has(Setting::Cert), has(Setting::CaCert)) {
            (true, false, _) => Some(Setting::Cert),
            (true, true, false) | (false, false, false) => Some(Setting::CaCert),
            _ => None,
        };
        if let Some(setting) = certificates {
            let found = self.take(Role::Certificates);
            settings.extend(found.map(|(path, text)| (setting, path, text)));
        }
        let passwords = self.with(Role::Setting(Setting::Password));
        let has_password = passwords.into_iter().any(|index| !self.all[index].value.is_null());
        Content { settings, has_password, warning: None }
    }

    /// The place of the members, and the members as they are written, with user names and passwords.
    fn members(&mut self) -> (String, Vec<Member>) {
        let port = self.with(Role::Port).into_iter().find_map(|index| port(self.all[index].value));
        let mut found: Option<(String, Vec<Member>)> = None;
        for index in self.with(Role::Members) {
            let mut members = Vec::new();
            list(self.all[index].value, &mut members);
            for member in &mut members {
                member.port = member.port.take().or_else(|| port.clone());
            }
            members.retain(|member| !member.text.is_empty());
            if members.is_empty() {
                continue;
            }
            match &found {
                None => {
                    self.used.insert(index);
                    found = Some((self.all[index].path.clone(), members));
                }
                // Often the same members stand under two names.
                Some((_, first)) => {
                    let first: BTreeSet<String> = first.iter().map(Member::host).collect();
                    if members.iter().all(|member| first.contains(&member.host())) {
                        self.used.insert(index);
                    }
                }
            }
        }
        found.unwrap_or_default()
    }

    /// The scheme of members that have none, if an entry says so.
    fn scheme(&self) -> Option<&'static str> {
        let scheme = |index: usize| match self.all[index].value.as_str()?.to_ascii_lowercase().as_str() {
            "https" | "etcds" => Some("https"),
            "http" => Some("http"),
            _ => None,
        };
        let tls = |index: &usize| match self.all[*index].value {
            Value::String(text) => switch(text) == Some(true),
            value => *value == Value::Bool(true),
        };
        let by_name = self.with(Role::Scheme).into_iter().find_map(scheme);
        by_name.or_else(|| self.with(Role::UsesTls).iter().any(tls).then_some("https"))
    }

    /// Places of the entries that belong to members, certificates or keys, and are not used.
    fn unknown(&self) -> Vec<&str> {
        let is_telling = |entry: &Entry<'_>| match entry.role {
            Some((Role::Members | Role::Certificates, _)) => true,
            // The prefix counts only if the user opts in, and several users are common.
            Some((Role::Setting(setting), _)) => {
                ![Setting::Namespace, Setting::Username, Setting::Password].contains(&setting)
            }
            Some(_) => false,
            None => entry.telling,
        };
        let has_content = |entry: &Entry<'_>| match entry.value {
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            Value::Number(_) => entry.role.is_some(),
            Value::Null | Value::Bool(_) => false,
        };
        let is_pem = |entry: &Entry<'_>| entry.value.as_str().is_some_and(|text| text.contains("-----BEGIN "));
        let is_unknown = |entry: &Entry<'_>| (is_telling(entry) && has_content(entry)) || is_pem(entry);
        let unused =
            self.all.iter().enumerate().filter(|(index, _)| !self.used.contains(index)).map(|(_, entry)| entry);
        unused.filter(|entry| is_unknown(entry)).map(|entry| entry.path.as_str()).collect()
    }
}

fn collect<'a>(object: &'a Map<String, Value>, path: &str, scope: Scope, below_tls: bool, all: &mut Vec<Entry<'a>>) {
    for (name, value) in object {
        let plain = names::plain(name);
        // A name that is not plain may be an address with a password.
        let shown = if is_plain(name) { name } else { "…" };
        let path = if path.is_empty() { shown.to_owned() } else { format!("{path}.{shown}") };
        let role = names::role(&plain, below_tls);
        match value {
            Value::Object(inner) if TLS_GROUPS.contains(&plain.as_str()) => collect(inner, &path, scope, true, all),
            Value::Object(inner) if GROUPS.contains(&plain.as_str()) && scope != Scope::Unknown => {
                let scope = if plain == "grpc" {
                    Scope::Grpc
                } else if scope == Scope::Top {
                    Scope::Group
                } else {
                    scope
                };
                collect(inner, &path, scope, below_tls, all);
            }
            Value::Object(inner) if !matches!(role, Some((Role::Members, _))) => {
                collect(inner, &path, Scope::Unknown, below_tls, all);
            }
            value => {
                let telling = names::is_telling(name);
                all.push(Entry { path, scope, below_tls, role, telling, value });
            }
        }
    }
}

/// Names in messages: a short list of them.
fn shown(names: &[&str]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names[..names.len().min(SHOWN)].join(", ") + &more
}

fn is_plain(name: &str) -> bool {
    name.len() <= 64 && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._- ".contains(c))
}

/// Replaces JSON in a string by what it contains.
fn unpack(value: Value) -> Value {
    match value {
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => match serde_json::from_str(&text) {
            Ok(inner @ (Value::Array(_) | Value::Object(_))) => unpack(inner),
            _ => Value::String(text),
        },
        Value::Array(list) => list.into_iter().map(unpack).collect(),
        Value::Object(object) => object.into_iter().map(|(name, value)| (name, unpack(value))).collect(),
        value => value,
    }
}

/// A text, or several (as a list of certificates) as one.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join("\n"),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// A port is a number or a text.
fn port(value: &Value) -> Option<String> {
    if value.is_number() { Some(value.to_string()) } else { text(value) }
}

/// A text, or a number that was meant as one.
fn scalar(value: &Value) -> Option<String> {
    if value.is_array() { None } else { port(value) }
}

/// The name of a user. An address is none, and may contain a password.
fn username(value: &Value) -> Option<String> {
    scalar(value).filter(|name| !name.contains("://"))
}

/// A member as it is written.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    /// `scheme://user:password@host:port/path`; everything but the host can be missing.
    text: String,
    /// The port, if it stands elsewhere.
    port: Option<String>,
}

impl Member {
    /// Without user name, password and path, and with the port.
    fn address(&self) -> String {
        if self.text.starts_with("unix:") {
            return self.text.clone();
        }
        let (scheme, rest) = self.text.split_once("://").unwrap_or(("", &self.text));
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let address = match &self.port {
            Some(port) if !has_port && !host.is_empty() => format!("{host}:{port}"),
            _ => host,
        };
        match scheme.to_ascii_lowercase().as_str() {
            // It says nothing about TLS.
            "" | "etcd" => address,
            "etcds" => format!("https://{address}"),
            _ => format!("{scheme}://{address}"),
        }
    }

    /// The user name and the password before the host, percent-decoded (RFC 3986, section 3.2.1).
    fn login(&self) -> Option<(String, String)> {
        if self.text.starts_with("unix:") {
            return None;
        }
        let (_, rest) = self.text.split_once("://").unwrap_or(("", &self.text));
        let (user, password) = rest.rsplit_once('@')?.0.split_once(':')?;
        let decoded = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let (user, password) = (decoded(user)?, decoded(password)?);
        (!user.is_empty() && !password.is_empty()).then_some((user, password))
    }

    /// The address without its scheme.
    fn host(&self) -> String {
        let address = self.address();
        address.split_once("://").map_or(address.clone(), |(_, host)| host.to_owned())
    }
}

/// Adds the members in a text, a list, an object such as `{hostname, port}`, or an object of addresses.
fn list(value: &Value, members: &mut Vec<Member>) {
    match value {
        Value::String(text) => {
            members.extend(join_passwords(text).into_iter().map(|text| Member { text, port: None }));
        }
        Value::Array(all) => all.iter().for_each(|value| list(value, members)),
        Value::Object(object) => {
            let with = |wanted: Role| {
                let ranked = object.iter().filter_map(|(name, value)| {
                    let (role, rank) = names::role(&names::plain(name), false)?;
                    (role == wanted).then_some((rank, value))
                });
                ranked.min_by_key(|(rank, _)| *rank).map(|(_, value)| value)
            };
            let first = members.len();
            if let Some(value) = with(Role::Members) {
                list(value, members);
            } else {
                // Only addresses: other texts may be secrets.
                let is_address = |value: &&Value| value.as_str().is_some_and(|text| text.contains("://"));
                object.values().filter(is_address).for_each(|value| list(value, members));
            }
            let port = with(Role::Port).and_then(port);
            for member in &mut members[first..] {
                member.port = member.port.take().or_else(|| port.clone());
            }
        }
        _ => {}
    }
}

/// The parts of a list. Joins what was split within a password: errors would show parts of the password as host names.
fn join_passwords(list: &str) -> Vec<String> {
    // Of each, where it begins and ends in the list.
    let mut endpoints: Vec<Range<usize>> = Vec::new();
    for part in endpoint::split(list) {
        let start = part.as_ptr().addr() - list.as_ptr().addr(); // a part of the list
        let mut endpoint = start..start + part.len();
        // The text before an @ began at the last scheme, or at the beginning.
        while let Some((before, _)) = list[endpoint.clone()].split_once('@')
            && !before.contains("://")
            && !before.starts_with("unix:")
            && let Some(before) = endpoints.pop_if(|before| !list[before.clone()].starts_with("unix:"))
        {
            endpoint.start = before.start;
        }
        endpoints.push(endpoint);
    }
    endpoints.into_iter().map(|endpoint| list[endpoint].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(credentials: &str) -> Binding {
        Binding::new("my-etcd".to_owned(), serde_json::from_str(credentials).unwrap())
    }

    fn endpoints(credentials: &str) -> Result<String, String> {
        let content = binding(credentials).content(true).map_err(|err| err.to_string())?;
        let endpoints = content.settings.into_iter().find(|(setting, ..)| *setting == Setting::Endpoints);
        Ok(endpoints.map(|(_, _, endpoints)| endpoints).unwrap_or_default())
    }

    /// Each setting with the name of its entry.
    fn entries(credentials: &str) -> Vec<(Setting, String)> {
        let settings = binding(credentials).content(false).unwrap().settings;
        let settings = settings.into_iter().filter(|(setting, ..)| *setting != Setting::Endpoints);
        settings.map(|(setting, entry, _)| (setting, entry)).collect()
    }

    /// The names in the warning.
    fn unknown(credentials: &str) -> String {
        let warning = binding(credentials).content(false).unwrap().warning.unwrap_or_default();
        let names = warning.split_once("not used: ").map(|(_, names)| names).unwrap_or_default();
        names.split(". If").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn endpoints_in_every_form() {
        for (credentials, expected) in [
            (r#"{"endpoints":["https://a:1","https://b:2"]}"#, "https://a:1,https://b:2"),
            (r#"{"endpoints":["a:1,b:2"]}"#, "a:1,b:2"),
            (r#"{"ENDPOINTS":"a:1, b:2"}"#, "a:1,b:2"),
            (r#"{"endpoints":"a:1\nb:2\n"}"#, "a:1,b:2"),
            (r#"{"endpoints":"a:1\\nb:2"}"#, "a:1,b:2"),
            (r#"{"endpoints":"a:1;b:2 c:3"}"#, "a:1,b:2,c:3"),
            (r#"{"endpoints":"\"a:1\",'b:2'"}"#, "a:1,b:2"),
            (r#"{"endpoints":"['a:1', 'b:2']"}"#, "a:1,b:2"),
            (r#"{"endpoints":"[https://a:1, https://b:2]"}"#, "https://a:1,https://b:2"),
            (r#"{"endpoints":"[\"https://a:1\",\"https://b:2\"]"}"#, "https://a:1,https://b:2"),
            (r#"{"endpoints":"[{\"host\":\"a\",\"port\":1}]"}"#, "a:1"),
            (r#"{"endpoints":[{"url":"https://a:1"},{"uri":"https://u:p@b:2/"}]}"#, "https://a:1,https://b:2"),
            (r#"{"endpoints":[{"address":"a","port":1},{"address":"b:2"}]}"#, "a:1,b:2"),
            (r#"{"members":[{"name":"m1","clientURLs":["https://a:1"]}]}"#, "https://a:1"),
            (
                r#"{"endpoints":{"m1":"https://a:1","m2":"https://u:p@b:2","password":"s3cret"}}"#,
                "https://a:1,https://b:2",
            ),
            (r#"{"endpoints":{"host":"a","port":1}}"#, "a:1"),
            (r#"{"uris":["a:1",""]}"#, "a:1"),
            (r#"{"url":"http://a:1"}"#, "http://a:1"),
            (r#"{"uri":"etcd://a:1"}"#, "a:1"),
            (r#"{"uri":"etcds://u:p@a:1"}"#, "https://a:1"),
            (r#"{"uri":"etcd://u:p@a:1,b:2"}"#, "a:1,b:2"),
            (r#"{"uri":"https://root:s3@cret@h:1/x?y"}"#, "https://h:1"),
            (r#"{"uri":"https://a:1,https://root:s,3,cret@h:1,https://b:1"}"#, "https://a:1,https://h:1,https://b:1"),
            (r#"{"uri":"https://root:s 3;cret@h:1 https://b:1"}"#, "https://h:1,https://b:1"),
            (r#"{"uri":"root:s3,cret@h:1"}"#, "h:1"),
            (r#"{"uri":"unix:///run/etcd.sock"}"#, "unix:///run/etcd.sock"),
            (r#"{"uri":"unix:/run/etcd.sock"}"#, "unix:/run/etcd.sock"),
            (r#"{"uri":"https://u:p@a:1,b:2"}"#, "https://a:1,https://b:2"),
            (r#"{"hosts":["a:1"]}"#, "a:1"),
            (r#"{"hosts":["a","b:7","[::1]","::2"],"port":2379}"#, "a:2379,b:7,[::1]:2379,[::2]:2379"),
            (r#"{"hosts":[{"hostname":"a","port":1},{"host":"b","port":"2"}]}"#, "a:1,b:2"),
            (r#"{"hosts":[{"host":"u:p@h","port":1}]}"#, "h:1"),
            (r#"{"host":"u:p@h","port":1}"#, "h:1"),
            (r#"{"host":"h","port":2379}"#, "h:2379"),
            (r#"{"host":"h","port":2379,"scheme":"https"}"#, "https://h:2379"),
            (r#"{"host":"h","port":2379,"tls":true}"#, "https://h:2379"),
            (r#"{"hostname":"h","port":"2379"}"#, "h:2379"),
            (r#"{"etcd.host":"h","etcd.port":"2379"}"#, "h:2379"),
            (r#"{"ETCDCTL_ENDPOINTS":"h:2379"}"#, "h:2379"),
            (r#"{"etcd":{"uri":"h:2379"}}"#, "h:2379"),
            (r#"{"endpoints":null,"uri":"h:1"}"#, "h:1"),
            (
                r#"{"connection":{"grpc":{"composed":["https://u:p@h:30"],"hosts":[{"hostname":"x","port":3}]}}}"#,
                "https://h:30",
            ),
            (r#"{"connection":{"grpc":{"hosts":[{"hostname":"h","port":30}]}},"uri":"other:1"}"#, "h:30"),
            (r#"{"srv":"example.com"}"#, ""),
        ] {
            assert_eq!(endpoints(credentials).as_deref(), Ok(expected), "{credentials}");
        }
    }

    #[test]
    fn bindings_without_a_usable_endpoint_name_themselves_and_no_secret() {
        for (credentials, problem) in [
            (r#"{"password":"s3cret"}"#, "it has no endpoints: "),
            (r#"{"endpoints":[],"password":"s3cret"}"#, "it has no endpoints: "),
            (r#"{"endpoints":{"s3cret":1}}"#, "it has no endpoints (not understood: endpoints): "),
            (r#"{"endpoints":{"x":"s3cret"}}"#, "it has no endpoints (not understood: endpoints): "),
            (r#"{"server_list":"s3cret"}"#, "it has no endpoints (not understood: server_list): "),
            (r#"{"port":2379}"#, "it has no endpoints: "),
            (r#"{"credhub-ref":"/s3cret"}"#, "its credentials are in CredHub"),
            (r#"{"uri":"http://root:s3cret@h:4001/v2/keys/x"}"#, "version 2 API"),
        ] {
            let found = endpoints(credentials).unwrap_err();
            assert!(found.starts_with("service binding \"my-etcd\": ") && found.contains(problem), "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn every_name_of_each_setting() {
        for (role, names) in names::NAMES {
            let Role::Setting(setting) = *role else { continue };
            if setting == Setting::DiscoverySrv {
                continue; // only where the binding must name the members
            }
            for name in *names {
                let found = |entry: String| vec![(setting, entry)];
                for name in [(*name).to_owned(), name.to_uppercase(), format!("etcd_{name}"), format!("grpc.{name}")] {
                    let object = format!("{{\"{name}\":\"v\"}}");
                    assert_eq!(entries(&object), found(name.clone()), "{object}");
                    for group in ["connection.grpc", "credentials"] {
                        let (outer, inner) = group.split_once('.').unwrap_or(("", group));
                        let nested = format!("{{\"{inner}\":{object}}}");
                        let nested = if outer.is_empty() { nested } else { format!("{{\"{outer}\":{nested}}}") };
                        assert_eq!(entries(&nested), found(format!("{group}.{name}")), "{nested}");
                    }
                    let below = format!("{{\"TLS\":{object}}}");
                    let is_about_tls = ![Setting::Namespace, Setting::Username, Setting::Password].contains(&setting);
                    assert_eq!(entries(&below), if is_about_tls { found(format!("TLS.{name}")) } else { vec![] });
                }
            }
        }
        assert_eq!(entries(r#"{"ca":"","cert":null,"key":7}"#), []);
        let srv = binding(r#"{"srv":"example.com"}"#).content(true).unwrap().settings;
        assert_eq!(srv, [(Setting::DiscoverySrv, "srv".to_owned(), "example.com".to_owned())]);
    }

    #[test]
    fn what_certificates_are_depends_on_the_other_entries() {
        let (ca, cert, key) = (Setting::CaCert, Setting::Cert, Setting::Key);
        for (credentials, expected) in [
            (r#"{"certificates":"v","private-key":"k"}"#, &[(key, "private-key"), (cert, "certificates")][..]),
            (r#"{"certificates":"v"}"#, &[(ca, "certificates")]),
            (r#"{"certificates":["v","w"]}"#, &[(ca, "certificates")]),
            (
                r#"{"certificate":"v","tls.crt":"c","tls.key":"k"}"#,
                &[(cert, "tls.crt"), (key, "tls.key"), (ca, "certificate")],
            ),
            (r#"{"certificate":"v","ca.crt":"c"}"#, &[(ca, "ca.crt")]),
            (r#"{"certificate":{"certificate_base64":"v"}}"#, &[(ca, "certificate.certificate_base64")]),
            (r#"{"tls":"{\"ca\":\"v\"}"}"#, &[(ca, "tls.ca")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(setting, name)| (*setting, (*name).to_owned())).collect();
            assert_eq!(entries(credentials), expected, "{credentials}");
        }
        let several = binding(r#"{"certificates":["v","w"]}"#).content(false).unwrap().settings;
        assert_eq!(several[0].2, "v\nw");
    }

    #[test]
    fn nothing_that_names_a_member_a_certificate_or_a_key_is_dropped_in_silence() {
        for (credentials, expected) in [
            (r#"{"type":"etcd","provider":"x","username":"u","password":"s3cret","plan":"p","ca":"v"}"#, ""),
            (r#"{"uri":"https://u:p@h:1","host":"h","port":1,"hosts":["h:1"]}"#, ""),
            (r#"{"hosts":["h:1","i:1"],"uri":"https://i:1"}"#, ""),
            (r#"{"hosts":["h:1"],"uri":"https://s3cret:1"}"#, "uri"),
            (r#"{"keystore.jks":"s3cret","truststore-password":"s3cret"}"#, "keystore.jks, truststore-password"),
            (r#"{"ca":"v","tls":{"ca":"v","cert":"w"}}"#, ""),
            (r#"{"ca":"v","tls":{"ca":"s3cret"}}"#, "tls.ca"),
            (r#"{"certificate":"v","ca.crt":"c"}"#, "certificate"),
            (r#"{"internal":{"endpoints":"s3cret","ca":"s3cret"}}"#, "internal.ca, internal.endpoints"),
            (r#"{"x":"-----BEGIN PRIVATE KEY-----s3cret"}"#, "x"),
            (r#"{"https://u:s3cret@h:1":{"cert":"s3cret"}}"#, "….cert"),
            (r#"{"key":7,"dashboard_url":"s3cret"}"#, "key, dashboard_url"),
            (r#"{"hosts":[1,2]}"#, "hosts"),
            (
                r#"{"connection":{"grpc":{"composed":["https://h:1"],"hosts":[{"hostname":"h","port":1}],"scheme":"https",
                    "certificate":{"name":"n","certificate_base64":"v"},"path":"","type":"uri"},
                    "cli":{"certificate":{"certificate_base64":"v"},"composed":["etcdctl"]}}}"#,
                "",
            ),
            (
                r#"{"url1":"a","url2":"b","url_3":"a","url_4":"a","url_5":"a","url_6":"a","url_7":"a","url_8":"a","url_9":"a","url_0":"a"}"#,
                "url_0, url_3, url_4, url_5, url_6, url_7, url_8, url_9",
            ),
        ] {
            assert_eq!(unknown(credentials), expected, "{credentials}");
        }
        let warning = binding(r#"{"ca_jks":"s3cret"}"#).content(false).unwrap().warning;
        assert_eq!(
            warning.unwrap(),
            "service binding \"my-etcd\": not understood and not used: ca_jks. If one of these is a member, a \
             certificate or a key, set ETCDPROXY_ENDPOINTS, _CACERT, _CERT or _KEY"
        );
        let warning = binding(r#"{"credhub-ref":"/s3cret"}"#).content(false).unwrap().warning;
        assert!(warning.unwrap().contains("are in CredHub"));
    }

    #[test]
    fn users_and_their_passwords() {
        let login = |credentials: &str| {
            let settings = binding(credentials).content(false).unwrap().settings;
            let get = |setting| settings.iter().find(|(it, ..)| *it == setting).map(|(.., text)| text.clone());
            (get(Setting::Username), get(Setting::Password))
        };
        for (credentials, user, password) in [
            (r#"{"username":"u","password":"p"}"#, Some("u"), Some("p")),
            (r#"{"User":"u","PASSWD":"p"}"#, Some("u"), Some("p")),
            (r#"{"username":"u","password":1234}"#, Some("u"), Some("1234")),
            (r#"{"connection":{"grpc":{"authentication":{"username":"u","password":"p"}}}}"#, Some("u"), Some("p")),
            (r#"{"uri":"https://u:p%40%3A%2F@h:1"}"#, Some("u"), Some("p@:/")),
            (r#"{"uri":"etcd://root:a:b@h:1,i:1"}"#, Some("root"), Some("a:b")),
            (r#"{"uri":"u:p@h:1"}"#, Some("u"), Some("p")),
            (r#"{"uri":"https://u:s3,c;r et@h:1"}"#, Some("u"), Some("s3,c;r et")),
            (r#"{"hosts":["h:1",{"url":"https://u:p@i:1"}]}"#, Some("u"), Some("p")),
            // Entries first, and never the password of another user.
            (r#"{"username":"u","password":"p","uri":"https://v:q@h:1"}"#, Some("u"), Some("p")),
            (r#"{"username":"u","uri":"https://v:q@h:1"}"#, Some("v"), Some("q")),
            (r#"{"password":"p","uri":"https://v:q@h:1"}"#, Some("v"), Some("p")),
            (r#"{"password":"p"}"#, None, Some("p")),
            (r#"{"uri":"https://u@h:1"}"#, None, None),
            (r#"{"uri":"https://u:@h:1"}"#, None, None),
            (r#"{"uri":"https://u:%ff@h:1"}"#, None, None),
            (r#"{"uri":"unix:///run/u:p@h"}"#, None, None),
            (r#"{"username":"https://u:p@h","password":["p"]}"#, None, None),
            (r#"{"admin":{"username":"u","password":"p"}}"#, None, None),
        ] {
            assert_eq!(login(credentials), (user.map(str::to_owned), password.map(str::to_owned)), "{credentials}");
        }
    }

    #[test]
    fn passwords() {
        for (credentials, expected) in [
            (r#"{"username":"u","password":"p"}"#, true),
            (r#"{"connection":{"grpc":{"authentication":{"username":"u","password":"p"}}}}"#, true),
            (r#"{"uri":"https://u:p@h:1"}"#, true),
            (r#"{"uri":"https://h:1"}"#, false),
            (r#"{"admin":{"password":"p"}}"#, false),
        ] {
            assert_eq!(binding(credentials).content(false).unwrap().has_password, expected, "{credentials}");
        }
    }
}
