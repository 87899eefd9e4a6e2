//! The etcd release inside this binary: what it is, and how it comes out.
//!
//! Knows nothing of the rest of the program. The package in `build/` defines the payload's format.

mod launcher;
mod payload;
mod store;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use etcdproxy_payload::{Label, LabelledProgram, PROGRAM_NAMES};
pub(crate) use launcher::write_launcher;
pub(crate) use payload::has_payload;
pub(crate) use store::{Found, Home, Store};
pub(crate) use unpack::difference;

use etcdproxy_payload::{Documents, Frame};

use crate::fs as file;
use payload::DecodeError;

/// A text that tells what this binary is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Document {
    /// Bill of materials, `CycloneDX` 1.6.
    CycloneDx,
    /// Bill of materials, SPDX 2.3.
    Spdx,
    Licenses,
}

pub(crate) type Release = etcdproxy_payload::Release<'static>;
pub(crate) type Program = etcdproxy_payload::Program<'static>;

/// The version of this program, and of its buildpack.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release this binary was built with.
#[allow(clippy::unreadable_literal, reason = "generated")]
pub(crate) static RELEASE: Release = include!(concat!(env!("OUT_DIR"), "/release.rs"));

#[allow(clippy::unreadable_literal, reason = "generated")]
static DOCUMENTS: Documents<'static> = include!(concat!(env!("OUT_DIR"), "/documents.rs"));

/// The program called `name`, or an error that says how to get a build that has it.
pub(crate) fn program(name: &str) -> Result<&'static Program, Error> {
    let found = RELEASE.programs.iter().find(|program| program.name == name);
    found.ok_or_else(|| {
        let has: Vec<&str> = RELEASE.programs.iter().map(|program| program.name).collect();
        Error::NotCarried { name: name.to_owned(), has: has.join(", ") }
    })
}

/// The label of this binary.
pub(crate) fn own_label() -> serde_json::Result<Label> {
    serde_json::from_slice(include_bytes!(concat!(env!("OUT_DIR"), "/label.json")))
}

/// What can go wrong between the payload and a program that can be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this build carries {has}, not {name}: build with ETCD_RELEASE_TARBALL set to the official etcd tarball")]
    NotCarried { name: String, has: String },

    #[error(
        "this is the small launcher, which has no {name} inside: put it beside {name} again, or use the whole etcdproxy"
    )]
    Launcher { name: &'static str },

    #[error("this is the small launcher, which has no {what} inside: ask the whole etcdproxy")]
    NoDocument { what: &'static str },

    #[error("cannot make the small launcher from this binary: {detail}")]
    NoLauncher { detail: String },

    #[error("the {name} inside this binary is damaged ({detail}): copy or download etcdproxy again")]
    Damaged { name: &'static str, detail: String },

    #[error("{path} is there and is not {name} {version} ({difference}): move it away, or choose another directory")]
    Occupied { path: PathBuf, name: &'static str, version: &'static str, difference: String },

    #[error(transparent)]
    File(#[from] file::Error),

    #[error("{path} belongs to uid {owner}, who could replace what is run from it: {remedy}")]
    Foreign { path: PathBuf, owner: u32, remedy: &'static str },

    #[error("{path} is on a file system mounted noexec, so nothing can be run from it: {remedy}")]
    NoExec { path: PathBuf, remedy: &'static str },

    #[error("cannot read {path}: {cause}")]
    CannotRead { path: PathBuf, cause: io::Error },

    #[error(
        "cannot keep {name} in memory: {cause}: set ETCDPROXY_UNPACK_DIR to a directory that can be written and run from"
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

/// The completions or manual pages in `dir` with that name, or with any where it is empty.
pub(crate) fn help(dir: &str, name: &str) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let all = all_documents("help text")?;
    let files = DOCUMENTS.help.iter().filter_map(|(path, part)| Some((path.strip_prefix(dir)?, part)));
    let wanted = files.filter(|(file, _)| name.is_empty() || *file == name);
    Ok(wanted.map(|(file, part)| (file, all[part.clone()].to_owned())).collect())
}

/// All of them, in one piece; `what` is for the error.
fn all_documents(what: &'static str) -> Result<Vec<u8>, Error> {
    payload::decode_frame(&DOCUMENTS.frame).map_err(|err| match err {
        DecodeError::Absent => Error::NoDocument { what },
        DecodeError::Damaged(detail) => Error::Damaged { name: what, detail },
        DecodeError::Sink(err) => Error::Damaged { name: what, detail: err.to_string() },
    })
}

/// Leaves `program` in `dir` for the user; a file that is there already is kept if it is that program,
/// and an error if it is not. Gives the path, and whether it was written now.
pub(crate) fn unpack_into(program: &'static Program, dir: &Path) -> Result<(PathBuf, bool), Error> {
    unpack::publish(program, dir, "name another directory", &|path| {
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        match difference(program, path)? {
            None => Ok(true),
            Some(difference) => {
                Err(Error::Occupied { path: path.to_owned(), name: program.name, version: RELEASE.version, difference })
            }
        }
    })
}

/// Leaves `program` in `dir`, replacing whatever is there. `remedy` is for who cannot have it there.
pub(crate) fn unpack_fresh(program: &'static Program, dir: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
    unpack::publish(program, dir, remedy, &|_| Ok(false)).map(|(path, _)| path)
}
