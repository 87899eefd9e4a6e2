//! The classic ("v2") buildpack of Cloud Foundry.
//!
//! Its contract is <https://docs.cloudfoundry.org/buildpacks/custom.html>. Where the platform's code differs from that
//! page, this follows the code.

mod package;
mod supply;
mod yaml;

pub(crate) use package::{Error as PackageError, Package, package};
pub(crate) use supply::{Supply, supply};
