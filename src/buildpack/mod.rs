//! Buildpacks: what they do at staging, and the file that is uploaded.
//!
//! - [`options`]: the variables that a user sets, the same for each kind of buildpack
//! - [`process`]: the process that runs the proxy, as a value
//! - [`classic`]: the classic buildpack of Cloud Foundry

mod classic;
mod options;
mod process;

pub(crate) use classic::{Package, PackageError, Supply, package, supply};
pub(crate) use options::Options;
