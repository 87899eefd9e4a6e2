//! Modes: who forwards the connections, what each can do, and what becomes of the process.

use std::fmt;
use std::time::Duration;

use super::table::Setting;

/// Why the small launcher cannot run etcd.
pub(super) const NO_ETCD: &str = "this launcher has no etcd";

/// Who forwards the application's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// etcd, with `etcd grpc-proxy`.
    GrpcProxy,
    /// This program, call by call.
    Native,
}

/// What a mode can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Capabilities {
    /// It is etcd, so it needs the etcd program and takes etcd's flags.
    pub runs_etcd: bool,
    /// It can reach the members through an HTTP proxy.
    pub http_proxies: bool,
    /// It accepts client certificates with a common name.
    pub common_names: bool,
    /// It can check the members' certificates for another name than the endpoint's.
    pub server_names: bool,
    /// Watches keep working for clients that log in with a password.
    pub passwords: bool,
    /// It logs in for clients that do not.
    pub logins: bool,
    /// It sees calls, so it can choose a member for them, change lists of members, and guard a namespace.
    pub sees_calls: bool,
    /// It looks SRV records up again while it runs.
    pub follows_srv: bool,
    /// It can listen on a Unix socket.
    pub unix_sockets: bool,
    /// Minimum memory that it works with, in MB.
    pub min_memory: u32,
}

/// What the settings ask of a mode.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Demands<'a> {
    /// The client certificate has this common name.
    pub common_name: Option<&'a str>,
    /// The members' certificates have this name.
    pub server_name: Option<&'a str>,
    /// Clients log in with a password, or the proxy can log in for them.
    pub password: bool,
    /// The name of the setting that asks the proxy to log in.
    pub login: Option<&'a str>,
    /// The name of a setting that only a mode that sees calls has.
    pub about_calls: Option<&'a str>,
    /// Another setting needs what only etcd's proxy can do.
    pub only_etcd: bool,
    /// SRV records name the members.
    pub srv: bool,
    /// This launcher has no etcd.
    pub no_etcd: bool,
    /// The proxy listens on a Unix socket.
    pub unix_socket: bool,
}

impl Mode {
    pub(crate) const fn capabilities(self) -> Capabilities {
        match self {
            Self::GrpcProxy => Capabilities {
                runs_etcd: true,
                http_proxies: true,
                common_names: false,
                server_names: false,
                passwords: false,
                logins: false,
                sees_calls: false,
                follows_srv: false,
                unix_sockets: false,
                min_memory: 32, // 26 when idle
            },
            Self::Native => Capabilities {
                runs_etcd: false,
                http_proxies: false,
                common_names: true,
                server_names: true,
                passwords: true,
                logins: true,
                sees_calls: true,
                follows_srv: true,
                unix_sockets: true,
                min_memory: 8, // 4 when idle
            },
        }
    }

    /// `None` for `auto`.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "auto" => Ok(None),
            "grpc-proxy" => Ok(Some(Self::GrpcProxy)),
            "native" => Ok(Some(Self::Native)),
            other => Err(Setting::Mode.invalid(other)),
        }
    }

    /// The mode that `auto` stands for: etcd's grpc-proxy wherever there is an etcd and it works correctly; otherwise
    /// our own, with the reason.
    pub(super) fn auto(demands: Demands<'_>) -> (Self, Option<String>) {
        let (first, second) = (Self::GrpcProxy, Self::Native);
        let can = first.capabilities();
        if demands.no_etcd && can.runs_etcd {
            return (second, Some(NO_ETCD.to_owned()));
        }
        if demands.unix_socket && !can.unix_sockets {
            return (second, Some("etcd's grpc-proxy cannot listen on a Unix socket".to_owned()));
        }
        if let Some(name) = demands.common_name
            && !can.common_names
        {
            let why = format!("etcd's grpc-proxy does not accept a client certificate with a common name ({name:?})");
            return (second, Some(why));
        }
        if let Some(name) = demands.server_name
            && !can.server_names
        {
            let why = format!("etcd's grpc-proxy cannot check certificates for another name ({name:?})");
            return (second, Some(why));
        }
        if let Some(setting) = demands.login
            && !can.logins
        {
            return (second, Some(format!("etcd's grpc-proxy does not log in for clients ({setting})")));
        }
        if let Some(setting) = demands.about_calls
            && !can.sees_calls
        {
            return (second, Some(format!("etcd's grpc-proxy has no {setting}")));
        }
        if demands.only_etcd {
            return (first, None);
        }
        if demands.password && !can.passwords {
            let why = "with etcd's grpc-proxy, watches stop for clients that log in with a password";
            return (second, Some(why.to_owned()));
        }
        if demands.srv && !can.follows_srv {
            let why = "etcd's grpc-proxy looks SRV records up only once";
            return (second, Some(why.to_owned()));
        }
        (first, None)
    }

    /// Reads an amount of memory in MB that is enough for this mode.
    ///
    /// # Errors
    /// If `text` is not an amount, or too small a one.
    pub(crate) fn memory(self, text: &str) -> Result<u32, String> {
        let least = self.capabilities().min_memory;
        // 64, 64M, 64MB, 64Mi and 64MiB are the same, as on Cloud Foundry and Kubernetes.
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "m" | "mb" | "mi" | "mib" => Some(1),
            "g" | "gb" | "gi" | "gib" => Some(1024),
            _ => None,
        };
        let number = factor.and_then(|factor: u32| digits.parse::<u32>().ok()?.checked_mul(factor));
        match number {
            Some(mb) if mb >= least => Ok(mb),
            Some(_) => Err(format!("{text:?} is too little: mode {self} needs at least {least} MB")),
            None => Err(format!("invalid memory {text:?}: expected a number of MB, as in 64")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GrpcProxy => "grpc-proxy",
            Self::Native => "native",
        })
    }
}

/// How `run` uses its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Exec etcd's grpc-proxy and hand over to it.
    ExecEtcd,
    /// Run etcd's grpc-proxy as a child. `drain` is how long, at most, to keep serving after SIGTERM.
    SuperviseEtcd { drain: Duration },
    /// Forward calls in this process.
    Native { drain: Duration },
}

/// 2 s less than Cloud Foundry gives a process between SIGTERM and SIGKILL.
const OWN_DRAIN: Duration = Duration::from_secs(8);

impl Run {
    /// `drain` as the user gave it: `None` if not at all, and `Some(None)` for `off`.
    #[allow(clippy::option_option, reason = "not given and off are not the same")]
    pub(super) fn new(mode: Mode, drain: Option<Option<Duration>>) -> Self {
        match mode {
            Mode::GrpcProxy => drain.flatten().map_or(Self::ExecEtcd, |drain| Self::SuperviseEtcd { drain }),
            Mode::Native => Self::Native { drain: drain.map_or(OWN_DRAIN, Option::unwrap_or_default) },
        }
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::ExecEtcd | Self::SuperviseEtcd { .. } => Mode::GrpcProxy,
            Self::Native { .. } => Mode::Native,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Kind;

    #[test]
    fn the_modes_are_those_of_the_table() {
        let Kind::Choice(_, words) = Setting::Mode.kind() else { panic!("{:?}", Setting::Mode.kind()) };
        for word in words {
            let mode = Mode::parse(word).unwrap();
            assert_eq!(mode.map_or("auto".to_owned(), |mode| mode.to_string()), *word);
        }
    }

    #[test]
    fn auto_is_etcds_proxy_unless_ours_can_do_more() {
        let none = Demands::default();
        for (demands, expected) in [
            (none, Mode::GrpcProxy),
            (Demands { only_etcd: true, ..none }, Mode::GrpcProxy),
            (Demands { password: true, ..none }, Mode::Native),
            (Demands { password: true, only_etcd: true, ..none }, Mode::GrpcProxy),
            (Demands { login: Some("--username"), ..none }, Mode::Native),
            (Demands { login: Some("--username"), only_etcd: true, ..none }, Mode::Native),
            (Demands { about_calls: Some("--prefer"), ..none }, Mode::Native),
            (Demands { common_name: Some("app"), ..none }, Mode::Native),
            (Demands { common_name: Some("app"), password: true, only_etcd: true, ..none }, Mode::Native),
            (Demands { server_name: Some("etcd"), ..none }, Mode::Native),
            (Demands { srv: true, ..none }, Mode::Native),
            (Demands { srv: true, only_etcd: true, ..none }, Mode::GrpcProxy),
            (Demands { no_etcd: true, ..none }, Mode::Native),
            (Demands { unix_socket: true, ..none }, Mode::Native),
            (Demands { no_etcd: true, password: true, only_etcd: true, ..none }, Mode::Native),
        ] {
            let (mode, why) = Mode::auto(demands);
            assert_eq!((mode, why.is_some()), (expected, expected == Mode::Native), "{demands:?}");
        }
    }

    #[test]
    fn memory_in_every_unit() {
        for text in ["64", "64M", "64m", "64MB", "64Mi", "64MiB", "64 MB", "064"] {
            assert_eq!(Mode::Native.memory(text), Ok(64), "{text}");
        }
        for text in ["1G", "1gb", "1Gi", "1GiB", "1024"] {
            assert_eq!(Mode::Native.memory(text), Ok(1024), "{text}");
        }
        for text in ["", "M", "64K", "64KB", "-64", "6.4G", "64M64", "99999999999", "9999999G", "é"] {
            let found = Mode::Native.memory(text).unwrap_err();
            assert_eq!(found, format!("invalid memory {text:?}: expected a number of MB, as in 64"));
        }
    }

    #[test]
    fn what_becomes_of_the_process() {
        let drain = Duration::from_secs(3);
        for (mode, given, expected) in [
            (Mode::GrpcProxy, None, Run::ExecEtcd),
            (Mode::GrpcProxy, Some(None), Run::ExecEtcd),
            (Mode::GrpcProxy, Some(Some(drain)), Run::SuperviseEtcd { drain }),
            (Mode::Native, None, Run::Native { drain: OWN_DRAIN }),
            (Mode::Native, Some(None), Run::Native { drain: Duration::ZERO }),
            (Mode::Native, Some(Some(drain)), Run::Native { drain }),
        ] {
            let run = Run::new(mode, given);
            assert_eq!((run, run.mode()), (expected, mode));
        }
        let (_, native) = Setting::Drain.default().unwrap().split_once("native: ").unwrap();
        assert_eq!(crate::settings::duration(native), Ok(OWN_DRAIN));
    }
}
