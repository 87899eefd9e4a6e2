//! The tables with which the binary finds everything in its payload.
//!
//! The build writes each table as Rust source, which the binary includes. So a start has nothing to parse.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Frame;

/// An etcd release in the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release<'a> {
    /// Upstream's version, without the `v`.
    pub version: &'a str,
    /// `amd64` or `arm64`, as upstream names them.
    pub arch: &'a str,
    /// Where the build took it from, to show to users.
    pub origin: &'a str,
    /// Version and content hash. The same programs have the same id.
    pub id: &'a str,
    /// `etcd` first, then `etcdctl` and `etcdutl` when the release has them.
    pub programs: &'a [Program<'a>],
}

/// One program of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program<'a> {
    /// One of [`PROGRAM_NAMES`](crate::PROGRAM_NAMES).
    pub name: &'a str,
    /// Unpacked size in bytes.
    pub size: u64,
    /// sha256 of the unpacked program, in lower-case hex.
    pub sha256: &'a str,
    /// Its frames, in order.
    pub frames: &'a [Frame],
}

/// The frame with all texts, and which part of the unpacked bytes each document is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    /// The last frame of the payload.
    pub frame: Frame,
    /// Bill of materials, `CycloneDX` 1.6.
    pub cyclonedx: Range<usize>,
    /// Bill of materials, SPDX 2.3.
    pub spdx: Range<usize>,
    /// Bill of materials of the small launcher, `CycloneDX` 1.6.
    pub launcher_cyclonedx: Range<usize>,
    /// Bill of materials of the small launcher, SPDX 2.3.
    pub launcher_spdx: Range<usize>,
    /// Licence texts.
    pub licenses: Range<usize>,
}

/// All texts, for the etcdproxy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents<'a> {
    /// Those that the [`Label`](crate::Label) names, too.
    pub texts: Texts,
    /// Completions and manual pages, by name.
    pub help: &'a [(&'a str, Range<usize>)],
}

impl Release<'_> {
    /// Whether this etcd is at least as new as `minimum` (major, minor, patch).
    #[must_use]
    pub fn is_at_least(&self, minimum: [u32; 3]) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0)) >= minimum
    }
}

// Each function names all fields, so that none can be forgotten. `Debug` prints strings, numbers, ranges, tuples and arrays
// as Rust source.

impl Release<'_> {
    /// The Rust expression for this value.
    #[must_use]
    pub fn to_rust(&self) -> String {
        let Self { version, arch, origin, id, programs } = self;
        let programs: String = programs.iter().map(|program| format!("{},\n", program.to_rust())).collect();
        format!(
            "Release {{ version: {version:?}, arch: {arch:?}, origin: {origin:?}, id: {id:?}, programs: &[\n{programs}] }}"
        )
    }
}

impl Program<'_> {
    fn to_rust(&self) -> String {
        let Self { name, size, sha256, frames } = self;
        format!("Program {{ name: {name:?}, size: {size}, sha256: {sha256:?}, frames: &{frames:?} }}")
    }
}

impl Documents<'_> {
    /// The Rust expression for this value.
    #[must_use]
    pub fn to_rust(&self) -> String {
        let Self { texts, help } = self;
        format!("Documents {{ texts: {texts:?}, help: &{help:?} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value, and its source without white space.
    macro_rules! with_source {
        ($value:expr) => {
            ($value, without_space(stringify!($value)))
        };
    }

    fn without_space(source: &str) -> String {
        source.split_whitespace().collect()
    }

    #[test]
    fn a_table_is_written_as_the_source_of_its_value() {
        let (release, source) = with_source!(Release {
            version: "3.7.2",
            arch: "amd64",
            origin: "the tarball \"a\\b\"",
            id: "3.7.2-421b83d15f6673b0",
            programs: &[
                Program {
                    name: "etcd",
                    size: 12,
                    sha256: "7a0c",
                    frames: &[
                        Frame { packed: 0..5, size: 7, sha256: [255; 32] },
                        Frame { packed: 5..9, size: 5, sha256: [0; 32] }
                    ]
                },
                Program { name: "etcdctl", size: 0, sha256: "", frames: &[] },
            ]
        });
        let arrays = |source: String| {
            let array = |byte: &str| format!("[{}]", [byte; 32].join(","));
            source.replace("[255;32]", &array("255")).replace("[0;32]", &array("0"))
        };
        assert_eq!(without_space(&release.to_rust()), arrays(source));

        let (documents, source) = with_source!(Documents {
            texts: Texts {
                frame: Frame { packed: 9..11, size: 6, sha256: [0; 32] },
                cyclonedx: 0..1,
                spdx: 1..2,
                launcher_cyclonedx: 2..3,
                launcher_spdx: 3..4,
                licenses: 4..5
            },
            help: &[("man/etcdproxy.1", 5..6), ("completions/bash", 6..8)]
        });
        assert_eq!(without_space(&documents.to_rust()), arrays(source));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let is_at_least = |version, minimum| {
            Release { version, arch: "amd64", origin: "", id: "", programs: &[] }.is_at_least(minimum)
        };
        assert!(is_at_least("3.10.0", [3, 9, 9]));
        assert!(is_at_least("3.4.0", [3, 4, 0]));
        assert!(is_at_least("3.4.0-rc.1", [3, 4, 0]));
        assert!(!is_at_least("3.3.27", [3, 4, 0]));
        assert!(!is_at_least("unknown", [0, 0, 1]));
    }
}
