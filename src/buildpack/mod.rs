//! Buildpacks: what they do at staging.
//!
//! - [`options`]: the variables that a user sets, the same for each kind of buildpack
//! - [`process`]: the process that runs the proxy, as a value
//! - [`cnb`]: the Cloud Native Buildpack
//! - [`classic`]: the classic buildpack of Cloud Foundry

mod classic;
mod cnb;
mod options;
mod process;

pub(crate) use classic::{Supply, manifest, supply};
pub(crate) use cnb::{API, ID, NAME, buildpack_toml, version};
pub(crate) use options::Options;
