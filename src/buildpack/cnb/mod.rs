//! The Cloud Native Buildpack.
//!
//! Its contract is <https://github.com/buildpacks/spec/blob/main/buildpack.md>, of which this implements API 0.10: what
//! all lifecycles since 0.17 accept.
//!
//! - [`platform`]: what the user sets for a build
//! - [`detect`]: whether to take part
//! - [`build`]: writes the layer
//! - [`files`]: the TOML files that the lifecycle reads
//! - [`descriptor`]: the text of `buildpack.toml`

mod build;
mod descriptor;
mod detect;
mod files;
mod platform;

pub(crate) use build::{Build, EXEC_D, build};
pub(crate) use descriptor::{API, ID, NAME, buildpack_toml, version};
pub(crate) use detect::{Detected, detect};
pub(crate) use platform::Platform;
