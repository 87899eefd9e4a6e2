//! The values of all sources, checked.

use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;

use super::addr::ListenAddr;
use super::binding;
use super::duration::duration;
use super::endpoint::{self, Endpoint, Scheme};
use super::error::Error;
use super::mode::{Mode, Run, Wishes};
use super::pem::{Content, Pem};
use super::sources::Sources;
use super::table::Setting;
use super::tls::{Tls, check_ca, check_identity};

/// The checked settings of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one; all with the same scheme.
    pub endpoints: Vec<Endpoint>,
    pub listen_addr: ListenAddr,
    pub run: Run,
    /// Why `auto` did not choose etcd's grpc-proxy.
    pub mode_reason: Option<String>,
    /// Name of the service binding that is used.
    pub binding: Option<String>,
    pub tls: Tls,
    /// Prefix that etcd's proxy puts before every key.
    pub namespace: Option<String>,
    /// Where Prometheus metrics are served besides the listen address.
    pub metrics_addr: Option<ListenAddr>,
    pub preflight: Preflight,
    /// Memory that the proxy may use, in MiB.
    pub memory: Option<u32>,
    /// Whether etcd may reach the cluster through the HTTP proxy of the environment.
    pub use_http_proxy: bool,
    /// Problems that do not prevent a start. One line each.
    pub warnings: Vec<String>,
}

/// Whether to try the endpoints before the start, and what to do if none can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Preflight {
    /// Start anyway.
    #[default]
    Warn,
    /// Do not start.
    Strict,
    /// Do not try them.
    Off,
}

impl Preflight {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "warn" => Ok(Self::Warn),
            "strict" => Ok(Self::Strict),
            "off" => Ok(Self::Off),
            other => Err(Setting::Preflight.invalid(other)),
        }
    }
}

impl Sources {
    /// Everything that `run` needs, checked.
    ///
    /// # Errors
    /// The first setting that can never work.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        let mut warnings = self.warnings.clone();
        let listen_addr = self.listen_addr()?;
        let tls = match self.tls(&mut warnings) {
            // What time cannot mend is reported at once.
            Err(err) if err.time_can_mend() => return Err(self.endpoints(&listen_addr, true).err().unwrap_or(err)),
            tls => tls?,
        };
        let endpoints = self.endpoints(&listen_addr, tls.is_configured())?;
        if tls.is_configured() && endpoints[0].scheme == Scheme::Http {
            warnings.push(format!(
                "{} is plain http, so the configured certificates and names are not used: write https",
                endpoints[0]
            ));
        }
        let password = self.bound.as_ref().is_some_and(|bound| bound.has_password);
        let (mode, mode_reason) = self.mode(&tls, password)?;
        if password && !mode.capabilities().passwords {
            warnings.push(
                "the service binding has a password: with etcd's grpc-proxy, watches stop without an error when the \
                 token of the first login expires (after 300 s by default): use --mode tunnel"
                    .to_owned(),
            );
        }
        if !listen_addr.is_loopback() {
            warnings.push(format!(
                "{listen_addr} is not a loopback address: everyone who can reach it has this sidecar's access to the \
                 cluster"
            ));
        }
        let metrics_addr = |text: &str| match ListenAddr::parse_metrics(text)? {
            addr if addr == listen_addr => {
                Err(format!("{addr} is the address that the application connects to: choose another one"))
            }
            addr => Ok(addr),
        };
        Ok(Settings {
            endpoints,
            run: Run::new(mode, self.parsed(Setting::Drain, drain)?),
            mode_reason,
            binding: self.bound.as_ref().map(|bound| bound.name.clone()),
            tls,
            namespace: self.parsed(Setting::Namespace, |text| Ok(text.to_owned()))?,
            metrics_addr: self.parsed(Setting::MetricsAddr, metrics_addr)?,
            listen_addr,
            preflight: self.preflight()?,
            memory: self.parsed(Setting::Memory, |text| mode.memory(text))?,
            use_http_proxy: self.switch(Setting::UseHttpProxy)?,
            warnings,
        })
    }

    /// What to do before the start.
    ///
    /// # Errors
    /// If it is none of the words.
    pub(crate) fn preflight(&self) -> Result<Preflight, Error> {
        Ok(self.parsed(Setting::Preflight, Preflight::parse)?.unwrap_or_default())
    }

    fn endpoints(&self, listen_addr: &ListenAddr, tls: bool) -> Result<Vec<Endpoint>, Error> {
        let Some(value) = self.get(Setting::Endpoints) else {
            let problem = format!(
                "none are set and {}: give etcd's addresses with {} or {}, as in \
                 https://10.0.0.1:2379,https://10.0.0.2:2379",
                binding::none_is_etcd(&self.others, Setting::Service.flag()),
                Setting::Endpoints.flag(),
                Setting::Endpoints.variable()
            );
            return Err(Error::new("endpoints", problem));
        };
        let endpoints =
            endpoint::parse_list(value.text()?, Scheme::default_for(tls)).map_err(|problem| value.error(problem))?;
        match endpoints.iter().find(|endpoint| listen_addr.is_reached_by(endpoint)) {
            Some(endpoint) => Err(value.error(format_args!(
                "{endpoint} is the address the proxy itself listens on: name the cluster's members, or change {}",
                Setting::ListenAddr.flag()
            ))),
            None => Ok(endpoints),
        }
    }

    /// The mode that was chosen, or the one for `auto` and why.
    fn mode(&self, tls: &Tls, password: bool) -> Result<(Mode, Option<String>), Error> {
        let identity = tls.identity.as_ref();
        let named = identity.and_then(|it| Some((&it.cert.name, it.common_name.as_deref()?)));
        let namespace = self.get(Setting::Namespace);
        let (mode, reason) = match self.parsed(Setting::Mode, Mode::parse)?.flatten() {
            Some(mode) => (mode, None),
            None => Mode::auto(&Wishes {
                common_name: named.map(|(_, name)| name),
                server_name: tls.server_name.as_deref(),
                password,
                namespace: namespace.is_some(),
            }),
        };
        let can = mode.capabilities();
        if let Some(value) = self.get(Setting::ServerName)
            && !can.server_names
        {
            return Err(value.error(
                "etcd's grpc-proxy checks the members' certificates against the endpoints only: use --mode tunnel, or \
                 endpoints with a name that the certificates have",
            ));
        }
        match (named, namespace) {
            (Some((cert, name)), _) if !can.common_names => Err(Error::new(
                cert,
                format_args!(
                    "the client certificate has the common name {name:?}, which etcd's grpc-proxy does not accept: \
                     use --mode tunnel, or a certificate without a common name"
                ),
            )),
            (_, Some(namespace)) if !can.namespaces => Err(namespace.error(
                "the tunnel forwards bytes unchanged and cannot put a prefix before keys: remove it, or use --mode \
                 grpc-proxy (without --server-name, and without a common name in the client certificate)",
            )),
            _ => Ok((mode, reason)),
        }
    }

    fn tls(&self, warnings: &mut Vec<String>) -> Result<Tls, Error> {
        let now = SystemTime::now();
        let pem = |key, content| self.get(key).map(|value| Pem::read(&value, content)).transpose();
        let ca = pem(Setting::CaCert, Content::Authorities)?;
        if let Some(ca) = &ca {
            warnings.extend(check_ca(ca, now)?);
        }
        let lone = |has: Pem, lacks: Setting| {
            let problem = format!(
                "a client certificate and its key belong together: give the other one with {} or {}",
                lacks.flag(),
                lacks.variable()
            );
            Err(Error::new(has.name, problem))
        };
        let identity = match (pem(Setting::Cert, Content::Certificate)?, pem(Setting::Key, Content::Key)?) {
            (None, None) => None,
            (Some(cert), None) => return lone(cert, Setting::Key),
            (None, Some(key)) => return lone(key, Setting::Cert),
            (Some(cert), Some(key)) => {
                let (identity, warning) = check_identity(cert, key, now)?;
                warnings.extend(warning);
                Some(identity)
            }
        };
        Ok(Tls { ca, identity, server_name: self.parsed(Setting::ServerName, server_name)? })
    }
}

/// A name that a certificate can have.
fn server_name(text: &str) -> Result<String, String> {
    let expected = |_| format!("invalid name {text:?}: expected a host name or an IP address, as in etcd.example.org");
    ServerName::try_from(text).map(|name| name.to_str().into_owned()).map_err(expected)
}

/// `None` for `off`.
fn drain(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|expected| format!("invalid duration {text:?}: {expected}, or off"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::env::Env;
    use crate::os::log::Format;
    use crate::settings::Kind;
    use crate::settings::tls::tests::{Certificate, days};

    fn sources<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Sources {
        let env = Env::from(env);
        let flags = flags.iter().map(|(key, text)| (*key, text.into()));
        Sources::new(flags, &env).with_binding(&env).unwrap()
    }

    fn resolve<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> Settings {
        sources(flags, env).resolve().unwrap()
    }

    fn error<const N: usize>(flags: &[(Setting, &str)], env: [(&str, &str); N]) -> String {
        sources(flags, env).resolve().unwrap_err().to_string()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_binding_and_that_over_the_default() {
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"bound:1","prefix":"p/"}}]}"#;
        let env = [
            ("ETCDPROXY_ENDPOINTS", "env:2379"),
            ("ETCDPROXY_LISTEN_ADDR", "127.0.0.1:9"),
            ("VCAP_SERVICES", services),
        ];
        let settings = resolve(&[(Setting::Endpoints, "flag:2379")], env);
        assert_eq!(settings.endpoints[0].to_string(), "http://flag:2379");
        assert_eq!(settings.listen_addr.to_string(), "127.0.0.1:9");
        assert_eq!((settings.run, settings.preflight), (Run::ExecEtcd, Preflight::Warn));
        assert_eq!(resolve(&[], env).endpoints[0].to_string(), "http://env:2379");

        let settings = resolve(&[], [("VCAP_SERVICES", services)]);
        assert_eq!(settings.endpoints[0].to_string(), "http://bound:1");
        assert_eq!((settings.binding.as_deref(), settings.namespace), (Some("e"), None));
        let opted_in = [("VCAP_SERVICES", services), ("ETCDPROXY_NAMESPACE_FROM_BINDING", "1")];
        assert_eq!(resolve(&[], opted_in).namespace.as_deref(), Some("p/"));
    }

    #[test]
    fn several_bindings_do_not_matter_where_the_endpoints_are_given() {
        let services = r#"{"etcd":[{"name":"a","credentials":{"uri":"a:1","ca":"x"}},{"name":"b"}]}"#;
        let settings = resolve(&[(Setting::Endpoints, "h:1")], [("VCAP_SERVICES", services)]);
        assert_eq!(settings.binding, None);
        assert_eq!(
            settings.warnings,
            [
                "no service binding is used, because --endpoints is set and several services could be etcd (a, b): choose one with ETCDPROXY_SERVICE"
            ]
        );
    }

    #[test]
    fn a_password_in_the_binding_is_a_warning_about_watches() {
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","username":"u","password":"s3cret"}}]}"#;
        let warnings = resolve(&[(Setting::Mode, "grpc-proxy")], [("VCAP_SERVICES", services)]).warnings;
        assert!(
            warnings[0].contains("watches stop without an error") && !warnings[0].contains("s3cret"),
            "{warnings:?}"
        );
    }

    #[test]
    fn white_space_around_a_value_from_a_manifest_is_trimmed() {
        let settings = resolve(&[], [("ETCDPROXY_ENDPOINTS", " a:1 , b:2 \n"), ("ETCDPROXY_MODE", "grpc-proxy\n")]);
        let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!(settings.run.mode(), Mode::GrpcProxy);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert!(error(&[], [("ETCDPROXY_ENDPOINTS", "")]).starts_with("endpoints: none are set"));
    }

    #[test]
    fn errors_name_the_setting_as_its_user_wrote_it() {
        assert!(error(&[(Setting::Endpoints, "a")], []).starts_with("--endpoints: "));
        assert!(error(&[], [("ETCDPROXY_ENDPOINTS", "a")]).starts_with("ETCDPROXY_ENDPOINTS: "));
        for (key, text, problem) in [
            (Setting::Mode, "fast", "--mode: invalid mode \"fast\": expected auto, grpc-proxy or tunnel"),
            (Setting::Preflight, "yes", "--preflight: invalid preflight \"yes\": expected warn, strict or off"),
            (Setting::Drain, "8", "--drain: invalid duration \"8\": expected a number with a unit, as in 8s, or off"),
            (Setting::Memory, "1", "--memory: \"1\" is too little: mode grpc-proxy needs at least 32 MB"),
            (Setting::Memory, "1G", "--memory: invalid memory \"1G\": expected a number of MB, as in 64"),
            (Setting::UseHttpProxy, "yes", "ETCDPROXY_USE_HTTP_PROXY: invalid value \"yes\": expected true or false"),
        ] {
            assert_eq!(error(&[(Setting::Endpoints, "a:1"), (key, text)], []), problem);
        }
        let found = sources(&[(Setting::LogFormat, "xml")], []).log_format().unwrap_err().to_string();
        assert_eq!(found, "--log-format: invalid log format \"xml\": expected text, json or raw");
    }

    #[test]
    fn the_proxy_is_not_its_own_cluster() {
        for own in ["127.0.0.1:2379", "http://localhost:2379", "[::1]:2379", "0.0.0.0:2379", "[::ffff:127.0.0.1]:2379"]
        {
            assert!(error(&[(Setting::Endpoints, own)], []).contains("the proxy itself"), "{own}");
        }
        for other in ["127.0.0.1:2380", "127.0.0.2:2379"] {
            assert!(sources(&[(Setting::Endpoints, other)], []).resolve().is_ok());
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_key_its_certificate() {
        let pair = Certificate::new(None, days(-1), days(365));
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_CERT", &pair.cert)]);
        assert_eq!(
            problem,
            "ETCDPROXY_CERT: a client certificate and its key belong together: give the other one with --key or \
             ETCDPROXY_KEY"
        );
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_KEY", &pair.key)]);
        assert!(problem.starts_with("ETCDPROXY_KEY: ") && problem.contains("--cert"), "{problem}");
    }

    #[test]
    fn a_common_name_is_refused_with_the_remedy() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Mode, "grpc-proxy")], env);
        assert!(problem.starts_with("ETCDPROXY_CERT: the client certificate has the common name \"app\""), "{problem}");
        assert!(problem.contains("--mode tunnel"), "{problem}");
    }

    #[test]
    fn auto_takes_the_tunnel_where_etcds_proxy_cannot_serve() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let settings = resolve(&[(Setting::Endpoints, "a:1")], env);
        assert_eq!(settings.run, Run::Tunnel { drain: Duration::from_secs(8) });
        assert!(settings.mode_reason.unwrap().contains("\"app\""));
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/")], env);
        assert!(problem.starts_with("--namespace: the tunnel forwards bytes unchanged"), "{problem}");

        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","password":"s3cret"}}]}"#;
        let bound = [("VCAP_SERVICES", services)];
        let settings = resolve(&[], bound);
        assert_eq!((settings.run.mode(), settings.warnings.len()), (Mode::Tunnel, 0));
        assert_eq!(resolve(&[(Setting::Namespace, "p/")], bound).run, Run::ExecEtcd);
        let settings = resolve(&[(Setting::Mode, "grpc-proxy")], bound);
        assert_eq!((settings.run, settings.warnings.len()), (Run::ExecEtcd, 1));
        let off = resolve(&[(Setting::Mode, "tunnel"), (Setting::Drain, "off")], bound);
        assert_eq!((off.mode_reason, off.run), (None, Run::Tunnel { drain: Duration::ZERO }));
    }

    #[test]
    fn a_server_name_is_for_the_tunnel() {
        let name = (Setting::ServerName, "etcd.example");
        let settings = resolve(&[(Setting::Endpoints, "a:1"), name], []);
        assert_eq!((settings.run.mode(), settings.endpoints[0].scheme), (Mode::Tunnel, Scheme::Https));
        assert_eq!(settings.tls.server_name.as_deref(), Some("etcd.example"));
        assert!(settings.mode_reason.unwrap().contains("\"etcd.example\""));
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Mode, "grpc-proxy"), name], []);
        assert!(problem.starts_with("--server-name: etcd's grpc-proxy checks"), "{problem}");
        assert!(problem.contains("--mode tunnel"), "{problem}");
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/"), name], []);
        assert!(problem.starts_with("--namespace: the tunnel forwards bytes unchanged"), "{problem}");
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_SERVER_NAME", "https://h:1")]);
        assert_eq!(
            problem,
            "ETCDPROXY_SERVER_NAME: invalid name \"https://h:1\": expected a host name or an IP address, as in \
             etcd.example.org"
        );
        for credentials in [r#""server_name":"n""#, r#""tls":{"server-name":"n"}"#] {
            let services = format!(r#"{{"etcd":[{{"name":"e","credentials":{{"uri":"h:1",{credentials}}}}}]}}"#);
            let settings = resolve(&[], [("VCAP_SERVICES", services.as_str())]);
            assert_eq!(settings.tls.server_name.as_deref(), Some("n"), "{services}");
        }
    }

    #[test]
    fn what_time_cannot_mend_is_reported_before_a_file_that_is_not_there() {
        let missing = (Setting::CaCert, "/no/such.pem");
        let found = sources(&[(Setting::Endpoints, "a:1,https://b:1"), missing], []).resolve().unwrap_err();
        assert!(found.time_can_mend(), "{found}");
        let found = sources(&[(Setting::Endpoints, "a"), missing], []).resolve().unwrap_err();
        assert!(!found.time_can_mend() && found.to_string().contains("has no port"), "{found}");
    }

    #[test]
    fn endpoints_use_tls_when_it_is_configured() {
        let ca = Certificate::new(None, days(-1), days(365)).cert;
        let with = |endpoint| resolve(&[(Setting::Endpoints, endpoint)], [("ETCDPROXY_CACERT", &ca)]);
        let bare = with("a:1");
        assert_eq!((bare.endpoints[0].to_string().as_str(), &bare.warnings[..]), ("https://a:1", &[][..]));
        assert!(with("http://a:1").warnings[0].contains("the configured certificates and names are not used"));
    }

    #[test]
    fn metrics_may_be_given_as_a_url() {
        for text in ["127.0.0.1:9", "http://127.0.0.1:9"] {
            let settings = resolve(&[(Setting::Endpoints, "a:1"), (Setting::MetricsAddr, text)], []);
            assert_eq!(settings.metrics_addr.unwrap().to_string(), "127.0.0.1:9");
        }
    }

    #[test]
    fn supervising_is_switched_on_and_off() {
        let run = |text| resolve(&[(Setting::Endpoints, "a:1"), (Setting::Drain, text)], []).run;
        assert_eq!(run("8s"), Run::SuperviseEtcd { drain: Duration::from_secs(8) });
        assert_eq!(run("0s"), Run::SuperviseEtcd { drain: Duration::ZERO });
        assert_eq!(run("off"), Run::ExecEtcd);
        let Run::SuperviseEtcd { drain: longest } = run("300000000000y") else { panic!("not supervised") };
        assert!(std::time::Instant::now().checked_add(longest).is_some());
    }

    #[test]
    fn the_defaults_are_those_of_the_table() {
        let nothing = resolve(&[(Setting::Endpoints, "a:1")], []);
        for setting in [Setting::ListenAddr, Setting::Mode, Setting::Preflight, Setting::LogFormat] {
            let flags = [(Setting::Endpoints, "a:1"), (setting, setting.default().unwrap())];
            assert_eq!(resolve(&flags, []), nothing, "{setting:?}");
            assert_eq!(sources(&flags, []).log_format(), Ok(Format::default()));
        }
    }

    #[test]
    fn every_word_of_the_table_is_a_value() {
        for setting in Setting::ALL {
            let Kind::Choice(_, words) = setting.kind() else { continue };
            for word in words {
                let sources = sources(&[(Setting::Endpoints, "a:1"), (*setting, word)], []);
                assert!(sources.resolve().is_ok() && sources.log_format().is_ok(), "{setting:?} {word}");
            }
        }
    }
}
