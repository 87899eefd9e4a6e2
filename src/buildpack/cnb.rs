//! The Cloud Native Buildpack. A stub until the real one is merged.

/// The buildpack API that it speaks.
pub(crate) const API: &str = "0.10";
pub(crate) const ID: &str = "etcdproxy/etcdproxy";
pub(crate) const NAME: &str = "etcd proxy";

/// The version of the buildpack: three numbers, so a pre-release has the version of its release.
pub(crate) fn version() -> &'static str {
    crate::release::VERSION.split(['-', '+']).next().unwrap_or_default()
}

/// `buildpack.toml` for these architectures.
pub(crate) fn buildpack_toml(arches: &[&str]) -> String {
    let version = version();
    let target = |arch: &&str| format!("\n[[targets]]\nos = \"linux\"\narch = \"{arch}\"\n");
    let targets: String = arches.iter().map(target).collect();
    format!("api = \"{API}\"\n\n[buildpack]\nid = \"{ID}\"\nversion = \"{version}\"\nname = \"{NAME}\"\n{targets}")
}
