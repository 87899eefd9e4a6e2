//! The etcd release inside this binary: what it contains, and how it is unpacked.
//!
//! Knows nothing of the rest of the program. The package in `build/` defines the payload's format.

mod binary;
mod contents;
mod documents;
mod error;
mod launcher;
mod payload;
mod programs;
mod publish;
mod store;
mod unpack_roots;

pub(crate) use binary::Binary;
pub(crate) use contents::{Program, RELEASE, Release, VERSION};
pub(crate) use documents::{Document, document, help};
pub(crate) use error::{Difference, Error};
pub(crate) use etcdproxy_payload::{Label, LabelledProgram, PROGRAM_NAMES};
pub(crate) use launcher::write_launcher;
pub(crate) use payload::has_payload;
pub(crate) use programs::{check, program, unpack_fresh, unpack_into};
pub(crate) use publish::difference;
pub(crate) use store::{Executable, Store};
