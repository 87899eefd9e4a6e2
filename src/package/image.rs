//! An image that runs the proxy: `etcdproxy`, and etcd unpacked beside it, so that a read-only root is enough.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md>

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::entry::{Content, Entry};
use super::layout::{Description, Layer, Layout};
use super::tar::Effort;
use super::tree::{LICENSE, NOTICE};
use crate::release::{Binary, Document, VERSION};

/// The user and the group. Kubernetes checks `runAsNonRoot` only with a number.
const USER: u32 = 65532;
const BIN: &str = "usr/local/bin";
const DOC: &str = "usr/share/doc/etcdproxy";
const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// What an image contains.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// One for each architecture.
    pub binaries: &'a [Binary],
    /// Otherwise the launcher is alone, and the mode is native.
    pub with_etcd: bool,
    /// The authorities that the image trusts; none by default.
    pub ca_bundle: Option<&'a [u8]>,
}

impl Image<'_> {
    /// The tag of the image.
    fn tag(&self) -> String {
        if self.with_etcd { VERSION.to_owned() } else { format!("{VERSION}-native") }
    }

    /// Writes it as a layout that `docker load`, `podman load` and `skopeo` read. Temporary files are in `dir`.
    pub(super) fn write(&self, dir: &Path, file: &mut File) -> Result<()> {
        let description = self.description();
        let tag = self.tag();
        // Names without a registry mean Docker's own. Nobody can pull from this one.
        let name = format!("localhost/etcdproxy:{tag}");
        let mut layout = Layout::default();
        for binary in self.binaries {
            let mut layers = Vec::new();
            if self.with_etcd {
                // In a layer of its own, which stays the same from one etcdproxy to the next.
                layers.push(Layer::pack("", &etcd(binary), Effort::Small, dir)?);
            }
            layers.push(Layer::pack("", &self.rest(binary)?, Effort::Small, dir)?);
            let arch = &binary.label.arch;
            let docker_name = if self.binaries.len() > 1 { format!("{name}-{arch}") } else { name.clone() };
            layout.add_image(arch, layers, &description, Some(docker_name));
        }
        let names = json!({
            "org.opencontainers.image.ref.name": tag,
            // Docker, containerd and podman give the loaded image this name.
            "io.containerd.image.name": name,
        });
        layout.write(&names, &description, file)
    }

    fn description(&self) -> Description {
        let about = json!({
            "org.opencontainers.image.title": "etcdproxy",
            "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            "org.opencontainers.image.documentation":
                concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/container-image.md"),
        });
        let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
        if !self.with_etcd {
            env.push("ETCDPROXY_MODE=native");
        }
        let config = json!({
            "User": format!("{USER}:{USER}"),
            "Env": env,
            "Entrypoint": [format!("/{BIN}/etcdproxy")],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": about,
        });
        Description { config, annotations: about, created_by: "etcdproxy package --format oci" }
    }

    /// All files but those of etcd.
    fn rest<'a>(&'a self, binary: &'a Binary) -> Result<Vec<Entry<'a>>> {
        let (cyclonedx, spdx) = if self.with_etcd {
            (Document::CycloneDx, Document::Spdx)
        } else {
            (Document::LauncherCycloneDx, Document::LauncherSpdx)
        };
        let document = |name: &str, document| -> Result<Entry<'_>> {
            Ok(Entry::file(format!("{DOC}/{name}"), Content::Bytes(binary.document(document)?.into())))
        };
        let text = |name: &str, text: String| Entry::file(name, Content::text(text));
        let mut entries = vec![
            Entry::executable(format!("{BIN}/etcdproxy"), Content::Bytes(binary.launcher()?.into())),
            text("etc/passwd", format!("etcdproxy:x:{USER}:{USER}:etcdproxy:/nonexistent:/usr/sbin/nologin\n")),
            text("etc/group", format!("etcdproxy:x:{USER}:\n")),
            Entry::directory("tmp", 0o1777),
            Entry::file(format!("{DOC}/LICENSE"), Content::text(LICENSE)),
            Entry::file(format!("{DOC}/NOTICE"), Content::text(NOTICE)),
            document("licenses.txt", Document::Licenses)?,
            // Scanners look for these endings.
            document("etcdproxy.cdx.json", cyclonedx)?,
            document("etcdproxy.spdx.json", spdx)?,
        ];
        // A runtime mounts something there, and need not create a directory in a read-only root.
        entries.extend(["dev", "proc", "sys"].map(|name| Entry::directory(name, 0o755)));
        entries.extend(self.ca_bundle.map(|bundle| Entry::file(CA_BUNDLE, Content::Bytes(bundle.into()))));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// The programs of etcd.
fn etcd(binary: &Binary) -> Vec<Entry<'_>> {
    let programs = binary.label.programs.iter();
    let mut entries: Vec<Entry<'_>> = programs
        .map(|program| Entry::executable(format!("{BIN}/{}", program.name), Content::Program(binary, program)))
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}
