//! The environment of the process, read once at start.
//!
//! Everything below `main` uses this value, so that tests need no global state.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Environment variables, the path of this executable, and who runs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The path of this executable, with symbolic links resolved. Empty if it is unknown.
    pub exe: PathBuf,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}

/// Leads to this binary, even if its file was moved or replaced since the start (proc(5)).
pub(crate) const OWN_EXE: &str = "/proc/self/exe";

/// Opens this binary.
pub(crate) fn open_own_exe() -> io::Result<File> {
    File::open(OWN_EXE)
}

/// Whether the path, or what a link at it leads to, is this binary.
pub(crate) fn is_own_exe(path: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    id(path).is_some_and(|found| id(Path::new(OWN_EXE)) == Some(found))
}

impl Env {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            exe: std::env::current_exe().unwrap_or_default(),
            uid: nix::unistd::Uid::effective().as_raw(),
            gid: nix::unistd::Gid::effective().as_raw(),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether `PATH` contains the directory.
    pub(crate) fn has_in_path(&self, dir: &Path) -> bool {
        self.get("PATH").is_some_and(|path| std::env::split_paths(path).any(|entry| entry == dir))
    }

    /// The variable's value. An empty value counts as not set, because a manifest can only unset a variable that way.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Gives a variable a value, for what reads this environment.
    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.vars.insert(name.into(), value.into());
    }

    /// Whether there is such a variable, even an empty one.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.vars.contains_key(OsStr::new(name))
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

/// Variables only, without a path or a user. The last value of each one wins.
impl<S: Into<OsString>> FromIterator<(S, S)> for Env {
    fn from_iter<I: IntoIterator<Item = (S, S)>>(vars: I) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { vars, ..Self::default() }
    }
}

/// The environment of somebody who is not root.
#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(vars: [(&str, &str); N]) -> Self {
        Self { uid: 1000, ..vars.into_iter().collect() }
    }
}
