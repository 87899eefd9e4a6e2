//! A Deployment with the proxy as a native sidecar, and its Secret.

use super::need::Need;
use super::request::Request;
use super::template::{comment, fill, quoted};
use crate::settings::{Elsewhere, Error, Secret, SecretOrigin, Setting, TcpAddr};

const TEMPLATE: &str = include_str!("../../assets/kubernetes.yaml");

/// Where bindings are in the container (servicebinding.io): a directory for each, a file for each entry.
const BINDINGS: &str = "/bindings";

/// YAML for `kubectl apply`.
///
/// # Errors
/// If a setting does not work in a pod.
pub(crate) fn kubernetes(request: &Request) -> Result<String, Error> {
    let elsewhere = &request.elsewhere;
    if elsewhere.settings.listen_addr.socket_path().is_some() {
        return Err(Error::new(
            Setting::ListenAddr.flag(),
            "a Unix socket needs a volume that both containers mount, which this manifest does not have: use host:port, \
             as in 127.0.0.1:2379",
        ));
    }
    let secret = Bound::of(request);
    let need = Need::of(elsewhere);
    let port = elsewhere.settings.metrics_addr.as_ref().map(TcpAddr::port);
    let metrics = |text: &dyn Fn(u16) -> String| port.map(text).unwrap_or_default();
    let bound = |text: &dyn Fn(&Bound<'_>) -> String| secret.as_ref().map(text).unwrap_or_default();
    Ok(fill(TEMPLATE, |name| match name {
        "HELP" => bound(&|secret| secret.help()),
        "SECRET" if request.with_secret => bound(&|secret| secret.manifest()),
        "SECRET" => String::new(),
        "NAME" => quoted(&request.name),
        "IMAGE" => quoted(&request.image),
        "APP_IMAGE" => quoted(&request.app_image),
        "GRACE" => need.grace.to_string(),
        "ENV" => environment(elsewhere, &need, secret.is_some()),
        "CPU" => format!("{}m", need.cpu_request),
        "MEMORY_REQUEST" => format!("{}Mi", need.memory_request),
        "MEMORY_LIMIT" => format!("{}Mi", need.memory_limit),
        "LISTEN_ADDR" => elsewhere.settings.listen_addr.to_string(),
        "ANNOTATIONS" => metrics(&|port| {
            format!("annotations:\n  prometheus.io/scrape: \"true\"\n  prometheus.io/port: \"{port}\"\n")
        }),
        "PORTS" => metrics(&|port| format!("ports:\n  - name: metrics\n    containerPort: {port}\n")),
        "MOUNTS" => {
            bound(&|_| format!("volumeMounts:\n  - name: etcd\n    mountPath: {BINDINGS}/etcd\n    readOnly: true\n"))
        }
        "VOLUMES" => bound(&|secret| {
            format!("volumes:\n  - name: etcd\n    secret:\n      secretName: {}\n", quoted(&secret.name))
        }),
        other => format!("@{other}@"),
    }))
}

/// The variables of the container, in an order in which one may refer to those before it.
fn environment(elsewhere: &Elsewhere, need: &Need, is_bound: bool) -> String {
    let mut lines = String::new();
    let mut add = |name: &str, text: &str| lines.extend([format!("- name: {name}\n  value: {}\n", quoted(text))]);
    if is_bound {
        add("SERVICE_BINDING_ROOT", BINDINGS);
    }
    let metrics_addr = Setting::MetricsAddr.variable();
    for (name, text) in need.environment(elsewhere) {
        if name != metrics_addr {
            // $(NAME) would be replaced, and $$ stands for $.
            add(name, &text.replace('$', "$$"));
        }
    }
    if let Some(addr) = &elsewhere.settings.metrics_addr {
        // The pod's own address: Prometheus cannot reach loopback, and nobody knows the address before.
        let host = if addr.host().contains(':') { "[$(POD_IP)]" } else { "$(POD_IP)" };
        let text = quoted(&format!("{host}:{}", addr.port()));
        lines.push_str("- name: POD_IP\n  valueFrom:\n    fieldRef:\n      fieldPath: status.podIP\n");
        lines.extend([format!("- name: {metrics_addr}\n  value: {text}\n")]);
    }
    lines
}

/// The Secret that the container gets as a service binding.
struct Bound<'a> {
    request: &'a Request,
    name: String,
}

impl<'a> Bound<'a> {
    /// `None` if there is nothing secret.
    fn of(request: &'a Request) -> Option<Self> {
        let name = match &request.secret {
            Some(name) => name.clone(),
            None if request.elsewhere.secrets.is_empty() => return None,
            None => format!("{}-etcd", request.name),
        };
        Some(Self { request, name })
    }

    /// How to make it.
    fn help(&self) -> String {
        let secrets = &self.request.elsewhere.secrets;
        if self.request.with_secret && !secrets.is_empty() {
            return String::new();
        }
        if secrets.is_empty() {
            return comment(&format!(
                "The Secret {} has to exist. Its entries are those of a service binding: endpoints, ca.crt, tls.crt,\n\
                 tls.key, username, password; all of them are optional.",
                self.name
            ));
        }
        let mut text = format!(
            "It needs a Secret, which is not here because it holds what others must not read. Create it first:\n\n  \
             kubectl create secret generic {}",
            self.name
        );
        for secret in secrets {
            text.extend([format!(" \\\n    {}", from_file(secret))]);
        }
        comment(&(text + "\n\n"))
    }

    /// With its content, as far as that is known.
    fn manifest(&self) -> String {
        if self.request.elsewhere.secrets.is_empty() {
            return String::new();
        }
        let mut lines =
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}\nstringData:\n", quoted(&self.name));
        for secret in &self.request.elsewhere.secrets {
            let content = self.request.elsewhere.settings.secret(secret.setting).unwrap_or_default();
            lines.extend([format!("  {}: {}\n", entry(secret.setting), quoted(content))]);
        }
        lines + "---\n"
    }
}

/// The option of `kubectl create secret generic`. A shell reads it.
fn from_file(secret: &Secret) -> String {
    let entry = entry(secret.setting);
    match &secret.origin {
        SecretOrigin::File(path) => {
            let path = shlex::try_quote(path).unwrap_or("FILE".into());
            format!("--from-file={entry}={path}")
        }
        // Not as an argument, which others on this host can read.
        SecretOrigin::Variable(name) => format!("--from-file={entry}=<(printf %s \"${name}\")"),
    }
}

/// What the setting is called in a binding, and in Secrets of the type kubernetes.io/tls.
fn entry(setting: Setting) -> &'static str {
    match setting {
        Setting::CaCert => "ca.crt",
        Setting::Cert => "tls.crt",
        Setting::Key => "tls.key",
        _ => "password",
    }
}
