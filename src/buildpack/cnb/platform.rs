//! What the user sets for a build: variables, and service bindings.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::fs::regular;
use crate::os::env::Env;

/// Where service bindings are, by any of the names that platforms have for it.
const BINDINGS: [&str; 3] = ["SERVICE_BINDING_ROOT", "VCAP_SERVICES_FILE_PATH", "VCAP_SERVICES"];

/// The platform's directory.
#[derive(Debug)]
pub(crate) struct Platform(PathBuf);

impl Platform {
    /// `None` if no lifecycle of Cloud Native Buildpacks has called us. Only these set the first variable, in each version.
    pub(crate) fn of_lifecycle(env: &Env) -> Option<Self> {
        env.get("CNB_BUILDPACK_DIR")?;
        // The specification's default.
        Some(Self(env.path("CNB_PLATFORM_DIR").unwrap_or_else(|| PathBuf::from("/platform"))))
    }

    /// The environment, with the variables of the user, and the place of the bindings.
    ///
    /// # Errors
    /// If the directory, or a file in it, cannot be read.
    pub(crate) fn environment(&self, env: &Env) -> Result<Env> {
        let mut env = env.clone();
        for (name, value) in variables(&self.0.join("env"))? {
            env.set(name, value);
        }
        let bindings = self.0.join("bindings");
        if BINDINGS.iter().all(|name| env.get(name).is_none()) && bindings.is_dir() {
            env.set(BINDINGS[0], bindings);
        }
        Ok(env)
    }
}

/// One file for each variable. The lifecycle puts them into the environment too, but need not.
fn variables(dir: &Path) -> Result<Vec<(OsString, OsString)>> {
    let cannot_read = |path: &Path| format!("cannot read {}, with the variables of the user", path.display());
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| cannot_read(dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| cannot_read(dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        // The prefix is the lifecycle's own.
        if path.is_dir() || name.as_encoded_bytes().starts_with(b"CNB_") {
            continue;
        }
        let value = regular::read(&path).with_context(|| cannot_read(&path))?;
        found.push((name, OsString::from_vec(value)));
    }
    Ok(found)
}
