//! The settings for another place, such as a pod: what its environment gets, and what must stay in secrets.

use std::path::Path;

use super::error::Error;
use super::resolve::Settings;
use super::sources::{Origin, Sources};
use super::table::Setting;

/// What stands in for members that only a secret names. Nobody connects to it.
const UNKNOWN_MEMBERS: &str = "https://etcd.invalid:2379";

/// The values of files, or too secret for an environment that others can read.
const SECRETS: [Setting; 5] = [Setting::CaCert, Setting::Cert, Setting::Key, Setting::PasswordFile, Setting::Password];

/// The settings, as another place gets them.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// The checked settings. If `names_members` is false, their endpoints mean nothing.
    pub settings: Settings,
    /// Whether flags or the environment name the members.
    pub names_members: bool,
    /// Whether a setting says who forwards calls; otherwise `auto` decides there.
    pub names_mode: bool,
    /// Settings that are no secrets, with their values.
    pub plain: Vec<(Setting, String)>,
    pub secrets: Vec<Secret>,
}

/// A certificate, key or password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub setting: Setting,
    pub origin: SecretOrigin,
}

/// Where a secret is, on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretOrigin {
    /// In the file with this path, as the user wrote it.
    File(String),
    /// In the variable with this name.
    Variable(&'static str),
}

impl Sources {
    /// Checks the settings, as `run` would there. `members_may_lack`: a secret may name the members.
    ///
    /// # Errors
    /// The first setting that can never work.
    pub(crate) fn for_elsewhere(mut self, members_may_lack: bool) -> Result<Elsewhere, Error> {
        let members = self.members()?;
        if members.is_none() && members_may_lack {
            self.set_default(Setting::Endpoints, UNKNOWN_MEMBERS);
        }
        let settings = self.resolve()?;
        let mut plain = Vec::new();
        let mut secrets = Vec::new();
        for setting in Setting::ALL {
            let Some(value) = self.get(*setting) else { continue };
            let is_used = match setting {
                Setting::Endpoints | Setting::DiscoverySrv => members.as_ref().is_some_and(|(it, _)| it == setting),
                // There, a secret is bound, and it is the only one.
                Setting::Service => false,
                _ => true,
            };
            if SECRETS.contains(setting) {
                let text = value.text()?;
                // A flag never has the content itself.
                let is_file =
                    value.origin == Origin::Flags || *setting != Setting::Password && Path::new(text).exists();
                let origin = if is_file {
                    SecretOrigin::File(text.to_owned())
                } else {
                    SecretOrigin::Variable(setting.variable())
                };
                secrets.push(Secret { setting: *setting, origin });
            } else if is_used {
                let text = match setting {
                    // As they were understood: with schemes.
                    Setting::Endpoints => {
                        settings.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                    }
                    _ => value.text()?.to_owned(),
                };
                plain.push((*setting, text));
            }
        }
        let names_mode = self.get(Setting::Mode).is_some_and(|value| !value.text.eq_ignore_ascii_case("auto"));
        Ok(Elsewhere { settings, names_members: members.is_some(), names_mode, plain, secrets })
    }
}

impl Settings {
    /// The content of a secret.
    pub(crate) fn secret(&self, setting: Setting) -> Option<&str> {
        let identity = self.tls.identity.as_ref();
        let pem = match setting {
            Setting::CaCert => self.tls.ca.as_ref(),
            Setting::Cert => identity.map(|identity| &identity.cert),
            Setting::Key => identity.map(|identity| &identity.key),
            _ => return self.login.as_ref().map(|login| login.password.as_str()),
        };
        pem.map(|pem| pem.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::env::Env;
    use crate::settings::table;

    fn elsewhere<const N: usize>(env: [(&str, &str); N], members_may_lack: bool) -> Result<Elsewhere, Error> {
        Sources::new([], &Env::from(env)).for_elsewhere(members_may_lack)
    }

    #[test]
    fn secrets_are_apart_from_the_rest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pa55").unwrap();
        let path = file.path().to_str().unwrap();
        let env = [
            ("ETCDPROXY_ENDPOINTS", "a:1 b:2"),
            ("ETCDPROXY_USERNAME", "app"),
            ("ETCDPROXY_PASSWORD_FILE", path),
            ("ETCDPROXY_SERVICE", "x"),
        ];
        let found = elsewhere(env, false).unwrap();
        let endpoints = (Setting::Endpoints, "http://a:1,http://b:2".to_owned());
        assert_eq!(found.plain, [endpoints, (Setting::Username, "app".to_owned())]);
        let secret = |setting, origin| Secret { setting, origin };
        assert_eq!(found.secrets, [secret(Setting::PasswordFile, SecretOrigin::File(path.to_owned()))]);

        let env = [("ETCDPROXY_ENDPOINTS", "a:1"), ("ETCDPROXY_USERNAME", "app"), ("ETCDPROXY_PASSWORD", path)];
        let found = elsewhere(env, false).unwrap();
        let variable = SecretOrigin::Variable("ETCDPROXY_PASSWORD");
        assert_eq!(found.secrets, [secret(Setting::Password, variable)]);
    }

    #[test]
    fn what_etcd_must_not_see_is_secret_here_too() {
        let secret = |setting: &&Setting| table::SECRETS.contains(&setting.variable());
        for setting in Setting::ALL.iter().filter(secret) {
            assert!(SECRETS.contains(setting), "{setting:?}");
        }
    }

    #[test]
    fn members_may_be_missing_only_where_a_secret_can_name_them() {
        let found = elsewhere([("ETCDPROXY_NAMESPACE", "app/")], true).unwrap();
        assert!(!found.names_members && !found.names_mode);
        assert_eq!(found.plain, [(Setting::Namespace, "app/".to_owned())]);
        let problem = elsewhere([], false).unwrap_err().to_string();
        assert!(problem.starts_with("endpoints: none are set"), "{problem}");
    }
}
