//! `buildpack.toml`, which describes the buildpack to the lifecycle.

use serde::Serialize;

use crate::release::VERSION;

/// The lowest version of the interface that has all that this buildpack uses.
pub(crate) const API: &str = "0.10";

/// What the buildpack is called, by lifecycles and by people.
pub(crate) const ID: &str = "etcdproxy/etcdproxy";
pub(crate) const NAME: &str = "etcd proxy";

/// The version of the buildpack. The specification allows three numbers only, so a pre-release has that of its release.
pub(crate) fn version() -> &'static str {
    VERSION.split(['-', '+']).next().unwrap_or(VERSION)
}

/// Every format that [`build`](super::build) writes: the lifecycle refuses others.
const SBOM_FORMATS: [&str; 2] = ["application/vnd.cyclonedx+json", "application/spdx+json"];

#[derive(Debug, Serialize)]
struct Descriptor<'a> {
    api: &'a str,
    buildpack: Buildpack<'a>,
    targets: Vec<Target<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Buildpack<'a> {
    id: &'a str,
    version: &'a str,
    name: &'a str,
    homepage: &'a str,
    description: &'a str,
    keywords: [&'a str; 3],
    sbom_formats: [&'a str; 2],
    licenses: [License<'a>; 1],
}

#[derive(Debug, Serialize)]
struct License<'a> {
    r#type: &'a str,
}

/// Without a distribution: a static binary runs on each of them.
#[derive(Debug, Serialize)]
struct Target<'a> {
    os: &'a str,
    arch: &'a str,
}

/// The text of `buildpack.toml`. `arches` are the architectures of the etcdproxy in the buildpack, as in `amd64`.
pub(crate) fn buildpack_toml(arches: &[&str]) -> String {
    let descriptor = Descriptor {
        api: API,
        buildpack: Buildpack {
            id: ID,
            version: version(),
            name: NAME,
            homepage: env!("CARGO_PKG_REPOSITORY"),
            description: "etcd, and its proxy beside the application: 127.0.0.1:2379 is the cluster",
            keywords: ["etcd", "proxy", "sidecar"],
            sbom_formats: SBOM_FORMATS,
            licenses: [License { r#type: env!("CARGO_PKG_LICENSE") }],
        },
        targets: arches.iter().map(|arch| Target { os: "linux", arch }).collect(),
    };
    super::files::text(&descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_for_each_architecture() {
        let text = buildpack_toml(&["amd64", "arm64"]);
        assert!(
            text.starts_with("api = \"0.10\"\n\n[buildpack]\nid = \"etcdproxy/etcdproxy\"\nversion = \""),
            "{text}"
        );
        let targets =
            "[[targets]]\nos = \"linux\"\narch = \"amd64\"\n\n[[targets]]\nos = \"linux\"\narch = \"arm64\"\n";
        assert!(text.ends_with(targets), "{text}");
    }
}
