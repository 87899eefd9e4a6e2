//! The texts inside this binary: bills of materials, licences, completions and manual pages.

use std::ops::Range;

use etcdproxy_payload::Texts;

use super::contents::DOCUMENTS;
use super::error::Error;
use super::payload::{self, DecodeError};

/// A document about the parts of this binary.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Document {
    /// Bill of materials, `CycloneDX` 1.6.
    CycloneDx,
    /// Bill of materials, SPDX 2.3.
    Spdx,
    /// Bill of materials of the small launcher, `CycloneDX` 1.6.
    LauncherCycloneDx,
    /// Bill of materials of the small launcher, SPDX 2.3.
    LauncherSpdx,
    /// The licence texts.
    Licenses,
}

impl Document {
    /// What errors call it, and which part of the texts it is.
    pub(super) fn in_texts(self, texts: &Texts) -> (&'static str, Range<usize>) {
        let (what, part) = match self {
            Self::CycloneDx => ("bill of materials", &texts.cyclonedx),
            Self::Spdx => ("bill of materials", &texts.spdx),
            Self::LauncherCycloneDx => ("bill of materials", &texts.launcher_cyclonedx),
            Self::LauncherSpdx => ("bill of materials", &texts.launcher_spdx),
            Self::Licenses => ("licence texts", &texts.licenses),
        };
        (what, part.clone())
    }
}

/// Unpacks a document and checks its hash.
pub(crate) fn document(document: Document) -> Result<Vec<u8>, Error> {
    let (what, part) = document.in_texts(&DOCUMENTS.texts);
    Ok(all_documents(what)?[part].to_owned())
}

/// The completions or manual pages in `dir` with this name, or all of them if `name` is empty.
pub(crate) fn help(dir: &str, name: &str) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let all = all_documents("help text")?;
    let files = DOCUMENTS.help.iter().filter_map(|(path, part)| Some((path.strip_prefix(dir)?, part)));
    let wanted = files.filter(|(file, _)| name.is_empty() || *file == name);
    Ok(wanted.map(|(file, part)| (file, all[part.clone()].to_owned())).collect())
}

/// The text of all documents. Errors call it `what`.
fn all_documents(what: &'static str) -> Result<Vec<u8>, Error> {
    payload::decode_frame(&DOCUMENTS.texts.frame).map_err(|err| match err {
        DecodeError::Absent => Error::NoDocument { what },
        DecodeError::Damaged(detail) => Error::Damaged { name: what, detail },
        DecodeError::Sink(err) => Error::Damaged { name: what, detail: err.to_string() },
    })
}
