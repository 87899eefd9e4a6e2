//! The crates that are linked into the binary, and where their sources are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: String,
    /// sha256 of the package, from `Cargo.lock`; this project's own crate has none.
    pub(crate) sha256: Option<String>,
    /// Keys of the crates that it uses itself.
    pub(crate) uses: BTreeSet<Key>,
}

/// Name and version.
pub(crate) type Key = (String, String);

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    version: String,
    #[serde(default)]
    authors: Vec<String>,
}

/// The crates that are linked for `target`, this project's own included.
///
/// Asks `cargo tree`: which optional dependencies and features are on for a target, only Cargo knows. It needs no
/// network, nor any package that the build itself does not need (`cargo metadata` wants the tests' as well).
pub(crate) fn linked(target: &str) -> Result<BTreeMap<Key, Crate>> {
    let dir = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&dir).args(["tree", "--offline", "--locked", "--quiet", "--target", target]);
    command.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "\t{p}\t{l}"]);
    let output = command.output().context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    let mut crates = parse(&String::from_utf8(output.stdout)?)?;

    let lock: Lock = toml::from_str(&fs::read_to_string(dir.join("Cargo.lock")).context("Cargo.lock")?)?;
    for Locked { name, version, checksum } in lock.package {
        if let Some(found) = crates.get_mut(&(name, version)) {
            found.sha256 = checksum;
        }
    }
    Ok(crates)
}

/// Each line: depth, name and version, licence. A crate that was there before is marked, and its own are left out.
fn parse(tree: &str) -> Result<BTreeMap<Key, Crate>> {
    let mut crates: BTreeMap<Key, Crate> = BTreeMap::new();
    let mut path: Vec<Key> = Vec::new();
    for line in tree.lines() {
        let mut fields = line.trim_end_matches(" (*)").split('\t');
        let (Some(depth), Some(package), Some(license)) = (fields.next(), fields.next(), fields.next()) else {
            bail!("cargo tree printed {line:?}");
        };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|word| word.strip_prefix('v'))) else {
            bail!("cargo tree printed {line:?}");
        };
        let key = (name.to_owned(), version.to_owned());
        path.truncate(depth.parse()?);
        if let Some(user) = path.last().and_then(|user| crates.get_mut(user)) {
            user.uses.insert(key.clone());
        }
        path.push(key.clone());
        let license = spdx::Expression::canonicalize(license)?.unwrap_or_else(|| license.to_owned());
        ensure!(!license.is_empty(), "{name} {version} does not name its licence");
        let (name, version) = key.clone();
        crates.entry(key).or_insert(Crate { name, version, license, sha256: None, uses: BTreeSet::new() });
    }
    Ok(crates)
}

impl Crate {
    /// Licence texts, by file name, from the package's sources, which are in `sources` with all others.
    pub(crate) fn texts(&self, sources: &Path) -> Result<BTreeMap<String, String>> {
        let (dir, _) = self.source(sources)?;
        let mut texts = BTreeMap::new();
        collect(&dir, &dir, &mut texts)?;
        Ok(texts)
    }

    /// For a package without a licence text.
    pub(crate) fn authors(&self, sources: &Path) -> Result<String> {
        let (_, package) = self.source(sources)?;
        Ok(if package.authors.is_empty() {
            format!("the authors of {}", self.name)
        } else {
            package.authors.join(", ")
        })
    }

    /// Cargo's own sources are in `NAME-VERSION`, those of `cargo vendor` in `NAME` while there is only one version.
    fn source(&self, sources: &Path) -> Result<(PathBuf, Package)> {
        for dir in [format!("{}-{}", self.name, self.version), self.name.clone()] {
            let dir = sources.join(dir);
            let Ok(manifest) = fs::read_to_string(dir.join("Cargo.toml")) else { continue };
            let Manifest { package } = toml::from_str(&manifest).with_context(|| dir.display().to_string())?;
            if package.version == self.version {
                return Ok((dir, package));
            }
        }
        bail!("the sources of {} {} are not in {}, where the others are", self.name, self.version, sources.display())
    }
}

/// Also from the directories of code that was taken from elsewhere.
fn collect(top: &Path, dir: &Path, texts: &mut BTreeMap<String, String>) -> Result<()> {
    const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    const NOT_LINKED: [&str; 4] = ["tests", "benches", "examples", "fuzz"];
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !NOT_LINKED.contains(&&*name) && !name.starts_with('.') {
                collect(top, &path, texts)?;
            }
        } else if NAMES.iter().any(|start| name.to_uppercase().starts_with(start))
            && path.extension().is_none_or(|extension| extension != "rs")
        {
            // The GPL: an alternative that zstd offers, and that is not taken.
            if !path.ends_with("zstd/COPYING") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                texts.insert(path.strip_prefix(top)?.to_string_lossy().into_owned(), text);
            }
        }
    }
    Ok(())
}
