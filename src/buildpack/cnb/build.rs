//! `bin/build`: writes the layer with etcd and the launcher.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::files::{Label, Launch, Layer, Metadata, Process, Types, text};
use crate::buildpack::options::{Decision, Options};
use crate::buildpack::process::DRAIN;
use crate::buildpack::programs::{self, LAUNCHER, Staged, chosen, list, write_text};
use crate::fs::dirs::{self, REMEDY};
use crate::fs::{WriteError, atomic, hash};
use crate::release::{Document, Program, Release, VERSION, document};
use crate::settings::Setting;

/// Name of the layer.
const LAYER: &str = "etcdproxy";

/// Name of the program that starts the proxy beside the application: a link to the launcher, because the smallest images
/// have no shell.
pub(crate) const EXEC_D: &str = "start-etcdproxy";

/// The bill of materials of the layer, in the formats of `buildpack.toml`.
const SBOMS: [(&str, Document); 2] =
    [("etcdproxy.sbom.cdx.json", Document::CycloneDx), ("etcdproxy.sbom.spdx.json", Document::Spdx)];

/// What the lifecycle says about a build.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    /// The directory for this buildpack's layers.
    pub layers: &'a Path,
    /// This binary.
    pub exe: &'a Path,
    /// Whether the application waits for the cluster.
    pub waits: bool,
}

/// Writes the layer, unless the one of the last build can stay, and describes it.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn build(
    task: &Build<'_>,
    options: &Options,
    release: &'static Release,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "-----> Etcdproxy Buildpack version {VERSION}")?;
    let (layer, described) = (task.layers.join(LAYER), task.layers.join(format!("{LAYER}.toml")));
    let content = content(task.exe, options)?;
    let programs = chosen(options, release);
    let mut written = Vec::new();
    if is_same(&described, &content) && is_whole(&layer, programs) {
        writeln!(out, "-----> Reusing the layer of the last build: nothing has changed")?;
    } else {
        remove(&layer)?;
        written = fill(&layer, task.exe, options, release, out)?;
    }
    declare(task, options, out)?;
    options.warn(out)?;

    for (name, format) in SBOMS {
        let bytes = document(format)?;
        let path = task.layers.join(name);
        atomic::replace(&path, 0o644, REMEDY, |file| file.write_all(&bytes))?;
        written.push(path);
    }
    written.push(write_text(task.layers, "launch.toml", &launch_toml(options, release, programs))?);
    // Last: it says that all the rest is there.
    written.push(write_text(task.layers, &format!("{LAYER}.toml"), &layer_toml(&content, release, programs))?);
    if options.debug {
        list(written.into_iter(), out)?;
    }
    Ok(())
}

/// The hash of everything that the layer is made from: this binary, with its programs, and the options.
fn content(exe: &Path, options: &Options) -> Result<String> {
    let cannot_read = || format!("cannot read {}", exe.display());
    let exe = File::open(exe).and_then(hash::sha256).with_context(cannot_read)?;
    let Options { declare, process_types, memory, unpack, mode, .. } = options;
    let declare = matches!(declare, Decision::Yes(_));
    Ok(hash::sha256_of(&format!("{exe} {declare} {process_types:?} {memory:?} {unpack:?} {mode:?}")))
}

/// Whether the file describes a layer of the same content. The lifecycle has read and written it since, so its form may
/// be another; the hash is in it or not.
fn is_same(described: &Path, content: &str) -> bool {
    fs::read_to_string(described).is_ok_and(|text| text.contains(content))
}

/// Whether the layer is complete here, or in the last image: a lifecycle without the files of a layer that is only for the
/// launch takes them from there (<https://github.com/buildpacks/spec/blob/main/buildpack.md#launch-layers>).
fn is_whole(layer: &Path, programs: &[Program]) -> bool {
    let mut names = programs.iter().map(|program| program.name).chain([LAUNCHER]);
    !layer.exists() || names.all(|name| layer.join("bin").join(name).exists())
}

fn remove(layer: &Path) -> Result<(), WriteError> {
    match fs::remove_dir_all(layer) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(WriteError::new(layer, &err, REMEDY, None)),
        _ => Ok(()),
    }
}

/// Writes the layer, and returns its files.
fn fill(
    layer: &Path,
    exe: &Path,
    options: &Options,
    release: &'static Release,
    out: &mut impl Write,
) -> Result<Vec<PathBuf>> {
    let bin = layer.join("bin");
    let programs = programs::put(&Staged { bin: &bin, exe, place: "image" }, options, release, out)?;
    let names = programs.iter().map(|program| program.name).chain([LAUNCHER]);
    let mut written: Vec<PathBuf> = names.map(|name| bin.join(name)).collect();

    // The user can choose otherwise at launch.
    let env = layer.join("env.launch");
    dirs::ensure(&env, REMEDY)?;
    let mode = options.mode.map(|mode| (Setting::Mode, mode.to_string()));
    let memory = options.memory.map(|mb| (Setting::Memory, mb.to_string()));
    for (setting, value) in [Some((Setting::Drain, DRAIN.to_owned())), mode, memory].into_iter().flatten() {
        written.push(write_text(&env, &format!("{}.default", setting.variable()), &value)?);
    }

    if matches!(options.declare, Decision::Yes(_)) {
        for process_type in &options.process_types {
            let dir = layer.join("exec.d").join(process_type);
            dirs::ensure(&dir, REMEDY)?;
            let link = dir.join(EXEC_D);
            let target = Path::new("../../bin").join(LAUNCHER);
            atomic::link(&link, &target).map_err(|err| WriteError::new(&link, &err, REMEDY, None))?;
            written.push(link);
        }
    }
    Ok(written)
}

/// Says whether the proxy starts beside the application, and why.
fn declare(task: &Build<'_>, options: &Options, out: &mut impl Write) -> io::Result<()> {
    match &options.declare {
        Decision::No(why) => writeln!(out, "       No proxy starts beside the application: {why}."),
        Decision::Yes(why) => {
            writeln!(out, "       The proxy starts beside {}: {why}.", options.process_types.join(", "))?;
            if task.waits {
                return Ok(());
            }
            writeln!(out, "       With ETCDPROXY_WAIT=30s, the application starts as soon as the cluster answers,")?;
            writeln!(out, "       after 30 s at the latest. Without it, it does not wait.")
        }
    }
}

/// The process type that runs only the proxy, for platforms with sidecars of their own. It is never the default: that is
/// the application, of another buildpack.
fn launch_toml(options: &Options, release: &Release, programs: &[Program]) -> String {
    let mut labels = vec![Label { key: "io.github.etcdproxy.version", value: VERSION }];
    if !programs.is_empty() {
        labels.push(Label { key: "io.github.etcdproxy.etcd-version", value: release.version });
    }
    let process = Process { r#type: &options.name, command: [LAUNCHER, "run"], default: false };
    text(&Launch { labels, processes: [process] })
}

fn layer_toml(content: &str, release: &Release, programs: &[Program]) -> String {
    text(&Layer {
        types: Types { launch: true, build: false, cache: false },
        metadata: Metadata {
            content,
            version: VERSION,
            etcd_version: (!programs.is_empty()).then_some(release.version),
            programs: programs.iter().map(|program| (program.name, program.sha256)).collect(),
        },
    })
}
