//! Upstream's tarball of an etcd release.

use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;

use super::{Arch, EtcdProgram};
use crate::PROGRAM_NAMES;

/// Returns the version, which is part of the top directory's name, and the programs, etcd first.
pub(super) fn read(tarball: &[u8], arch: Arch) -> Result<(String, Vec<EtcdProgram>)> {
    let mut version: Option<String> = None;
    let mut programs: Vec<EtcdProgram> = Vec::new();
    let mut archive = tar::Archive::new(GzDecoder::new(tarball));
    for entry in archive.entries()? {
        let mut entry = entry.context("not a .tar.gz")?;
        let path = entry.path()?.into_owned();
        let mut parts = path.iter().filter_map(|part| part.to_str()).filter(|part| *part != ".");
        let (Some(top), name, None) = (parts.next(), parts.next(), parts.next()) else { continue };
        let its_version = top
            .strip_prefix("etcd-v")
            .and_then(|rest| rest.strip_suffix(&format!("-linux-{arch}")))
            .with_context(|| format!("its top directory {top:?} is not etcd-vVERSION-linux-{arch}"))?;
        ensure!(version.get_or_insert_with(|| its_version.to_owned()) == its_version, "it holds two releases");
        if let Some(name) = PROGRAM_NAMES.into_iter().find(|program| name == Some(program)) {
            ensure!(entry.header().entry_type().is_file(), "{} is not a regular file", path.display());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
            programs.retain(|program| program.name != name); // the last one counts, as in tar
            programs.push(EtcdProgram::new(name, bytes));
        }
    }
    let version = version.context("it is empty")?;
    programs.sort_by_key(|program| PROGRAM_NAMES.iter().position(|name| *name == program.name));
    let has_etcd = programs.first().is_some_and(|program| program.name == PROGRAM_NAMES[0]);
    ensure!(has_etcd, "it holds no etcd-v{version}-linux-{arch}/etcd");
    Ok((version, programs))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{EntryType, Header};

    use super::*;

    /// A bare ELF header.
    pub(in crate::pack) fn elf(arch: Arch) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&arch.elf_machine().to_le_bytes());
        elf
    }

    /// A tarball with these files in this directory, each a bare ELF header.
    pub(in crate::pack) fn tarball(top: &str, files: &[&str], arch: Arch) -> Vec<u8> {
        let entries: Vec<_> = files.iter().map(|file| (format!("{top}/{file}"), EntryType::Regular)).collect();
        tarball_of(&entries, arch)
    }

    fn tarball_of(entries: &[(String, EntryType)], arch: Arch) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind) in entries {
            let content = if kind.is_file() { elf(arch) } else { Vec::new() };
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            if kind.is_symlink() {
                archive.append_link(&mut header, path, "elsewhere").unwrap();
            } else {
                archive.append_data(&mut header, path, &*content).unwrap();
            }
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn message(tarball: &[u8]) -> String {
        format!("{:#}", read(tarball, Arch::Amd64).unwrap_err())
    }

    #[test]
    fn only_programs_are_read_and_in_their_order() {
        let top = "./etcd-v3.7.2-linux-amd64";
        let files = ["README.md", "etcdutl", "Documentation/etcd", "etcd", "etcdctl"];
        let mut entries = vec![(format!("{top}/"), EntryType::Directory)];
        entries.extend(files.map(|file| (format!("{top}/{file}"), EntryType::Regular)));
        let (version, programs) = read(&tarball_of(&entries, Arch::Amd64), Arch::Amd64).unwrap();
        assert_eq!(version, "3.7.2");
        assert_eq!(programs.iter().map(|program| program.name).collect::<Vec<_>>(), PROGRAM_NAMES);
        assert!(programs.iter().all(|program| program.bytes == elf(Arch::Amd64)));
    }

    #[test]
    fn tarballs_without_a_release_for_the_machine_are_refused() {
        let etcd = |top: &str| tarball(top, &["etcd"], Arch::Amd64);
        let not_named = |top: &str| format!("its top directory {top:?} is not etcd-vVERSION-linux-amd64");
        for top in ["etcd-v3.7.2-linux-arm64", "etcd-3.7.2-linux-amd64", "bin"] {
            assert_eq!(message(&etcd(top)), not_named(top));
        }
        let release = "etcd-v3.7.2-linux-amd64";
        let two = [release, "etcd-v3.6.0-linux-amd64"].map(|top| (format!("{top}/etcd"), EntryType::Regular));
        assert_eq!(message(&tarball_of(&two, Arch::Amd64)), "it holds two releases");
        let none = tarball(release, &["etcdctl"], Arch::Amd64);
        assert_eq!(message(&none), "it holds no etcd-v3.7.2-linux-amd64/etcd");
        let link = tarball_of(&[(format!("{release}/etcd"), EntryType::Symlink)], Arch::Amd64);
        assert_eq!(message(&link), "etcd-v3.7.2-linux-amd64/etcd is not a regular file");
        assert_eq!(message(&tarball_of(&[], Arch::Amd64)), "it is empty");
    }

    #[test]
    fn damaged_tarballs_are_refused() {
        let whole = tarball("etcd-v3.7.2-linux-amd64", &["etcd"], Arch::Amd64);
        assert!(message(b"no gzip").starts_with("not a .tar.gz: "));
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(b"no tar").unwrap();
        assert!(message(&gz.finish().unwrap()).starts_with("not a .tar.gz: "));
        for length in [whole.len() / 4, whole.len() / 2] {
            let error = message(&whole[..length]);
            assert!(error.starts_with("not a .tar.gz: ") || error.starts_with("cannot read etcd-v3.7.2"), "{error}");
        }
        let mut damaged = whole;
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(read(&damaged, Arch::Amd64).is_err());
    }
}
