//! What a binary says of itself to one that cannot run it, since it is for another architecture.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

/// One object of JSON, somewhere in every etcdproxy.
const OWN: &str = include_str!(concat!(env!("OUT_DIR"), "/label.json"));

/// An etcdproxy and the etcd inside it.
#[derive(Debug, Deserialize)]
pub(crate) struct Label {
    #[serde(rename = "etcdproxy-label")]
    pub etcdproxy: String,
    pub etcd: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    pub programs: Vec<Labelled>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Labelled {
    pub name: String,
    pub sha256: String,
}

/// Why a file cannot be taken for another architecture's etcdproxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unlabelled {
    #[error("cannot read it: {0}")]
    CannotRead(#[from] io::Error),
    #[error("it is no etcdproxy")]
    NoEtcdproxy,
    #[error("it is cut short, or a small launcher, which has no etcd inside")]
    NotWhole,
}

impl Label {
    pub(crate) fn own() -> serde_json::Result<Self> {
        serde_json::from_str(OWN)
    }

    /// Of a whole etcdproxy in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Unlabelled> {
        let bytes = fs::read(path)?;
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(Unlabelled::NoEtcdproxy);
        }
        let first_key = OWN.split_inclusive(':').next().unwrap_or(OWN).as_bytes();
        let is_label = |at: &usize| bytes[*at..].starts_with(first_key);
        let parse = |at| serde_json::Deserializer::from_slice(&bytes[at..]).into_iter().next()?.ok();
        let label = (0..bytes.len()).filter(is_label).find_map(parse).ok_or(Unlabelled::NoEtcdproxy)?;
        if end_of_sections(&bytes) == Some(bytes.len() as u64) { Ok(label) } else { Err(Unlabelled::NotWhole) }
    }
}

/// Where the table of sections ends. The linker puts it last; a launcher has none.
fn end_of_sections(elf: &[u8]) -> Option<u64> {
    let half = |at: usize| Some(u64::from(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?)));
    u64::from_le_bytes(*elf.get(40..)?.first_chunk()?).checked_add(half(58)? * half(60)?)
}
