//! Makes the payload, and the files that describe it to the binary.

mod bom;
mod crates;
mod go;
pub mod help;
mod inventory;
mod licences;
mod manifest;
mod source;
mod tarball;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Error, Result, bail};
use sha2::{Digest as _, Sha256};

pub use inventory::{Inventory, Product};
pub use manifest::{Dependency, Manifest};
pub use source::{EtcdProgram, EtcdSource, TARBALL, TARBALL_SHA256};

use crate::{Documents, Frame, Label, LabelledPayload, LabelledProgram, Program, Release, Texts, compress};

/// The number of frames of a program without a prefix. It is even, because two threads unpack them.
const FRAMES: usize = 8;

/// The size of a frame of a program with a prefix, in bytes. Each frame costs a search of the whole prefix, so there are few.
const PREFIXED_FRAME: usize = 8 << 20;

/// An architecture that etcd is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `x86_64` in Rust.
    Amd64,
    /// `aarch64` in Rust.
    Arm64,
}

impl Arch {
    /// The architecture with this name in Rust.
    pub fn of_rust(name: &str) -> Result<Self> {
        match name {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            _ => bail!("no etcd release is pinned for the architecture {name:?}: x86_64 and aarch64 are"),
        }
    }

    /// The name in Go, which upstream uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The number in an ELF header: `EM_X86_64` or `EM_AARCH64`.
    fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The files that the binary includes.
#[derive(Debug, PartialEq, Eq)]
pub struct Packed {
    payload: Vec<u8>,
    /// The Rust source of a [`Release`].
    release: String,
    /// The Rust source of [`Documents`].
    documents: String,
    /// The JSON of a [`Label`].
    label: String,
}

/// zstd's level for a payload that is shipped: the strongest one.
pub const SMALL: i32 = 22;
/// zstd's level for a debug build, which must not wait for seconds.
pub const FAST: i32 = 3;

impl Packed {
    /// Compresses everything. `help` has a name and a text for each page; `level` is [`SMALL`] or [`FAST`].
    ///
    /// # Errors
    /// The message of zstd.
    pub fn new(
        etcdproxy: &str,
        source: &EtcdSource,
        inventory: &Inventory,
        help: &[(String, String)],
        level: i32,
    ) -> Result<Self> {
        let EtcdSource { version, arch, origin, .. } = source;
        let mut payload = Vec::new();

        let mut prefix = Vec::new();
        let mut frames = Vec::new();
        for EtcdProgram { bytes, .. } in &source.programs {
            frames.push(pack_program(bytes, &prefix, level, &mut payload)?);
            prefix.extend_from_slice(bytes);
        }
        let programs: Vec<Program<'_>> = source
            .programs
            .iter()
            .zip(&frames)
            .map(|(EtcdProgram { name, sha256, bytes }, frames)| Program {
                name,
                size: bytes.len() as u64,
                sha256,
                frames,
            })
            .collect();
        let id = format!("{version}-{}", &content_hash(&source.programs)[..16]);
        let release = Release { version, arch: arch.name(), origin, id: &id, programs: &programs };

        let mut texts = String::new();
        let mut append = |text: &str| {
            let start = texts.len();
            texts.push_str(text);
            start..texts.len()
        };
        let (cyclonedx, spdx) = (append(&inventory.cyclonedx), append(&inventory.spdx));
        let (launcher_cyclonedx, launcher_spdx) =
            (append(&inventory.launcher_cyclonedx), append(&inventory.launcher_spdx));
        let licenses = append(&inventory.licenses);
        let help: Vec<_> = help.iter().map(|(name, text)| (name.as_str(), append(text))).collect();
        let packed = compress(texts.as_bytes(), &[], level).map_err(zstd_error)?;
        let frame = append_frame(&mut payload, &packed, texts.as_bytes());
        let texts = Texts { frame, cyclonedx, spdx, launcher_cyclonedx, launcher_spdx, licenses };

        let label = Label {
            etcdproxy: etcdproxy.to_owned(),
            etcd: version.clone(),
            arch: arch.name().to_owned(),
            programs: programs.iter().map(labelled).collect(),
            documents: texts.clone(),
            payload: LabelledPayload::new(&payload),
        };
        let (release, documents) = (release.to_rust(), Documents { texts, help: &help }.to_rust());
        Ok(Self { payload, release, documents, label: serde_json::to_string(&label)? })
    }

    /// Writes the files into the directory `dir`, which is `OUT_DIR` in a build.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let write = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
        };
        write("release.zst", &self.payload)?;
        write("release.rs", self.release.as_bytes())?;
        write("documents.rs", self.documents.as_bytes())?;
        write("label.json", self.label.as_bytes())
    }
}

fn labelled(program: &Program<'_>) -> LabelledProgram {
    LabelledProgram {
        name: program.name.to_owned(),
        sha256: program.sha256.to_owned(),
        size: program.size,
        frames: program.frames.to_vec(),
    }
}

/// A hash of all programs. It is part of the name of the directory that they are unpacked into.
fn content_hash(programs: &[EtcdProgram]) -> String {
    let listing: String =
        programs.iter().map(|EtcdProgram { name, sha256, .. }| format!("{sha256}  {name}\n")).collect();
    sha256_hex(listing.as_bytes())
}

fn pack_program(bytes: &[u8], prefix: &[u8], level: i32, payload: &mut Vec<u8>) -> Result<Vec<Frame>> {
    let frame = if prefix.is_empty() { bytes.len().div_ceil(FRAMES).max(1) } else { PREFIXED_FRAME };
    let pieces: Vec<&[u8]> = bytes.chunks(frame).collect();
    let packed = in_parallel(&pieces, |piece| compress(piece, prefix, level));
    let append =
        |(piece, packed): (_, Result<Vec<u8>, _>)| Ok(append_frame(payload, &packed.map_err(zstd_error)?, piece));
    pieces.into_iter().zip(packed).map(append).collect()
}

fn append_frame(payload: &mut Vec<u8>, packed: &[u8], plain: &[u8]) -> Frame {
    let start = payload.len();
    payload.extend_from_slice(packed);
    Frame::new(start..payload.len(), plain)
}

fn zstd_error(problem: &str) -> Error {
    Error::msg(format!("zstd: {problem}"))
}

/// Calls `work` for each item, on as many threads as the machine has cores. The results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let one = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        Some((index, work(items.get(index)?)))
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| std::iter::from_fn(one).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("compressing does not panic")).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PROGRAM_NAMES, Unpacker};

    fn source(programs: &[&[u8]]) -> EtcdSource {
        let programs = PROGRAM_NAMES.into_iter().zip(programs);
        EtcdSource {
            version: "3.7.2".to_owned(),
            arch: Arch::Arm64,
            origin: "a test".to_owned(),
            uri: None,
            programs: programs.map(|(name, bytes)| EtcdProgram::new(name, bytes.to_vec())).collect(),
        }
    }

    fn packed(source: &EtcdSource) -> Packed {
        let inventory = Inventory {
            cyclonedx: "{1}".to_owned(),
            spdx: "{22}".to_owned(),
            launcher_cyclonedx: "{3}".to_owned(),
            launcher_spdx: "{44}".to_owned(),
            licenses: "Lizenzen für alle".to_owned(),
            warnings: Vec::new(),
        };
        let help = [("man/etcdproxy.1".to_owned(), ".TH".to_owned())];
        Packed::new("0.1.0", source, &inventory, &help, FAST).unwrap()
    }

    /// Bytes that do not repeat within one program, but are alike in all programs.
    fn program(length: usize) -> Vec<u8> {
        (0..length).flat_map(|number| Sha256::digest(number.to_le_bytes())).collect()
    }

    #[test]
    fn programs_are_unpacked_unchanged_and_those_with_a_prefix_are_small() {
        let etcd = program(1000);
        let etcdctl = [b"its own", &etcd[..20_000]].concat();
        let mut payload = Vec::new();
        let first = pack_program(&etcd, &[], 3, &mut payload).unwrap();
        let second = pack_program(&etcdctl, &etcd, 3, &mut payload).unwrap();
        assert_eq!((first.len(), second.len()), (FRAMES, 1));

        let mut unpacker = Unpacker::new();
        for (frames, prefix, program) in [(&first, &[][..], &etcd), (&second, &etcd, &etcdctl)] {
            let mut plain = Vec::new();
            for frame in frames {
                plain.extend_from_slice(unpacker.unpack(frame, &payload[frame.packed.clone()], prefix).unwrap());
            }
            assert!(plain == *program);
        }
        assert!(second[0].packed.len() < 500, "{second:?}");
        let all: Vec<usize> = first.iter().chain(&second).flat_map(|frame| frame.packed.clone()).collect();
        assert_eq!(all, (0..payload.len()).collect::<Vec<_>>(), "nothing else is in the payload");
    }

    #[test]
    fn a_program_smaller_than_its_number_of_frames() {
        let mut payload = Vec::new();
        assert_eq!(pack_program(b"abc", &[], 3, &mut payload).unwrap().len(), 3);
        assert_eq!(pack_program(b"", &[], 3, &mut payload).unwrap().len(), 0);
    }

    #[test]
    fn the_documents_are_the_last_frame() {
        let Packed { payload, documents, .. } = packed(&source(&[b"etcd"]));
        let texts = "{1}{22}{3}{44}Lizenzen für alle.TH";
        let start = payload.len() - compress(texts.as_bytes(), &[], 3).unwrap().len();
        let frame = Frame::new(start..payload.len(), texts.as_bytes());
        assert_eq!(Unpacker::new().unpack(&frame, &payload[start..], &[]), Ok(texts.as_bytes()));
        let help = [("man/etcdproxy.1", 32..35)];
        let texts = Texts {
            frame,
            cyclonedx: 0..3,
            spdx: 3..7,
            launcher_cyclonedx: 7..10,
            launcher_spdx: 10..14,
            licenses: 14..32,
        };
        assert_eq!(documents, Documents { texts, help: &help }.to_rust());
    }

    #[test]
    fn the_label_names_what_is_inside() {
        let Packed { label, payload, .. } = packed(&source(&[b"etcd", b"etcdctl"]));
        let label: Label = serde_json::from_str(&label).unwrap();
        assert_eq!((&*label.etcdproxy, &*label.etcd, &*label.arch), ("0.1.0", "3.7.2", "arm64"));
        let programs: Vec<_> = label.programs.iter().map(|program| (&*program.name, &*program.sha256)).collect();
        assert_eq!(programs, [("etcd", &*sha256_hex(b"etcd")), ("etcdctl", &*sha256_hex(b"etcdctl"))]);
        let first = &label.programs[0].frames[0];
        assert_eq!(Unpacker::new().unpack(first, &payload[first.packed.clone()], &[]), Ok(&b"e"[..]));
        assert_eq!(label.documents.frame.packed.end, payload.len());
        assert_eq!(label.payload, LabelledPayload::new(&payload));
    }

    #[test]
    fn the_same_release_gives_the_same_files_and_another_has_another_id() {
        let etcd = program(100);
        assert_eq!(packed(&source(&[&etcd, b"ctl"])), packed(&source(&[&etcd, b"ctl"])));
        let hash = |programs: &[&[u8]]| content_hash(&source(programs).programs);
        assert_ne!(hash(&[b"etcd"]), hash(&[b"etcd", b""]));
        assert_ne!(hash(&[b"etcd"]), hash(&[b"etcs"]));
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn architectures_have_the_names_of_rust_and_of_go() {
        assert_eq!(Arch::of_rust("x86_64").unwrap().to_string(), "amd64");
        assert_eq!(Arch::of_rust("aarch64").unwrap().to_string(), "arm64");
        let error = Arch::of_rust("riscv64").unwrap_err().to_string();
        assert_eq!(error, "no etcd release is pinned for the architecture \"riscv64\": x86_64 and aarch64 are");
    }
}
