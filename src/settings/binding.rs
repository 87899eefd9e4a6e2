//! Service bindings: which of them is etcd, and where it is.
//!
//! The platform offers exactly one of three sources; the first that is present is the one, and one that cannot be
//! read is an error, not a reason to look at the next:
//! `SERVICE_BINDING_ROOT` (<https://servicebinding.io/spec/core/1.1.0/>), `VCAP_SERVICES_FILE_PATH` and
//! `VCAP_SERVICES` (<https://docs.cloudfoundry.org/devguide/deploy-apps/environment-variable.html>).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;
use crate::env::Env;

/// A service that is bound to the application.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Binding {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    credentials: Map<String, Value>,
}

/// How sure it is that a binding is etcd; the surest kind that is present wins.
const KINDS: [fn(&Binding) -> bool; 3] = [
    |binding| {
        let label = binding.label.to_lowercase();
        ["databases-for-etcd", "compose-for-etcd"].contains(&label.as_str()) || label.starts_with("etcd")
    },
    |binding| binding.tags.iter().any(|tag| tag.eq_ignore_ascii_case("etcd")),
    |binding| binding.label == "user-provided" && binding.name.to_lowercase().contains("etcd"),
];

/// The etcd service that is bound, if one is.
pub(super) fn find(env: &Env) -> Result<Option<Binding>, Error> {
    let bindings = read(env)?;
    let service = env.get("ETCDPROXY_SERVICE").map(|name| name.to_string_lossy().into_owned());
    let names = |bindings: &[&Binding]| bindings.iter().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(service) = service {
        let found = bindings.iter().find(|binding| binding.name == service);
        return found.cloned().map(Some).ok_or_else(|| Error {
            setting: "ETCDPROXY_SERVICE".to_owned(),
            problem: format!(
                "no service of the name {service:?} is bound, but {}: name one of them, or bind it",
                if bindings.is_empty() { "none".to_owned() } else { names(&bindings.iter().collect::<Vec<_>>()) }
            ),
        });
    }
    for kind in KINDS {
        match bindings.iter().filter(|binding| kind(binding)).collect::<Vec<_>>()[..] {
            [] => {}
            [one] => return Ok(Some(one.clone())),
            ref several => {
                return Err(Error {
                    setting: "service bindings".to_owned(),
                    problem: format!("several may be etcd: {}: name one in ETCDPROXY_SERVICE", names(several)),
                });
            }
        }
    }
    Ok(None)
}

fn read(env: &Env) -> Result<Vec<Binding>, Error> {
    if let Some(root) = env.path("SERVICE_BINDING_ROOT") {
        return read_root(&root);
    }
    let (setting, json) = if let Some(path) = env.path("VCAP_SERVICES_FILE_PATH") {
        ("VCAP_SERVICES_FILE_PATH", read_text("VCAP_SERVICES_FILE_PATH", &path)?)
    } else if let Some(json) = env.get("VCAP_SERVICES") {
        ("VCAP_SERVICES", json.to_string_lossy().into_owned())
    } else {
        return Ok(Vec::new());
    };
    // The parser's own words may quote a credential; its position is enough.
    let services: BTreeMap<String, Vec<Binding>> = serde_json::from_str(&json).map_err(|err| Error {
        setting: setting.to_owned(),
        problem: format!(
            "is not the JSON the platform writes (line {}, column {}): restage or restart",
            err.line(),
            err.column()
        ),
    })?;
    let labelled = services.into_iter().flat_map(|(label, bindings)| {
        bindings.into_iter().map(move |binding| Binding { label: label.clone(), ..binding })
    });
    Ok(labelled.collect())
}

/// One directory per binding, one file per credential.
fn read_root(root: &Path) -> Result<Vec<Binding>, Error> {
    let setting = "SERVICE_BINDING_ROOT";
    let mut bindings = Vec::new();
    for dir in list(setting, root)?.into_iter().filter(|path| path.is_dir()) {
        let mut files = BTreeMap::new();
        // Kubernetes mounts the files as links into a hidden directory.
        for file in list(setting, &dir)?.into_iter().filter(|path| path.is_file()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, read_text(setting, &file)?.trim_end_matches('\n').to_owned());
        }
        let directory = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = |name: &str| files.get(name).cloned().unwrap_or_default();
        let parsed = |name: &str| files.get(name).and_then(|text| serde_json::from_str(text).ok());
        let binding_type = text("type");
        bindings.push(Binding {
            name: files.get("name").cloned().unwrap_or(directory),
            label: if text("label").is_empty() { binding_type } else { text("label") },
            tags: parsed("tags").unwrap_or_else(|| text("tags").split(',').map(|tag| tag.trim().to_owned()).collect()),
            credentials: files
                .iter()
                .map(|(name, text)| {
                    let nested =
                        serde_json::from_str(text).ok().filter(|value: &Value| value.is_object() || value.is_array());
                    (name.clone(), nested.unwrap_or_else(|| Value::String(text.clone())))
                })
                .collect(),
        });
    }
    Ok(bindings)
}

fn list(setting: &str, dir: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let read = || -> std::io::Result<Vec<_>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'));
        paths.sort();
        Ok(paths)
    };
    read().map_err(|err| unreadable(setting, dir, &err))
}

fn read_text(setting: &str, path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|err| unreadable(setting, path, &err))
}

fn unreadable(setting: &str, path: &Path, err: &std::io::Error) -> Error {
    Error {
        setting: setting.to_owned(),
        problem: format!("cannot read {}: {err}: restart the application", path.display()),
    }
}

impl Binding {
    fn error(&self, problem: &str) -> Error {
        Error { setting: format!("service binding {:?}", self.name), problem: problem.to_owned() }
    }

    /// A credential under any of these names, in any case.
    fn credential(&self, names: &[&str]) -> Option<&Value> {
        let found = |name: &&str| self.credentials.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        names.iter().find_map(found).map(|(_, value)| value)
    }

    /// Addresses of the members, comma-separated, without user names, passwords and paths.
    pub(super) fn endpoints(&self) -> Result<String, Error> {
        let grpc = self.credential(&["connection"]).and_then(|connection| connection.get("grpc"));
        let composed = grpc.and_then(|grpc| grpc.get("composed"));
        let listed = composed.or_else(|| self.credential(&["endpoints", "hosts", "uris", "uri", "url"]));
        let endpoints: Vec<String> = match listed {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            Some(Value::String(list)) => split_list(list),
            _ => self.host_and_port().into_iter().collect(),
        };
        if endpoints.iter().any(|endpoint| endpoint.contains("/v2/keys")) {
            return Err(
                self.error("it speaks etcd's version 2 API, which etcd 3 no longer has: bind an etcd 3 service")
            );
        }
        let stripped: Vec<&str> = endpoints.iter().filter(|one| !one.is_empty()).map(String::as_str).collect();
        if stripped.is_empty() {
            return Err(self
                .error("it has no endpoints: its credentials need \"endpoints\", as in [\"https://10.0.0.1:2379\"]"));
        }
        Ok(stripped.into_iter().map(strip).collect::<Vec<_>>().join(","))
    }

    fn host_and_port(&self) -> Option<String> {
        let host = self.credential(&["host", "hostname"])?.as_str()?;
        match self.credential(&["port"])? {
            Value::String(port) => Some(format!("{host}:{port}")),
            Value::Number(port) => Some(format!("{host}:{port}")),
            _ => None,
        }
    }
}

/// Splits at commas, but not at those of a password: its parts would be taken for hosts, and shown in errors.
fn split_list(list: &str) -> Vec<String> {
    let mut endpoints: Vec<String> = Vec::new();
    for part in list.split(',') {
        let mut endpoint = part.trim().to_owned();
        // What stands before an @ began where the last scheme stands, or else at the beginning.
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

/// `scheme://user:password@host:port/path` to `scheme://host:port`.
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

    fn vcap(services: &str) -> Result<Option<(String, String)>, String> {
        let found = find(&Env::from([("VCAP_SERVICES", services)])).map_err(|err| err.to_string())?;
        found.map(|b| b.endpoints().map(|e| (b.name, e)).map_err(|err| err.to_string())).transpose()
    }

    fn endpoints(credentials: &str) -> Result<String, String> {
        let services = format!(r#"{{"user-provided":[{{"name":"my-etcd","credentials":{credentials}}}]}}"#);
        Ok(vcap(&services)?.unwrap().1)
    }

    #[test]
    fn every_shape_of_endpoints() {
        for (credentials, expected) in [
            (r#"{"endpoints":["https://a:1","https://b:2"]}"#, "https://a:1,https://b:2"),
            (r#"{"ENDPOINTS":"a:1, b:2"}"#, "a:1,b:2"),
            (r#"{"uri":"https://root:s3@cret@h:1/x?y"}"#, "https://h:1"),
            (r#"{"uri":"https://a:1,https://root:s,3,cret@h:1,https://b:1"}"#, "https://a:1,https://h:1,https://b:1"),
            (r#"{"uri":"root:s3,cret@h:1"}"#, "h:1"),
            (r#"{"hosts":["a:1"]}"#, "a:1"),
            (r#"{"host":"h","port":2379}"#, "h:2379"),
            (r#"{"hostname":"h","port":"2379"}"#, "h:2379"),
            (
                r#"{"connection":{"grpc":{"composed":["https://u:p@h:30"],"hosts":[{"hostname":"h","port":30}]}}}"#,
                "https://h:30",
            ),
        ] {
            assert_eq!(endpoints(credentials).as_deref(), Ok(expected), "{credentials}");
        }
    }

    #[test]
    fn bindings_without_a_usable_endpoint_name_themselves_and_no_secret() {
        for (credentials, problem) in [
            (r#"{"password":"s3cret"}"#, "it has no endpoints"),
            (r#"{"endpoints":[],"password":"s3cret"}"#, "it has no endpoints"),
            (r#"{"uri":"http://root:s3cret@h:4001/v2/keys/x"}"#, "version 2 API"),
        ] {
            let found = endpoints(credentials).unwrap_err();
            assert!(found.starts_with("service binding \"my-etcd\": ") && found.contains(problem), "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn label_before_tag_before_name() {
        let by_name = r#""user-provided":[{"name":"etcd-by-name","credentials":{"uri":"n:1"}}]"#;
        let by_tag = r#""p.redis":[{"name":"tagged","tags":["ETCD"],"credentials":{"uri":"t:1"}}]"#;
        let by_label = r#""etcd-ha":[{"name":"labelled","credentials":{"uri":"l:1"}}]"#;
        let name = |services: &[&str]| vcap(&format!("{{{}}}", services.join(","))).unwrap().map(|found| found.0);
        assert_eq!(name(&[by_name, by_tag, by_label]).as_deref(), Some("labelled"));
        assert_eq!(name(&[by_name, by_tag]).as_deref(), Some("tagged"));
        assert_eq!(name(&[by_name]).as_deref(), Some("etcd-by-name"));
        assert_eq!(name(&[r#""mysql":[{"name":"db-for-etcd"}]"#]), None);
    }

    #[test]
    fn several_are_an_error_that_lists_them_and_a_name_decides() {
        let services = r#"{"user-provided":[{"name":"etcd-a","credentials":{"uri":"a:1"}},{"name":"etcd-b"}]}"#;
        let found = vcap(services).unwrap_err();
        assert_eq!(found, "service bindings: several may be etcd: etcd-a, etcd-b: name one in ETCDPROXY_SERVICE");
        let env = Env::from([("VCAP_SERVICES", services), ("ETCDPROXY_SERVICE", "etcd-b")]);
        assert_eq!(find(&env).unwrap().unwrap().name, "etcd-b");
        let env = Env::from([("VCAP_SERVICES", services), ("ETCDPROXY_SERVICE", "etcd-c")]);
        assert!(find(&env).unwrap_err().to_string().contains("is bound, but etcd-a, etcd-b: name one"));
    }

    #[test]
    fn the_source_that_is_present_is_the_only_one() {
        let env = Env::from([("VCAP_SERVICES_FILE_PATH", "/no/such/file"), ("VCAP_SERVICES", "{}")]);
        let found = find(&env).unwrap_err().to_string();
        assert!(found.starts_with("VCAP_SERVICES_FILE_PATH: cannot read /no/such/file: No such file"), "{found}");
        let found = vcap(r#"{"etcd":[{"name":"x","credentials":"s3cret"}]}"#).unwrap_err();
        assert!(found.starts_with("VCAP_SERVICES: is not the JSON") && !found.contains("s3cret"), "{found}");
    }

    #[test]
    fn a_directory_of_files() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("my-binding");
        fs::create_dir(&dir).unwrap();
        for (name, text) in [("type", "etcd\n"), ("endpoints", "[\"a:1\",\"b:2\"]"), ("password", "123")] {
            fs::write(dir.join(name), text).unwrap();
        }
        let env = Env::from([("SERVICE_BINDING_ROOT", root.path().to_str().unwrap())]);
        let binding = find(&env).unwrap().unwrap();
        assert_eq!((binding.name.as_str(), binding.endpoints().unwrap().as_str()), ("my-binding", "a:1,b:2"));
        assert_eq!(binding.credential(&["password"]), Some(&Value::String("123".to_owned())));
    }
}
