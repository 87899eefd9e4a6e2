//! Where this binary lives, and so where it may unpack.

use std::path::{Path, PathBuf};

use crate::commands::cli;
use crate::install::{Layout, Receipt};
use crate::os::env::Env;
use crate::release::{self, Found, Home, Store};

/// Where the programs of the release are, or will be.
pub(crate) fn store(env: &Env) -> Store {
    // Where supply and install have put them.
    let beside = env.exe.parent();
    Store::new(beside.map(Path::to_owned), home(env))
}

/// A program of the release, ready to be executed. Warns when it runs from memory.
pub(crate) fn obtain(name: &str, env: &Env) -> Result<Found, release::Error> {
    let program = release::program(name)?;
    let found = store(env).get(program)?;
    if let Found::Memory { why, .. } = &found {
        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
        log::warn!(
            "{name} runs from memory, which takes {} MB of it: {}",
            program.size.div_ceil(1_000_000),
            why.join("; ")
        );
    }
    Ok(found)
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

/// Where the installation is, or will be: as the user says, else that which this binary is part of, else the usual
/// place.
///
/// # Errors
/// When the place cannot be one.
pub(crate) fn installation(place: &cli::Place, bin_dir: Option<&Path>, env: &Env) -> Result<Layout, Unusable> {
    let root = place.root.as_deref().map(|root| absolute("--root", root)).transpose()?;
    if let Some(root) = root.as_ref().filter(|root| !root.is_dir()) {
        return Err(Unusable::NoRoot { path: root.clone() });
    }
    let mut layout = if place.user { of_user(env)? } else { of_system() };
    layout.root = root.unwrap_or(layout.root);
    if let Some(prefix) = &place.prefix {
        layout.prefix = absolute("--prefix", prefix)?;
    } else if layout.is_live() && !place.user {
        if let Some(own) = prefix_of_own(env) {
            layout.prefix = own;
        } else if let Ok(user) = of_user(env)
            && !env.is_root
            && user.is_installed()
        {
            layout = user;
        }
    }
    // What it was made with, whatever this binary would take.
    if let Ok(Some(receipt)) = Receipt::load(&layout) {
        layout = receipt.adopt(layout);
    }
    if let Some(bin_dir) = bin_dir {
        layout.bin_dir = absolute("--bin-dir", bin_dir)?;
    }
    Ok(layout)
}

fn of_system() -> Layout {
    Layout {
        root: "/".into(),
        prefix: "/opt/etcdproxy".into(),
        bin_dir: "/usr/local/bin".into(),
        unit_dir: "/etc/systemd/system".into(),
        config_dir: "/etc/etcdproxy".into(),
        user: false,
    }
}

/// As the XDG base directory specification and file-hierarchy(7) have it.
fn of_user(env: &Env) -> Result<Layout, Unusable> {
    let home = env.path("HOME").filter(|home| home.is_absolute()).ok_or(Unusable::NoHome)?;
    let home = absolute("HOME", &home)?;
    let xdg = |name, default: &str| {
        let dir = env.path(name).filter(|dir| dir.is_absolute()).unwrap_or(home.join(default));
        absolute(name, &dir)
    };
    Ok(Layout {
        root: "/".into(),
        prefix: home.join(".local/opt/etcdproxy"),
        bin_dir: home.join(".local/bin"),
        unit_dir: xdg("XDG_CONFIG_HOME", ".config")?.join("systemd/user"),
        config_dir: xdg("XDG_CONFIG_HOME", ".config")?.join("etcdproxy"),
        user: true,
    })
}

/// The prefix, when this binary runs from `versions/VERSION/bin` of one.
fn prefix_of_own(env: &Env) -> Option<PathBuf> {
    let versions = env.exe.parent()?.parent()?.parent()?;
    let prefix = versions.parent()?;
    (versions.ends_with("versions") && prefix.join("receipt.json").exists()).then(|| prefix.to_owned())
}

/// A place that cannot be one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("--user: the environment has no HOME: set it to the directory of the user")]
    NoHome,
    #[error("--root: there is no directory {path}: make it first")]
    NoRoot { path: PathBuf },
    #[error(
        "{flag}: {path:?} has a part that a unit of systemd cannot have (a space, a quotation mark, ..): choose another"
    )]
    Odd { flag: &'static str, path: PathBuf },
}

fn absolute(flag: &'static str, path: &Path) -> Result<PathBuf, Unusable> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'\\".contains(c);
    let is_plain = path.to_str().is_some_and(|text| !text.contains(odd)) && !path.iter().any(|part| part == "..");
    if is_plain { Ok(path) } else { Err(Unusable::Odd { flag, path }) }
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
