//! `bin/detect`: whether the buildpack takes part in a build.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::files::{Dependency, Plan, text};
use crate::buildpack::options::{Decision, Options};

/// The name that the build plan has for what this buildpack provides.
const DEPENDENCY: &str = "etcdproxy";

/// The answer, and why.
#[derive(Debug)]
pub(crate) enum Detected {
    Pass(String),
    Fail(String),
}

impl Detected {
    /// The exit code. Any other than these two means an error.
    /// <https://github.com/buildpacks/spec/blob/main/buildpack.md#detection>
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Pass(_) => 0,
            Self::Fail(_) => 100,
        }
    }
}

/// Decides, and writes the build plan to `plan`, where the lifecycle gives such a path.
///
/// # Errors
/// If the plan cannot be written.
pub(crate) fn detect(options: &Options, plan: Option<&Path>) -> Result<Detected> {
    match &options.take_part {
        Decision::No(why) => Ok(Detected::Fail(why.clone())),
        Decision::Yes(why) => {
            if let Some(path) = plan {
                // Whoever provides what nobody requires fails its group.
                let [provides, requires] = [(); 2].map(|()| [Dependency { name: DEPENDENCY }]);
                // The lifecycle has made the file, and may own its directory.
                std::fs::write(path, text(&Plan { provides, requires }))
                    .with_context(|| format!("cannot write the build plan {}", path.display()))?;
            }
            Ok(Detected::Pass(why.clone()))
        }
    }
}
