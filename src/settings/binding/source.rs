//! Where the platform puts bindings.
//!
//! It offers one of three sources: `SERVICE_BINDING_ROOT` (<https://servicebinding.io/spec/core/1.1.0/>),
//! `VCAP_SERVICES_FILE_PATH` or `VCAP_SERVICES`
//! (<https://docs.cloudfoundry.org/devguide/deploy-apps/environment-variable.html>). The first one that is present is
//! used. If it cannot be read, that is an error.
//!
//! Other services may contain anything: only the credentials of the chosen service are read and checked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::credentials::Binding;
use crate::fs::regular;
use crate::os::env::Env;
use crate::settings::error::Error;

const ROOT: &str = "SERVICE_BINDING_ROOT";
const FILE: &str = "VCAP_SERVICES_FILE_PATH";
const VARIABLE: &str = "VCAP_SERVICES";

/// A bound service, with everything that can identify it as etcd.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub name: String,
    pub label: String,
    /// Who provides it; empty if that is unknown.
    pub provider: String,
    pub tags: Vec<String>,
    credentials: Credentials,
}

#[derive(Debug, Clone, PartialEq)]
enum Credentials {
    Given(Value),
    /// One file per credential.
    Dir(PathBuf),
}

pub(super) fn read(env: &Env) -> Result<Vec<Candidate>, Error> {
    if let Some(root) = env.path(ROOT) {
        let dirs = list(&root)?.into_iter().filter(|path| path.is_dir());
        return Ok(dirs.map(|dir| Candidate::of_dir(&dir)).collect());
    }
    if let Some(path) = env.path(FILE) {
        let json = regular::read(&path).map_err(|err| unreadable(FILE, &path, &err))?;
        return parse(FILE, &String::from_utf8_lossy(&json));
    }
    env.get(VARIABLE).map_or(Ok(Vec::new()), |json| parse(VARIABLE, &json.to_string_lossy()))
}

fn parse(setting: &str, json: &str) -> Result<Vec<Candidate>, Error> {
    let error = |at: &str| {
        Error::new(setting, format!("it is not the JSON that the platform writes{at}: restage the application"))
    };
    // The parser's own message can quote a credential, so only its position is shown.
    let services: Map<String, Value> =
        serde_json::from_str(json).map_err(|err| error(&format!(" (line {}, column {})", err.line(), err.column())))?;
    let mut candidates = Vec::new();
    for (label, bindings) in services {
        let bindings = bindings.as_array().ok_or_else(|| error(" (a label without a list of services)"))?;
        candidates.extend(bindings.iter().map(|binding| Candidate::of_json(&label, binding)));
    }
    Ok(candidates)
}

impl Candidate {
    fn of_json(label: &str, binding: &Value) -> Self {
        let tags = binding.get("tags").and_then(Value::as_array).into_iter().flatten();
        Self {
            name: binding.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            label: label.to_owned(),
            provider: binding.get("provider").and_then(Value::as_str).unwrap_or_default().to_owned(),
            tags: tags.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            credentials: Credentials::Given(binding.get("credentials").cloned().unwrap_or_default()),
        }
    }

    fn of_dir(dir: &Path) -> Self {
        let text = |name: &str| {
            let text = String::from_utf8(regular::read(&dir.join(name)).ok()?).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let tags = text("tags").unwrap_or_default();
        let listed = || tags.split(',').map(|tag| tag.trim().to_owned()).collect();
        let directory = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            name: text("name").unwrap_or_else(directory),
            label: text("label").or_else(|| text("type")).unwrap_or_default(),
            provider: text("provider").unwrap_or_default(),
            tags: serde_json::from_str(&tags).unwrap_or_else(|_| listed()),
            credentials: Credentials::Dir(dir.to_owned()),
        }
    }

    /// Reads its credentials.
    pub(super) fn open(self) -> Result<Binding, Error> {
        let Self { name, credentials, .. } = self;
        let credentials = match credentials {
            Credentials::Given(Value::Object(credentials)) => credentials,
            Credentials::Given(Value::Null) => Map::new(),
            // JSON in a string.
            Credentials::Given(Value::String(text)) => serde_json::from_str(&text).map_err(|_| not_an_object(&name))?,
            Credentials::Given(_) => return Err(not_an_object(&name)),
            Credentials::Dir(dir) => read_dir(&dir)?,
        };
        Ok(Binding::new(name, credentials))
    }
}

fn not_an_object(name: &str) -> Error {
    Binding::new(name.to_owned(), Map::new()).error("its credentials are not a JSON object: bind it again")
}

fn read_dir(dir: &Path) -> Result<Map<String, Value>, Error> {
    let mut credentials = Map::new();
    // Kubernetes mounts the files as links into a hidden directory.
    for path in list(dir)?.into_iter().filter(|path| path.is_file()) {
        let bytes = regular::read(&path).map_err(|err| unreadable(ROOT, &path, &err))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let value = match String::from_utf8(bytes) {
            Ok(text) if !is_pem_file(&text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            // The file itself can be passed on, and read again when it is renewed. Of a binary file, whoever reads it
            // says what it is: a keystore, for example.
            _ => path.to_string_lossy().into_owned(),
        };
        credentials.insert(name, Value::String(value));
    }
    Ok(credentials)
}

/// Whether the file is PEM, and not JSON with PEM in it.
fn is_pem_file(text: &str) -> bool {
    text.contains("-----BEGIN ") && text.contains('\n') && !text.trim_start().starts_with(['[', '{'])
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

fn unreadable(setting: &str, path: &Path, err: &io::Error) -> Error {
    Error::new(setting, format_args!("cannot read {}: {err}: restart the application", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::table::Setting;

    fn error<const N: usize>(vars: [(&str, &str); N]) -> String {
        read(&Env::from(vars)).unwrap_err().to_string()
    }

    #[test]
    fn the_source_that_is_present_is_the_only_one() {
        let found = error([(FILE, "/no/such/file"), (VARIABLE, "{}")]);
        assert!(found.starts_with("VCAP_SERVICES_FILE_PATH: cannot read /no/such/file: No such file"), "{found}");
        let found = error([(ROOT, "/no/such/dir"), (FILE, "/no/such/file"), (VARIABLE, "{}")]);
        assert!(found.starts_with("SERVICE_BINDING_ROOT: cannot read /no/such/dir: No such file"), "{found}");
        for json in [r#"{"etcd":[{"password":"s3cret"]}"#, r#"{"etcd":"s3cret"}"#, "s3cret"] {
            let found = error([(VARIABLE, json)]);
            assert!(found.starts_with("VCAP_SERVICES: it is not the JSON") && !found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn a_file_has_the_same_content_as_the_variable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let json = r#"{"user-provided":[{"name":"my-etcd","tags":["a"],"credentials":{"uri":"h:1"}}]}"#;
        fs::write(file.path(), json).unwrap();
        let from_file = read(&Env::from([(FILE, file.path().to_str().unwrap())])).unwrap();
        assert_eq!(from_file, read(&Env::from([(VARIABLE, json)])).unwrap());
        let [Candidate { name, label, tags, .. }] = &from_file[..] else { panic!("{from_file:?}") };
        assert_eq!((name.as_str(), label.as_str(), &tags[..]), ("my-etcd", "user-provided", &["a".to_owned()][..]));
        fs::write(file.path(), "{").unwrap();
        assert!(error([(FILE, file.path().to_str().unwrap())]).contains("(line 1, column 1)"));
    }

    #[test]
    fn other_services_may_contain_anything() {
        let json =
            r#"{"x":[{"name":null,"tags":null,"credentials":null},7],"etcd":[{"name":"e","credentials":"s3cret"}]}"#;
        let all = read(&Env::from([(VARIABLE, json)])).unwrap();
        assert_eq!(all.len(), 3);
        let errors: Vec<_> = all.into_iter().filter_map(|one| one.open().err()).collect();
        assert_eq!(
            errors[0].to_string(),
            "service binding \"e\": its credentials are not a JSON object: bind it again"
        );
    }

    #[test]
    fn a_directory_of_files() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("my-binding"), root.path().join("other"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&other).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        for (name, text) in
            [("type", "etcd\n"), ("tags", "a, b"), ("endpoints", "[\"a:1\",\"b:2\"]"), ("password", "123"), ("ca", pem)]
        {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::write(dir.join("keystore.jks"), b"\xfe\xed\xfe\xed").unwrap();
        fs::write(other.join("tags"), b"\xff").unwrap();
        let bindings = read(&Env::from([(ROOT, root.path().to_str().unwrap())])).unwrap();
        let [first, second] = &bindings[..] else { panic!("{bindings:?}") };
        assert_eq!((first.name.as_str(), first.label.as_str(), second.name.as_str()), ("my-binding", "etcd", "other"));
        assert_eq!(first.tags, ["a", "b"]);
        let content = first.clone().open().unwrap().content(true).unwrap();
        let ca = dir.join("ca").to_str().unwrap().to_owned();
        let endpoints = (Setting::Endpoints, "endpoints".to_owned(), "a:1,b:2".to_owned());
        let password = (Setting::Password, "password".to_owned(), "123".to_owned());
        assert_eq!(content.settings, [(Setting::CaCert, "ca".to_owned(), ca), password, endpoints]);
        assert!(content.has_password);
        assert!(content.warning.unwrap().contains(": keystore.jks. "));
    }
}
