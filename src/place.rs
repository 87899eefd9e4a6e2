//! Where this binary lives, and so where it may unpack.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::release::{self, Home, Store};

/// Where the programs of the release are, or will be.
pub(crate) fn store(env: &Env) -> Store {
    // A launcher has nothing to unpack: supply put the programs next to it.
    let beside = if release::is_carried() { None } else { env.exe.parent() };
    Store::new(beside.map(Path::to_owned), home(env))
}

/// The directories to unpack below: the user's choice, else what suits where the binary is.
fn home(env: &Env) -> Home {
    if let Some(dir) = env.path("ETCDPROXY_UNPACK_DIR") {
        // etcd is started in another directory.
        return Home::Fixed(std::path::absolute(&dir).unwrap_or(dir));
    }
    let beside = env.exe.parent().map(|dir| dir.join(".etcdproxy"));
    let candidates = match droplet_dir(env) {
        Some(deps_idx) => vec![Some(deps_idx.join("unpacked"))],
        None if env.is_root => vec![Some(PathBuf::from("/var/cache/etcdproxy")), beside],
        None => vec![cache_dir(env).map(|dir| dir.join("etcdproxy")), beside],
    };
    Home::FirstOf(candidates.into_iter().flatten().collect())
}

/// `$DEPS_DIR/IDX`, when this binary runs from its `bin` in a Cloud Foundry droplet.
fn droplet_dir(env: &Env) -> Option<&Path> {
    let deps = env.path("DEPS_DIR")?;
    let deps = deps.canonicalize().unwrap_or(deps);
    let bin = env.exe.parent()?;
    let idx = bin.parent()?;
    (bin.ends_with("bin") && idx.parent()? == deps).then_some(idx)
}

/// The XDG base directory specification: a relative path in the variable is to be ignored.
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

    fn first_of(dirs: &[&str]) -> Home {
        Home::FirstOf(dirs.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn the_users_choice_is_the_only_one() {
        let env = env("/usr/bin/etcdproxy", [("ETCDPROXY_UNPACK_DIR", "/x"), ("HOME", "/home/a")]);
        assert_eq!(home(&env), Home::Fixed("/x".into()));
    }

    #[test]
    fn a_person_has_a_cache() {
        let vars = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")];
        assert_eq!(home(&env("/opt/etcdproxy", vars)), first_of(&["/c/etcdproxy", "/opt/.etcdproxy"]));
        let vars = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")];
        assert_eq!(home(&env("/opt/etcdproxy", vars)), first_of(&["/home/a/.cache/etcdproxy", "/opt/.etcdproxy"]));
        assert_eq!(home(&env("/opt/etcdproxy", [])), first_of(&["/opt/.etcdproxy"]));
    }

    #[test]
    fn root_uses_the_systems_cache_whatever_sudo_left_in_home() {
        let mut env = env("/opt/etcdproxy", [("HOME", "/home/a")]);
        env.is_root = true;
        assert_eq!(home(&env), first_of(&["/var/cache/etcdproxy", "/opt/.etcdproxy"]));
    }

    #[test]
    fn a_droplet_has_its_own_deps_directory() {
        let vars = [("DEPS_DIR", "/home/vcap/deps"), ("HOME", "/home/vcap/app")];
        assert_eq!(home(&env("/home/vcap/deps/00/bin/etcdproxy", vars)), first_of(&["/home/vcap/deps/00/unpacked"]));
        let elsewhere = home(&env("/home/vcap/app/etcdproxy", vars));
        assert_eq!(elsewhere, first_of(&["/home/vcap/app/.cache/etcdproxy", "/home/vcap/app/.etcdproxy"]));
    }
}
