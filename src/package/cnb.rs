//! The Cloud Native Buildpack as a buildpackage, the `.cnb` file of the `pack` program: an image whose one layer has the
//! buildpack at an absolute path.
//!
//! <https://github.com/buildpacks/spec/blob/main/distribution.md>

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::entry::Entry;
use super::layout::{Description, Layer, Layout};
use super::tar::Effort;
use crate::buildpack::{API, ID, NAME, version};

/// Writes the files of the buildpack as a buildpackage for one architecture. Temporary files are in `dir`.
pub(super) fn write(entries: &[Entry<'_>], arch: &str, dir: &Path, file: &mut File) -> Result<()> {
    // A relative name would end up in the directory in which the lifecycle runs.
    let prefix = format!("/cnb/buildpacks/{}/{}/", ID.replace('/', "_"), version());
    let layer = Layer::pack(&prefix, entries, Effort::Fast, dir)?;
    let description = Description {
        config: json!({ "Labels": labels(arch, &layer) }),
        annotations: json!({}),
        created_by: "etcdproxy package --format cnb",
    };
    let mut layout = Layout::default();
    layout.add_image(arch, vec![layer], &description, None);
    layout.write(&json!({ "org.opencontainers.image.ref.name": version() }), &description, file)
}

/// The labels say again, in JSON, what `buildpack.toml` says.
fn labels(arch: &str, layer: &Layer) -> Value {
    let homepage = env!("CARGO_PKG_REPOSITORY");
    let package = json!({ "id": ID, "version": version(), "name": NAME, "homepage": homepage });
    let buildpack = json!({
        "api": API,
        "name": NAME,
        "homepage": homepage,
        "layerDiffID": layer.diff_id(),
        "targets": [{ "os": "linux", "arch": arch }],
    });
    let version = Map::from_iter([(version().to_owned(), buildpack)]);
    let layers = json!({ ID: version });
    json!({
        "io.buildpacks.buildpackage.metadata": package.to_string(),
        "io.buildpacks.buildpack.layers": layers.to_string(),
    })
}
