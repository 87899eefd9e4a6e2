//! OCI layouts: a tar of blobs, each named by its sha256, and an index of them.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::entry::Entry;
use super::tar::{self, Effort, Tar};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer of an image, compressed, in a temporary file without a name.
#[derive(Debug)]
pub(super) struct Layer {
    file: File,
    size: u64,
    /// The sha256 of the compressed bytes, in hex.
    digest: String,
    /// The sha256 of the tar, in hex.
    diff_id: String,
}

impl Layer {
    /// Packs the entries. Their names get this prefix. The temporary file is in `dir`.
    pub(super) fn pack(prefix: &str, entries: &[Entry<'_>], effort: Effort, dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        let mut plain = Hashing::new(tar::compressor(effort, Hashing::new(BufWriter::new(file))));
        tar::write(prefix, entries, &mut plain)?;
        let (gz, diff_id, _) = plain.finish();
        let (file, digest, size) = gz.finish()?.finish();
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Self { file, size, digest, diff_id })
    }

    /// The sha256 of the tar, as configurations and labels write it.
    pub(super) fn diff_id(&self) -> String {
        format!("sha256:{}", self.diff_id)
    }
}

/// A writer that hashes and counts what passes.
struct Hashing<W> {
    out: W,
    sha256: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(out: W) -> Self {
        Self { out, sha256: Sha256::new(), size: 0 }
    }

    /// The writer, the hash in hex, and the number of bytes.
    fn finish(self) -> (W, String, u64) {
        (self.out, hex::encode(self.sha256.finalize()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What an image is, beside its layers. All architectures of one image share it.
#[derive(Debug)]
pub(super) struct Description {
    /// The field `config` of the configuration.
    pub config: Value,
    /// The annotations of the manifest and the index.
    pub annotations: Value,
    /// What made the layers, for people.
    pub created_by: &'static str,
}

/// A layout that is being made.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// By their sha256 in hex.
    blobs: BTreeMap<String, Blob>,
    /// The descriptors of the manifests.
    manifests: Vec<Value>,
    /// For `docker load`, the same images in the form of `docker save`.
    for_docker: Vec<Value>,
}

#[derive(Debug)]
enum Blob {
    Json(Vec<u8>),
    Layer(File, u64),
}

impl Layout {
    /// Adds the image for one architecture. `docker_name` is the name that Docker gives it.
    pub(super) fn add_image(
        &mut self,
        arch: &str,
        layers: Vec<Layer>,
        description: &Description,
        docker_name: Option<String>,
    ) {
        let Description { config, annotations, created_by } = description;
        let diff_ids: Vec<String> = layers.iter().map(Layer::diff_id).collect();
        let history: Vec<Value> =
            layers.iter().map(|_| json!({ "created": tar::TIME_RFC3339, "created_by": created_by })).collect();
        let config = self.add_json(
            CONFIG,
            &json!({
                "created": tar::TIME_RFC3339,
                "architecture": arch,
                "os": "linux",
                "config": config,
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
                "history": history,
            }),
        );
        let layers: Vec<Value> = layers.into_iter().map(|layer| self.add_layer(layer)).collect();
        if let Some(name) = docker_name {
            let paths: Vec<String> = layers.iter().map(path).collect();
            self.for_docker.push(json!({ "Config": path(&config), "RepoTags": [name], "Layers": paths }));
        }
        let mut manifest = self.add_json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": layers,
                "annotations": annotations,
            }),
        );
        manifest["platform"] = json!({ "architecture": arch, "os": "linux" });
        self.manifests.push(manifest);
    }

    fn add_layer(&mut self, Layer { file, size, digest, .. }: Layer) -> Value {
        let descriptor = descriptor(LAYER, &digest, size);
        self.blobs.insert(digest, Blob::Layer(file, size));
        descriptor
    }

    fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        let bytes = value.to_string().into_bytes();
        let digest = hex::encode(Sha256::digest(&bytes));
        let descriptor = descriptor(media_type, &digest, bytes.len() as u64);
        self.blobs.insert(digest, Blob::Json(bytes));
        descriptor
    }

    /// Writes it as a tar. The image, or the index of several, gets the annotations `names`, by which programs find it.
    pub(super) fn write(mut self, names: &Value, description: &Description, out: &mut dyn Write) -> Result<()> {
        let mut image = match &self.manifests[..] {
            [only] => only.clone(),
            several => {
                let index = json!({
                    "schemaVersion": 2,
                    "mediaType": INDEX,
                    "manifests": several,
                    "annotations": description.annotations,
                });
                self.add_json(INDEX, &index)
            }
        };
        image["annotations"] = names.clone();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [image] });

        let mut tar = Tar::new(out);
        for (digest, blob) in self.blobs {
            let name = format!("blobs/sha256/{digest}");
            match blob {
                Blob::Json(bytes) => add(&mut tar, &name, &bytes)?,
                Blob::Layer(mut file, size) => tar.file(&name, 0o644, size, |out| {
                    file.rewind()?;
                    io::copy(&mut file, out)?;
                    Ok(())
                })?,
            }
        }
        add(&mut tar, "index.json", index.to_string().as_bytes())?;
        if !self.for_docker.is_empty() {
            add(&mut tar, "manifest.json", Value::from(self.for_docker).to_string().as_bytes())?;
        }
        add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.finish()
    }
}

fn add(tar: &mut Tar<'_>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.file(name, 0o644, bytes.len() as u64, |out| Ok(out.write_all(bytes)?))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// The path of a blob in the layout.
fn path(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}
