//! The Cloud Foundry buildpack: what happens at staging, and the zip that is uploaded.
//!
//! The contract is that of the classic ("v2") lifecycle, <https://docs.cloudfoundry.org/buildpacks/custom.html>; where
//! the platform's code differs from its documentation, the code counts.

mod package;
mod supply;

pub(crate) use package::{Package, package};
pub(crate) use supply::{Supply, supply};

/// A scalar that is safe in YAML whatever it holds: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
