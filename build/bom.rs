//! The bill of materials: what is in the binary, as `CycloneDX` 1.6 and as SPDX 2.3.
//!
//! The same build gives the same bytes: nothing in it is a time, a path or by chance, unless `SOURCE_DATE_EPOCH` gives
//! a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A part, and what it is made of.
#[derive(Default)]
pub(crate) struct Component {
    /// Its package URL, by which others refer to it.
    pub(crate) purl: String,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) is_program: bool,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// Lines for the licence text, where that is not among its sources.
    pub(crate) notices: String,
    pub(crate) sha256: Option<String>,
    /// The hash of a Go module in `go.sum`. It is one of a list of files, not of a file, so it is no sha256 here.
    pub(crate) go_sum: Option<String>,
    /// Of the archive it is from, which has another hash.
    pub(crate) uri: Option<String>,
    /// Package URLs of what it uses itself.
    pub(crate) uses: BTreeSet<String>,
}

pub(crate) struct Bom {
    /// Package URL of the whole.
    pub(crate) root: String,
    pub(crate) arch: &'static str,
    /// By package URL.
    pub(crate) components: BTreeMap<String, Component>,
    /// As `CycloneDX` and SPDX write it.
    pub(crate) time: Option<String>,
}

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const TOOL: &str = concat!("etcdproxy-", env!("CARGO_PKG_VERSION"));

/// <https://reproducible-builds.org/specs/source-date-epoch/>
pub(crate) fn time() -> Result<Option<String>> {
    let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = seconds.parse().context("SOURCE_DATE_EPOCH is not a number of seconds")?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Some(humantime::format_rfc3339_seconds(time).to_string()))
}

impl Bom {
    pub(crate) fn cyclonedx(&self) -> String {
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

    pub(crate) fn spdx(&self) -> String {
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
        let name = format!("{TOOL}-linux-{}", self.arch);
        let mut bom = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "creationInfo": {
                // It must be there.
                "created": self.time.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
                "creators": [format!("Tool: {TOOL}")],
            },
            "packages": self.components.values().map(|part| part.spdx(&ids[&*part.purl])).collect::<Vec<_>>(),
            "relationships": relationships,
        });
        bom["documentNamespace"] = json!(format!("{REPOSITORY}/spdx/{name}-{}", uuid_of(&bom)));
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

    /// Of the few characters that it may have; the number keeps those apart that then look the same.
    fn spdx_id(&self, number: usize) -> String {
        let name = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!("SPDXRef-{number}-{name}")
    }
}

/// A UUID that the content gives (version 8, RFC 9562): another content, another UUID.
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
