//! The crates that are linked into the binary, and where their sources are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// A crate that is linked.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) license: String,
    /// sha256 of the package, from `Cargo.lock`. This project's own package has none.
    pub(super) sha256: Option<String>,
    /// The keys of the crates that it uses directly.
    pub(super) uses: BTreeSet<Key>,
}

/// Name and version.
pub(super) type Key = (String, String);

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    /// None for the packages of this workspace.
    source: Option<String>,
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

/// The crates that are linked into the package `root` for `target`, including `root`. Other packages of this workspace count
/// as parts of it.
///
/// Asks `cargo tree`, because only Cargo knows which optional dependencies and features are on for a target. It needs no
/// network and no packages other than those of the build (`cargo metadata` also needs those of the tests).
pub(super) fn linked(root: &str, target: &str) -> Result<BTreeMap<Key, Crate>> {
    let dir = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&dir).args(["tree", "--offline", "--locked", "--quiet", "--package", root, "--target", target]);
    command.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "\t{p}\t{l}"]);
    let output = command.output().context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    let tree = parse(&String::from_utf8(output.stdout)?)?;
    let lock: Lock = toml::from_str(&fs::read_to_string(dir.join("Cargo.lock")).context("Cargo.lock")?)?;
    Ok(with_lock(tree, lock, root))
}

/// Each line has the depth, the name and version, and the licence. `(*)` marks a crate that was listed before; its
/// dependencies are not repeated.
fn parse(tree: &str) -> Result<BTreeMap<Key, Crate>> {
    let mut crates: BTreeMap<Key, Crate> = BTreeMap::new();
    let mut path: Vec<Key> = Vec::new();
    for line in tree.lines() {
        let mut fields = line.trim_end_matches(" (*)").split('\t');
        let (Some(depth), Some(package), Some(license)) = (fields.next(), fields.next(), fields.next()) else {
            bail!("unexpected line from cargo tree: {line:?}");
        };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|word| word.strip_prefix('v'))) else {
            bail!("unexpected line from cargo tree: {line:?}");
        };
        let key = (name.to_owned(), version.to_owned());
        path.truncate(depth.parse().with_context(|| format!("unexpected line from cargo tree: {line:?}"))?);
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

/// Adds the hashes, and merges the workspace's own packages into the root, which then uses what they use.
fn with_lock(mut crates: BTreeMap<Key, Crate>, lock: Lock, root: &str) -> BTreeMap<Key, Crate> {
    let mut own = Vec::new();
    for Locked { name, version, source, checksum } in lock.package {
        let is_part = source.is_none() && name != root;
        let key = (name, version);
        if is_part {
            own.extend(crates.remove(&key).map(|part| (key, part)));
        } else if let Some(found) = crates.get_mut(&key) {
            found.sha256 = checksum;
        }
    }
    if let Some(root) = crates.values_mut().find(|part| part.name == root) {
        for (key, part) in own {
            root.uses.extend(part.uses);
            root.uses.remove(&key);
        }
    }
    crates
}

impl Crate {
    /// The licence texts in the package's sources, by file name. `sources` is the directory with the sources of all packages.
    pub(super) fn texts(&self, sources: &Path) -> Result<BTreeMap<String, String>> {
        let (dir, _) = self.source(sources)?;
        let mut texts = BTreeMap::new();
        collect(&dir, &dir, &mut texts)?;
        Ok(texts)
    }

    /// The authors, to name the copyright holders of a package without a licence text.
    pub(super) fn authors(&self, sources: &Path) -> Result<String> {
        let (_, package) = self.source(sources)?;
        Ok(if package.authors.is_empty() {
            format!("the authors of {}", self.name)
        } else {
            package.authors.join(", ")
        })
    }

    /// Finds the sources. Cargo puts them into `NAME-VERSION`; `cargo vendor` into `NAME` if there is only one version.
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

/// Also searches subdirectories, which may contain code that was copied from elsewhere.
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
            // zstd offers the GPL as an alternative. We choose its other licence.
            if !path.ends_with("zstd/COPYING") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                texts.insert(path.strip_prefix(top)?.to_string_lossy().into_owned(), text);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0\tetcdproxy v0.1.0 (/src)\tApache-2.0
1\tanyhow v1.0.1\tMIT OR Apache-2.0
1\tetcdproxy-payload v0.1.0 (/src/build)\tApache-2.0
2\tserde v1.0.2\tMIT/Apache-2.0
3\tserde_core v1.0.2\tMIT
2\tzstd v0.14.0\tBSD-3-Clause
1\tserde v1.0.2\tMIT/Apache-2.0 (*)
";

    fn key(name: &str, version: &str) -> Key {
        (name.to_owned(), version.to_owned())
    }

    fn names(crates: &BTreeSet<Key>) -> Vec<&str> {
        crates.iter().map(|(name, _)| &**name).collect()
    }

    #[test]
    fn a_tree_gives_each_crate_once_with_what_it_uses() {
        let crates = parse(TREE).unwrap();
        assert_eq!(crates.len(), 6);
        assert_eq!(names(&crates[&key("etcdproxy", "0.1.0")].uses), ["anyhow", "etcdproxy-payload", "serde"]);
        let serde = &crates[&key("serde", "1.0.2")];
        assert_eq!(names(&serde.uses), ["serde_core"]);
        assert_eq!(serde.license, "MIT OR Apache-2.0", "as SPDX writes it");
    }

    #[test]
    fn packages_of_the_workspace_are_one_and_the_others_have_their_hash() {
        let lock = r#"
            [[package]]
            name = "etcdproxy"
            version = "0.1.0"
            [[package]]
            name = "etcdproxy-payload"
            version = "0.1.0"
            [[package]]
            name = "anyhow"
            version = "1.0.1"
            source = "registry+x"
            checksum = "7a0c"
            [[package]]
            name = "anyhow"
            version = "2.0.0"
            source = "registry+x"
            checksum = "not linked"
        "#;
        let crates = with_lock(parse(TREE).unwrap(), toml::from_str(lock).unwrap(), "etcdproxy");
        assert_eq!(names(&crates.keys().cloned().collect()), ["anyhow", "etcdproxy", "serde", "serde_core", "zstd"]);
        assert_eq!(names(&crates[&key("etcdproxy", "0.1.0")].uses), ["anyhow", "serde", "zstd"]);
        assert_eq!(crates[&key("anyhow", "1.0.1")].sha256.as_deref(), Some("7a0c"));
        assert_eq!(crates[&key("etcdproxy", "0.1.0")].sha256, None);
    }

    #[test]
    fn unexpected_lines_of_cargo_tree_are_refused() {
        for line in ["0\tetcdproxy v0.1.0", "0\tetcdproxy 0.1.0\tMIT", "x\tetcdproxy v0.1.0\tMIT", ""] {
            let error = format!("{:#}", parse(&format!("{line}\n")).err().unwrap());
            assert!(error.starts_with("unexpected line from cargo tree: "), "{error}");
        }
        let error = parse("0\tetcdproxy v0.1.0\t\n").err().unwrap().to_string();
        assert_eq!(error, "etcdproxy 0.1.0 does not name its licence");
    }

    #[test]
    fn licence_texts_and_authors_are_those_of_the_sources() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("one-1.0.0/Cargo.toml", "[package]\nversion = \"1.0.0\"\nauthors = [\"A\", \"B\"]");
        for file in
            ["LICENSE-MIT", "license.txt", "LICENSE.rs", "c/COPYING", "tests/LICENSE", ".x/LICENSE", "README.md"]
        {
            write(&format!("one-1.0.0/{file}"), file);
        }
        write("one-1.0.0/zstd/COPYING", "the GPL");
        // As `cargo vendor` names it.
        write("two/Cargo.toml", "[package]\nversion = \"2.0.0\"");
        let part = |name: &str, version: &str| {
            let (name, version) = key(name, version);
            Crate { name, version, license: "MIT".to_owned(), sha256: None, uses: BTreeSet::new() }
        };
        let one = part("one", "1.0.0");
        let texts = one.texts(dir.path()).unwrap();
        assert_eq!(texts.into_keys().collect::<Vec<_>>(), ["LICENSE-MIT", "c/COPYING", "license.txt"]);
        assert_eq!(one.authors(dir.path()).unwrap(), "A, B");
        assert_eq!(part("two", "2.0.0").authors(dir.path()).unwrap(), "the authors of two");
        let error = part("two", "3.0.0").texts(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("the sources of two 3.0.0 are not in "), "{error}");
    }
}
