//! The format of the etcd release inside etcdproxy, shared by the build and the binary.
//!
//! `build.rs` packs a release, and the binary unpacks it. The payload is a row of independent zstd [frames](Frame): those
//! of the programs, then one that holds all documents. Each has its own sha256, so that several threads can unpack them in
//! bounded memory and check every byte before it is written. The tables ([`Release`], [`Documents`]) say which frame
//! holds what. The [`Label`] has the same tables for other etcdproxies, which cannot run this one, but can take out what is
//! inside.
//!
//! The first program (etcd) stands alone. Each later one (etcdctl, etcdutl) has all programs before it as its zstd prefix:
//! they are built from the same Go packages, so this makes them four times smaller than without a prefix.
//!
//! The feature `pack` adds [`pack`]: everything that only the build needs.

mod frame;
mod label;
#[cfg(feature = "pack")]
pub mod pack;
mod tables;

pub use frame::{Frame, Unpacker, compress};
pub use label::{Label, LabelError, Labelled, LabelledPayload, LabelledProgram};
pub use tables::{Documents, Program, Release, Texts};

/// The names of the programs that an etcd release can contain. The first is always there, and each is part of the prefix of
/// those after it.
pub const PROGRAM_NAMES: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];
