//! The files of the buildpack, the same in each of its formats.

use super::entry::{Content, Entry};
use crate::buildpack::{buildpack_toml, manifest};
use crate::release::{Binary, VERSION};

/// What the scripts in `bin` call in a buildpack for both architectures.
const CHOOSE: &str = include_str!("../../assets/choose.sh");

pub(super) const LICENSE: &str = include_str!("../../LICENSE");
pub(super) const NOTICE: &str = include_str!("../../NOTICE");
const README: &str = include_str!("../../README.md");

const DOCUMENTS: [(&str, &str); 3] = [("LICENSE", LICENSE), ("NOTICE", NOTICE), ("README.md", README)];

const SCRIPTS: [(&str, &str); 4] = [
    ("bin/build", include_str!("../../bin/build")),
    ("bin/compile", include_str!("../../bin/compile")),
    ("bin/detect", include_str!("../../bin/detect")),
    ("bin/supply", include_str!("../../bin/supply")),
];

/// The files of the buildpack with these binaries, for this stack of Cloud Foundry only if one is named; sorted by name.
pub(super) fn buildpack<'a>(binaries: &'a [Binary], stack: Option<&str>) -> Vec<Entry<'a>> {
    let labels: Vec<_> = binaries.iter().map(|binary| &binary.label).collect();
    let archs: Vec<&str> = labels.iter().map(|label| &*label.arch).collect();
    let mut entries = vec![
        Entry::file("VERSION", Content::text(format!("{VERSION}\n"))),
        Entry::file("buildpack.toml", Content::text(buildpack_toml(&archs))),
        Entry::file("manifest.yml", Content::text(manifest(stack, &labels))),
    ];
    entries.extend(DOCUMENTS.map(|(name, text)| Entry::file(name, Content::text(text))));
    entries.extend(SCRIPTS.map(|(name, text)| Entry::executable(name, Content::text(text))));
    if let [only] = binaries {
        entries.push(Entry::executable("etcdproxy", Content::Etcdproxy(only)));
    } else {
        entries.push(Entry::executable("etcdproxy", Content::text(CHOOSE)));
        entries.extend(binaries.iter().map(|binary| {
            // The names that `uname -m` prints.
            let machine = if binary.label.arch == "amd64" { "x86_64" } else { "aarch64" };
            Entry::executable(format!("etcdproxy-{machine}"), Content::Etcdproxy(binary))
        }));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}
