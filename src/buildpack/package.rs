//! `package`: the offline buildpack zip, made from this binary.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::quoted;
use crate::VERSION;
use crate::file;
use crate::release::{Release, is_carried};

const TEXTS: [(&str, &str, u32); 6] = [
    ("LICENSE", include_str!("../../LICENSE"), 0o644),
    ("NOTICE", include_str!("../../NOTICE"), 0o644),
    ("README.md", include_str!("../../README.md"), 0o644),
    ("bin/compile", include_str!("../../bin/compile"), 0o755),
    ("bin/detect", include_str!("../../bin/detect"), 0o755),
    ("bin/supply", include_str!("../../bin/supply"), 0o755),
];

/// What to make.
#[derive(Debug)]
pub(crate) struct Package<'a> {
    /// The one stack it is for; any when not given, for a static binary needs none.
    pub stack: Option<&'a str>,
    /// Where the zip goes; a name as Cloud Foundry's own packager gives it when not given.
    pub output: Option<PathBuf>,
    /// This binary.
    pub exe: &'a Path,
}

/// Writes the zip and gives its path. The same binary gives the same bytes.
///
/// # Errors
/// When this binary is a launcher, the stack is no name, or the file cannot be written.
pub(crate) fn package(task: Package<'_>, release: &Release) -> Result<PathBuf> {
    if !is_carried() {
        bail!("this is the small launcher, which has no etcd inside: package with the whole etcdproxy");
    }
    let stack = task.stack.unwrap_or_default();
    if !stack.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        bail!("--stack: {stack:?} is no stack: use a name as in cflinuxfs4");
    }
    let suffix = if stack.is_empty() { String::new() } else { format!("-{stack}") };
    let path = task.output.unwrap_or_else(|| format!("etcdproxy_buildpack-cached{suffix}-v{VERSION}.zip").into());
    let mut binary = File::open(task.exe).with_context(|| format!("cannot read {}", task.exe.display()))?;
    file::replace(&path, 0o644, |zip| fill(zip, &mut binary, stack, release).map_err(io::Error::other))?;
    Ok(path)
}

fn fill(zip: &mut File, binary: &mut File, stack: &str, release: &Release) -> Result<()> {
    // Stored: all but a few percent of it is compressed already.
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
    zip.start_file("manifest.yml", entry(0o644))?;
    zip.write_all(manifest(stack, release).as_bytes())?;
    zip.start_file("etcdproxy", entry(0o755))?;
    io::copy(binary, &mut zip)?;
    zip.finish()?;
    Ok(())
}

/// The platform reads only `stack`; the rest is for people and scanners.
fn manifest(stack: &str, release: &Release) -> String {
    let stack = if stack.is_empty() { String::new() } else { format!("stack: {}\n", quoted(stack)) };
    let version = quoted(release.version);
    let binaries: String = release
        .programs
        .iter()
        .map(|program| format!("  - name: {}\n    sha256: {}\n", program.name, quoted(program.sha256)))
        .collect();
    format!(
        "---\nlanguage: etcdproxy\n{stack}default_versions:\n- name: etcd\n  version: {version}\ndependencies:\n- name: etcd\n  \
         version: {version}\n  arch: {}\n  cf_stacks: [cflinuxfs3, cflinuxfs4, cflinuxfs5]\n  binaries:\n{binaries}",
        release.arch
    )
}
