//! The values of all sources, checked.

use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;

use super::addr::{ListenAddr, TcpAddr};
use super::binding;
use super::duration::duration;
use super::endpoint::{self, Endpoint, Scheme};
use super::error::Error;
use super::host_port;
use super::login::{Login, Prefer, keeps_urls};
use super::mode::{Demands, Mode, NO_ETCD, Run};
use super::pem::{Content, Pem};
use super::shown::{Outcome, Shown};
use super::sources::{Origin, Sources, Value};
use super::table::{Setting, switch};
use super::tls::{Tls, check_ca, check_identity};

/// The checked settings of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// All with the same scheme. Empty only if `discovery_srv` is set.
    pub endpoints: Vec<Endpoint>,
    /// The domain whose SRV records name the members.
    pub discovery_srv: Option<String>,
    /// The name of the setting that names the members, as its user knows it.
    pub members_from: String,
    pub listen_addr: ListenAddr,
    pub run: Run,
    /// Why `auto` chose the mode, or what the mode that it chose cannot do.
    pub mode_reason: Option<String>,
    /// Name of the service binding that is used.
    pub binding: Option<String>,
    pub tls: Tls,
    /// Prefix that the proxy puts before every key.
    pub namespace: Option<String>,
    /// Calls that see or change more than the namespace are allowed.
    pub namespace_admin: bool,
    /// The user that calls without a token act as.
    pub login: Option<Login>,
    /// Which member serves calls.
    pub prefer: Prefer,
    /// Lists of members show the members' own client URLs.
    pub keeps_member_urls: bool,
    /// Where Prometheus metrics are served besides the listen address.
    pub metrics_addr: Option<TcpAddr>,
    pub preflight: Preflight,
    /// Memory that the proxy may use, in MiB.
    pub memory: Option<u32>,
    /// The variable with the HTTP proxy through which etcd may reach the cluster.
    pub http_proxy: Option<&'static str>,
    /// Problems that do not prevent a start. One line each.
    pub warnings: Vec<String>,
    /// The settings in effect as people may see them.
    pub shown: Vec<Shown>,
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
            // In a manifest, YAML turns `off` into `false`.
            off if switch(off) == Some(false) => Ok(Self::Off),
            other => Err(Setting::Preflight.invalid(other)),
        }
    }
}

/// What the cluster's members are called.
struct Cluster {
    endpoints: Vec<Endpoint>,
    discovery_srv: Option<String>,
    /// The name of the setting.
    name: String,
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
            Err(err) if err.time_can_mend() => return Err(self.cluster(&listen_addr, true).err().unwrap_or(err)),
            tls => tls?,
        };
        let Cluster { endpoints, discovery_srv, name: members_from } =
            self.cluster(&listen_addr, tls.is_configured())?;
        if let Some(first) = endpoints.first()
            && tls.is_configured()
            && first.scheme == Scheme::Http
        {
            warnings.push(format!(
                "{first} is plain http, so the configured certificates and names are not used: write https"
            ));
        }
        let password = self.bound.as_ref().is_some_and(|bound| bound.has_password);
        let use_http_proxy = self.switch(Setting::UseHttpProxy)?;
        let http_proxy = self.http_proxy.filter(|_| use_http_proxy);
        let (mode, mode_reason) = self.mode(&tls, password, discovery_srv.is_some(), http_proxy, &listen_addr)?;
        if password && !mode.capabilities().passwords {
            let native = self.origin(Setting::Mode).assignment(Setting::Mode, "native");
            warnings.push(format!(
                "the service binding has a password: with etcd's grpc-proxy, watches stop without an error when the \
                 token of the first login expires (after 300 s by default): use {native}"
            ));
        }
        let listen_addr = choose(listen_addr, mode, &mut warnings);
        let metrics_addr = self.metrics_addr()?;
        if let (Some(addr), Some(value)) = (&metrics_addr, self.get(Setting::MetricsAddr))
            && listen_addr.overlaps(addr)
        {
            let problem = format!("{addr} is the address that the application connects to: choose another one");
            return Err(value.error(problem));
        }
        let run = Run::new(mode, self.parsed(Setting::Drain, drain)?);
        let namespace = self.parsed(Setting::Namespace, |text| Ok(text.to_owned()))?;
        let preflight = self.preflight()?;
        let memory = self.parsed(Setting::Memory, |text| mode.memory(text))?;
        let prefer = self.parsed(Setting::Prefer, Prefer::parse)?.unwrap_or_default();
        let keeps_member_urls = self.parsed(Setting::MemberUrls, keeps_urls)?.unwrap_or_default();
        let namespace_admin = self.switch(Setting::NamespaceAdmin)?;
        if let Some(admin) = self.get(Setting::NamespaceAdmin)
            && namespace_admin
            && namespace.is_none()
        {
            let needed = admin.origin.name_of(Setting::Namespace);
            warnings.push(format!("{} changes nothing, because there is no {needed}", admin.name));
        }
        // Last, because its file may come late: what time cannot mend is reported at once.
        let login = if mode.capabilities().logins { self.login(&mut warnings)? } else { None };
        let outcome = Outcome { run, tls: &tls, endpoints: &endpoints, logs_in: login.is_some() };
        let shown = self.shown(&outcome);
        Ok(Settings {
            endpoints,
            discovery_srv,
            members_from,
            run,
            mode_reason,
            binding: self.bound.as_ref().map(|bound| bound.name.clone()),
            tls,
            namespace,
            namespace_admin,
            login,
            prefer,
            keeps_member_urls,
            metrics_addr,
            listen_addr,
            preflight,
            memory,
            http_proxy,
            warnings,
            shown,
        })
    }

    /// What to do before the start.
    ///
    /// # Errors
    /// If it is none of the words.
    pub(crate) fn preflight(&self) -> Result<Preflight, Error> {
        Ok(self.parsed(Setting::Preflight, Preflight::parse)?.unwrap_or_default())
    }

    /// The endpoints, or the domain whose SRV records name the members.
    fn cluster(&self, listen_addr: &ListenAddr, tls: bool) -> Result<Cluster, Error> {
        let Some((setting, value)) = self.members()? else {
            let problem = format!(
                "none are set and {}: give etcd's addresses with {} or {}, as in \
                 https://10.0.0.1:2379,https://10.0.0.2:2379",
                binding::none_is_etcd(&self.others, Setting::Service.variable()),
                Setting::Endpoints.flag(),
                Setting::Endpoints.variable()
            );
            return Err(Error::new("endpoints", problem));
        };
        let name = value.name.clone();
        if setting == Setting::DiscoverySrv {
            let domain = host_port::domain(value.text()?).map_err(|problem| value.invalid(problem))?;
            return Ok(Cluster { endpoints: Vec::new(), discovery_srv: Some(domain), name });
        }
        let endpoints =
            endpoint::parse_list(value.text()?, Scheme::default_for(tls)).map_err(|problem| value.invalid(problem))?;
        match endpoints.iter().find(|endpoint| listen_addr.is_reached_by(endpoint)) {
            Some(endpoint) => Err(value.error(format_args!(
                "{endpoint} is the address the proxy itself listens on: name the cluster's members, or change {}",
                self.get(Setting::ListenAddr).unwrap_or(value.clone()).origin.name_of(Setting::ListenAddr)
            ))),
            None => Ok(Cluster { endpoints, discovery_srv: None, name }),
        }
    }

    /// The source of a setting. The environment, if it is not set.
    fn origin(&self, setting: Setting) -> Origin {
        self.get(setting).map_or(Origin::Environment, |value| value.origin)
    }

    /// A setting that is about single calls.
    fn about_calls(&self) -> Result<Option<Value>, Error> {
        let admin = self.switch(Setting::NamespaceAdmin)?;
        let given = [Setting::Prefer, Setting::MemberUrls].into_iter().find_map(|setting| self.get(setting));
        Ok(given.or_else(|| self.get(Setting::NamespaceAdmin).filter(|_| admin)))
    }

    /// What etcd's grpc-proxy, which `auto` chose, cannot do.
    fn limits(&self) -> String {
        let origin = self.get(Setting::Mode).or_else(|| self.members().ok().flatten().map(|(_, value)| value));
        let native = origin.map_or(Origin::Environment, |value| value.origin).assignment(Setting::Mode, "native");
        format!("JSON clients, and some libraries' leases and locks, do not work through it, but with {native} they do")
    }

    /// The mode for `auto`, with why, or with what it cannot do.
    fn auto(&self, demands: Demands<'_>) -> (Mode, Option<String>) {
        let (mode, why) = Mode::auto(demands);
        let limits = || (mode == Mode::GrpcProxy).then(|| self.limits());
        (mode, why.or_else(limits))
    }

    /// The mode that was chosen, or the one for `auto` and why.
    fn mode(
        &self,
        tls: &Tls,
        password: bool,
        srv: bool,
        http_proxy: Option<&str>,
        listen_addr: &ListenAddr,
    ) -> Result<(Mode, Option<String>), Error> {
        let identity = tls.identity.as_ref();
        let named = identity.and_then(|it| Some((&it.cert.name, it.common_name.as_deref()?)));
        let unix_socket = listen_addr.socket_path().is_some();
        let login = self.wants_login();
        let about_calls = self.about_calls()?;
        let (mode, reason) = match self.parsed(Setting::Mode, Mode::parse)?.flatten() {
            Some(mode) => (mode, None),
            None => self.auto(Demands {
                common_name: named.map(|(_, name)| name),
                server_name: tls.server_name.as_deref(),
                password,
                login: login.as_ref().map(|value| value.name.as_str()),
                about_calls: about_calls.as_ref().map(|value| value.name.as_str()),
                only_etcd: http_proxy.is_some(),
                srv,
                no_etcd: !self.has_etcd,
                unix_socket,
            }),
        };
        let can = mode.capabilities();
        let native = self.origin(Setting::Mode).assignment(Setting::Mode, "native");
        if can.runs_etcd
            && !self.has_etcd
            && let Some(chosen) = self.get(Setting::Mode)
        {
            return Err(chosen.error(format_args!(
                "{NO_ETCD}, which mode {mode} needs: use {native}, or a build with etcd (on Cloud Foundry, stage \
                 without BP_ETCDPROXY_MODE)"
            )));
        }
        if unix_socket
            && !can.unix_sockets
            && let Some(value) = self.get(Setting::ListenAddr)
        {
            return Err(value.error(format_args!(
                "etcd's grpc-proxy cannot listen on a Unix socket: use {native}, or write host:port, as in \
                 127.0.0.1:2379"
            )));
        }
        if let Some(value) = self.get(Setting::ServerName)
            && !can.server_names
        {
            return Err(value.error(format_args!(
                "etcd's grpc-proxy checks the members' certificates against the endpoints only: use {native}, or \
                 endpoints with a name that the certificates have"
            )));
        }
        if let Some((cert, name)) = named
            && !can.common_names
        {
            return Err(Error::new(
                cert,
                format_args!(
                    "the client certificate has the common name {name:?}, which etcd's grpc-proxy does not accept: \
                     use {native}, or a certificate without a common name"
                ),
            ));
        }
        if let Some(value) = login.filter(|_| !can.logins) {
            return Err(
                value.error(format_args!("mode {mode} does not log in for clients: remove it, or use {native}"))
            );
        }
        if let Some(value) = about_calls.filter(|_| !can.sees_calls) {
            return Err(value.error(format_args!("mode {mode} does not have this setting: remove it, or use {native}")));
        }
        if let (Some(variable), Some(switch)) = (http_proxy, self.get(Setting::UseHttpProxy))
            && !can.http_proxies
        {
            // Whoever has not chosen a mode uses the source of the other setting.
            let origin = self.get(Setting::Mode).map_or(switch.origin, |mode| mode.origin);
            let grpc_proxy = origin.assignment(Setting::Mode, "grpc-proxy");
            let server_name = origin.name_of(Setting::ServerName);
            let otherwise = if self.has_etcd {
                format!("{grpc_proxy} (without {server_name}, and without a common name in the client certificate)")
            } else {
                format!("a build with etcd, and {grpc_proxy}: {NO_ETCD}")
            };
            return Err(switch.error(format_args!(
                "mode {mode} connects to the members itself, not through {variable}: remove it, or use {otherwise}"
            )));
        }
        Ok((mode, reason))
    }

    fn tls(&self, warnings: &mut Vec<String>) -> Result<Tls, Error> {
        let now = SystemTime::now();
        let pem = |key, content| self.get(key).map(|value| Pem::read(&value, content)).transpose();
        let ca = pem(Setting::CaCert, Content::Authorities)?;
        if let Some(ca) = &ca {
            warnings.extend(check_ca(ca, now)?);
        }
        let lone = |has: Setting, pem: Pem, lacks: Setting| {
            let lacks = self.origin(has).name_of(lacks);
            let problem = format!("a client certificate and its key belong together: give the other one with {lacks}");
            Err(Error::new(pem.name, problem))
        };
        let identity = match (pem(Setting::Cert, Content::Certificate)?, pem(Setting::Key, Content::Key)?) {
            (None, None) => None,
            (Some(cert), None) => return lone(Setting::Cert, cert, Setting::Key),
            (None, Some(key)) => return lone(Setting::Key, key, Setting::Cert),
            (Some(cert), Some(key)) => {
                let (identity, warning) = check_identity(cert, key, now)?;
                warnings.extend(warning);
                Some(identity)
            }
        };
        Ok(Tls { ca, identity, server_name: self.parsed(Setting::ServerName, server_name)? })
    }
}

impl Settings {
    /// The same settings with the addresses that the name to listen on has, and the warnings that these cause.
    pub(crate) fn with_listen_addr(&self, looked_up: ListenAddr) -> Self {
        let mut settings = self.clone();
        settings.listen_addr = choose(looked_up, self.run.mode(), &mut settings.warnings);
        settings
    }
}

/// The address to listen on: one of several for etcd, which takes no more.
fn choose(addr: ListenAddr, mode: Mode, warnings: &mut Vec<String>) -> ListenAddr {
    let single = addr.single().filter(|_| mode.capabilities().runs_etcd);
    if let Some(single) = &single {
        warnings.push(format!(
            "{addr} means several addresses, and etcd's grpc-proxy listens on one of them, {single}: use {single}, or \
             mode native, which listens on all"
        ));
    }
    let addr = single.unwrap_or(addr);
    warnings.extend(addr.exposure());
    addr
}

/// A name that a certificate can have.
fn server_name(text: &str) -> Result<String, String> {
    let expected = |_| format!("invalid name {text:?}: expected a host name or an IP address, as in etcd.example.org");
    ServerName::try_from(text).map(|name| name.to_str().into_owned()).map_err(expected)
}

/// `None` for `off`.
fn drain(text: &str) -> Result<Option<Duration>, String> {
    // In a manifest, YAML turns `off` into `false`.
    if switch(text) == Some(false) && text != "0" {
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
    fn the_first_source_with_endpoints_or_an_srv_domain_names_the_members() {
        let srv = r#"{"etcd":[{"name":"e","credentials":{"srv":"bound.example"}}]}"#;
        let uri = r#"{"etcd":[{"name":"e","credentials":{"uri":"bound:1"}}]}"#;
        let (flag, endpoint) = ((Setting::DiscoverySrv, "flag.example"), (Setting::Endpoints, "flag:1"));
        for (flags, env, services, expected) in [
            (None, None, srv, "bound.example"),
            (None, None, uri, "http://bound:1"),
            (None, Some(("ETCDPROXY_ENDPOINTS", "env:1")), srv, "http://env:1"),
            (None, Some(("ETCDPROXY_DISCOVERY_SRV", "env.example.")), uri, "env.example"),
            (Some(flag), Some(("ETCDPROXY_ENDPOINTS", "env:1")), uri, "flag.example"),
            (Some(endpoint), Some(("ETCDPROXY_DISCOVERY_SRV", "env.example")), srv, "http://flag:1"),
        ] {
            let env = [env.unwrap_or(("X", "")), ("VCAP_SERVICES", services)];
            let settings = resolve(flags.as_slice(), env);
            let named = settings.endpoints.iter().map(ToString::to_string).chain(settings.discovery_srv);
            assert_eq!(named.collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn endpoints_and_an_srv_domain_in_one_source_are_an_error() {
        let both = [(Setting::Endpoints, "a:1"), (Setting::DiscoverySrv, "example.com")];
        let problem = |env: &[(&str, &str)], flags: &[(Setting, &str)]| {
            let env: Env = env.iter().copied().collect();
            let sources = Sources::new(flags.iter().map(|(key, text)| (*key, text.into())), &env);
            sources.with_binding(&env).and_then(|sources| sources.resolve()).unwrap_err().to_string()
        };
        let members = "names the cluster's members too";
        assert_eq!(problem(&[], &both), format!("--discovery-srv: --endpoints {members}: remove one"));
        assert_eq!(
            problem(&[("ETCDPROXY_ENDPOINTS", "a:1"), ("ETCDPROXY_DISCOVERY_SRV", "b")], &[]),
            format!("ETCDPROXY_DISCOVERY_SRV: ETCDPROXY_ENDPOINTS {members}: remove one")
        );
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"a:1","srv":"b"}}]}"#;
        let bound = [("VCAP_SERVICES", services)];
        assert!(problem(&bound, &[]).ends_with(&format!("{members}: choose with ETCDPROXY_ENDPOINTS")));
        let flag = [(Setting::DiscoverySrv, "c")];
        assert_eq!(resolve(&flag, bound).discovery_srv.as_deref(), Some("c"));
        for (domain, problem) in [
            ("a b", "it contains ' '"),
            ("https://u:s3cret@a", "it contains ':': write only the domain, as in example.com"),
            ("a:1", "it contains ':'"),
            (".", "it is not a domain"),
        ] {
            let found = error(&[(Setting::DiscoverySrv, domain)], []);
            assert!(found.starts_with("--discovery-srv: ") && found.contains(problem), "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
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
            (Setting::Mode, "fast", "--mode: invalid mode \"fast\": expected auto, grpc-proxy or native"),
            (Setting::Preflight, "yes", "--preflight: invalid preflight \"yes\": expected warn, strict or off"),
            (Setting::Drain, "8", "--drain: invalid duration \"8\": expected a number with a unit, as in 8s, or off"),
            (Setting::Memory, "1", "--memory: \"1\" is too little: mode grpc-proxy needs at least 32 MB"),
            (Setting::Memory, "1T", "--memory: invalid memory \"1T\": expected a number of MB, as in 64"),
            (Setting::UseHttpProxy, "x", "ETCDPROXY_USE_HTTP_PROXY: invalid value \"x\": expected true or false"),
        ] {
            assert_eq!(error(&[(Setting::Endpoints, "a:1"), (key, text)], []), problem);
        }
        let found = sources(&[(Setting::LogFormat, "xml")], []).log_format().unwrap_err().to_string();
        assert_eq!(found, "--log-format: invalid log format \"xml\": expected text, json or raw");
    }

    #[test]
    fn a_value_that_a_flag_does_not_take_is_usage_and_what_cannot_work_is_not() {
        let is_usage = |flags: &[(Setting, &str)], env: &[(&str, &str)]| {
            let env: Env = env.iter().copied().collect();
            let sources = Sources::new(flags.iter().map(|(key, text)| (*key, text.into())), &env);
            sources.with_binding(&env).and_then(|sources| sources.resolve()).unwrap_err().is_usage()
        };
        let endpoint = (Setting::Endpoints, "a:1");
        for (setting, text) in [
            (Setting::ListenAddr, "1"),
            (Setting::Mode, "fast"),
            (Setting::MetricsAddr, "x"),
            (Setting::Preflight, "yes"),
            (Setting::Memory, "1"),
            (Setting::Drain, "8"),
        ] {
            assert!(is_usage(&[endpoint, (setting, text)], &[]), "{setting:?}");
            assert!(!is_usage(&[endpoint], &[(setting.variable(), text)]), "{setting:?}");
        }
        assert!(is_usage(&[(Setting::Endpoints, "a")], &[]));
        assert!(is_usage(&[(Setting::DiscoverySrv, "a:1")], &[]));
        for flags in [
            &[][..],
            &[endpoint, (Setting::DiscoverySrv, "a")],
            &[(Setting::Endpoints, "127.0.0.1:2379")],
            &[endpoint, (Setting::MetricsAddr, "127.0.0.1:2379")],
            &[endpoint, (Setting::Service, "x")],
            &[endpoint, (Setting::CaCert, "/no/such.pem")],
            &[endpoint, (Setting::Mode, "grpc-proxy"), (Setting::Prefer, "leader")],
        ] {
            assert!(!is_usage(flags, &[]), "{flags:?}");
        }
    }

    #[test]
    fn a_remedy_is_in_the_words_of_the_source() {
        let own = "127.0.0.1:2379";
        let change = |flags: &[(Setting, &str)], env: &[(&str, &str)]| {
            let env: Env = env.iter().copied().collect();
            let sources = Sources::new(flags.iter().map(|(key, text)| (*key, text.into())), &env);
            sources.with_binding(&env).and_then(|sources| sources.resolve()).unwrap_err().to_string()
        };
        let listen = ("ETCDPROXY_LISTEN_ADDR", own);
        assert!(change(&[(Setting::Endpoints, own)], &[]).ends_with(", or change --listen-addr"));
        assert!(change(&[(Setting::Endpoints, own)], &[listen]).ends_with(", or change ETCDPROXY_LISTEN_ADDR"));
        assert!(change(&[], &[("ETCDPROXY_ENDPOINTS", own)]).ends_with(", or change ETCDPROXY_LISTEN_ADDR"));
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"127.0.0.1:2379"}}]}"#;
        let found = change(&[], &[("VCAP_SERVICES", services)]);
        assert!(found.starts_with("service binding \"e\", uri: "), "{found}");
        assert!(found.ends_with(", or change ETCDPROXY_LISTEN_ADDR"), "{found}");

        let mode = (Setting::Mode, "grpc-proxy");
        let (endpoint, prefer) = ((Setting::Endpoints, "a:1"), (Setting::Prefer, "leader"));
        assert!(change(&[endpoint, mode, prefer], &[]).ends_with("or use --mode native"));
        let by_env = [("ETCDPROXY_MODE", "grpc-proxy"), ("ETCDPROXY_PREFER", "leader")];
        assert!(change(&[endpoint], &by_env).ends_with("or use ETCDPROXY_MODE=native"));
    }

    #[test]
    fn an_http_proxy_needs_etcds_proxy() {
        let wanted = [("ETCDPROXY_USE_HTTP_PROXY", "Yes"), ("HTTPS_PROXY", "http://u:s3cret@p:1")];
        let endpoint = (Setting::Endpoints, "a:1");
        assert_eq!(resolve(&[endpoint], wanted).http_proxy, Some("HTTPS_PROXY"));
        let problem = error(&[endpoint, (Setting::Mode, "native")], wanted);
        assert_eq!(
            problem,
            "ETCDPROXY_USE_HTTP_PROXY: mode native connects to the members itself, not through HTTPS_PROXY: remove it, \
             or use --mode grpc-proxy (without --server-name, and without a common name in the client certificate)"
        );
        let small = Sources::new([(endpoint.0, endpoint.1.into())], &Env::from(wanted)).with_etcd(false);
        let problem = small.resolve().unwrap_err().to_string();
        assert!(
            problem.ends_with("use a build with etcd, and ETCDPROXY_MODE=grpc-proxy: this launcher has no etcd"),
            "{problem}"
        );
        // Without a proxy, the switch changes nothing.
        let switch_only = [("ETCDPROXY_USE_HTTP_PROXY", "1")];
        assert_eq!(resolve(&[endpoint, (Setting::Mode, "native")], switch_only).run.mode(), Mode::Native);
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","password":"s3cret"}}]}"#;
        let settings = resolve(&[], [wanted[0], wanted[1], ("VCAP_SERVICES", services)]);
        assert_eq!((settings.run, settings.warnings.len()), (Run::ExecEtcd, 1));
        assert!(settings.warnings[0].ends_with(": use ETCDPROXY_MODE=native"), "{:?}", settings.warnings);
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [wanted[0], wanted[1], ("ETCDPROXY_CERT", &pair.cert), ("ETCDPROXY_KEY", &pair.key)];
        let problem = error(&[endpoint], env);
        assert!(problem.starts_with("ETCDPROXY_USE_HTTP_PROXY: mode native connects"), "{problem}");
        assert!(problem.contains("use ETCDPROXY_MODE=grpc-proxy"), "{problem}");
    }

    #[test]
    fn words_in_any_case_and_what_yaml_makes_of_off() {
        let with = |setting, text| resolve(&[(Setting::Endpoints, "a:1"), (setting, text)], []);
        for native in ["native", "Native"] {
            assert_eq!(with(Setting::Mode, native).run.mode(), Mode::Native, "{native}");
        }
        assert_eq!(with(Setting::Preflight, "STRICT").preflight, Preflight::Strict);
        for off in ["off", "Off", "false", "no"] {
            assert_eq!(with(Setting::Preflight, off).preflight, Preflight::Off, "{off}");
            assert_eq!(with(Setting::Drain, off).run, Run::ExecEtcd, "{off}");
        }
        assert_eq!(with(Setting::Memory, "64MB").memory, Some(64));
    }

    #[test]
    fn settings_about_calls_and_logins_are_for_native() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "pw").unwrap();
        let endpoint = (Setting::Endpoints, "a:1");
        let given = [
            (Setting::Prefer, "leader"),
            (Setting::MemberUrls, "keep"),
            (Setting::NamespaceAdmin, "true"),
            (Setting::Username, "app"),
            (Setting::PasswordFile, file.to_str().unwrap()),
        ];
        for (setting, text) in given {
            let more = match setting {
                Setting::Username => (Setting::Password, "pw"),
                Setting::PasswordFile => (Setting::Username, "app"),
                _ => endpoint,
            };
            let settings = resolve(&[endpoint, (setting, text), more], []);
            assert_eq!(settings.run.mode(), Mode::Native, "{setting:?}");
            let reason = settings.mode_reason.unwrap();
            assert!(reason.contains(setting.flag()) || reason.contains("(--username)"), "{reason}");
            let problem = error(&[endpoint, (setting, text), (Setting::Mode, "grpc-proxy")], []);
            assert!(problem.starts_with(&format!("{}: mode grpc-proxy does not ", setting.flag())), "{problem}");
            assert!(problem.ends_with("use --mode native"), "{problem}");
            assert_eq!(resolve(&[endpoint, (setting, text), more, (Setting::Mode, "native")], []).mode_reason, None);
        }
        let problem = error(&[endpoint, (Setting::Mode, "grpc-proxy")], [("ETCDPROXY_PASSWORD", "s3cret")]);
        assert_eq!(
            problem,
            "ETCDPROXY_PASSWORD: mode grpc-proxy does not log in for clients: remove it, or use --mode native"
        );
        let problem = error(&[endpoint], [("ETCDPROXY_MODE", "grpc-proxy"), ("ETCDPROXY_USERNAME", "app")]);
        assert!(problem.ends_with("or use ETCDPROXY_MODE=native"), "{problem}");
        let alone = resolve(&[endpoint, (Setting::NamespaceAdmin, "on")], []);
        assert_eq!(alone.warnings, ["--namespace-admin changes nothing, because there is no --namespace"]);
        let both = resolve(&[endpoint, (Setting::NamespaceAdmin, "on"), (Setting::Namespace, "p/")], []);
        assert_eq!(both.warnings, [""; 0]);
        // Off asks for nothing.
        assert_eq!(resolve(&[endpoint, (Setting::NamespaceAdmin, "off")], []).run, Run::ExecEtcd);
        // A binding asks for nothing: its application may log in.
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"https://u:p@h:1"}}]}"#;
        assert_eq!(resolve(&[(Setting::Mode, "grpc-proxy")], [("VCAP_SERVICES", services)]).login, None);
        let settings = resolve(&[], [("VCAP_SERVICES", services)]);
        assert_eq!((settings.login.unwrap().username.as_str(), settings.warnings.len()), ("u", 0));
    }

    #[test]
    fn a_missing_password_file_is_reported_after_what_time_cannot_mend() {
        let missing =
            [(Setting::Endpoints, "a:1"), (Setting::Username, "app"), (Setting::PasswordFile, "/no/such/file")];
        let found = sources(&missing, []).resolve().unwrap_err();
        assert!(found.time_can_mend(), "{found}");
        let found = sources(&[&missing[..], &[(Setting::Drain, "8")]].concat(), []).resolve().unwrap_err();
        assert!(!found.time_can_mend() && found.to_string().starts_with("--drain: "), "{found}");
    }

    #[test]
    fn the_plain_case_says_what_etcds_proxy_does_not_serve() {
        let reason = |flags: &[(Setting, &str)], env: [(&str, &str); 1]| resolve(flags, env).mode_reason;
        let none = ("X", "");
        let endpoint = (Setting::Endpoints, "a:1");
        let found = reason(&[endpoint], [none]).unwrap();
        assert!(found.starts_with("JSON clients, ") && found.contains(" --mode native "), "{found}");
        assert!(reason(&[], [("ETCDPROXY_ENDPOINTS", "a:1")]).unwrap().contains(" ETCDPROXY_MODE=native "));
        assert_eq!(reason(&[endpoint, (Setting::Mode, "grpc-proxy")], [none]), None);
    }

    #[test]
    fn unknown_variables_are_warned_of() {
        let settings = resolve(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_MEMROY", "64"), ("ETCDPROXY_WAIT", "3s")]);
        assert_eq!(
            settings.warnings,
            ["ETCDPROXY_MEMROY is not a setting, and has no effect: did you mean ETCDPROXY_MEMORY?"]
        );
    }

    #[test]
    fn the_proxy_is_not_its_own_cluster() {
        for own in ["127.0.0.1:2379", "http://localhost:2379", "0.0.0.0:2379", "[::ffff:127.0.0.1]:2379"] {
            assert!(error(&[(Setting::Endpoints, own)], []).contains("the proxy itself"), "{own}");
        }
        for other in ["127.0.0.1:2380", "127.0.0.2:2379", "[::1]:2379"] {
            assert!(sources(&[(Setting::Endpoints, other)], []).resolve().is_ok());
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_key_its_certificate() {
        let pair = Certificate::new(None, days(-1), days(365));
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_CERT", &pair.cert)]);
        assert_eq!(
            problem,
            "ETCDPROXY_CERT: a client certificate and its key belong together: give the other one with ETCDPROXY_KEY"
        );
        let problem = error(&[(Setting::Endpoints, "a:1")], [("ETCDPROXY_KEY", &pair.key)]);
        assert!(problem.starts_with("ETCDPROXY_KEY: ") && problem.contains("ETCDPROXY_CERT"), "{problem}");
    }

    #[test]
    fn a_common_name_is_refused_with_the_remedy() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Mode, "grpc-proxy")], env);
        assert!(problem.starts_with("ETCDPROXY_CERT: the client certificate has the common name \"app\""), "{problem}");
        assert!(problem.contains("--mode native"), "{problem}");
    }

    #[test]
    fn auto_takes_native_where_etcds_proxy_cannot_serve() {
        let pair = Certificate::new(Some("app"), days(-1), days(365));
        let env = [("ETCDPROXY_CERT", pair.cert.as_str()), ("ETCDPROXY_KEY", &pair.key)];
        let settings = resolve(&[(Setting::Endpoints, "a:1")], env);
        assert_eq!(settings.run, Run::Native { drain: Duration::from_secs(8) });
        assert!(settings.mode_reason.unwrap().contains("\"app\""));
        let settings = resolve(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/")], env);
        assert_eq!((settings.run.mode(), settings.namespace.as_deref()), (Mode::Native, Some("p/")));

        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","password":"s3cret"}}]}"#;
        let bound = [("VCAP_SERVICES", services)];
        let settings = resolve(&[], bound);
        // The application logs in itself: no user is named.
        assert_eq!((settings.run.mode(), settings.warnings.len()), (Mode::Native, 1));
        let settings = resolve(&[(Setting::Namespace, "p/")], bound);
        assert_eq!((settings.run.mode(), settings.namespace.as_deref()), (Mode::Native, Some("p/")));
        // A prefix alone is nothing that etcd's proxy cannot do.
        assert_eq!(resolve(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/")], []).run, Run::ExecEtcd);
        let settings = resolve(&[(Setting::Mode, "grpc-proxy")], bound);
        assert_eq!((settings.run, settings.warnings.len()), (Run::ExecEtcd, 1));
        let off = resolve(&[(Setting::Mode, "native"), (Setting::Drain, "off")], bound);
        assert_eq!((off.mode_reason, off.run), (None, Run::Native { drain: Duration::ZERO }));
    }

    #[test]
    fn without_an_etcd_auto_takes_native_and_what_needs_etcd_is_an_error() {
        let without = |more: &[(Setting, &str)]| {
            let flags = [&[(Setting::Endpoints, "a:1")], more].concat();
            sources(&flags, []).with_etcd(false).resolve().map_err(|err| err.to_string())
        };
        for more in [&[][..], &[(Setting::Mode, "auto")]] {
            let settings = without(more).unwrap();
            assert_eq!(settings.run.mode(), Mode::Native);
            assert_eq!(settings.mode_reason.as_deref(), Some("this launcher has no etcd"));
        }
        assert_eq!(without(&[(Setting::Mode, "native")]).unwrap().mode_reason, None);
        let problem = without(&[(Setting::Mode, "grpc-proxy")]).unwrap_err();
        assert!(problem.starts_with("--mode: this launcher has no etcd, which mode grpc-proxy needs: "), "{problem}");
        let settings = without(&[(Setting::Namespace, "p/")]).unwrap();
        assert_eq!((settings.run.mode(), settings.namespace.as_deref()), (Mode::Native, Some("p/")));
    }

    #[test]
    fn a_server_name_is_not_for_etcds_proxy() {
        let name = (Setting::ServerName, "etcd.example");
        let settings = resolve(&[(Setting::Endpoints, "a:1"), name], []);
        assert_eq!((settings.run.mode(), settings.endpoints[0].scheme), (Mode::Native, Scheme::Https));
        assert_eq!(settings.tls.server_name.as_deref(), Some("etcd.example"));
        assert!(settings.mode_reason.unwrap().contains("\"etcd.example\""));
        let problem = error(&[(Setting::Endpoints, "a:1"), (Setting::Mode, "grpc-proxy"), name], []);
        assert!(problem.starts_with("--server-name: etcd's grpc-proxy checks"), "{problem}");
        assert!(problem.contains("--mode native"), "{problem}");
        assert_eq!(resolve(&[(Setting::Endpoints, "a:1"), (Setting::Namespace, "p/"), name], []).run, settings.run);
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
            // What is shown names the source.
            let given = Settings { shown: nothing.shown.clone(), ..resolve(&flags, []) };
            assert_eq!(given, nothing, "{setting:?}");
            assert_eq!(sources(&flags, []).log_format(), Ok(Format::default()));
        }
    }

    #[test]
    fn every_word_of_the_table_is_a_value() {
        for setting in Setting::ALL {
            let words = match setting.kind() {
                Kind::Choice(_, words) => words,
                Kind::Switch => &["true", "false"],
                Kind::Text(_) | Kind::File => continue,
            };
            for word in words {
                let sources = sources(&[(Setting::Endpoints, "a:1"), (*setting, word)], []);
                assert!(sources.resolve().is_ok() && sources.log_format().is_ok(), "{setting:?} {word}");
            }
        }
    }
}
