//! The classic ("v2") buildpack of Cloud Foundry.
//!
//! Its contract is <https://docs.cloudfoundry.org/buildpacks/custom.html>. Where the platform's code differs from that
//! page, this follows the code.

mod manifest;
mod supply;
mod yaml;

pub(crate) use manifest::manifest;
pub(crate) use supply::{Supply, supply};
