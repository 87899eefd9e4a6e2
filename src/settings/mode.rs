//! Modes: who forwards the connections, what each can do, and what becomes of the process.

use std::fmt;
use std::time::Duration;

use super::table::Setting;

/// Who forwards the application's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// etcd, with `etcd grpc-proxy`.
    GrpcProxy,
    /// This program, byte for byte.
    Tunnel,
}

/// What the settings need a mode for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wishes<'a> {
    /// The common name in the client certificate.
    pub common_name: Option<&'a str>,
    /// The name that members' certificates must have.
    pub server_name: Option<&'a str>,
    /// Clients log in with a password.
    pub password: bool,
    /// Keys get a prefix.
    pub namespace: bool,
}

/// What a mode can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Capabilities {
    /// It is etcd, so it needs the etcd program and takes etcd's flags.
    pub runs_etcd: bool,
    /// It can put a prefix before every key.
    pub namespaces: bool,
    /// It accepts client certificates with a common name.
    pub common_names: bool,
    /// It can check the members' certificates for another name than the endpoint's.
    pub server_names: bool,
    /// Watches keep working for clients that log in with a password.
    pub passwords: bool,
    /// Minimum memory that it works with, in MB.
    pub min_memory: u32,
}

impl Mode {
    pub(crate) const fn capabilities(self) -> Capabilities {
        match self {
            Self::GrpcProxy => Capabilities {
                runs_etcd: true,
                namespaces: true,
                common_names: false,
                server_names: false,
                passwords: false,
                min_memory: 32, // 26 when idle
            },
            Self::Tunnel => Capabilities {
                runs_etcd: false,
                namespaces: false,
                common_names: true,
                server_names: true,
                passwords: true,
                min_memory: 8, // 4 when idle
            },
        }
    }

    /// `None` for `auto`.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "auto" => Ok(None),
            "grpc-proxy" => Ok(Some(Self::GrpcProxy)),
            "tunnel" => Ok(Some(Self::Tunnel)),
            other => Err(Setting::Mode.invalid(other)),
        }
    }

    /// The mode that `auto` stands for: etcd's grpc-proxy wherever it works correctly; otherwise another one,
    /// with the reason.
    pub(super) fn auto(wishes: &Wishes<'_>) -> (Self, Option<String>) {
        let (first, second) = (Self::GrpcProxy, Self::Tunnel);
        let can = first.capabilities();
        if let Some(name) = wishes.common_name
            && !can.common_names
        {
            let why = format!("etcd's grpc-proxy does not accept a client certificate with a common name ({name:?})");
            return (second, Some(why));
        }
        if let Some(name) = wishes.server_name
            && !can.server_names
        {
            let why = format!("etcd's grpc-proxy cannot check certificates for another name ({name:?})");
            return (second, Some(why));
        }
        if wishes.password && !can.passwords && (!wishes.namespace || second.capabilities().namespaces) {
            let why = "with etcd's grpc-proxy, watches stop for clients that log in with a password";
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
        let number: Option<u32> = text.strip_suffix('M').unwrap_or(text).parse().ok();
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
            Self::Tunnel => "tunnel",
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
    /// Forward connections in this process.
    Tunnel { drain: Duration },
}

/// 2 s less than Cloud Foundry gives a process between SIGTERM and SIGKILL.
const TUNNEL_DRAIN: Duration = Duration::from_secs(8);

impl Run {
    /// `drain` as the user gave it: `None` if not at all, and `Some(None)` for `off`.
    #[allow(clippy::option_option, reason = "not given and off are not the same")]
    pub(super) fn new(mode: Mode, drain: Option<Option<Duration>>) -> Self {
        match mode {
            Mode::GrpcProxy => drain.flatten().map_or(Self::ExecEtcd, |drain| Self::SuperviseEtcd { drain }),
            Mode::Tunnel => Self::Tunnel { drain: drain.map_or(TUNNEL_DRAIN, Option::unwrap_or_default) },
        }
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::ExecEtcd | Self::SuperviseEtcd { .. } => Mode::GrpcProxy,
            Self::Tunnel { .. } => Mode::Tunnel,
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
    fn auto_is_etcds_proxy_unless_the_other_mode_can_do_more() {
        for (common_name, server_name, password, namespace, expected) in [
            (None, None, false, false, Mode::GrpcProxy),
            (None, None, false, true, Mode::GrpcProxy),
            (None, None, true, false, Mode::Tunnel),
            (None, None, true, true, Mode::GrpcProxy),
            (Some("app"), None, false, false, Mode::Tunnel),
            (Some("app"), None, true, true, Mode::Tunnel),
            (None, Some("etcd"), false, false, Mode::Tunnel),
        ] {
            let wishes = Wishes { common_name, server_name, password, namespace };
            let (mode, why) = Mode::auto(&wishes);
            assert_eq!((mode, why.is_some()), (expected, expected == Mode::Tunnel), "{wishes:?}");
        }
    }

    #[test]
    fn what_becomes_of_the_process() {
        let drain = Duration::from_secs(3);
        for (mode, given, expected) in [
            (Mode::GrpcProxy, None, Run::ExecEtcd),
            (Mode::GrpcProxy, Some(None), Run::ExecEtcd),
            (Mode::GrpcProxy, Some(Some(drain)), Run::SuperviseEtcd { drain }),
            (Mode::Tunnel, None, Run::Tunnel { drain: TUNNEL_DRAIN }),
            (Mode::Tunnel, Some(None), Run::Tunnel { drain: Duration::ZERO }),
            (Mode::Tunnel, Some(Some(drain)), Run::Tunnel { drain }),
        ] {
            let run = Run::new(mode, given);
            assert_eq!((run, run.mode()), (expected, mode));
        }
        let (_, tunnel) = Setting::Drain.default().unwrap().split_once("tunnel: ").unwrap();
        assert_eq!(crate::settings::duration(tunnel), Ok(TUNNEL_DRAIN));
    }
}
