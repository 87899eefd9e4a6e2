//! `manifest.yml`: the pinned version of etcd and the hashes of its files.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Arch, EtcdProgram};

/// The part of a Cloud Foundry buildpack manifest that a build needs.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    default_versions: Vec<DefaultVersion>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct DefaultVersion {
    name: String,
    version: String,
}

/// An etcd release for one architecture, as the manifest describes it.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    name: String,
    pub(super) version: String,
    arch: String,
    /// The URL of upstream's tarball.
    pub(super) uri: String,
    /// The sha256 of the tarball.
    pub(super) sha256: Option<String>,
    binaries: Vec<Binary>,
}

#[derive(Debug, Deserialize)]
struct Binary {
    name: String,
    sha256: String,
}

impl Manifest {
    /// Parses the text of `manifest.yml`.
    pub fn parse(yaml: &str) -> Result<Self> {
        serde_saphyr::from_str(yaml).context("manifest.yml is not the YAML this build expects")
    }

    /// The etcd to build with.
    pub fn etcd(&self, arch: Arch) -> Result<&Dependency> {
        let default = self
            .default_versions
            .iter()
            .find(|default| default.name == "etcd")
            .context("manifest.yml: default_versions has no entry named etcd")?;
        let known = self
            .dependencies
            .iter()
            .find(|known| known.name == "etcd" && known.version == default.version && known.arch == arch.name())
            .with_context(|| format!("manifest.yml: dependencies has no etcd {} for {arch}", default.version))?;
        ensure!(
            known.binary("etcd").is_some(),
            "manifest.yml: etcd {} for {arch} has no binaries entry named etcd",
            known.version
        );
        Ok(known)
    }
}

impl Dependency {
    fn binary(&self, name: &str) -> Option<&Binary> {
        self.binaries.iter().find(|binary| binary.name == name)
    }

    /// Refuses a program whose sha256 differs from the one in the manifest. A program that the manifest does not list passes.
    pub(super) fn check(&self, program: &EtcdProgram, origin: &str) -> Result<()> {
        let EtcdProgram { name, sha256, .. } = program;
        let Some(known) = self.binary(name) else { return Ok(()) };
        ensure!(
            *sha256 == known.sha256,
            "{name} from {origin} is not the {name} {} linux-{} of manifest.yml: sha256 {sha256}, expected {}",
            self.version,
            self.arch,
            known.sha256
        );
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest with one etcd, for amd64.
    pub(in crate::pack) fn yaml(etcd_sha256: &str, tarball_sha256: Option<&str>) -> String {
        let tarball_sha256 = tarball_sha256.map(|sha256| format!("\n  sha256: {sha256}")).unwrap_or_default();
        format!(
            "default_versions:\n- name: etcd\n  version: 3.7.2\n\
             dependencies:\n- name: etcd\n  version: 3.7.2\n  arch: amd64\n  uri: https://example.com/etcd.tar.gz{tarball_sha256}\n  \
             binaries:\n  - name: etcd\n    sha256: {etcd_sha256}\n"
        )
    }

    fn refused(yaml: &str, arch: Arch) -> String {
        let known = Manifest::parse(yaml).and_then(|manifest| manifest.etcd(arch).map(|_| ()));
        format!("{:#}", known.unwrap_err())
    }

    #[test]
    fn the_default_version_for_the_architecture_is_taken() {
        let older = "- name: etcd\n  version: 3.6.0\n  arch: amd64\n  uri: x\n  binaries: []\n";
        let yaml = yaml("7a0c", Some("3a36")).replace("dependencies:\n", &format!("dependencies:\n{older}"));
        let manifest = Manifest::parse(&yaml).unwrap();
        let etcd = manifest.etcd(Arch::Amd64).unwrap();
        assert_eq!((&*etcd.version, etcd.sha256.as_deref()), ("3.7.2", Some("3a36")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let yaml = yaml("7a0c", None);
        assert_eq!(refused(&yaml, Arch::Arm64), "manifest.yml: dependencies has no etcd 3.7.2 for arm64");
        let changed = |from, to| refused(&yaml.replacen(from, to, 1), Arch::Amd64);
        assert_eq!(changed("name: etcd", "name: other"), "manifest.yml: default_versions has no entry named etcd");
        assert_eq!(
            changed("version: 3.7.2", "version: 3.9.0"),
            "manifest.yml: dependencies has no etcd 3.9.0 for amd64"
        );
        assert_eq!(
            changed("  - name: etcd\n", "  - name: etcdctl\n"),
            "manifest.yml: etcd 3.7.2 for amd64 has no binaries entry named etcd"
        );
        assert!(changed("uri:", "url:").starts_with("manifest.yml is not the YAML this build expects: "));
    }

    #[test]
    fn a_program_must_have_the_hash_of_the_manifest() {
        let manifest = Manifest::parse(&yaml(&crate::pack::sha256_hex(b"etcd"), None)).unwrap();
        let etcd = manifest.etcd(Arch::Amd64).unwrap();
        let check = |name, bytes: &[u8]| etcd.check(&EtcdProgram::new(name, bytes.to_owned()), "a test");
        check("etcd", b"etcd").unwrap();
        check("etcdctl", b"no hash of it is known").unwrap();
        let error = check("etcd", b"another").unwrap_err().to_string();
        assert!(
            error.starts_with("etcd from a test is not the etcd 3.7.2 linux-amd64 of manifest.yml: sha256 "),
            "{error}"
        );
    }
}
