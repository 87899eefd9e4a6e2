//! Where the platform puts bindings.
//!
//! It offers exactly one of three sources; the first that is present is the one, and one that cannot be read is an
//! error, not a reason to look at the next: `SERVICE_BINDING_ROOT` (<https://servicebinding.io/spec/core/1.1.0/>),
//! `VCAP_SERVICES_FILE_PATH` and `VCAP_SERVICES`
//! (<https://docs.cloudfoundry.org/devguide/deploy-apps/environment-variable.html>).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Binding, Error};
use crate::env::Env;

const ROOT: &str = "SERVICE_BINDING_ROOT";
const FILE: &str = "VCAP_SERVICES_FILE_PATH";
/// Not handed on to etcd, which has no use for it.
pub(crate) const VARIABLE: &str = "VCAP_SERVICES";

pub(super) fn read(env: &Env) -> Result<Vec<Binding>, Error> {
    if let Some(root) = env.path(ROOT) {
        return read_root(&root);
    }
    if let Some(path) = env.path(FILE) {
        return parse(FILE, &read_text(FILE, &path)?);
    }
    env.get(VARIABLE).map_or(Ok(Vec::new()), |json| parse(VARIABLE, &json.to_string_lossy()))
}

fn parse(setting: &str, json: &str) -> Result<Vec<Binding>, Error> {
    // The parser's own words may quote a credential; its position is enough.
    let services: BTreeMap<String, Vec<Binding>> = serde_json::from_str(json).map_err(|err| Error {
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
    let dirs = list(root)?.into_iter().filter(|path| path.is_dir());
    dirs.map(|dir| read_dir(&dir)).collect()
}

fn read_dir(dir: &Path) -> Result<Binding, Error> {
    let mut texts = BTreeMap::new();
    let mut credentials = Map::new();
    // Kubernetes mounts the files as links into a hidden directory.
    for path in list(dir)?.into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = read_text(ROOT, &path)?.trim_end_matches('\n').to_owned();
        credentials.insert(name.clone(), credential(&path, &text));
        texts.insert(name, text);
    }
    let text = |name: &str| texts.get(name).cloned();
    let tags = text("tags").unwrap_or_default();
    let listed = || tags.split(',').map(|tag| tag.trim().to_owned()).collect();
    let directory = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Binding {
        name: text("name").unwrap_or(directory),
        label: text("label").filter(|label| !label.is_empty()).or_else(|| text("type")).unwrap_or_default(),
        tags: serde_json::from_str(&tags).unwrap_or_else(|_| listed()),
        credentials,
    })
}

fn credential(path: &Path, text: &str) -> Value {
    // The file itself can be handed on, and followed when it is renewed.
    if text.starts_with("-----BEGIN") && text.contains('\n') {
        return Value::String(path.to_string_lossy().into_owned());
    }
    let nested = serde_json::from_str(text).ok().filter(|value: &Value| value.is_object() || value.is_array());
    nested.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || -> io::Result<Vec<_>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'));
        paths.sort();
        Ok(paths)
    };
    read().map_err(|err| unreadable(ROOT, dir, &err))
}

fn read_text(setting: &str, path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|err| unreadable(setting, path, &err))
}

fn unreadable(setting: &str, path: &Path, err: &io::Error) -> Error {
    Error {
        setting: setting.to_owned(),
        problem: format!("cannot read {}: {err}: restart the application", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<const N: usize>(vars: [(&str, &str); N]) -> String {
        read(&Env::from(vars)).unwrap_err().to_string()
    }

    #[test]
    fn the_source_that_is_present_is_the_only_one() {
        let found = error([(FILE, "/no/such/file"), (VARIABLE, "{}")]);
        assert!(found.starts_with("VCAP_SERVICES_FILE_PATH: cannot read /no/such/file: No such file"), "{found}");
        let found = error([(ROOT, "/no/such/dir"), (FILE, "/no/such/file"), (VARIABLE, "{}")]);
        assert!(found.starts_with("SERVICE_BINDING_ROOT: cannot read /no/such/dir: No such file"), "{found}");
        let found = error([(VARIABLE, r#"{"etcd":[{"name":"x","credentials":"s3cret"}]}"#)]);
        assert!(found.starts_with("VCAP_SERVICES: is not the JSON") && !found.contains("s3cret"), "{found}");
    }

    #[test]
    fn a_file_holds_what_the_variable_would() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let json = r#"{"user-provided":[{"name":"my-etcd","tags":["a"],"credentials":{"uri":"h:1"}}]}"#;
        fs::write(file.path(), json).unwrap();
        let from_file = read(&Env::from([(FILE, file.path().to_str().unwrap())])).unwrap();
        assert_eq!(from_file, read(&Env::from([(VARIABLE, json)])).unwrap());
        assert_eq!((from_file[0].name.as_str(), from_file[0].label.as_str()), ("my-etcd", "user-provided"));
        fs::write(file.path(), "{").unwrap();
        assert!(error([(FILE, file.path().to_str().unwrap())]).contains("(line 1, column 1)"));
    }

    #[test]
    fn a_directory_of_files() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("my-binding");
        fs::create_dir(&dir).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        for (name, text) in
            [("type", "etcd\n"), ("tags", "a, b"), ("endpoints", "[\"a:1\",\"b:2\"]"), ("password", "123"), ("ca", pem)]
        {
            fs::write(dir.join(name), text).unwrap();
        }
        let bindings = read(&Env::from([(ROOT, root.path().to_str().unwrap())])).unwrap();
        let [Binding { name, label, tags, credentials }] = &bindings[..] else { panic!("{bindings:?}") };
        assert_eq!((name.as_str(), label.as_str()), ("my-binding", "etcd"));
        assert_eq!(tags, &["a", "b"]);
        assert_eq!(credentials["endpoints"], serde_json::json!(["a:1", "b:2"]));
        assert_eq!(credentials["password"], "123");
        assert_eq!(credentials["ca"], dir.join("ca").to_str().unwrap());
    }
}
