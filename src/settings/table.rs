//! The table of settings: one row per setting, with its flag, its variable, its default and its help.
//!
//! The command line, the environment, the help texts and the completions are made from it; tests compare it with the
//! code and docs/settings.md. A leaf: `build.rs` includes this file as well.

/// The form of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text; the help calls it this.
    Text(&'static str),
    /// The path of a file. Of a certificate or key, the environment may also have the content.
    File,
    /// One of these words; the help calls it this.
    Choice(&'static str, &'static [&'static str]),
    /// `true` or `false`. A flag without a value is `true`.
    Switch,
}

macro_rules! settings {
    ($($name:ident: $flag:expr, $variable:literal, $kind:expr, default $default:expr, $help:literal;)*) => {
        /// Everything that can be set from more than one source.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Setting {
            $(#[doc = $help] $name,)*
        }

        impl Setting {
            /// In the order of the help text.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        flag: $flag,
                        variable: $variable,
                        kind: $kind,
                        default: $default,
                        help: $help,
                    },)*
                }
            }
        }
    };
}

struct Row {
    flag: Option<&'static str>,
    variable: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
}

settings! {
    Endpoints: Some("--endpoints"), "ETCDPROXY_ENDPOINTS", Kind::Text("HOST:PORT,…"), default None,
        "Client addresses of the cluster's members, separated by commas";
    DiscoverySrv: Some("--discovery-srv"), "ETCDPROXY_DISCOVERY_SRV", Kind::Text("DOMAIN"), default None,
        "Find the cluster's members by the SRV records of this domain, instead of --endpoints";
    ListenAddr: Some("--listen-addr"), "ETCDPROXY_LISTEN_ADDR", Kind::Text("HOST:PORT"), default Some("127.0.0.1:2379"),
        "Address that the application connects to; except with grpc-proxy, also unix: and the path of a socket";
    Mode: Some("--mode"), "ETCDPROXY_MODE", Kind::Choice("MODE", &["auto", "grpc-proxy", "native"]), default Some("auto"),
        "Who forwards calls: auto, grpc-proxy (etcd's own proxy) or native (this program)";
    Service: Some("--service"), "ETCDPROXY_SERVICE", Kind::Text("NAME"), default None,
        "Bound service to use, if several could be etcd";
    CaCert: Some("--cacert"), "ETCDPROXY_CACERT", Kind::File, default None,
        "CA certificates for the cluster, instead of the system's";
    Cert: Some("--cert"), "ETCDPROXY_CERT", Kind::File, default None,
        "Client certificate";
    Key: Some("--key"), "ETCDPROXY_KEY", Kind::File, default None,
        "Private key of the client certificate";
    ServerName: Some("--server-name"), "ETCDPROXY_SERVER_NAME", Kind::Text("NAME"), default None,
        "Name that the members' certificates must have, if it is not the endpoint's host";
    Username: Some("--username"), "ETCDPROXY_USERNAME", Kind::Text("NAME"), default None,
        "User that calls without a token act as: native logs in for them";
    PasswordFile: Some("--password-file"), "ETCDPROXY_PASSWORD_FILE", Kind::File, default None,
        "File with the user's password; one line end at its end is not part of it";
    Prefer: Some("--prefer"), "ETCDPROXY_PREFER", Kind::Choice("MEMBER", &["leader", "spread", "nearest"]), default Some("leader"),
        "Member that serves the calls, with native: leader, spread (a random one) or nearest (the fastest to answer)";
    MemberUrls: Some("--member-urls"), "ETCDPROXY_MEMBER_URLS", Kind::Choice("URLS", &["proxy", "keep"]), default Some("proxy"),
        "Client URLs in lists of members, with native: proxy (this proxy's address) or keep (the members' own)";
    Namespace: Some("--namespace"), "ETCDPROXY_NAMESPACE", Kind::Text("PREFIX"), default None,
        "Prefix to put before every key; with grpc-proxy, not before the names of etcd's Lock and Campaign calls";
    NamespaceAdmin: Some("--namespace-admin"), "ETCDPROXY_NAMESPACE_ADMIN", Kind::Switch, default None,
        "Allow calls that reach beyond the namespace, such as snapshots and compactions, with native";
    MetricsAddr: Some("--metrics-addr"), "ETCDPROXY_METRICS_ADDR", Kind::Text("HOST:PORT"), default None,
        "Serve metrics on this address as well";
    Preflight: Some("--preflight"), "ETCDPROXY_PREFLIGHT", Kind::Choice("POLICY", &["warn", "strict", "off"]), default Some("warn"),
        "Try the endpoints first. If none can be used, start with a warning, or exit with 69 (strict). off: do not try";
    LogFormat: Some("--log-format"), "ETCDPROXY_LOG_FORMAT", Kind::Choice("FORMAT", &["text", "json", "raw"]), default Some("text"),
        "Format of log lines: text, json or raw. etcd's own lines change only with --drain, and never with raw";
    Memory: Some("--memory"), "ETCDPROXY_MEMORY", Kind::Text("MB"), default None,
        "Memory that the proxy may use, in MB; sets Go's GOMEMLIMIT, limits the clients of native";
    Drain: Some("--drain"), "ETCDPROXY_DRAIN", Kind::Text("DURATION"), default Some("off; native: 8s"),
        "Supervise etcd: restart it if it exits, filter its log, and after SIGTERM keep serving until no client is \
         connected, for at most this long, as in 8s. off: exec etcd and hand over";
    NamespaceFromBinding: None, "ETCDPROXY_NAMESPACE_FROM_BINDING", Kind::Switch, default None,
        "Use the key prefix of the bound service";
    UseHttpProxy: None, "ETCDPROXY_USE_HTTP_PROXY", Kind::Switch, default None,
        "Let etcd's grpc-proxy use the HTTP proxy that the environment names; other modes cannot";
    Password: None, "ETCDPROXY_PASSWORD", Kind::Text("PASSWORD"), default None,
        "Password of the user. It has no flag: other users of this host can read command lines";
    LoginFromBinding: None, "ETCDPROXY_LOGIN_FROM_BINDING", Kind::Switch, default Some("true"),
        "Log in as the user of the bound service, with native";
}

/// The beginning of our variables' names.
pub(crate) const PREFIX: &str = "ETCDPROXY_";

/// Variables of ours that are no settings of `run`: where to unpack etcd, and how long the profile script waits.
pub(crate) const OTHER_VARIABLES: [&str; 2] = ["ETCDPROXY_UNPACK_DIR", "ETCDPROXY_WAIT"];

impl Setting {
    /// Its name in the environment.
    pub(crate) const fn variable(self) -> &'static str {
        self.row().variable
    }

    /// Its name on the command line, as in `--mode`; its name in the environment, if it has no flag.
    pub(crate) const fn flag(self) -> &'static str {
        match self.row().flag {
            Some(flag) => flag,
            None => self.variable(),
        }
    }

    /// Whether it can be given on the command line.
    #[cfg(test)]
    pub(crate) const fn has_flag(self) -> bool {
        self.row().flag.is_some()
    }

    /// The form of its value.
    pub(crate) const fn kind(self) -> Kind {
        self.row().kind
    }

    /// Its default, as the help shows it.
    pub(crate) const fn default(self) -> Option<&'static str> {
        self.row().default
    }

    /// One line for the help text.
    pub(crate) const fn help(self) -> &'static str {
        self.row().help
    }

    /// Why `text` is not a value of this setting, which takes one of a few words.
    pub(crate) fn invalid(self, text: &str) -> String {
        match self.kind() {
            Kind::Choice(_, words) => invalid(&self.flag().trim_start_matches('-').replace('-', " "), text, words),
            _ => invalid("value", text, &["true", "false"]),
        }
    }
}

/// Reads the value of a [switch](Kind::Switch), as people and manifests write it.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The error for a text that is none of `words`: `invalid mode "fast": expected auto, grpc-proxy or native`.
pub(crate) fn invalid(what: &str, text: &str, words: &[&str]) -> String {
    let (last, others) = words.split_last().unwrap_or((&"", &[]));
    format!("invalid {what} {text:?}: expected {} or {last}", others.join(", "))
}

/// Variables that can hold secrets. They are not passed on to etcd, which does not need them.
pub(crate) const SECRETS: [&str; 5] = [
    Setting::CaCert.variable(),
    Setting::Cert.variable(),
    Setting::Key.variable(),
    Setting::Password.variable(),
    "VCAP_SERVICES",
];

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/settings.md");

    /// The rows of the page's table of settings, each as flag, environment and default.
    fn table() -> Vec<[String; 3]> {
        let table = PAGE.lines().skip_while(|line| !line.starts_with("| flag | environment | default |"));
        let rows = table.skip(2).take_while(|line| line.starts_with('|'));
        let cells = |row: &str| {
            let row = row.replace("\\|", "\0"); // a | within a cell
            let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('\0', "|"));
            cells.collect::<Vec<_>>().try_into().expect("three cells")
        };
        rows.map(cells).collect()
    }

    /// What stands between backticks, words apart.
    fn code(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect()
    }

    #[test]
    fn the_page_has_every_setting_with_its_flag_its_choices_and_its_default() {
        let rows = table();
        for setting in Setting::ALL.iter().filter(|setting| setting.has_flag()) {
            let row = rows.iter().find(|[flag, ..]| code(flag).contains(&setting.flag()));
            let [flag, variables, default] =
                row.unwrap_or_else(|| panic!("{} is not in docs/settings.md", setting.flag()));
            // `_CERT` stands for `ETCDPROXY_CERT`.
            let short = setting.variable().replace("ETCDPROXY", "");
            let names = code(variables);
            assert!(names.contains(&setting.variable()) || names.contains(&short.as_str()), "{flag}: {variables}");
            if let Kind::Choice(_, words) = setting.kind() {
                assert!(code(flag).contains(&words.join("|").as_str()), "{flag}: {words:?}");
            }
            match setting.default() {
                // As in `off; native: 8s`.
                Some(text) => {
                    let values = text.split("; ").filter_map(|value| value.split(": ").last());
                    for value in values {
                        assert!(code(default).contains(&value), "{flag}: {default}: {value}");
                    }
                    assert_eq!(code(default)[0], text.split("; ").next().unwrap_or_default(), "{flag}");
                }
                None => assert!(!default.starts_with('`'), "{flag}: {default}"),
            }
        }
    }

    #[test]
    fn the_page_has_no_other_settings() {
        let rows = table().concat().join("\n");
        for setting in Setting::ALL.iter().filter(|setting| !setting.has_flag()) {
            assert!(rows.contains(setting.variable()), "{}", setting.variable());
        }
        let words = rows.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
        for name in words.filter(|word| word.starts_with("--") || word.starts_with("ETCDPROXY_")) {
            let is_known = |setting: &&Setting| setting.flag() == name || setting.variable() == name;
            assert!(Setting::ALL.iter().any(|setting| is_known(&setting)), "{name}");
        }
    }

    #[test]
    fn the_settings_file_of_the_service_names_settings_only() {
        let file = include_str!("../../assets/etcdproxy.env");
        for name in file.lines().filter_map(|line| line.trim_start_matches('#').split_once('=')).map(|(name, _)| name) {
            assert!(Setting::ALL.iter().any(|setting| setting.variable() == name), "{name}");
        }
    }

    #[test]
    fn a_flag_and_its_variable_have_the_same_name() {
        for setting in Setting::ALL.iter().filter(|setting| setting.has_flag()) {
            let variable = setting.flag().trim_start_matches('-').replace('-', "_").to_uppercase();
            assert_eq!(setting.variable(), format!("ETCDPROXY_{variable}"));
        }
    }

    #[test]
    fn an_invalid_word_is_named_with_those_that_are_expected() {
        assert_eq!(Setting::Mode.invalid("fast"), "invalid mode \"fast\": expected auto, grpc-proxy or native");
        assert_eq!(Setting::LogFormat.invalid("x"), "invalid log format \"x\": expected text, json or raw");
        assert_eq!(Setting::UseHttpProxy.invalid("x"), "invalid value \"x\": expected true or false");
    }

    #[test]
    fn switches_in_every_spelling() {
        for (words, expected) in [
            (["true", "True", "1", "YES", "on"], Some(true)),
            (["false", "FALSE", "0", "No", "Off"], Some(false)),
            (["2", "y", "", "auto", "wahr"], None),
        ] {
            for word in words {
                assert_eq!(switch(word), expected, "{word}");
            }
        }
    }
}
