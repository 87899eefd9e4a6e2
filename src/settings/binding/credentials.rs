//! Turns credentials, under the names that services give them, into settings.

use serde_json::{Map, Value};

use crate::settings::error::Error;
use crate::settings::table::Setting;

/// Names of each credential, in upper or lower case, and also below `tls`. A dot is part of a file's name, or leads into
/// an object.
const NAMES: [(Setting, &[&str]); 5] = [
    (
        Setting::CaCert,
        &[
            "ca",
            "cacert",
            "ca_cert",
            "ca_certificate",
            "trusted_ca_file",
            "certificate.certificate_base64",
            "ca.crt",
            "ca.pem",
        ],
    ),
    (Setting::Cert, &["cert", "client_cert", "tls.crt", "client.crt"]),
    (Setting::Key, &["key", "client_key", "private_key", "tls.key", "client.key"]),
    (Setting::ServerName, &["server_name", "server-name"]),
    (Setting::Namespace, &["namespace", "prefix"]),
];

const PASSWORDS: [&str; 2] = ["password", "authentication.password"];

/// The bound service that is used.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::settings) struct Binding {
    pub name: String,
    pub(super) credentials: Map<String, Value>,
}

impl Binding {
    pub(super) fn error(&self, problem: &str) -> Error {
        Error::new(format!("service binding {:?}", self.name), problem)
    }

    /// The settings that it has, except the endpoints: each with the name of its credential and its value.
    pub(in crate::settings) fn settings(&self) -> Vec<(Setting, String, String)> {
        let setting = |(setting, names): &(Setting, &[&str])| {
            let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            let below_tls = names.iter().map(|name| format!("tls.{name}"));
            let names: Vec<String> = names.iter().map(ToString::to_string).chain(below_tls).collect();
            let (credential, value) = self.credential(&names, is_text)?;
            Some((*setting, credential.clone(), text(value)))
        };
        NAMES.iter().filter_map(setting).collect()
    }

    /// Whether clients log in with a user name and a password.
    pub(in crate::settings) fn has_password(&self) -> bool {
        self.credential(&PASSWORDS, |value| !value.is_null()).is_some()
            || self.listed().iter().any(|endpoint| endpoint.contains('@'))
    }

    /// Addresses of the members, separated by commas, without user names, passwords and paths.
    ///
    /// # Errors
    /// If there are none, or they are for an API that etcd 3 no longer has.
    pub(in crate::settings) fn endpoints(&self) -> Result<String, Error> {
        let listed = self.listed();
        if listed.iter().any(|endpoint| endpoint.contains("/v2/keys")) {
            return Err(
                self.error("it speaks etcd's version 2 API, which etcd 3 no longer has: bind an etcd 3 service")
            );
        }
        let port = self.credential(&["port"], |port| port.is_string() || port.is_number()).map(|(_, port)| text(port));
        // In "https://a:1,b:2" the scheme applies to all.
        let scheme = listed.iter().find_map(|endpoint| Some(endpoint.split_once("://")?.0));
        let with_scheme = |endpoint: String| match scheme {
            Some(scheme) if scheme != "unix" && !endpoint.contains("://") => format!("{scheme}://{endpoint}"),
            _ => endpoint,
        };
        let endpoint = |text: &String| with_scheme(with_port(&strip(text), port.as_deref()));
        let endpoints: Vec<String> = listed.iter().map(endpoint).collect();
        if endpoints.is_empty() {
            return Err(self
                .error("it has no endpoints: its credentials need \"endpoints\", as in [\"https://10.0.0.1:2379\"]"));
        }
        Ok(endpoints.join(","))
    }

    /// The endpoints as they are written, with user names and passwords.
    fn listed(&self) -> Vec<String> {
        let names = ["composed", "endpoints", "hosts", "uris", "uri", "url", "host", "hostname"];
        let endpoints: Vec<String> = match self.credential(&names, |list| list.is_array() || list.is_string()) {
            Some((_, Value::Array(list))) => list.iter().flat_map(in_list).collect(),
            Some((_, Value::String(list))) => split_list(list),
            _ => Vec::new(),
        };
        endpoints.into_iter().filter(|endpoint| !endpoint.is_empty()).collect()
    }

    /// The first wanted credential with one of these names. IBM's services have them in `connection.grpc`.
    fn credential<'a, N: AsRef<str>>(
        &'a self,
        names: &'a [N],
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Option<(&'a N, &'a Value)> {
        let nested = at(&self.credentials, "connection.grpc").and_then(Value::as_object);
        let scopes = nested.into_iter().chain([&self.credentials]);
        scopes
            .flat_map(|scope| names.iter().filter_map(move |name| Some((name, at(scope, name.as_ref())?))))
            .find(|(_, value)| is_wanted(value))
    }
}

fn at<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let find = |name: &str| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    find(path).or_else(|| {
        let (name, rest) = path.split_once('.')?;
        at(find(name)?.as_object()?, rest)
    })
}

/// A string or a number as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The endpoints in an element of a list: text, or `{hostname, port}`.
fn in_list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => split_list(one),
        Value::Object(one) => {
            let host = ["hostname", "host"].iter().find_map(|name| at(one, name)).map(text);
            let port = at(one, "port").map(text);
            host.map(|host| with_port(&host, port.as_deref())).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Adds the port, if the endpoint has none.
fn with_port(endpoint: &str, port: Option<&str>) -> String {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let has_one = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match port {
        Some(port) if !has_one && !endpoint.starts_with("unix:") => format!("{endpoint}:{port}"),
        _ => endpoint.to_owned(),
    }
}

/// Splits at commas, but not at those in a password: errors would show parts of the password as host names.
fn split_list(list: &str) -> Vec<String> {
    let mut endpoints: Vec<String> = Vec::new();
    for part in list.split(',') {
        let mut endpoint = part.trim().to_owned();
        // The text before an @ began at the last scheme, or at the beginning.
        while endpoint.contains('@')
            && !endpoint.contains("://")
            && let Some(before) = endpoints.pop()
        {
            endpoint = format!("{before},{endpoint}");
        }
        endpoints.push(endpoint);
    }
    endpoints
}

/// Turns `scheme://user:password@host:port/path` into `scheme://host:port`.
fn strip(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").map_or(("", endpoint), |(scheme, rest)| (scheme, rest));
    if scheme == "unix" {
        return endpoint.to_owned();
    }
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(credentials: &str) -> Binding {
        Binding { name: "my-etcd".to_owned(), credentials: serde_json::from_str(credentials).unwrap() }
    }

    #[test]
    fn endpoints_in_every_form() {
        for (credentials, expected) in [
            (r#"{"endpoints":["https://a:1","https://b:2"]}"#, "https://a:1,https://b:2"),
            (r#"{"endpoints":["a:1,b:2"]}"#, "a:1,b:2"),
            (r#"{"ENDPOINTS":"a:1, b:2"}"#, "a:1,b:2"),
            (r#"{"uris":["a:1",""]}"#, "a:1"),
            (r#"{"url":"http://a:1"}"#, "http://a:1"),
            (r#"{"uri":"https://root:s3@cret@h:1/x?y"}"#, "https://h:1"),
            (r#"{"uri":"https://a:1,https://root:s,3,cret@h:1,https://b:1"}"#, "https://a:1,https://h:1,https://b:1"),
            (r#"{"uri":"root:s3,cret@h:1"}"#, "h:1"),
            (r#"{"uri":"unix:///run/etcd.sock"}"#, "unix:///run/etcd.sock"),
            (r#"{"uri":"https://u:p@a:1,b:2"}"#, "https://a:1,https://b:2"),
            (r#"{"hosts":["a:1"]}"#, "a:1"),
            (r#"{"hosts":["a","b:7","[::1]"],"port":2379}"#, "a:2379,b:7,[::1]:2379"),
            (r#"{"hosts":[{"hostname":"a","port":1},{"host":"b","port":"2"}]}"#, "a:1,b:2"),
            (r#"{"host":"h","port":2379}"#, "h:2379"),
            (r#"{"hostname":"h","port":"2379"}"#, "h:2379"),
            (r#"{"endpoints":null,"uri":"h:1"}"#, "h:1"),
            (
                r#"{"connection":{"grpc":{"composed":["https://u:p@h:30"],"hosts":[{"hostname":"x","port":3}]}}}"#,
                "https://h:30",
            ),
            (r#"{"connection":{"grpc":{"hosts":[{"hostname":"h","port":30}]}},"uri":"other:1"}"#, "h:30"),
        ] {
            assert_eq!(binding(credentials).endpoints().as_deref(), Ok(expected), "{credentials}");
        }
    }

    #[test]
    fn bindings_without_a_usable_endpoint_name_themselves_and_no_secret() {
        for (credentials, problem) in [
            (r#"{"password":"s3cret"}"#, "it has no endpoints"),
            (r#"{"endpoints":[],"password":"s3cret"}"#, "it has no endpoints"),
            (r#"{"endpoints":{"s3cret":1}}"#, "it has no endpoints"),
            (r#"{"port":2379}"#, "it has no endpoints"),
            (r#"{"uri":"http://root:s3cret@h:4001/v2/keys/x"}"#, "version 2 API"),
        ] {
            let found = binding(credentials).endpoints().unwrap_err().to_string();
            assert!(found.starts_with("service binding \"my-etcd\": ") && found.contains(problem), "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn every_name_of_certificates_and_namespace() {
        for (setting, names) in NAMES {
            for name in names {
                let (outer, inner) = name.split_once('.').unwrap_or(("", name));
                let object = format!("{{\"{}\":\"v\"}}", inner.to_uppercase());
                let object = if outer.is_empty() { object } else { format!("{{\"{outer}\":{object}}}") };
                let found = |credential: &str| [(setting, credential.to_owned(), "v".to_owned())];
                let expected = found(name);
                assert_eq!(binding(&object).settings(), expected, "{object}");
                let flat = format!("{{\"{name}\":\"v\"}}");
                assert_eq!(binding(&flat).settings(), expected, "{flat}");
                let ibm = format!("{{\"connection\":{{\"grpc\":{object}}}}}");
                assert_eq!(binding(&ibm).settings(), expected, "{ibm}");
                let below_tls = found(&format!("tls.{name}"));
                for object in [object, flat] {
                    let below = format!("{{\"TLS\":{object}}}");
                    assert_eq!(binding(&below).settings(), below_tls, "{below}");
                    let ibm = format!("{{\"connection\":{{\"grpc\":{below}}}}}");
                    assert_eq!(binding(&ibm).settings(), below_tls, "{ibm}");
                }
            }
        }
        assert_eq!(binding(r#"{"ca":"","cert":null,"key":7}"#).settings(), []);
    }

    #[test]
    fn passwords() {
        for (credentials, expected) in [
            (r#"{"username":"u","password":"p"}"#, true),
            (r#"{"connection":{"grpc":{"authentication":{"username":"u","password":"p"}}}}"#, true),
            (r#"{"uri":"https://u:p@h:1"}"#, true),
            (r#"{"uri":"https://h:1"}"#, false),
        ] {
            assert_eq!(binding(credentials).has_password(), expected, "{credentials}");
        }
    }
}
