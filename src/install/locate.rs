//! Finds out where an installation is, or will be.

use std::path::{Path, PathBuf};

use super::error::LocationError;
use super::layout::{Layout, fits_in_unit};
use super::receipt::Receipt;
use crate::os::env::Env;

/// The location of an installation, as far as the user names it.
#[derive(Debug, Default)]
pub(crate) struct Location {
    pub prefix: Option<PathBuf>,
    pub root: Option<PathBuf>,
    pub user: bool,
    pub bin_dir: Option<PathBuf>,
}

impl Location {
    /// Whether the user names one installation, instead of meaning whichever exists.
    pub(super) fn is_explicit(&self) -> bool {
        self.prefix.is_some() || self.root.is_some() || self.user
    }
}

/// Where the installation is, or will be: where the user says; otherwise where the installation is that this binary
/// belongs to; otherwise in the usual directories.
///
/// # Errors
/// If an installation cannot be there.
pub(super) fn locate(location: &Location, env: &Env) -> Result<Layout, LocationError> {
    let root = location.root.as_deref().map(|root| absolute("--root", root)).transpose()?;
    if let Some(root) = root.as_ref().filter(|root| !root.is_dir()) {
        return Err(LocationError::NoRoot { path: root.clone() });
    }
    let mut layout = if location.user { of_user(env)? } else { Layout::of_system(env.uid, env.gid) };
    layout.root = root.unwrap_or(layout.root);
    if let Some(prefix) = &location.prefix {
        layout.prefix = absolute("--prefix", prefix)?;
    } else if layout.is_live() && !location.user {
        if let Some(own) = own_prefix(env) {
            layout.prefix = own;
        } else if let Ok(user) = of_user(env)
            && !env.is_root()
            && user.is_installed()
        {
            layout = user;
        }
    }
    // The directories that the installation was made with count, not this binary's defaults.
    if let Ok(Some(receipt)) = Receipt::load(&layout) {
        layout = receipt.adopt(layout);
    }
    if let Some(bin_dir) = &location.bin_dir {
        layout.bin_dir = absolute("--bin-dir", bin_dir)?;
    }
    Ok(layout)
}

/// The usual directories of one user (XDG base directory specification, file-hierarchy(7)).
fn of_user(env: &Env) -> Result<Layout, LocationError> {
    let home = env.path("HOME").filter(|home| home.is_absolute()).ok_or(LocationError::NoHome)?;
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
        uid: env.uid,
        gid: env.gid,
    })
}

/// The prefix of the installation that this binary belongs to, if it runs from `versions/VERSION/bin` of one.
fn own_prefix(env: &Env) -> Option<PathBuf> {
    let versions = env.exe.parent()?.parent()?.parent()?;
    let prefix = versions.parent()?;
    (versions.ends_with("versions") && prefix.join("receipt.json").exists()).then(|| prefix.to_owned())
}

/// Makes the path absolute, and refuses one that a unit cannot use. `flag` is the flag or variable that it comes from.
fn absolute(flag: &'static str, path: &Path) -> Result<PathBuf, LocationError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if fits_in_unit(&path) { Ok(path) } else { Err(LocationError::Unsuitable { flag, path }) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn located(location: &Location, env: &Env) -> Result<Layout, String> {
        locate(location, env).map_err(|err| err.to_string())
    }

    /// A user with a home directory, which exists as long as the first value.
    fn user() -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from([("HOME", home.path().to_str().unwrap())]);
        (home, env)
    }

    fn put_receipt(layout: &Layout) {
        fs::create_dir_all(layout.real(&layout.prefix)).unwrap();
        Receipt::new(layout).save(layout).unwrap();
    }

    #[test]
    fn a_users_installation_is_in_the_home_directory() {
        let (home, env) = user();
        let layout = located(&Location { user: true, ..Location::default() }, &env).unwrap();
        assert_eq!(layout.prefix, home.path().join(".local/opt/etcdproxy"));
        assert_eq!(layout.unit_dir, home.path().join(".config/systemd/user"));
        assert!(layout.user);
        let problem = located(&Location { user: true, ..Location::default() }, &Env::default()).unwrap_err();
        assert_eq!(problem, "--user: HOME is not set: set it to the user's home directory");
    }

    #[test]
    fn a_users_own_installation_is_found_without_a_flag() {
        let (_home, env) = user();
        let layout = located(&Location::default(), &env).unwrap();
        assert!(!layout.user, "nothing is installed yet");
        put_receipt(&located(&Location { user: true, ..Location::default() }, &env).unwrap());
        assert!(located(&Location::default(), &env).unwrap().user);
        let mut root = env;
        root.uid = 0;
        assert!(!located(&Location::default(), &root).unwrap().user, "root means the system");
    }

    #[test]
    fn an_installed_binary_finds_its_own_installation() {
        let (home, mut env) = user();
        let prefix = home.path().join("etcdproxy");
        env.exe = prefix.join("versions/1.0/bin/etcdproxy");
        assert_ne!(located(&Location::default(), &env).unwrap().prefix, prefix);
        let layout =
            Layout { prefix: prefix.clone(), bin_dir: "/opt/bin".into(), ..Layout::of_system(env.uid, env.gid) };
        put_receipt(&layout);
        let found = located(&Location::default(), &env).unwrap();
        assert_eq!(
            (&found.prefix, &found.bin_dir),
            (&prefix, &layout.bin_dir),
            "the directories that it was installed with"
        );
        let other = Location { bin_dir: Some("/usr/bin".into()), ..Location::default() };
        assert_eq!(located(&other, &env).unwrap().bin_dir, Path::new("/usr/bin"));
    }

    #[test]
    fn unsuitable_locations_are_refused() {
        let (home, env) = user();
        let no_root = home.path().join("none");
        let prefix = |path: &str| Location { prefix: Some(path.into()), ..Location::default() };
        for (location, problem) in [
            (prefix("/opt/a b"), "--prefix: \"/opt/a b\" contains something that a systemd unit cannot use".to_owned()),
            (prefix("/usr/../bin"), "--prefix: \"/usr/../bin\" contains".to_owned()),
            (prefix("/a\n[Service]"), "--prefix: \"/a\\n[Service]\" contains".to_owned()),
            (prefix("/a$b"), "--prefix: \"/a$b\" contains".to_owned()),
            (prefix("/a\u{1b}"), "--prefix: \"/a\\u{1b}\" contains".to_owned()),
            (
                Location { root: Some(no_root.clone()), ..Location::default() },
                format!(
                    "--root: the directory {} does not exist: name the root directory of an image or chroot",
                    no_root.display()
                ),
            ),
        ] {
            let found = located(&location, &env).unwrap_err();
            assert!(found.starts_with(&problem), "{found}");
        }
    }
}
