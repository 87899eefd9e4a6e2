//! The TOML files of the interface between lifecycle and buildpack.
//! <https://github.com/buildpacks/spec/blob/main/buildpack.md#data-format>

use std::collections::BTreeMap;

use serde::Serialize;

/// The build plan: what detection found that the build will need, and who provides it.
#[derive(Debug, Serialize)]
pub(super) struct Plan<'a> {
    pub provides: [Dependency<'a>; 1],
    pub requires: [Dependency<'a>; 1],
}

#[derive(Debug, Serialize)]
pub(super) struct Dependency<'a> {
    pub name: &'a str,
}

/// `LAYER.toml`
#[derive(Debug, Serialize)]
pub(super) struct Layer<'a> {
    pub types: Types,
    /// Comes back with the next build, without the types.
    pub metadata: Metadata<'a>,
}

/// Who gets the layer: the application's image, later buildpacks, the next build.
#[derive(Debug, Serialize)]
pub(super) struct Types {
    pub launch: bool,
    pub build: bool,
    pub cache: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Metadata<'a> {
    /// The hash of everything that the layer is made from.
    pub content: &'a str,
    pub version: &'a str,
    /// The version of etcd, if the layer has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_version: Option<&'a str>,
    /// The sha256 of each program of etcd.
    pub programs: BTreeMap<&'a str, &'a str>,
}

/// `launch.toml`
#[derive(Debug, Serialize)]
pub(super) struct Launch<'a> {
    pub labels: Vec<Label<'a>>,
    pub processes: [Process<'a>; 1],
}

/// A label of the application's image.
#[derive(Debug, Serialize)]
pub(super) struct Label<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct Process<'a> {
    pub r#type: &'a str,
    pub command: [&'a str; 2],
    pub default: bool,
}

/// The text of a file. Writing texts, booleans and lists as TOML cannot fail.
pub(super) fn text(file: &impl Serialize) -> String {
    toml::to_string(file).unwrap_or_default()
}
