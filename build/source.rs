//! Where etcd is from: the pinned package, or a tarball; checked against `manifest.yml`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::sha256_hex;

/// What an etcd release can hold; the first is required and is the prefix of the others.
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

const TARBALL: &str = "ETCD_RELEASE_TARBALL";
const TARBALL_SHA256: &str = "ETCD_RELEASE_SHA256";

#[derive(Deserialize)]
struct Manifest {
    default_versions: Vec<DefaultVersion>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct DefaultVersion {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    version: String,
    arch: String,
    uri: String,
    sha256: Option<String>,
    binaries: Vec<Binary>,
}

#[derive(Deserialize)]
struct Binary {
    name: String,
    sha256: String,
}

/// A release as it was found, before it is compressed.
pub(crate) struct Found {
    pub(crate) version: String,
    pub(crate) origin: String,
    /// Where upstream has it, if it is the release of the manifest.
    pub(crate) uri: Option<String>,
    pub(crate) programs: Vec<(&'static str, Vec<u8>)>,
}

/// The release that the manifest, or the environment, names.
pub(crate) fn take(arch: &'static str) -> Result<Found> {
    println!("cargo::rerun-if-changed=manifest.yml");
    println!("cargo::rerun-if-env-changed={TARBALL}");
    println!("cargo::rerun-if-env-changed={TARBALL_SHA256}");

    let manifest: Manifest = serde_saphyr::from_str(&fs::read_to_string("manifest.yml").context("manifest.yml")?)
        .context("manifest.yml is not the YAML this build expects")?;
    let known = manifest.dependency(arch)?;
    let found = match std::env::var_os(TARBALL).filter(|path| !path.is_empty()) {
        Some(path) => from_tarball(Path::new(&path), known, arch)?,
        None => from_package(known, arch)?,
    };
    for (name, bytes) in &found.programs {
        check_elf(name, bytes, arch)?;
    }
    Ok(found)
}

impl Manifest {
    fn dependency(&self, arch: &str) -> Result<&Dependency> {
        let default = self
            .default_versions
            .iter()
            .find(|default| default.name == "etcd")
            .context("manifest.yml: default_versions has no entry named etcd")?;
        self.dependencies
            .iter()
            .find(|d| d.name == "etcd" && d.version == default.version && d.arch == arch)
            .with_context(|| format!("manifest.yml: dependencies has no etcd {} for {arch}", default.version))
    }
}

impl Dependency {
    /// Refuses a program that differs from the hash the manifest gives for it.
    fn check(&self, name: &str, bytes: &[u8], origin: &str) -> Result<()> {
        let Some(known) = self.binaries.iter().find(|binary| binary.name == name) else {
            return Ok(());
        };
        let actual = sha256_hex(bytes);
        ensure!(
            actual == known.sha256,
            "{name} from {origin} is not the {name} {} linux-{} of manifest.yml: sha256 {actual}, expected {}",
            self.version,
            self.arch,
            known.sha256
        );
        Ok(())
    }
}

fn from_package(known: &Dependency, arch: &str) -> Result<Found> {
    let path = match arch {
        "amd64" => etcd_bin_vendored_linux_amd64::etcd_bin_path(),
        _ => etcd_bin_vendored_linux_arm64::etcd_bin_path(),
    }?;
    println!("cargo::rerun-if-changed={}", path.display());
    let origin = format!("the package etcd-bin-vendored-linux-{arch}");
    let bytes = fs::read(path).with_context(|| format!("cannot read etcd from {origin}"))?;
    ensure!(
        known.binaries.iter().any(|binary| binary.name == "etcd"),
        "manifest.yml: etcd {} for {arch} has no binaries entry named etcd",
        known.version
    );
    known.check("etcd", &bytes, &origin)?;
    Ok(Found { version: known.version.clone(), origin, uri: Some(known.uri.clone()), programs: vec![("etcd", bytes)] })
}

fn from_tarball(path: &Path, known: &Dependency, arch: &str) -> Result<Found> {
    println!("cargo::rerun-if-changed={}", path.display());
    let packed = fs::read(path).with_context(|| format!("{TARBALL}: cannot read {}", path.display()))?;
    let actual = sha256_hex(&packed);
    let given = std::env::var(TARBALL_SHA256).ok().filter(|sha256| !sha256.is_empty());
    let in_manifest = known.sha256.as_deref() == Some(actual.as_str());
    match &given {
        Some(given) => ensure!(
            given.eq_ignore_ascii_case(&actual),
            "{TARBALL_SHA256} is {given}, but {} has sha256 {actual}",
            path.display()
        ),
        None => ensure!(
            in_manifest,
            "{} has sha256 {actual}, which manifest.yml does not know for etcd {} linux-{arch}; to build from it all the \
             same, set {TARBALL_SHA256} to that hash",
            path.display(),
            known.version
        ),
    }

    let (version, mut files) = read_tarball(&packed, arch).with_context(|| format!("{}", path.display()))?;
    let mut programs = Vec::new();
    for name in PROGRAMS {
        if let Some(bytes) = files.remove(name) {
            programs.push((name, bytes));
        }
    }
    ensure!(
        programs.first().is_some_and(|(name, _)| *name == "etcd"),
        "{} holds no etcd-v{version}-linux-{arch}/etcd",
        path.display()
    );

    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    if in_manifest {
        ensure!(
            version == known.version,
            "{file_name} holds etcd {version}, but manifest.yml gives its hash for {}",
            known.version
        );
    } else {
        println!("cargo::warning=etcd {version} is taken from {file_name} on the word of {TARBALL_SHA256}");
    }
    // Whoever vouches for the tarball: there is one etcd of that version.
    if version == known.version {
        for (name, bytes) in &programs {
            known.check(name, bytes, &file_name)?;
        }
    }
    let origin = format!("the tarball {file_name}, sha256 {actual}");
    Ok(Found { version, origin, uri: in_manifest.then(|| known.uri.clone()), programs })
}

/// Gives the version in the top directory's name, and the files in it.
fn read_tarball(packed: &[u8], arch: &str) -> Result<(String, BTreeMap<String, Vec<u8>>)> {
    let mut version: Option<String> = None;
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    for entry in archive.entries()? {
        let mut entry = entry.context("not a .tar.gz")?;
        let path = entry.path()?.into_owned();
        let mut parts = path.iter().filter_map(|part| part.to_str()).filter(|part| *part != ".");
        let (Some(top), name, None) = (parts.next(), parts.next(), parts.next()) else { continue };
        let found = top
            .strip_prefix("etcd-v")
            .and_then(|rest| rest.strip_suffix(&format!("-linux-{arch}")))
            .with_context(|| format!("its top directory {top:?} is not etcd-vVERSION-linux-{arch}"))?;
        ensure!(version.get_or_insert_with(|| found.to_owned()) == found, "it holds two releases");
        if let Some(name) = name.filter(|name| PROGRAMS.contains(name)) {
            ensure!(entry.header().entry_type().is_file(), "{} is not a regular file", path.display());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name.to_owned(), bytes);
        }
    }
    Ok((version.context("it is empty")?, files))
}

/// Refuses a program for another machine: `e_machine` is the 16-bit field at offset 18 of an ELF file.
fn check_elf(name: &str, bytes: &[u8], arch: &str) -> Result<()> {
    let machine: [u8; 2] = if arch == "amd64" { [62, 0] } else { [183, 0] };
    ensure!(
        bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&machine),
        "{name} is not an ELF program for linux-{arch}"
    );
    Ok(())
}
