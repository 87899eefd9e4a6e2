//! The etcd release inside this binary: what it is, and how it comes out.
//!
//! Knows nothing of the rest of the program. `build.rs` describes the payload format.

mod label;
mod launcher;
mod payload;
mod publish;
mod store;
mod unpack_roots;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) use label::{Label, Labelled};
pub(crate) use launcher::write_launcher;
pub(crate) use payload::is_carried;
pub(crate) use publish::{Difference, difference};
pub(crate) use store::{Executable, Store};

use crate::fs::WriteError;
use payload::DecodeError;

/// An etcd release as `build.rs` packed it.
#[derive(Debug)]
pub(crate) struct Release {
    /// Upstream's version, without the `v`.
    pub version: &'static str,
    /// `amd64` or `arm64`, as upstream names them.
    pub arch: &'static str,
    /// Where the build took it from, in words.
    pub origin: &'static str,
    /// Version and content hash: the same programs have the same id.
    pub id: &'static str,
    /// `etcd` first, then `etcdctl` and `etcdutl` when the release carries them.
    pub programs: &'static [Program],
}

/// One program of a release.
#[derive(Debug)]
pub(crate) struct Program {
    pub name: &'static str,
    /// Unpacked size in bytes.
    pub size: u64,
    /// sha256 of the unpacked program, in lower-case hex.
    pub sha256: &'static str,
    frames: &'static [Frame],
}

/// All texts in one frame, and which part of them is which.
#[derive(Debug)]
struct Documents {
    frame: Frame,
    cyclonedx: Range<usize>,
    spdx: Range<usize>,
    licenses: Range<usize>,
    /// Completions and manual pages, by name.
    help: &'static [(&'static str, Range<usize>)],
}

/// A text that tells what this binary is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Document {
    /// Bill of materials, `CycloneDX` 1.6.
    CycloneDx,
    /// Bill of materials, SPDX 2.3.
    Spdx,
    Licenses,
}

#[derive(Debug)]
struct Frame {
    /// Where it stands in the payload.
    packed: Range<usize>,
    /// Bytes when unpacked.
    size: usize,
    sha256: [u8; 32],
}

/// Version of etcdproxy, and so of the buildpack.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release this binary was built with.
#[allow(clippy::unreadable_literal, reason = "generated")]
pub(crate) static RELEASE: Release = include!(concat!(env!("OUT_DIR"), "/release.rs"));

#[allow(clippy::unreadable_literal, reason = "generated")]
static DOCUMENTS: Documents = include!(concat!(env!("OUT_DIR"), "/documents.rs"));

/// Names of the programs an etcd release can hold, carried by this build or not.
pub(crate) const PROGRAM_NAMES: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

impl Release {
    /// Whether this etcd is at least as new as `minimum` (major, minor, patch).
    pub(crate) fn is_at_least(&self, minimum: [u32; 3]) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0)) >= minimum
    }

    /// The program called `name`, or an error that says how to get a build that has it.
    pub(crate) fn program(&self, name: &str) -> Result<&'static Program, Error> {
        self.programs
            .iter()
            .find(|program| program.name == name)
            .ok_or_else(|| Error::NotCarried { name: name.to_owned(), has: self.names() })
    }

    fn names(&self) -> String {
        self.programs.iter().map(|program| program.name).collect::<Vec<_>>().join(", ")
    }
}

/// Why a program, or a document, does not come out of this binary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this build carries {has}, not {name}: build with ETCD_RELEASE_TARBALL set to the official etcd tarball")]
    NotCarried { name: String, has: String },

    #[error(
        "this is the small launcher, which has no {name} inside: put it back beside {name}, or use the full etcdproxy"
    )]
    Launcher { name: &'static str },

    #[error("this is the small launcher, which has no {what} inside: use the full etcdproxy")]
    NoDocument { what: &'static str },

    #[error("cannot make the small launcher from this binary: {detail}")]
    NoLauncher { detail: String },

    #[error("the {name} inside this binary is damaged ({detail}): copy or download etcdproxy again")]
    Damaged { name: &'static str, detail: String },

    #[error("{path} exists and is not {name} {version} ({difference}): move it away, or choose another directory")]
    Occupied { path: PathBuf, name: &'static str, version: &'static str, difference: Difference },

    #[error(transparent)]
    Write(#[from] WriteError),

    #[error("{path} belongs to uid {owner}, who could replace the programs in it: {remedy}")]
    WrongOwner { path: PathBuf, owner: u32, remedy: &'static str },

    #[error("{path} is on a file system mounted noexec, so nothing can be run from it: {remedy}")]
    NoExec { path: PathBuf, remedy: &'static str },

    #[error("cannot read {path}: {cause}")]
    CannotRead { path: PathBuf, cause: io::Error },

    #[error(
        "cannot keep {name} in memory: {cause}: \
         set ETCDPROXY_UNPACK_DIR to a directory that etcdproxy can write to and run programs from"
    )]
    NoMemory { name: &'static str, cause: io::Error },
}

impl Error {
    fn of_decode(program: &Program, err: DecodeError, sink: impl FnOnce(io::Error) -> Self) -> Self {
        match err {
            DecodeError::Absent => Self::Launcher { name: program.name },
            DecodeError::Damaged(detail) => Self::Damaged { name: program.name, detail },
            DecodeError::Sink(err) => sink(err),
        }
    }
}

/// Unpacks `program` into nothing, checking each byte of its payload.
pub(crate) fn check(program: &Program) -> Result<(), Error> {
    payload::decode(program, |_, _| Ok(()))
        .map_err(|err| Error::of_decode(program, err, |cause| Error::NoMemory { name: program.name, cause }))
}

/// The document, checked.
pub(crate) fn document(document: Document) -> Result<Vec<u8>, Error> {
    let (what, part) = match document {
        Document::CycloneDx => ("bill of materials", &DOCUMENTS.cyclonedx),
        Document::Spdx => ("bill of materials", &DOCUMENTS.spdx),
        Document::Licenses => ("licence texts", &DOCUMENTS.licenses),
    };
    Ok(all_documents(what)?[part.clone()].to_owned())
}

/// The completions or manual pages in `dir` with that name; all of them if `name` is empty.
pub(crate) fn help(dir: &str, name: &str) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let all = all_documents("help text")?;
    let files = DOCUMENTS.help.iter().filter_map(|(path, part)| Some((path.strip_prefix(dir)?, part)));
    let wanted = files.filter(|(file, _)| name.is_empty() || *file == name);
    Ok(wanted.map(|(file, part)| (file, all[part.clone()].to_owned())).collect())
}

/// All of them, in one piece; an error calls them `what`.
fn all_documents(what: &'static str) -> Result<Vec<u8>, Error> {
    payload::decode_frame(&DOCUMENTS.frame).map_err(|err| match err {
        DecodeError::Absent => Error::NoDocument { what },
        DecodeError::Damaged(detail) => Error::Damaged { name: what, detail },
        DecodeError::Sink(err) => Error::Damaged { name: what, detail: err.to_string() },
    })
}

/// Leaves `program` in `dir` for the user. If the file exists, it is kept if it is that program, and an error if not.
/// Returns the path, and whether it was written now.
pub(crate) fn unpack_into(program: &'static Program, dir: &Path) -> Result<(PathBuf, bool), Error> {
    publish::publish(program, dir, "choose another directory", &|path| {
        if path.symlink_metadata().is_err() {
            return Ok(false); // if it cannot be written either, that error says more
        }
        match difference(program, path)? {
            None => Ok(true),
            Some(difference) => {
                Err(Error::Occupied { path: path.to_owned(), name: program.name, version: RELEASE.version, difference })
            }
        }
    })
}

/// Leaves `program` in `dir`, replacing whatever is there. Errors end with `remedy`.
pub(crate) fn unpack_fresh(program: &'static Program, dir: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
    publish::publish(program, dir, remedy, &|_| Ok(false)).map(|(path, _)| path)
}
