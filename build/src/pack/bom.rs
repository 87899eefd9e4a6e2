//! The bill of materials of the binary, as `CycloneDX` 1.6 and as SPDX 2.3.
//!
//! The same build gives the same bytes: they contain no path or random number, and a time only from `SOURCE_DATE_EPOCH`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Arch, Product};

/// A part of the binary.
#[derive(Default)]
pub(super) struct Component {
    /// Its package URL, by which others refer to it: <https://github.com/package-url/purl-spec>
    pub(super) purl: String,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) is_program: bool,
    /// An SPDX expression.
    pub(super) license: Option<String>,
    /// Copyright lines for the licence text, if its sources are not at hand.
    pub(super) notices: String,
    pub(super) sha256: Option<String>,
    /// The hash of a Go module in `go.sum`. It hashes a list of files, so it is not the sha256 of a file.
    pub(super) go_sum: Option<String>,
    /// The URL of the archive that contains it. The archive has another hash.
    pub(super) uri: Option<String>,
    /// The package URLs of the parts that it uses directly.
    pub(super) uses: BTreeSet<String>,
}

/// The binary and all its parts.
pub(super) struct Bom {
    pub(super) product: Product,
    /// The package URL of the binary itself.
    pub(super) root: String,
    pub(super) arch: Arch,
    /// By package URL.
    pub(super) components: BTreeMap<String, Component>,
    /// The time of the build (RFC 3339), if it is known.
    pub(super) time: Option<String>,
}

/// The time that `SOURCE_DATE_EPOCH` gives: <https://reproducible-builds.org/specs/source-date-epoch/>
pub(super) fn time(seconds: &str) -> Result<String> {
    const LAST: u64 = 253_402_300_799; // of the year 9999, the last that RFC 3339 can write
    let seconds = seconds.parse().ok().filter(|seconds| *seconds <= LAST);
    let seconds = seconds.with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds up to {LAST}"))?;
    Ok(humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string())
}

impl Bom {
    pub(super) fn cyclonedx(&self) -> String {
        let (roots, parts): (Vec<_>, Vec<_>) = self.components.values().partition(|part| part.purl == self.root);
        let dependencies: Vec<Value> = self
            .components
            .values()
            .map(|component| json!({ "ref": component.purl, "dependsOn": component.uses }))
            .collect();
        let mut bom = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "lifecycles": [{ "phase": "build" }],
                "component": roots.first().map(|root| root.cyclonedx()),
                "properties": [{ "name": "etcdproxy:arch", "value": format!("linux-{}", self.arch) }],
            },
            "components": parts.iter().map(|part| part.cyclonedx()).collect::<Vec<_>>(),
            "dependencies": dependencies,
        });
        if let Some(time) = &self.time {
            bom["metadata"]["timestamp"] = json!(time);
        }
        bom["serialNumber"] = json!(format!("urn:uuid:{}", uuid_of(&bom)));
        pretty(&bom)
    }

    pub(super) fn spdx(&self) -> String {
        let ids: BTreeMap<&str, String> = self
            .components
            .values()
            .enumerate()
            .map(|(number, component)| (&*component.purl, component.spdx_id(number)))
            .collect();
        let relationship = |from: &str, kind, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", &ids[&*self.root])];
        for component in self.components.values() {
            relationships.extend(component.uses.iter().map(|used| {
                let kind = if self.components[used].is_program { "CONTAINS" } else { "DEPENDS_ON" };
                relationship(&ids[&*component.purl], kind, &ids[&**used])
            }));
        }
        let Product { name, version, repository } = self.product;
        let tool = format!("{name}-{version}");
        let name = format!("{tool}-linux-{}", self.arch);
        let mut bom = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "creationInfo": {
                // SPDX requires a time.
                "created": self.time.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
                "creators": [format!("Tool: {tool}")],
            },
            "packages": self.components.values().map(|part| part.spdx(&ids[&*part.purl])).collect::<Vec<_>>(),
            "relationships": relationships,
        });
        bom["documentNamespace"] = json!(format!("{repository}/spdx/{name}-{}", uuid_of(&bom)));
        pretty(&bom)
    }
}

impl Component {
    fn cyclonedx(&self) -> Value {
        let mut component = json!({
            "type": if self.is_program { "application" } else { "library" },
            "bom-ref": self.purl,
            "name": self.name,
            "purl": self.purl,
        });
        if let Some(version) = &self.version {
            component["version"] = json!(version);
        }
        if let Some(license) = &self.license {
            component["licenses"] = json!([{ "expression": license, "acknowledgement": "declared" }]);
        }
        if let Some(sha256) = &self.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        if let Some(sum) = &self.go_sum {
            component["properties"] = json!([{ "name": "etcdproxy:go.sum", "value": sum }]);
        }
        if let Some(uri) = &self.uri {
            component["externalReferences"] = json!([{ "type": "distribution", "url": uri }]);
        }
        component
    }

    fn spdx(&self, id: &str) -> Value {
        let mut references = vec![json!({
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": self.purl,
        })];
        references.extend(
            self.go_sum
                .iter()
                .map(|sum| json!({ "referenceCategory": "OTHER", "referenceType": "go.sum", "referenceLocator": sum })),
        );
        let mut package = json!({
            "SPDXID": id,
            "name": self.name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": self.license.as_deref().unwrap_or("NOASSERTION"),
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": if self.is_program { "APPLICATION" } else { "LIBRARY" },
            "externalRefs": references,
        });
        if let Some(version) = &self.version {
            package["versionInfo"] = json!(version);
        }
        if let Some(uri) = &self.uri {
            package["sourceInfo"] = json!(format!("a file of {uri}"));
        }
        if let Some(sha256) = &self.sha256 {
            package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
        }
        package
    }

    /// Only a few characters are allowed in an id. The number distinguishes components whose names then look the same.
    fn spdx_id(&self, number: usize) -> String {
        let name = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!("SPDXRef-{number}-{name}")
    }
}

/// A UUID made from the content (version 8, RFC 9562). Other content has another UUID.
fn uuid_of(bom: &Value) -> String {
    let mut bytes: [u8; 32] = Sha256::digest(bom.to_string()).into();
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(&bytes[..16]);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn pretty(bom: &Value) -> String {
    format!("{bom:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bom(time: Option<&str>) -> Bom {
        let component = |purl: &str, is_program, uses: &[&str]| Component {
            purl: purl.to_owned(),
            name: purl.trim_start_matches("pkg:").replace('@', "/"),
            version: Some("1.0".to_owned()),
            is_program,
            license: is_program.then(|| "MIT".to_owned()),
            sha256: is_program.then(|| "7a0c".to_owned()),
            go_sum: (!is_program).then(|| "h1:abc=".to_owned()),
            uri: is_program.then(|| "https://example.com/etcd.tar.gz".to_owned()),
            uses: uses.iter().map(|used| format!("pkg:{used}")).collect(),
            ..Component::default()
        };
        let components = [
            component("pkg:root", true, &["program", "library"]),
            component("pkg:program", true, &["library"]),
            component("pkg:library", false, &[]),
        ];
        Bom {
            product: Product { name: "etcdproxy", version: "0.1.0", repository: "https://example.com/etcdproxy" },
            root: "pkg:root".to_owned(),
            arch: Arch::Amd64,
            components: components.into_iter().map(|part| (part.purl.clone(), part)).collect(),
            time: time.map(str::to_owned),
        }
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn cyclonedx_lists_the_root_apart_and_all_dependencies() {
        let bom = parsed(&bom(None).cyclonedx());
        assert_eq!(bom["metadata"]["component"]["bom-ref"], "pkg:root");
        assert_eq!(bom["metadata"]["timestamp"], Value::Null);
        let refs: Vec<&Value> = bom["components"].as_array().unwrap().iter().map(|part| &part["bom-ref"]).collect();
        assert_eq!(refs, ["pkg:library", "pkg:program"]);
        assert_eq!(bom["components"][0]["properties"][0]["value"], "h1:abc=");
        assert_eq!(bom["components"][0]["hashes"], Value::Null);
        assert_eq!(bom["components"][1]["hashes"][0]["content"], "7a0c");
        assert_eq!(bom["components"][1]["externalReferences"][0]["url"], "https://example.com/etcd.tar.gz");
        assert_eq!(bom["dependencies"][2], json!({ "ref": "pkg:root", "dependsOn": ["pkg:library", "pkg:program"] }));
    }

    #[test]
    fn spdx_contains_programs_and_depends_on_libraries() {
        let bom = parsed(&bom(None).spdx());
        assert_eq!(bom["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(bom["creationInfo"]["creators"][0], "Tool: etcdproxy-0.1.0");
        let relationships: Vec<String> = bom["relationships"]
            .as_array()
            .unwrap()
            .iter()
            .map(|edge| {
                format!("{} {} {}", edge["spdxElementId"], edge["relationshipType"], edge["relatedSpdxElement"])
            })
            .map(|edge| edge.replace('"', "").replace("SPDXRef-", ""))
            .collect();
        let expected = [
            "DOCUMENT DESCRIBES 2-root",
            "1-program DEPENDS_ON 0-library",
            "2-root DEPENDS_ON 0-library",
            "2-root CONTAINS 1-program",
        ];
        assert_eq!(relationships, expected);
        assert_eq!(bom["packages"][0]["licenseDeclared"], "NOASSERTION");
        assert_eq!(bom["packages"][0]["externalRefs"][1]["referenceLocator"], "h1:abc=");
        assert_eq!(bom["packages"][1]["sourceInfo"], "a file of https://example.com/etcd.tar.gz");
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_and_other_content_another_id() {
        assert_eq!(bom(None).cyclonedx(), bom(None).cyclonedx());
        assert_eq!(bom(None).spdx(), bom(None).spdx());
        let time = time("1000000000").unwrap();
        let serial = |time| parsed(&bom(time).cyclonedx())["serialNumber"].clone();
        assert_ne!(serial(None), serial(Some(&*time)));
        let namespace = |time| parsed(&bom(time).spdx())["documentNamespace"].clone();
        assert_ne!(namespace(None), namespace(Some(&*time)));
    }

    #[test]
    fn ids_have_letters_and_digits_only() {
        let component = Component { name: "github.com/a/b_c".to_owned(), ..Component::default() };
        assert_eq!(component.spdx_id(7), "SPDXRef-7-github-com-a-b-c");
        let uuid = uuid_of(&json!({}));
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "8");
        assert!(["8", "9", "a", "b"].contains(&&uuid[19..20]), "{uuid}");
    }

    #[test]
    fn times() {
        assert_eq!(time("0").unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(time("1000000000").unwrap(), "2001-09-09T01:46:40Z");
        for wrong in ["", "today", "-1", "253402300800", "18446744073709551615"] {
            assert!(time(wrong).unwrap_err().to_string().starts_with("SOURCE_DATE_EPOCH is "), "{wrong}");
        }
    }
}
