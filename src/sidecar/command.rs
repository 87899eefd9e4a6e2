//! Settings to the command line of `etcd grpc-proxy start`.

use std::ffi::OsString;

use crate::release::Release;
use crate::settings::Settings;

/// Arguments (`argv[1..]`) of the etcd that `release` carries.
pub(crate) fn grpc_proxy(settings: &Settings, release: &Release, extra: &[OsString]) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["grpc-proxy".into(), "start".into()];
    let mut flag = |name: &str, value: OsString| {
        let mut arg = OsString::from(format!("--{name}="));
        arg.push(value);
        args.push(arg);
    };
    let Settings { endpoints, listen_addr, tls, namespace, metrics_addr, mode: _ } = settings;
    flag("listen-addr", listen_addr.to_string().into());
    // Anything else than the listen address makes 3.5 and 3.6 exit after 5 s and 3.7 unhealthy for ever.
    flag("advertise-client-url", listen_addr.to_string().into());
    // No space after the comma: it would silently break the endpoint.
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    flag("endpoints", endpoints.join(",").into());
    // Without keepalive a hung member hangs its clients for as long as it hangs. 10 s is the least grpc-go takes.
    // The flags came with 3.5.13.
    if release.is_at_least([3, 5, 13]) {
        flag("dial-keepalive-time", "10s".into());
        flag("dial-keepalive-timeout", "3s".into());
    }
    for (name, file) in [("cacert", &tls.ca_cert), ("cert", &tls.cert), ("key", &tls.key)] {
        if let Some(file) = file {
            flag(name, file.into());
        }
    }
    if let Some(namespace) = namespace {
        flag("namespace", namespace.into());
    }
    if let Some(addr) = metrics_addr {
        flag("metrics-addr", format!("http://{addr}").into());
    }
    args.extend(extra.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Endpoint, ListenAddr, Mode, Tls};

    #[test]
    fn every_setting_has_its_flag_and_what_is_not_set_has_none() {
        let mut settings = Settings {
            endpoints: vec![Endpoint::loopback(1), Endpoint::loopback(2)],
            listen_addr: ListenAddr::default(),
            mode: Mode::Auto,
            tls: Tls::default(),
            namespace: None,
            metrics_addr: None,
        };
        let minimal = [
            "grpc-proxy",
            "start",
            "--listen-addr=127.0.0.1:2379",
            "--advertise-client-url=127.0.0.1:2379",
            "--endpoints=http://127.0.0.1:1,http://127.0.0.1:2",
            "--dial-keepalive-time=10s",
            "--dial-keepalive-timeout=3s",
        ];
        let release = |version| Release { version, arch: "amd64", origin: "", id: "", programs: &[] };
        let current = release("3.7.2");
        assert_eq!(grpc_proxy(&settings, &current, &[]), minimal);
        assert_eq!(grpc_proxy(&settings, &release("3.5.1"), &[]), minimal[..5]);

        settings.tls = Tls { ca_cert: Some("ca".into()), cert: Some("c".into()), key: Some("k".into()) };
        settings.namespace = Some("app/".to_owned());
        settings.metrics_addr = Some(ListenAddr::loopback(9));
        let more =
            ["--cacert=ca", "--cert=c", "--key=k", "--namespace=app/", "--metrics-addr=http://127.0.0.1:9", "--debug"];
        assert_eq!(grpc_proxy(&settings, &current, &["--debug".into()]), [&minimal[..], &more].concat());
    }
}
