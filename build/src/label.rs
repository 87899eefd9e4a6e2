//! The label that describes an etcdproxy to another one that cannot run it, because it is for another architecture.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Frame, Texts};

/// Describes an etcdproxy and the etcd inside it: one JSON object, somewhere in every binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The version of etcdproxy. Its key comes first and marks the object.
    #[serde(rename = "etcdproxy-label")]
    pub etcdproxy: String,
    /// The version of etcd.
    pub etcd: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// The programs inside.
    pub programs: Vec<LabelledProgram>,
    /// The documents inside.
    pub documents: Texts,
    /// The payload, which has the frames of all these.
    pub payload: LabelledPayload,
}

/// A program of etcd, on a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledProgram {
    /// One of [`PROGRAM_NAMES`](crate::PROGRAM_NAMES).
    pub name: String,
    /// The sha256 of the unpacked program, in lower-case hex.
    pub sha256: String,
    /// Unpacked size in bytes.
    pub size: u64,
    /// Its frames, in order.
    pub frames: Vec<Frame>,
}

/// How to find the payload in the file, on a [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledPayload {
    /// Its first bytes. As hex, they are not what they describe.
    #[serde(with = "hex")]
    pub beginning: Vec<u8>,
    /// Its size in bytes.
    pub size: usize,
}

impl LabelledPayload {
    /// Describes a payload.
    #[must_use]
    pub fn new(payload: &[u8]) -> Self {
        /// They are compressed, so they are nowhere else in the file.
        const BEGINNING: usize = 32;
        Self { beginning: payload[..payload.len().min(BEGINNING)].to_vec(), size: payload.len() }
    }

    /// Where the payload is in the file of an etcdproxy.
    fn find(&self, binary: &[u8]) -> Option<Range<usize>> {
        let start = (0..binary.len()).find(|at| binary[*at..].starts_with(&self.beginning))?;
        let range = start..start.checked_add(self.size)?;
        (range.end <= binary.len()).then_some(range)
    }
}

/// Why a file cannot be used as the etcdproxy for another architecture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain each")]
pub enum LabelError {
    #[error("cannot read it: {0}")]
    CannotRead(#[from] io::Error),
    #[error("it is not an etcdproxy")]
    NotEtcdproxy,
    #[error("it is incomplete, or a small launcher, which has no etcd inside")]
    NotWhole,
}

/// What the file of an etcdproxy contains.
#[derive(Debug)]
pub struct Labelled {
    /// Describes it.
    pub label: Label,
    /// The payload.
    pub payload: Vec<u8>,
    /// Where the payload begins in the file.
    pub offset: u64,
}

impl Labelled {
    /// Reads the file of an etcdproxy.
    ///
    /// # Errors
    /// If the file cannot be read, or if it is not a whole etcdproxy.
    pub fn read(path: &Path) -> Result<Self, LabelError> {
        Self::of(fs::read(path)?)
    }

    fn of(mut binary: Vec<u8>) -> Result<Self, LabelError> {
        let label = Label::find(&binary)?;
        let payload = label.payload.find(&binary).ok_or(LabelError::NotWhole)?;
        binary.truncate(payload.end);
        binary.drain(..payload.start);
        Ok(Self { label, payload: binary, offset: payload.start as u64 })
    }
}

const FIRST_KEY: &[u8] = br#"{"etcdproxy-label":"#;

impl Label {
    fn find(binary: &[u8]) -> Result<Self, LabelError> {
        // 64-bit, little-endian
        if !binary.starts_with(b"\x7fELF\x02\x01") {
            return Err(LabelError::NotEtcdproxy);
        }
        let parse = |at| serde_json::Deserializer::from_slice(&binary[at..]).into_iter().next()?.ok();
        let label = (0..binary.len())
            .filter(|at| binary[*at..].starts_with(FIRST_KEY))
            .find_map(parse)
            .ok_or(LabelError::NotEtcdproxy)?;
        if end_of_sections(binary) == Some(binary.len() as u64) { Ok(label) } else { Err(LabelError::NotWhole) }
    }
}

/// Where the table of sections ends. The linker puts it last; a launcher has none.
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>
fn end_of_sections(elf: &[u8]) -> Option<u64> {
    let half = |at: usize| Some(u64::from(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?)));
    u64::from_le_bytes(*elf.get(40..)?.first_chunk()?).checked_add(half(58)? * half(60)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] = b"the payload, which is longer than its beginning";

    fn label() -> Label {
        let frame = Frame::new(0..PAYLOAD.len(), b"plain");
        let program = |name: &str| LabelledProgram {
            name: name.to_owned(),
            sha256: "7a0c".to_owned(),
            size: 5,
            frames: vec![frame.clone()],
        };
        Label {
            etcdproxy: "0.1.0".to_owned(),
            etcd: "3.7.2".to_owned(),
            arch: "arm64".to_owned(),
            programs: vec![program("etcd"), program("etcdctl")],
            documents: Texts {
                frame: frame.clone(),
                cyclonedx: 0..1,
                spdx: 1..2,
                launcher_cyclonedx: 2..3,
                launcher_spdx: 3..4,
                licenses: 4..5,
            },
            payload: LabelledPayload::new(PAYLOAD),
        }
    }

    /// An ELF header, these bytes, and a table of one section.
    fn binary(content: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[40..48].copy_from_slice(&(64 + content.len() as u64).to_le_bytes());
        elf[58] = 64;
        elf[60] = 1;
        [&elf, content, &[0; 64]].concat()
    }

    #[test]
    fn a_label_is_found_in_a_binary() {
        let json = serde_json::to_string(&label()).unwrap();
        assert!(json.as_bytes().starts_with(FIRST_KEY), "{json}");
        for before in ["", "\0\0", r#"{"etcdproxy-label":"#, r#"{"etcdproxy-label":{"etcdproxy-label":"1"}"#] {
            let binary = binary(format!("{before}{json}and more").as_bytes());
            assert_eq!(Label::find(&binary).unwrap(), label(), "{before}");
        }
    }

    #[test]
    fn the_payload_is_found_in_a_binary() {
        let json = serde_json::to_vec(&label()).unwrap();
        let before = [&json, &b"the payload, but another one"[..]].concat();
        let whole = binary(&[&before, PAYLOAD, b"and more"].concat());
        let found = Labelled::of(whole).unwrap();
        assert_eq!((found.label, found.payload.as_slice()), (label(), PAYLOAD));
        assert_eq!(found.offset, (64 + before.len()) as u64);
        assert!(matches!(Labelled::of(binary(&json)), Err(LabelError::NotWhole)), "no payload");
    }

    #[test]
    fn files_that_are_not_a_whole_etcdproxy_are_refused() {
        let json = serde_json::to_vec(&label()).unwrap();
        assert!(matches!(Label::find(&json), Err(LabelError::NotEtcdproxy)), "no program");
        assert!(matches!(Label::find(&binary(b"another program")), Err(LabelError::NotEtcdproxy)));
        assert!(matches!(Label::find(b"\x7fELF\x02\x01"), Err(LabelError::NotEtcdproxy)));

        let whole = binary(&json);
        assert!(matches!(Label::find(&whole[..whole.len() - 1]), Err(LabelError::NotWhole)));
        let mut launcher = whole;
        launcher[40..48].fill(0);
        launcher[60] = 0;
        assert!(matches!(Label::find(&launcher), Err(LabelError::NotWhole)));
        let missing = Labelled::read(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read it: No such file or directory (os error 2)");
    }
}
