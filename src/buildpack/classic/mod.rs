//! The classic ("v2") buildpack of Cloud Foundry.
//!
//! Its contract is <https://docs.cloudfoundry.org/buildpacks/custom.html>. Where the platform's code differs from that
//! page, this follows the code.

mod package;
mod supply;

pub(crate) use package::{Package, package};
pub(crate) use supply::{Supply, supply};

/// A scalar that is valid YAML for any text, because JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
