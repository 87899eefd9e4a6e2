//! The etcd release that is packed: from the pinned package, or from a tarball.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::manifest::Dependency;
use super::{Arch, sha256_hex, tarball};

/// The variable that names the tarball to take etcd from.
pub const TARBALL: &str = "ETCD_RELEASE_TARBALL";
/// The variable with the sha256 of the tarball, set by a user who vouches for it.
pub const TARBALL_SHA256: &str = "ETCD_RELEASE_SHA256";

/// An etcd release before it is compressed.
#[derive(Debug)]
pub struct EtcdSource {
    /// Upstream's version, without the `v`.
    pub version: String,
    /// The architecture of its programs.
    pub arch: Arch,
    /// Where it was taken from, to show to users.
    pub origin: String,
    /// The URL of upstream's tarball, if it is the release of the manifest.
    pub uri: Option<String>,
    /// In the order of [`PROGRAM_NAMES`](crate::PROGRAM_NAMES); the first is etcd.
    pub programs: Vec<EtcdProgram>,
}

/// A program as upstream built it.
#[derive(Debug)]
pub struct EtcdProgram {
    /// One of [`PROGRAM_NAMES`](crate::PROGRAM_NAMES).
    pub name: &'static str,
    /// The sha256 of the file, in lower-case hex.
    pub sha256: String,
    /// The whole file.
    pub bytes: Vec<u8>,
}

impl EtcdProgram {
    pub(super) fn new(name: &'static str, bytes: Vec<u8>) -> Self {
        Self { name, sha256: sha256_hex(&bytes), bytes }
    }
}

impl EtcdSource {
    /// Takes etcd from the pinned package.
    ///
    /// # Errors
    /// If it is not the etcd of the manifest.
    pub fn from_package(etcd: Vec<u8>, arch: Arch, known: &Dependency) -> Result<Self> {
        let origin = format!("the package etcd-bin-vendored-linux-{arch}");
        let etcd = EtcdProgram::new("etcd", etcd);
        known.check(&etcd, &origin)?;
        let (version, uri) = (known.version.clone(), Some(known.uri.clone()));
        Self { version, arch, origin, uri, programs: vec![etcd] }.checked()
    }

    /// Takes the release in `tarball`, which was read from `path`.
    ///
    /// # Errors
    /// If its sha256 is neither in the manifest nor `vouched`, or if it is not a release for `arch`.
    pub fn from_tarball(
        path: &Path,
        tarball: &[u8],
        vouched: Option<&str>,
        arch: Arch,
        known: &Dependency,
    ) -> Result<Self> {
        let sha256 = sha256_hex(tarball);
        let in_manifest = known.sha256.as_ref() == Some(&sha256);
        match vouched {
            Some(vouched) => ensure!(
                vouched.eq_ignore_ascii_case(&sha256),
                "{TARBALL_SHA256} is {vouched}, but {} has sha256 {sha256}",
                path.display()
            ),
            None => ensure!(
                in_manifest,
                "{} has sha256 {sha256}, which manifest.yml does not know for etcd {} linux-{arch}; to build from it all \
                 the same, set {TARBALL_SHA256} to that hash",
                path.display(),
                known.version
            ),
        }

        let (version, programs) = tarball::read(tarball, arch).with_context(|| path.display().to_string())?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        ensure!(
            !in_manifest || version == known.version,
            "{file_name} holds etcd {version}, but manifest.yml gives its hash for {}",
            known.version
        );
        // Even if a user vouches for the tarball: there is only one etcd of that version.
        if version == known.version {
            for program in &programs {
                known.check(program, &file_name)?;
            }
        }
        let origin = format!("the tarball {file_name}, sha256 {sha256}");
        let uri = in_manifest.then(|| known.uri.clone());
        Self { version, arch, origin, uri, programs }.checked()
    }

    /// Refuses programs for another machine.
    fn checked(self) -> Result<Self> {
        for EtcdProgram { name, bytes, .. } in &self.programs {
            ensure!(is_elf_for(self.arch, bytes), "{name} is not an ELF program for linux-{}", self.arch);
        }
        Ok(self)
    }
}

/// By `e_machine`, the 16 bits at offset 18: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>
fn is_elf_for(arch: Arch, bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&arch.elf_machine().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Manifest, tests::yaml};
    use super::super::tarball::tests::{elf, tarball};
    use super::*;

    fn from_tarball(bytes: &[u8], vouched: Option<&str>, yaml: &str) -> Result<EtcdSource> {
        let manifest = Manifest::parse(yaml)?;
        EtcdSource::from_tarball(Path::new("dir/x.tar.gz"), bytes, vouched, Arch::Amd64, manifest.etcd(Arch::Amd64)?)
    }

    fn message(result: Result<EtcdSource>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn the_package_must_have_the_etcd_of_the_manifest_for_the_right_machine() {
        let take = |bytes: &[u8], arch| {
            let manifest = Manifest::parse(&yaml(&sha256_hex(&elf(Arch::Amd64)), None)).unwrap();
            EtcdSource::from_package(bytes.to_owned(), arch, manifest.etcd(Arch::Amd64).unwrap())
        };
        let source = take(&elf(Arch::Amd64), Arch::Amd64).unwrap();
        assert_eq!((&*source.version, source.uri.as_deref()), ("3.7.2", Some("https://example.com/etcd.tar.gz")));
        assert_eq!(source.origin, "the package etcd-bin-vendored-linux-amd64");
        let other = message(take(b"another", Arch::Amd64));
        assert!(
            other.starts_with("etcd from the package etcd-bin-vendored-linux-amd64 is not the etcd 3.7.2"),
            "{other}"
        );
        assert_eq!(message(take(&elf(Arch::Amd64), Arch::Arm64)), "etcd is not an ELF program for linux-arm64");
    }

    #[test]
    fn a_tarball_of_the_manifest_needs_nobody_to_vouch_for_it() {
        let bytes = tarball("etcd-v3.7.2-linux-amd64", &["etcdctl", "etcd"], Arch::Amd64);
        let sha256 = sha256_hex(&bytes);
        let yaml = yaml(&sha256_hex(&elf(Arch::Amd64)), Some(&sha256));
        let source = from_tarball(&bytes, None, &yaml).unwrap();
        assert_eq!(source.origin, format!("the tarball x.tar.gz, sha256 {sha256}"));
        assert_eq!(source.uri.as_deref(), Some("https://example.com/etcd.tar.gz"));
        assert_eq!(source.programs.iter().map(|program| program.name).collect::<Vec<_>>(), ["etcd", "etcdctl"]);
        from_tarball(&bytes, Some(&sha256.to_uppercase()), &yaml).unwrap();
    }

    #[test]
    fn another_tarball_needs_somebody_to_vouch_for_it() {
        let bytes = tarball("etcd-v3.9.0-linux-amd64", &["etcd"], Arch::Amd64);
        let sha256 = sha256_hex(&bytes);
        let yaml = yaml("7a0c", Some("3a36"));
        let unknown = message(from_tarball(&bytes, None, &yaml));
        assert!(unknown.starts_with(&format!("dir/x.tar.gz has sha256 {sha256}, which manifest.yml")), "{unknown}");
        let wrong = message(from_tarball(&bytes, Some("1111"), &yaml));
        assert_eq!(wrong, format!("ETCD_RELEASE_SHA256 is 1111, but dir/x.tar.gz has sha256 {sha256}"));
        let source = from_tarball(&bytes, Some(&sha256), &yaml).unwrap();
        assert_eq!((&*source.version, source.uri), ("3.9.0", None));
    }

    #[test]
    fn the_hash_of_the_manifest_does_not_vouch_for_another_version() {
        let bytes = tarball("etcd-v3.9.0-linux-amd64", &["etcd"], Arch::Amd64);
        let error = message(from_tarball(&bytes, None, &yaml("7a0c", Some(&sha256_hex(&bytes)))));
        assert_eq!(error, "x.tar.gz holds etcd 3.9.0, but manifest.yml gives its hash for 3.7.2");
    }

    #[test]
    fn there_is_one_etcd_of_the_version_in_the_manifest() {
        let bytes = tarball("etcd-v3.7.2-linux-amd64", &["etcd"], Arch::Amd64);
        let error = message(from_tarball(&bytes, Some(&sha256_hex(&bytes)), &yaml("7a0c", None)));
        assert!(error.starts_with("etcd from x.tar.gz is not the etcd 3.7.2 linux-amd64 of manifest.yml"), "{error}");
    }

    #[test]
    fn programs_for_another_machine_are_refused() {
        let bytes = tarball("etcd-v3.9.0-linux-amd64", &["etcd"], Arch::Arm64);
        let error = message(from_tarball(&bytes, Some(&sha256_hex(&bytes)), &yaml("7a0c", None)));
        assert_eq!(error, "etcd is not an ELF program for linux-amd64");

        assert!(is_elf_for(Arch::Arm64, &elf(Arch::Arm64)));
        assert!(!is_elf_for(Arch::Arm64, &elf(Arch::Arm64)[..19]), "cut short");
        assert!(!is_elf_for(Arch::Arm64, b"#!/bin/sh\necho a script\n"));
    }
}
