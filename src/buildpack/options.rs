//! What the user of the buildpack sets at staging: the `BP_*` variables.

use std::io::{self, Write};

use crate::os::env::Env;
use crate::release::Release;
use crate::settings::{ClusterSource, Error, Mode, Setting, Sources, invalid, switch, unknown_variables};

/// The beginning of our variables' names.
const PREFIX: &str = "BP_ETCD";

/// All of them.
const VARIABLES: [&str; 8] = [
    "BP_ETCDPROXY",
    "BP_ETCD_VERSION",
    "BP_ETCDPROXY_MEMORY",
    "BP_ETCDPROXY_MODE",
    "BP_ETCDPROXY_SIDECAR",
    "BP_ETCDPROXY_SIDECAR_FOR",
    "BP_ETCDPROXY_SIDECAR_NAME",
    "BP_ETCDPROXY_UNPACK",
];

const TAKE_PART: &str = "BP_ETCDPROXY";
const SIDECAR: &str = "BP_ETCDPROXY_SIDECAR";

/// The checked options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether a Cloud Native Buildpack takes part in the build. A classic buildpack takes part where its user names it.
    pub take_part: Decision,
    /// Whether to declare the sidecar.
    pub declare: Decision,
    /// Name of the sidecar.
    pub name: String,
    /// Process types that get the sidecar.
    pub process_types: Vec<String>,
    /// Memory of the sidecar in MB.
    pub memory: Option<u32>,
    pub unpack: Unpack,
    /// The mode, if one was chosen.
    pub mode: Option<Mode>,
    /// Whether to list the files that are written.
    pub debug: bool,
    /// Problems that do not prevent staging. One line each.
    pub warnings: Vec<String>,
}

/// A yes or no, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Yes(String),
    No(String),
}

/// When to unpack etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Unpack {
    /// At staging: the droplet contains upstream's own file.
    #[default]
    Stage,
    /// At the first start: the droplet contains it compressed.
    Launch,
}

impl Options {
    /// Reads the environment of a staging.
    ///
    /// # Errors
    /// If a value is invalid, or asks for a version of etcd that `release` is not.
    pub(crate) fn resolve(env: &Env, release: &Release) -> Result<Self, Error> {
        if let Some(wanted) = text(env, "BP_ETCD_VERSION")?
            && !matches(&wanted, release.version)
        {
            let version = release.version;
            return Err(Error::new(
                "BP_ETCD_VERSION",
                format_args!(
                    "this buildpack contains etcd {version}, not {wanted}: use the buildpack with that version"
                ),
            ));
        }
        let mut warnings = unknown_variables(env, PREFIX, VARIABLES.into_iter());
        warnings.extend_from_slice(Sources::new([], env).warnings());
        let mode = parsed(env, "BP_ETCDPROXY_MODE", |text| Mode::parse(&text.to_ascii_lowercase()))?.flatten();
        let process_types =
            parsed(env, "BP_ETCDPROXY_SIDECAR_FOR", |list| list.split(',').map(str::trim).map(process_type).collect())?;
        let cluster = ClusterSource::find(env);
        let chosen = parsed(env, SIDECAR, choice)?.flatten();
        Ok(Self {
            take_part: take_part(parsed(env, TAKE_PART, choice)?.flatten(), chosen, &cluster),
            declare: declare(chosen, cluster, &mut warnings)?,
            name: parsed(env, "BP_ETCDPROXY_SIDECAR_NAME", process_type)?.unwrap_or_else(|| "etcd-proxy".to_owned()),
            process_types: process_types.unwrap_or_else(|| vec!["web".to_owned()]),
            memory: parsed(env, "BP_ETCDPROXY_MEMORY", |text| mode.unwrap_or(Mode::GrpcProxy).memory(text))?,
            unpack: parsed(env, "BP_ETCDPROXY_UNPACK", |value| match value.to_ascii_lowercase().as_str() {
                "stage" => Ok(Unpack::Stage),
                "launch" => Ok(Unpack::Launch),
                other => Err(invalid("value", other, &["stage", "launch"])),
            })?
            .unwrap_or_default(),
            mode,
            // Other buildpacks take any value for yes.
            debug: text(env, "BP_DEBUG")?.is_some_and(|text| switch(&text) != Some(false)),
            warnings,
        })
    }

    /// Prints the warnings.
    pub(super) fn warn(&self, out: &mut impl Write) -> io::Result<()> {
        self.warnings.iter().try_for_each(|warning| writeln!(out, "       WARNING: {warning}"))
    }
}

/// `None` for `auto`.
fn choice(text: &str) -> Result<Option<bool>, String> {
    match switch(text) {
        None if !text.eq_ignore_ascii_case("auto") => Err(invalid("value", text, &["auto", "true", "false"])),
        chosen => Ok(chosen),
    }
}

/// `sidecar` is whether to declare one, if the user has decided that.
fn take_part(chosen: Option<bool>, sidecar: Option<bool>, cluster: &Result<ClusterSource, Error>) -> Decision {
    match (chosen, sidecar, cluster) {
        (Some(false), ..) => Decision::No(format!("{TAKE_PART} is false")),
        (Some(true), ..) => Decision::Yes(format!("{TAKE_PART} is true")),
        (None, Some(true), _) => Decision::Yes(format!("{SIDECAR} is true")),
        (None, _, Ok(cluster)) => known(cluster, &format!("{TAKE_PART}=true adds etcd anyway")),
        // Something is there that could be etcd.
        (None, _, Err(err)) => Decision::Yes(err.to_string()),
    }
}

fn declare(
    chosen: Option<bool>,
    cluster: Result<ClusterSource, Error>,
    warnings: &mut Vec<String>,
) -> Result<Decision, Error> {
    if chosen == Some(false) {
        return Ok(Decision::No(format!("{SIDECAR} is false")));
    }
    if let Ok(ClusterSource::Service { warnings: problems, .. }) = &cluster {
        warnings.extend_from_slice(problems);
    }
    match (chosen, cluster) {
        (Some(_), cluster) => {
            warnings.extend(cluster.err().map(|err| err.to_string()));
            Ok(Decision::Yes(format!("{SIDECAR} is true")))
        }
        (None, cluster) => Ok(known(&cluster?, &format!("{SIDECAR}=true declares one"))),
    }
}

/// Whether it is known where the cluster is. A no ends with `remedy`.
fn known(cluster: &ClusterSource, remedy: &str) -> Decision {
    match cluster {
        ClusterSource::Set(setting) => Decision::Yes(format!("{} is set", setting.variable())),
        ClusterSource::Service { name, .. } => Decision::Yes(format!("the service {name} is bound")),
        ClusterSource::Unknown(why) => {
            Decision::No(format!("{why} and {} is not set. {remedy}", Setting::Endpoints.variable()))
        }
    }
}

fn text(env: &Env, name: &str) -> Result<Option<String>, Error> {
    let Some(value) = env.get(name) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| Error::new(name, "it is not valid UTF-8"))?;
    Ok(Some(value.trim().to_owned()))
}

fn parsed<T>(env: &Env, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
    text(env, name)?.map(|value| parse(&value).map_err(|problem| Error::new(name, problem))).transpose()
}

/// A name that the platform accepts for a process type.
fn process_type(value: &str) -> Result<String, String> {
    let good =
        !value.is_empty() && value.len() <= 255 && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if good {
        Ok(value.to_owned())
    } else {
        Err(format!("invalid process type {value:?}: expected letters, digits, - and _"))
    }
}

/// Whether `wanted`, as in `3.7.2`, `3.7` or `3.7.x`, includes `version`.
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

    fn resolve<const N: usize>(vars: [(&str, &str); N]) -> Result<Options, String> {
        Options::resolve(&Env::from(vars), &RELEASE).map_err(|err| err.to_string())
    }

    #[test]
    fn the_defaults() {
        let options = resolve([]).unwrap();
        let why = "no etcd service is bound and ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY_SIDECAR=true declares one";
        assert_eq!(options.declare, Decision::No(why.to_owned()));
        assert_eq!((options.name.as_str(), &options.process_types[..]), ("etcd-proxy", &["web".to_owned()][..]));
        assert_eq!((options.memory, options.unpack, options.mode), (None, Unpack::Stage, None));
    }

    #[test]
    fn the_sidecar_is_declared_for_a_known_cluster_unless_the_user_decides() {
        let declared = |vars: &[(&str, &str)]| {
            let env: Env = vars.iter().copied().collect();
            matches!(Options::resolve(&env, &RELEASE).unwrap().declare, Decision::Yes(_))
        };
        let services = r#"{"user-provided":[{"name":"my-etcd"}]}"#;
        assert!(declared(&[("ETCDPROXY_ENDPOINTS", "h:1")]));
        assert!(declared(&[("VCAP_SERVICES", services)]));
        for word in ["true", "True", "1", "yes", "ON"] {
            assert!(declared(&[("BP_ETCDPROXY_SIDECAR", word)]), "{word}");
        }
        for word in ["false", "FALSE", "0", "no", "off"] {
            assert!(!declared(&[("BP_ETCDPROXY_SIDECAR", word), ("ETCDPROXY_ENDPOINTS", "h:1")]), "{word}");
        }
        assert!(declared(&[("BP_ETCDPROXY_SIDECAR", "Auto"), ("ETCDPROXY_DISCOVERY_SRV", "example.com")]));
    }

    #[test]
    fn a_cloud_native_buildpack_takes_part_where_there_is_a_reason() {
        let several = r#"{"etcd":[{"name":"a"},{"name":"b"}]}"#;
        let yes = |why: &str| Decision::Yes(why.to_owned());
        let no = |why: &str| Decision::No(why.to_owned());
        let unknown = "no etcd service is bound and ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY=true adds etcd anyway";
        let problem = "service bindings: several could be etcd (a, b): choose one with --service or ETCDPROXY_SERVICE";
        for (vars, expected) in [
            (&[][..], no(unknown)),
            (&[("BP_ETCDPROXY", "Auto")], no(unknown)),
            (&[("BP_ETCDPROXY", "yes")], yes("BP_ETCDPROXY is true")),
            (&[("BP_ETCDPROXY", "false"), ("ETCDPROXY_ENDPOINTS", "h:1")], no("BP_ETCDPROXY is false")),
            (&[("ETCDPROXY_ENDPOINTS", "h:1")], yes("ETCDPROXY_ENDPOINTS is set")),
            (&[("ETCDPROXY_ENDPOINTS", "h:1"), ("BP_ETCDPROXY_SIDECAR", "false")], yes("ETCDPROXY_ENDPOINTS is set")),
            (&[("ETCDPROXY_DISCOVERY_SRV", "example.com")], yes("ETCDPROXY_DISCOVERY_SRV is set")),
            (&[("VCAP_SERVICES", r#"{"etcd":[{"name":"e"}]}"#)], yes("the service e is bound")),
            (&[("BP_ETCDPROXY_SIDECAR", "true")], yes("BP_ETCDPROXY_SIDECAR is true")),
            (&[("VCAP_SERVICES", several), ("BP_ETCDPROXY_SIDECAR", "false")], yes(problem)),
        ] {
            let env: Env = vars.iter().copied().collect();
            assert_eq!(Options::resolve(&env, &RELEASE).unwrap().take_part, expected, "{vars:?}");
        }
    }

    #[test]
    fn values_in_every_spelling() {
        for text in ["64", "64M", "64MB", "64Mi"] {
            assert_eq!(resolve([("BP_ETCDPROXY_MEMORY", text)]).unwrap().memory, Some(64), "{text}");
        }
        let options = resolve([("BP_ETCDPROXY_MODE", "Native"), ("BP_ETCDPROXY_UNPACK", "LAUNCH")]).unwrap();
        assert_eq!((options.mode, options.unpack), (Some(Mode::Native), Unpack::Launch));
        let native = resolve([("BP_ETCDPROXY_MODE", "NATIVE"), ("BP_ETCDPROXY_MEMORY", "8")]).unwrap();
        assert_eq!((native.mode, native.memory), (Some(Mode::Native), Some(8)));
        for (text, expected) in [("1", true), ("yes", true), ("verbose", true), ("false", false), ("0", false)] {
            assert_eq!(resolve([("BP_DEBUG", text)]).unwrap().debug, expected, "{text}");
        }
    }

    #[test]
    fn what_is_warned_of() {
        let services = |credentials: &str| format!(r#"{{"etcd":[{{"name":"e","credentials":{credentials}}}]}}"#);
        let warnings = |vars: &[(&str, &str)]| {
            let env: Env = vars.iter().copied().collect();
            Options::resolve(&env, &RELEASE).unwrap().warnings
        };
        assert_eq!(
            warnings(&[
                ("BP_ETCDPROXY_SIDECARNAME", "x"),
                ("BP_ETCD_VERSIONS", "x"),
                ("BP_DEBUG", "1"),
                ("ETCDPROXY_ENDPOINT", "x")
            ]),
            [
                "BP_ETCDPROXY_SIDECARNAME is not a setting, and has no effect: did you mean BP_ETCDPROXY_SIDECAR_NAME?",
                "BP_ETCD_VERSIONS is not a setting, and has no effect: did you mean BP_ETCD_VERSION?",
                "ETCDPROXY_ENDPOINT is not a setting, and has no effect: did you mean ETCDPROXY_ENDPOINTS?",
            ]
        );
        let empty = services(r#"{"nodes_list":"s3cret"}"#);
        for choice in ["auto", "true"] {
            let found = warnings(&[("VCAP_SERVICES", &empty), ("BP_ETCDPROXY_SIDECAR", choice)]);
            let expected = "service binding \"e\": it has no endpoints (not understood: nodes_list): ";
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        }
        let several = r#"{"etcd":[{"name":"a"},{"name":"b"}]}"#;
        let found = warnings(&[("VCAP_SERVICES", several), ("BP_ETCDPROXY_SIDECAR", "true")]);
        assert!(found[0].starts_with("service bindings: several could be etcd"), "{found:?}");
        // The launcher puts the credentials in; the application may set endpoints of its own; nobody needs a sidecar.
        assert_eq!(warnings(&[("VCAP_SERVICES", &services(r#"{"credhub-ref":"/x"}"#))]), [""; 0]);
        assert_eq!(warnings(&[("VCAP_SERVICES", &empty), ("ETCDPROXY_ENDPOINTS", "h:1")]), [""; 0]);
        assert_eq!(warnings(&[("VCAP_SERVICES", &empty), ("BP_ETCDPROXY_SIDECAR", "false")]), [""; 0]);
    }

    #[test]
    fn invalid_values() {
        for (name, value, problem) in [
            ("BP_ETCDPROXY", "perhaps", "invalid value \"perhaps\": expected auto, true or false"),
            ("BP_ETCDPROXY_SIDECAR", "maybe", "invalid value \"maybe\": expected auto, true or false"),
            ("BP_ETCDPROXY_SIDECAR_NAME", "a b", "invalid process type \"a b\": expected letters, digits, - and _"),
            ("BP_ETCDPROXY_SIDECAR_FOR", "web,", "invalid process type \"\": expected letters, digits, - and _"),
            ("BP_ETCDPROXY_MEMORY", "1T", "invalid memory \"1T\": expected a number of MB, as in 64"),
            ("BP_ETCDPROXY_MEMORY", "0", "\"0\" is too little: mode grpc-proxy needs at least 32 MB"),
            ("BP_ETCDPROXY_UNPACK", "later", "invalid value \"later\": expected stage or launch"),
            ("BP_ETCDPROXY_MODE", "fast", "invalid mode \"fast\": expected auto, grpc-proxy or native"),
            (
                "BP_ETCD_VERSION",
                "3.6.x",
                "this buildpack contains etcd 3.7.2, not 3.6.x: use the buildpack with that version",
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
