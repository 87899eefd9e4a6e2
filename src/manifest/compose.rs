//! Two services that share a network namespace: the proxy, and the application.

use std::path::Path;

use super::need::Need;
use super::request::Request;
use super::template::{fill, quoted};
use crate::settings::{Error, Secret, SecretOrigin, Setting};

const TEMPLATE: &str = include_str!("../../assets/compose.yaml");

/// YAML for `docker compose`.
///
/// # Errors
/// If a setting does not work in such a container.
pub(crate) fn compose(request: &Request) -> Result<String, Error> {
    let elsewhere = &request.elsewhere;
    if elsewhere.settings.listen_addr.socket_path().is_some() {
        return Err(Error::new(
            Setting::ListenAddr.flag(),
            "a Unix socket needs a volume that both containers mount, which this file does not have: use host:port, as in \
             127.0.0.1:2379",
        ));
    }
    let need = Need::of(elsewhere);
    let secrets = &elsewhere.secrets;
    let block = |first: &str, line: &dyn Fn(&Secret) -> String| {
        let lines: String = secrets.iter().map(line).collect();
        if secrets.is_empty() { String::new() } else { format!("{first}{lines}") }
    };
    Ok(fill(TEMPLATE, |name| match name {
        "NAME" => quoted(&request.name),
        "IMAGE" => text(&request.image),
        "APP_IMAGE" => text(&request.app_image),
        "GRACE" => need.grace.to_string(),
        "MEMORY_LIMIT" => need.memory_limit.to_string(),
        "LISTEN_ADDR" => elsewhere.settings.listen_addr.to_string(),
        "ENV" => {
            let files = secrets.iter().map(|secret| {
                let (variable, name) = mounted(secret.setting);
                (variable, format!("/run/secrets/{name}"))
            });
            let all = need.environment(elsewhere).into_iter().chain(files);
            all.map(|(name, value)| format!("{name}: {}\n", text(&value))).collect()
        }
        "SECRETS" => block("# The user 65532 must be able to read their files.\nsecrets:\n", &|secret| {
            format!("  - {}\n", mounted(secret.setting).1)
        }),
        "SECRET_FILES" => block("secrets:\n", &|secret| {
            let from = match &secret.origin {
                SecretOrigin::File(path) => format!("file: {}", text(&relative(path))),
                SecretOrigin::Variable(name) => format!("environment: {name}"),
            };
            format!("  {}:\n    {from}\n", mounted(secret.setting).1)
        }),
        other => format!("@{other}@"),
    }))
}

/// A string in which compose replaces no variables.
fn text(text: &str) -> String {
    quoted(&text.replace('$', "$$"))
}

/// The variable that names the file of a secret, and the secret's name, which is also that of its file in `/run/secrets`.
fn mounted(setting: Setting) -> (&'static str, &'static str) {
    match setting {
        Setting::CaCert => (Setting::CaCert.variable(), "etcd-ca"),
        Setting::Cert => (Setting::Cert.variable(), "etcd-cert"),
        Setting::Key => (Setting::Key.variable(), "etcd-key"),
        _ => (Setting::PasswordFile.variable(), "etcd-password"),
    }
}

/// The path, so that compose knows that it is one.
fn relative(path: &str) -> String {
    if Path::new(path).is_absolute() || path.starts_with('.') { path.to_owned() } else { format!("./{path}") }
}
