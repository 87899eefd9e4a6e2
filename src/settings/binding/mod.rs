//! Service bindings: which one is etcd. [`source`] reads them, [`credentials`] understands the credentials, and [`names`]
//! their names.

mod credentials;
mod names;
mod source;

pub(super) use self::credentials::Binding;
use self::source::Candidate;
use super::error::Error;
use super::table::Setting;
use crate::os::env::Env;

/// Signs that a service is etcd, the surest first. The first sign that any service shows decides.
const SIGNS: [fn(&Candidate) -> bool; 3] = [
    |service| {
        let label = service.label.to_lowercase();
        let provider = service.provider.to_lowercase();
        ["databases-for-etcd", "compose-for-etcd"].contains(&label.as_str())
            || label.starts_with("etcd")
            || provider.starts_with("etcd")
    },
    |service| service.tags.iter().any(|tag| tag.eq_ignore_ascii_case("etcd")),
    // A directory need not say of which type it is.
    |service| ["user-provided", ""].contains(&service.label.as_str()) && service.name.to_lowercase().contains("etcd"),
];

/// Which of the bound services is etcd.
#[derive(Debug, PartialEq)]
pub(super) enum BindingMatch {
    /// None is known to be etcd. These are bound.
    None {
        others: Vec<String>,
    },
    One(Binding),
    /// Each of these could be.
    Several(Vec<String>),
}

/// Finds the bound etcd service. `service` is the setting that names the service to use, and that name.
///
/// # Errors
/// If the bindings cannot be read, or no bound service has the given name.
pub(super) fn find(env: &Env, service: Option<(&str, &str)>) -> Result<BindingMatch, Error> {
    let services = source::read(env)?;
    let names = |services: &[&Candidate]| services.iter().map(|service| service.name.clone()).collect::<Vec<_>>();
    let all = services.iter().collect::<Vec<_>>();
    if let Some((setting, name)) = service {
        let Some(found) = all.iter().find(|service| service.name == name) else {
            let bound = if all.is_empty() { "none".to_owned() } else { names(&all).join(", ") };
            let problem =
                format!("no service named {name:?} is bound (bound: {bound}): use the name of a bound service");
            return Err(Error::new(setting, problem));
        };
        return (*found).clone().open().map(BindingMatch::One);
    }
    for is_etcd in SIGNS {
        let candidates: Vec<&Candidate> = services.iter().filter(|service| is_etcd(service)).collect();
        match candidates[..] {
            [] => {}
            [only] => return only.clone().open().map(BindingMatch::One),
            _ => return Ok(BindingMatch::Several(names(&candidates))),
        }
    }
    Ok(BindingMatch::None { others: names(&all) })
}

/// The error that several services could be etcd.
pub(super) fn several(names: &[String]) -> Error {
    let problem = format!(
        "several could be etcd ({}): choose one with {} or {}",
        names.join(", "),
        Setting::Service.flag(),
        Setting::Service.variable()
    );
    Error::new("service bindings", problem)
}

/// Says that none of the bound services, `others`, is etcd. `setting` can name one of them.
pub(super) fn none_is_etcd(others: &[String], setting: &str) -> String {
    if others.is_empty() {
        return "no etcd service is bound".to_owned();
    }
    let names = others.join(", ");
    format!("no bound service is known to be etcd (if one of these is, name it with {setting}: {names})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(services: &str, service: Option<&str>) -> Result<Option<String>, String> {
        let env = Env::from([("VCAP_SERVICES", services)]);
        let found = find(&env, service.map(|name| ("--service", name))).and_then(|found| match found {
            BindingMatch::None { .. } => Ok(None),
            BindingMatch::One(binding) => Ok(Some(binding.name)),
            BindingMatch::Several(names) => Err(several(&names)),
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
            "service bindings: several could be etcd (etcd-a, etcd-b): choose one with --service or ETCDPROXY_SERVICE"
        );
        assert_eq!(found(services, Some("etcd-b")).unwrap().as_deref(), Some("etcd-b"));
        assert_eq!(
            found(services, Some("etcd-c")).unwrap_err(),
            "--service: no service named \"etcd-c\" is bound (bound: etcd-a, etcd-b): use the name of a bound service"
        );
        assert!(found("{}", Some("x")).unwrap_err().contains("is bound (bound: none)"));
    }
}
