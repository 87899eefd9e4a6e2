//! The settings in effect as people may see them: with their sources, and without secrets.

use super::endpoint::Endpoint;
use super::mode::Run;
use super::pem::Pem;
use super::sources::{Origin, Sources, Value};
use super::table::Setting;
use super::tls::Tls;

/// What stands in place of a value that may be a secret.
const HIDDEN: &str = "(set)";

/// One setting in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its flag; its variable, if it has no flag.
    pub name: &'static str,
    pub value: String,
    /// `flag`, `variable`, `binding` or `default`.
    pub source: &'static str,
    /// The name that it has there, such as `ETCDPROXY_MODE`; empty for a default.
    pub from: String,
}

/// What became of the values that must not be shown as they are, or depend on others.
pub(super) struct Outcome<'a> {
    pub run: Run,
    pub tls: &'a Tls,
    pub endpoints: &'a [Endpoint],
    pub logs_in: bool,
}

impl Sources {
    /// Those that have a value, in the order of the help text.
    pub(super) fn shown(&self, outcome: &Outcome<'_>) -> Vec<Shown> {
        let members = self.members().ok().flatten();
        let row = |setting: &Setting| {
            let value = match setting {
                // Only one of the two names the members, whatever other sources say.
                Setting::Endpoints | Setting::DiscoverySrv => {
                    let (_, value) = members.clone().filter(|(named, _)| named == setting)?;
                    Some(value)
                }
                _ => self.get(*setting),
            };
            match value {
                Some(value) => Some(given(*setting, value, outcome)),
                None => default(*setting, outcome.run),
            }
        };
        Setting::ALL.iter().filter_map(row).collect()
    }
}

fn given(setting: Setting, given: Value, outcome: &Outcome<'_>) -> Shown {
    let text = || given.text.to_string_lossy().trim().to_owned();
    let identity = outcome.tls.identity.as_ref();
    let value = match setting {
        Setting::Password => HIDDEN.to_owned(),
        Setting::CaCert => path(outcome.tls.ca.as_ref()),
        Setting::Cert => path(identity.map(|identity| &identity.cert)),
        Setting::Key => path(identity.map(|identity| &identity.key)),
        // Without a login, nobody has seen that this is a file, and not the password itself.
        Setting::PasswordFile if !outcome.logs_in => HIDDEN.to_owned(),
        // As they were understood: the text may be the URLs of a binding.
        Setting::Endpoints => outcome.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        _ => text(),
    };
    let source = match given.origin {
        Origin::Flags => "flag",
        Origin::Environment => "variable",
        Origin::Binding => "binding",
    };
    Shown { name: setting.flag(), value, source, from: given.name }
}

/// The file's path. Everything else could be a key.
fn path(pem: Option<&Pem>) -> String {
    let file = pem.and_then(|pem| pem.file.as_ref());
    file.map_or_else(|| HIDDEN.to_owned(), |file| file.display().to_string())
}

/// `None` if it has no default, or means nothing in this mode.
fn default(setting: Setting, run: Run) -> Option<Shown> {
    let sees_calls = run.mode().capabilities().sees_calls;
    let value = match (setting, run) {
        (Setting::Prefer | Setting::MemberUrls | Setting::LoginFromBinding, _) if !sees_calls => return None,
        (Setting::Drain, Run::Native { drain } | Run::SuperviseEtcd { drain }) => {
            humantime::format_duration(drain).to_string()
        }
        (Setting::Drain, Run::ExecEtcd) => "off".to_owned(),
        _ => setting.default()?.to_owned(),
    };
    Some(Shown { name: setting.flag(), value, source: "default", from: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::env::Env;
    use crate::settings::tls::tests::{Certificate, days};

    fn shown<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Vec<Shown> {
        let env = Env::from(env);
        let flags = flags.iter().map(|(key, text)| (*key, text.into()));
        Sources::new(flags, &env).with_binding(&env).unwrap().resolve().unwrap().shown
    }

    fn row(all: &[Shown], setting: Setting) -> Option<(&str, &str, &str)> {
        let row = all.iter().find(|row| row.name == setting.flag())?;
        Some((&row.value, row.source, &row.from))
    }

    #[test]
    fn each_setting_names_its_source() {
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"http://u:pa55@bound:1","prefix":"p/"}}]}"#;
        let env = [("ETCDPROXY_PREFER", "Spread"), ("VCAP_SERVICES", services)];
        let all = shown(&[(Setting::ListenAddr, "127.0.0.1:9")], env);
        assert_eq!(row(&all, Setting::ListenAddr), Some(("127.0.0.1:9", "flag", "--listen-addr")));
        assert_eq!(row(&all, Setting::Prefer), Some(("Spread", "variable", "ETCDPROXY_PREFER")));
        let bound = "service binding \"e\", uri";
        assert_eq!(row(&all, Setting::Endpoints), Some(("http://bound:1", "binding", bound)));
        assert_eq!(row(&all, Setting::Username), Some(("u", "binding", bound)));
        assert_eq!(row(&all, Setting::Password), Some((HIDDEN, "binding", bound)));
        assert_eq!(row(&all, Setting::Drain), Some(("8s", "default", "")));
        assert_eq!(row(&all, Setting::CaCert), None);
        let all = shown(&[(Setting::DiscoverySrv, "d.example")], [("ETCDPROXY_ENDPOINTS", "h:1")]);
        assert_eq!(row(&all, Setting::DiscoverySrv), Some(("d.example", "flag", "--discovery-srv")));
        assert_eq!(row(&all, Setting::Endpoints), None);
    }

    #[test]
    fn no_secret_is_shown() {
        let pair = Certificate::new(Some("c"), days(-1), days(365));
        let env = [
            ("ETCDPROXY_ENDPOINTS", "h:1"),
            ("ETCDPROXY_MODE", "native"),
            ("ETCDPROXY_CACERT", &pair.cert),
            ("ETCDPROXY_CERT", &pair.cert),
            ("ETCDPROXY_KEY", &pair.key),
            ("ETCDPROXY_USERNAME", "app"),
            ("ETCDPROXY_PASSWORD", "pa55"),
        ];
        let all = shown(&[], env);
        for setting in [Setting::CaCert, Setting::Cert, Setting::Key, Setting::Password] {
            assert_eq!(row(&all, setting), Some((HIDDEN, "variable", setting.variable())));
        }
        let text = format!("{all:?}");
        assert!(!text.contains("pa55") && !text.contains("BEGIN"), "{text}");
    }
}
