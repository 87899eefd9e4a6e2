//! The environment of the process, read once at start.
//!
//! Everything below `main` uses this value, so that tests need no global state.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Environment variables, the path of this executable, and who runs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The path of this executable, with symbolic links resolved. Empty when the system does not tell it.
    pub exe: PathBuf,
    /// Effective user id 0.
    pub is_root: bool,
}

impl Env {
    pub(crate) fn of_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            exe: std::env::current_exe().unwrap_or_default(),
            is_root: nix::unistd::Uid::effective().is_root(),
        }
    }

    /// The variable's value. An empty value counts as not set, because a manifest can only unset a variable that way.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Names of the variables that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> impl Iterator<Item = &OsStr> {
        let begins = move |name: &&OsStr| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        self.vars.keys().map(OsString::as_os_str).filter(begins)
    }

    /// The variable's value as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

/// Only variables. The last value of each one wins.
impl<S: Into<OsString>> FromIterator<(S, S)> for Env {
    fn from_iter<I: IntoIterator<Item = (S, S)>>(vars: I) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { vars, ..Self::default() }
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(vars: [(&str, &str); N]) -> Self {
        vars.into_iter().collect()
    }
}
