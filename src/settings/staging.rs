//! What the buildpack is told at staging: the `BP_*` variables, and whether an etcd is in sight.

use std::fmt::Display;

use super::binding::{self, Found};
use super::resolved::memory;
use super::{Error, Mode, Setting};
use crate::os::env::Env;
use crate::release::Release;

/// When etcd is unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Unpack {
    /// At staging: upstream's own file is in the droplet.
    #[default]
    Stage,
    /// At the first start: the droplet holds it compressed.
    Launch,
}

/// Whether the buildpack declares its sidecar, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Declare {
    Yes(String),
    No(String),
}

/// The checked staging settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Staging {
    pub declare: Declare,
    /// Name of the sidecar process.
    pub name: String,
    /// Process types that get the sidecar.
    pub processes: Vec<String>,
    /// Memory of the sidecar in MB, subtracted by the platform from what the process has.
    pub memory: Option<u32>,
    pub unpack: Unpack,
    /// Only when the user chose one.
    pub mode: Option<Mode>,
    /// Say more.
    pub debug: bool,
}

impl Staging {
    /// Reads the environment of a staging.
    ///
    /// # Errors
    /// A value that makes no sense, or a version other than that of `release`.
    pub(crate) fn resolve(env: &Env, release: &Release) -> Result<Self, Error> {
        if let Some(wanted) = text(env, "BP_ETCD_VERSION")?
            && !matches(&wanted, release.version)
        {
            return Err(error(
                "BP_ETCD_VERSION",
                format!(
                    "is {wanted}, but this buildpack carries etcd {}: use the buildpack with that version",
                    release.version
                ),
            ));
        }
        let mode = parsed(env, "BP_ETCDPROXY_MODE", Mode::parse)?.flatten();
        Ok(Self {
            declare: declare(env)?,
            name: parsed(env, "BP_ETCDPROXY_SIDECAR_NAME", process_type)?.unwrap_or_else(|| "etcd-proxy".to_owned()),
            processes: parsed(env, "BP_ETCDPROXY_SIDECAR_FOR", |value| {
                value.split(',').map(|one| process_type(one.trim())).collect()
            })?
            .unwrap_or_else(|| vec!["web".to_owned()]),
            memory: parsed(env, "BP_ETCDPROXY_MEMORY", |text| memory(text, mode.unwrap_or(Mode::GrpcProxy)))?,
            unpack: parsed(env, "BP_ETCDPROXY_UNPACK", |value| match value {
                "stage" => Ok(Unpack::Stage),
                "launch" => Ok(Unpack::Launch),
                _ => Err(format!("{value:?} is neither stage nor launch")),
            })?
            .unwrap_or_default(),
            mode,
            debug: env.get("BP_DEBUG").is_some(),
        })
    }
}

fn declare(env: &Env) -> Result<Declare, Error> {
    const SIDECAR: &str = "BP_ETCDPROXY_SIDECAR";
    let choice = text(env, SIDECAR)?;
    match choice.as_deref() {
        Some("true") => Ok(Declare::Yes(format!("{SIDECAR} is true"))),
        Some("false") => Ok(Declare::No(format!("{SIDECAR} is false"))),
        None | Some("auto") => {
            if env.get(Setting::Endpoints.variable()).is_some() {
                return Ok(Declare::Yes(format!("{} is set", Setting::Endpoints.variable())));
            }
            let service = text(env, Setting::Service.variable())?;
            let service = service.as_deref().map(|name| (Setting::Service.variable(), name));
            match binding::find(env, service)? {
                Found::One(binding) => Ok(Declare::Yes(format!("the service {} is bound", binding.name))),
                Found::Several(names) => Err(binding::several(&names)),
                Found::Nothing(others) => {
                    let none = binding::none_is_etcd(&others, Setting::Service.variable());
                    let endpoints = Setting::Endpoints.variable();
                    Ok(Declare::No(format!("{none} and {endpoints} is not set. {SIDECAR}=true declares one")))
                }
            }
        }
        Some(other) => Err(error(SIDECAR, format!("{other:?} is none of auto, true and false"))),
    }
}

fn text(env: &Env, name: &'static str) -> Result<Option<String>, Error> {
    let Some(value) = env.get(name) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| error(name, "is not valid UTF-8"))?;
    Ok(Some(value.trim().to_owned()))
}

fn parsed<T>(env: &Env, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
    text(env, name)?.map(|value| parse(&value).map_err(|problem| error(name, problem))).transpose()
}

fn error(setting: &str, problem: impl Display) -> Error {
    Error { setting: setting.to_owned(), problem: problem.to_string() }
}

/// A name that the platform takes for a process type.
fn process_type(value: &str) -> Result<String, String> {
    let good =
        !value.is_empty() && value.len() <= 255 && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if good { Ok(value.to_owned()) } else { Err(format!("{value:?} is no process type: use letters, digits, - and _")) }
}

/// Whether `wanted`, as in `3.7.2`, `3.7` or `3.7.x`, covers `version`.
fn matches(wanted: &str, version: &str) -> bool {
    let mut numbers = version.split('.');
    wanted.trim_start_matches('v').split('.').all(|part| {
        let number = numbers.next();
        part == "x" || part == "*" || number == Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Release = Release { version: "3.7.2", arch: "amd64", origin: "", id: "", programs: &[] };

    fn resolve<const N: usize>(vars: [(&str, &str); N]) -> Result<Staging, String> {
        Staging::resolve(&Env::from(vars), &RELEASE).map_err(|err| err.to_string())
    }

    #[test]
    fn nothing_set_and_nothing_in_sight() {
        let staging = resolve([]).unwrap();
        let why = "no etcd service is bound and ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY_SIDECAR=true declares one";
        assert_eq!(staging.declare, Declare::No(why.to_owned()));
        assert_eq!((staging.name.as_str(), &staging.processes[..]), ("etcd-proxy", &["web".to_owned()][..]));
        assert_eq!((staging.memory, staging.unpack, staging.mode), (None, Unpack::Stage, None));
    }

    #[test]
    fn the_sidecar_is_declared_when_etcd_is_in_sight_and_the_user_has_the_last_word() {
        let declared = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars.iter().copied().chain([("X", "")]).collect();
            let mut all = [("X", ""); 3];
            all[..vars.len()].copy_from_slice(&vars);
            matches!(resolve(all).unwrap().declare, Declare::Yes(_))
        };
        let services = r#"{"user-provided":[{"name":"my-etcd"}]}"#;
        assert!(declared(&[("ETCDPROXY_ENDPOINTS", "h:1")]));
        assert!(declared(&[("VCAP_SERVICES", services)]));
        assert!(declared(&[("BP_ETCDPROXY_SIDECAR", "true")]));
        assert!(!declared(&[("BP_ETCDPROXY_SIDECAR", "false"), ("ETCDPROXY_ENDPOINTS", "h:1")]));
    }

    #[test]
    fn values_that_make_no_sense() {
        for (name, value, problem) in [
            ("BP_ETCDPROXY_SIDECAR", "yes", "\"yes\" is none of auto, true and false"),
            ("BP_ETCDPROXY_SIDECAR_NAME", "a b", "\"a b\" is no process type: use letters, digits, - and _"),
            ("BP_ETCDPROXY_SIDECAR_FOR", "web,", "\"\" is no process type: use letters, digits, - and _"),
            ("BP_ETCDPROXY_MEMORY", "1G", "\"1G\" is no memory: write MB, as in 64"),
            ("BP_ETCDPROXY_MEMORY", "0", "\"0\" is too little: mode grpc-proxy needs 32 MB or more"),
            ("BP_ETCDPROXY_UNPACK", "later", "\"later\" is neither stage nor launch"),
            ("BP_ETCDPROXY_MODE", "fast", "\"fast\" is no mode: use auto, grpc-proxy or tunnel"),
            (
                "BP_ETCD_VERSION",
                "3.6.x",
                "is 3.6.x, but this buildpack carries etcd 3.7.2: use the buildpack with that version",
            ),
        ] {
            assert_eq!(resolve([(name, value)]).unwrap_err(), format!("{name}: {problem}"));
        }
    }

    #[test]
    fn versions_that_match() {
        for wanted in ["3.7.2", "v3.7.2", "3.7", "3.7.x", "3.x", "3.*"] {
            assert!(resolve([("BP_ETCD_VERSION", wanted)]).is_ok(), "{wanted}");
        }
        for wanted in ["3.7.20", "3.7.2.1", "4.x", "37"] {
            assert!(resolve([("BP_ETCD_VERSION", wanted)]).is_err(), "{wanted}");
        }
    }
}
