//! What this binary contains, as `build.rs` recorded it.

use etcdproxy_payload::{Documents, Frame, Label, Texts};

pub(crate) type Release = etcdproxy_payload::Release<'static>;
pub(crate) type Program = etcdproxy_payload::Program<'static>;

/// The version of etcdproxy, which is also that of the buildpack.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The etcd release inside this binary.
#[allow(clippy::unreadable_literal, reason = "generated")]
pub(crate) static RELEASE: Release = include!(concat!(env!("OUT_DIR"), "/release.rs"));

/// The documents inside this binary.
#[allow(clippy::unreadable_literal, reason = "generated")]
pub(super) static DOCUMENTS: Documents<'static> = include!(concat!(env!("OUT_DIR"), "/documents.rs"));

/// The label of this binary.
pub(super) fn own_label() -> serde_json::Result<Label> {
    serde_json::from_slice(include_bytes!(concat!(env!("OUT_DIR"), "/label.json")))
}
