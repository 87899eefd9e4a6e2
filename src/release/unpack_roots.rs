//! Where this binary may unpack its programs.

use std::path::{Path, PathBuf};

use crate::os::env::Env;

/// The directories below which programs may be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UnpackRoots {
    /// The user's choice: nothing else is tried.
    Fixed(PathBuf),
    /// The first one that programs can be written to and run from; if there is none, memory.
    FirstOf(Vec<PathBuf>),
}

impl UnpackRoots {
    /// The user's choice, or the usual directories for wherever this binary is.
    pub(super) fn new(env: &Env) -> Self {
        if let Some(dir) = env.path("ETCDPROXY_UNPACK_DIR") {
            // Absolute, because etcd is started in another directory.
            return Self::Fixed(std::path::absolute(&dir).unwrap_or(dir));
        }
        let beside = env.exe.parent().map(|dir| dir.join(".etcdproxy"));
        let candidates = match droplet_dir(env) {
            Some(deps_idx) => vec![Some(deps_idx.join("unpacked"))],
            None if env.is_root() => vec![Some(PathBuf::from("/var/cache/etcdproxy")), beside],
            None => vec![cache_dir(env).map(|dir| dir.join("etcdproxy")), beside],
        };
        Self::FirstOf(candidates.into_iter().flatten().collect())
    }

    pub(super) fn as_slice(&self) -> &[PathBuf] {
        match self {
            Self::Fixed(root) => std::slice::from_ref(root),
            Self::FirstOf(roots) => roots,
        }
    }
}

/// `$DEPS_DIR/IDX`, if this binary runs from its `bin` in a Cloud Foundry droplet.
fn droplet_dir(env: &Env) -> Option<&Path> {
    let deps = env.path("DEPS_DIR")?;
    let deps = deps.canonicalize().unwrap_or(deps);
    let bin = env.exe.parent()?;
    let idx = bin.parent()?;
    (bin.ends_with("bin") && idx.parent()? == deps).then_some(idx)
}

/// The user's cache directory, by the XDG base directory specification, which says to ignore relative paths.
fn cache_dir(env: &Env) -> Option<PathBuf> {
    env.path("XDG_CACHE_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(env.path("HOME").filter(|dir| dir.is_absolute())?.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<const N: usize>(exe: &str, vars: [(&str, &str); N]) -> Env {
        let mut env = Env::from(vars);
        env.exe = exe.into();
        env
    }

    fn first_of(dirs: &[&str]) -> UnpackRoots {
        UnpackRoots::FirstOf(dirs.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn the_users_choice_is_the_only_one() {
        let env = env("/usr/bin/etcdproxy", [("ETCDPROXY_UNPACK_DIR", "/x"), ("HOME", "/home/a")]);
        assert_eq!(UnpackRoots::new(&env), UnpackRoots::Fixed("/x".into()));
    }

    #[test]
    fn a_user_has_a_cache_directory() {
        for (vars, dirs) in [
            (&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")], &["/c/etcdproxy", "/opt/.etcdproxy"]),
            (&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")], &["/home/a/.cache/etcdproxy", "/opt/.etcdproxy"]),
        ] {
            assert_eq!(UnpackRoots::new(&env("/opt/etcdproxy", *vars)), first_of(dirs));
        }
        assert_eq!(UnpackRoots::new(&env("/opt/etcdproxy", [])), first_of(&["/opt/.etcdproxy"]));
    }

    #[test]
    fn root_uses_the_systems_cache_whatever_sudo_left_in_home() {
        let mut env = env("/opt/etcdproxy", [("HOME", "/home/a")]);
        env.uid = 0;
        assert_eq!(UnpackRoots::new(&env), first_of(&["/var/cache/etcdproxy", "/opt/.etcdproxy"]));
    }

    #[test]
    fn a_droplet_has_its_own_deps_directory() {
        let vars = [("DEPS_DIR", "/home/vcap/deps"), ("HOME", "/home/vcap/app")];
        let inside = UnpackRoots::new(&env("/home/vcap/deps/00/bin/etcdproxy", vars));
        assert_eq!(inside, first_of(&["/home/vcap/deps/00/unpacked"]));
        let elsewhere = UnpackRoots::new(&env("/home/vcap/app/etcdproxy", vars));
        assert_eq!(elsewhere, first_of(&["/home/vcap/app/.cache/etcdproxy", "/home/vcap/app/.etcdproxy"]));
    }
}
