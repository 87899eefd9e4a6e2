//! `package`: makes the offline buildpack, a zip, from this binary.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::yaml::quoted;
use crate::buildpack::cnb::buildpack_toml;
use crate::fs::atomic;
use crate::release::{Label, LabelledProgram, Release, VERSION, has_payload, own_label};

/// What the scripts in `bin` call in a zip for both architectures.
const CHOOSE: &str = include_str!("../../../assets/choose.sh");

const TEXTS: [(&str, &str, u32); 7] = [
    ("LICENSE", include_str!("../../../LICENSE"), 0o644),
    ("NOTICE", include_str!("../../../NOTICE"), 0o644),
    ("README.md", include_str!("../../../README.md"), 0o644),
    ("bin/build", include_str!("../../../bin/build"), 0o755),
    ("bin/compile", include_str!("../../../bin/compile"), 0o755),
    ("bin/detect", include_str!("../../../bin/detect"), 0o755),
    ("bin/supply", include_str!("../../../bin/supply"), 0o755),
];

/// What to make.
#[derive(Debug)]
pub(crate) struct Package<'a> {
    /// The only stack that it is for; by default any, because a static binary needs no stack.
    pub stack: Option<&'a str>,
    /// `amd64`, `arm64` or `both`; by default the architecture of this binary.
    pub arch: Option<&'a str>,
    /// The etcdproxy for the other architecture.
    pub other: Option<&'a Path>,
    /// Path of the zip; by default the name that Cloud Foundry's own packager would give it.
    pub output: Option<PathBuf>,
    /// This binary.
    pub exe: &'a Path,
}

/// Why the zip cannot be made from what the user gives.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this is the small launcher, which has no etcd inside: package with the full etcdproxy")]
    Launcher,

    #[error("--stack: invalid stack {0:?}: use a name such as cflinuxfs4")]
    InvalidStack(String),

    #[error("--other: a package for {this} alone contains this binary only: leave --other out")]
    OtherNotNeeded { this: &'static str },

    #[error("--arch {arch}: this is the etcdproxy for {this}: name the one for {missing} with --other")]
    OtherNeeded { arch: String, this: &'static str, missing: &'static str },

    #[error("--other: {path} cannot be used: {why}")]
    Unusable { path: PathBuf, why: String },

    #[error("--other: {path} is for {arch}: name the etcdproxy for {missing}")]
    WrongArch { path: PathBuf, arch: String, missing: &'static str },

    #[error(
        "--other: {path} is etcdproxy {} with etcd {}, this is {} with {}: use two of the same release",
        other.etcdproxy, other.etcd, this.etcdproxy, this.etcd
    )]
    OtherRelease { path: PathBuf, other: Label, this: Label },
}

/// An etcdproxy in the zip.
struct Binary<'a> {
    path: &'a Path,
    label: Label,
}

/// Writes the zip and returns its path. The same binaries give the same bytes.
///
/// # Errors
/// If this binary is a launcher, the name of the stack is invalid, the binary for an architecture is missing, or the
/// file cannot be written.
pub(crate) fn package(task: Package<'_>, release: &Release) -> Result<PathBuf> {
    if !has_payload() {
        bail!(Error::Launcher);
    }
    let binaries = binaries(&task, release)?;
    let stack = task.stack.unwrap_or_default();
    if !stack.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        bail!(Error::InvalidStack(stack.to_owned()));
    }
    let suffix = if stack.is_empty() { String::new() } else { format!("-{stack}") };
    let path = task.output.unwrap_or_else(|| format!("etcdproxy_buildpack-cached{suffix}-v{VERSION}.zip").into());
    atomic::replace(&path, 0o644, "choose another --output", |zip| {
        fill(zip, &binaries, stack).map_err(io::Error::other)
    })?;
    Ok(path)
}

/// This binary, the other one, or both; amd64 first.
fn binaries<'a>(task: &Package<'a>, release: &Release) -> Result<Vec<Binary<'a>>> {
    let this = release.arch;
    let missing = if this == "amd64" { "arm64" } else { "amd64" };
    let arch = task.arch.unwrap_or(this);
    let mut binaries = Vec::new();
    if arch != missing {
        binaries.push(Binary { path: task.exe, label: own_label()? });
    }
    match task.other {
        Some(_) if arch == this => bail!(Error::OtherNotNeeded { this }),
        Some(path) => binaries.push(Binary { path, label: other(path, missing)? }),
        None if arch == this => {}
        None => bail!(Error::OtherNeeded { arch: arch.to_owned(), this, missing }),
    }
    binaries.sort_by(|a, b| a.label.arch.cmp(&b.label.arch));
    Ok(binaries)
}

/// The label of the binary for the other architecture, if both are of the same release.
fn other(path: &Path, missing: &'static str) -> Result<Label> {
    let path = path.to_owned();
    let label = match Label::read(&path) {
        Ok(label) => label,
        Err(why) => bail!(Error::Unusable { path, why: why.to_string() }),
    };
    let this = own_label()?;
    if label.arch != missing {
        bail!(Error::WrongArch { path, arch: label.arch, missing });
    }
    if (&label.etcdproxy, &label.etcd) != (&this.etcdproxy, &this.etcd) {
        bail!(Error::OtherRelease { path, other: label, this });
    }
    Ok(label)
}

fn fill(zip: &mut File, binaries: &[Binary<'_>], stack: &str) -> Result<()> {
    // Stored: nearly all of it is compressed already.
    let entry = |mode| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(mode)
    };
    let mut zip = ZipWriter::new(zip);
    for (name, text, mode) in TEXTS {
        zip.start_file(name, entry(mode))?;
        zip.write_all(text.as_bytes())?;
    }
    zip.start_file("VERSION", entry(0o644))?;
    writeln!(zip, "{VERSION}")?;
    zip.start_file("buildpack.toml", entry(0o644))?;
    let arches: Vec<&str> = binaries.iter().map(|binary| binary.label.arch.as_str()).collect();
    zip.write_all(buildpack_toml(&arches).as_bytes())?;
    zip.start_file("manifest.yml", entry(0o644))?;
    zip.write_all(manifest(stack, binaries).as_bytes())?;
    let mut add = |name: &str, path: &Path| -> Result<()> {
        zip.start_file(name, entry(0o755))?;
        let mut binary = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        io::copy(&mut binary, &mut zip)?;
        Ok(())
    };
    if let [only] = binaries {
        add("etcdproxy", only.path)?;
    } else {
        for binary in binaries {
            // The names that `uname -m` prints.
            let machine = if binary.label.arch == "amd64" { "x86_64" } else { "aarch64" };
            add(&format!("etcdproxy-{machine}"), binary.path)?;
        }
        zip.start_file("etcdproxy", entry(0o755))?;
        zip.write_all(CHOOSE.as_bytes())?;
    }
    zip.finish()?;
    Ok(())
}

/// The platform reads `stack` only. The rest is for people and scanners.
fn manifest(stack: &str, binaries: &[Binary<'_>]) -> String {
    let stack = if stack.is_empty() { String::new() } else { format!("stack: {}\n", quoted(stack)) };
    let dependency = |Binary { label, .. }: &Binary<'_>| {
        let program = |program: &LabelledProgram| {
            format!("  - name: {}\n    sha256: {}\n", program.name, quoted(&program.sha256))
        };
        let programs: String = label.programs.iter().map(program).collect();
        format!(
            "- name: etcd\n  version: {}\n  arch: {}\n  cf_stacks: [cflinuxfs3, cflinuxfs4, cflinuxfs5]\n  \
             binaries:\n{programs}",
            quoted(&label.etcd),
            label.arch
        )
    };
    let version = binaries.first().map(|binary| quoted(&binary.label.etcd)).unwrap_or_default();
    let dependencies: String = binaries.iter().map(dependency).collect();
    format!(
        "---\nlanguage: etcdproxy\n{stack}default_versions:\n- name: etcd\n  version: {version}\ndependencies:\n{dependencies}"
    )
}
