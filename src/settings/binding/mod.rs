//! Service bindings: which of them is etcd. [`source`] reads them, [`credentials`] knows their shapes.

mod credentials;
mod source;

pub(super) use credentials::Offer;

use serde_json::{Map, Value};

use self::source::Candidate;
use super::{Error, Setting};
use crate::os::env::Env;

/// The service that is chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Binding {
    pub name: String,
    credentials: Map<String, Value>,
}

/// How sure it is that a binding is etcd; the surest kind that is present wins.
const KINDS: [fn(&Candidate) -> bool; 3] = [
    |binding| {
        let label = binding.label.to_lowercase();
        ["databases-for-etcd", "compose-for-etcd"].contains(&label.as_str()) || label.starts_with("etcd")
    },
    |binding| binding.tags.iter().any(|tag| tag.eq_ignore_ascii_case("etcd")),
    |binding| binding.label == "user-provided" && binding.name.to_lowercase().contains("etcd"),
];

/// What was found among the bindings.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Only these, of which none is known to be etcd.
    Nothing(Vec<String>),
    One(Binding),
    /// These may all be meant.
    Several(Vec<String>),
}

/// The etcd service that is bound. `service`, with the name of its setting, says which one is meant.
///
/// # Errors
/// When the bindings cannot be read, or none has the name that was given.
pub(super) fn find(env: &Env, service: Option<(&str, &str)>) -> Result<Found, Error> {
    let bindings = source::read(env)?;
    if let Some((setting, name)) = service {
        let names: Vec<&str> = bindings.iter().map(|binding| binding.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let found = bindings.into_iter().find(|binding| binding.name == name);
        let found = found.ok_or_else(|| Error {
            setting: setting.to_owned(),
            problem: format!("no service of the name {name:?} is bound, but {names}: name one of them, or bind it"),
        });
        return found?.open().map(Found::One);
    }
    for kind in KINDS {
        let mut candidates: Vec<&Candidate> = bindings.iter().filter(|binding| kind(binding)).collect();
        return match candidates.len() {
            0 => continue,
            1 => candidates.remove(0).clone().open().map(Found::One),
            _ => Ok(Found::Several(candidates.into_iter().map(|binding| binding.name.clone()).collect())),
        };
    }
    Ok(Found::Nothing(bindings.into_iter().map(|binding| binding.name).collect()))
}

/// The error that several may be meant.
pub(super) fn several(names: &[String]) -> Error {
    Error {
        setting: "service bindings".to_owned(),
        problem: format!(
            "several may be etcd: {}: name one with {} or {}",
            names.join(", "),
            Setting::Service.flag(),
            Setting::Service.variable()
        ),
    }
}

/// Why there is no binding, where only `others` are bound; `setting` is what would name one of them.
pub(super) fn none_is_etcd(others: &[String], setting: &str) -> String {
    if others.is_empty() {
        return "no etcd service is bound".to_owned();
    }
    let names = others.join(", ");
    format!("no bound service is known to be etcd (if one of these is, name it with {setting}: {names})")
}

impl Binding {
    fn error(&self, problem: &str) -> Error {
        Error { setting: format!("service binding {:?}", self.name), problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(services: &str, service: Option<&str>) -> Result<Option<String>, String> {
        let env = Env::from([("VCAP_SERVICES", services)]);
        let found = find(&env, service.map(|name| ("--service", name))).and_then(|found| match found {
            Found::Nothing(_) => Ok(None),
            Found::One(binding) => Ok(Some(binding.name)),
            Found::Several(names) => Err(several(&names)),
        });
        found.map_err(|err| err.to_string())
    }

    #[test]
    fn label_before_tag_before_name() {
        let by_name = r#""user-provided":[{"name":"etcd-by-name","credentials":{"uri":"n:1"}}]"#;
        let by_tag = r#""p.redis":[{"name":"tagged","tags":["ETCD"],"credentials":{"uri":"t:1"}}]"#;
        let by_label = r#""etcd-ha":[{"name":"labelled","credentials":{"uri":"l:1"}}]"#;
        let name = |services: &[&str]| found(&format!("{{{}}}", services.join(",")), None).unwrap();
        assert_eq!(name(&[by_name, by_tag, by_label]).as_deref(), Some("labelled"));
        assert_eq!(name(&[by_name, by_tag]).as_deref(), Some("tagged"));
        assert_eq!(name(&[by_name]).as_deref(), Some("etcd-by-name"));
        assert_eq!(name(&[r#""mysql":[{"name":"db-for-etcd"}]"#]), None);
        for label in ["databases-for-etcd", "compose-for-etcd", "Etcd"] {
            assert_eq!(name(&[&format!(r#""{label}":[{{"name":"x"}}]"#)]).as_deref(), Some("x"));
        }
    }

    #[test]
    fn several_are_an_error_that_lists_them_and_a_name_decides() {
        let services = r#"{"user-provided":[{"name":"etcd-a","credentials":{"uri":"a:1"}},{"name":"etcd-b"}]}"#;
        assert_eq!(
            found(services, None).unwrap_err(),
            "service bindings: several may be etcd: etcd-a, etcd-b: name one with --service or ETCDPROXY_SERVICE"
        );
        assert_eq!(found(services, Some("etcd-b")).unwrap().as_deref(), Some("etcd-b"));
        assert_eq!(
            found(services, Some("etcd-c")).unwrap_err(),
            "--service: no service of the name \"etcd-c\" is bound, but etcd-a, etcd-b: name one of them, or bind it"
        );
        assert!(found("{}", Some("x")).unwrap_err().contains("is bound, but none"));
    }
}
