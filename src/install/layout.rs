//! The paths of an installation.

use std::path::{Path, PathBuf};

use crate::fs::within::{self, LastLink};

/// The name of the service's unit.
pub(crate) const UNIT: &str = "etcdproxy.service";

/// Where an installation is, and who works on it. All paths are as the installed system sees them; for
/// [`real`](Self::real), as this process sees them.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The root directory of the system: `/`, or that of an image or a chroot.
    pub root: PathBuf,
    /// The directory with all versions, the link to the current one, and the receipt.
    pub prefix: PathBuf,
    /// The directory with links to the current version's programs.
    pub bin_dir: PathBuf,
    /// The directory for the units of administrators (systemd.unit(5)).
    pub unit_dir: PathBuf,
    /// The directory with the service's settings.
    pub config_dir: PathBuf,
    /// Whether it is for one user, with that user's service manager, instead of for the whole system.
    pub user: bool,
    /// The id of the user who runs this. Only files of this user and of root are trusted.
    pub uid: u32,
    /// The id of that user's group.
    pub gid: u32,
}

impl Layout {
    /// The usual directories of a system-wide installation (file-hierarchy(7)).
    pub(super) fn of_system(uid: u32, gid: u32) -> Self {
        Self {
            root: "/".into(),
            prefix: "/opt/etcdproxy".into(),
            bin_dir: "/usr/local/bin".into(),
            unit_dir: "/etc/systemd/system".into(),
            config_dir: "/etc/etcdproxy".into(),
            user: false,
            uid,
            gid,
        }
    }

    /// The path as this process sees it. Its directories contain no links that lead out of the root; a link that it ends
    /// with stays.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.resolved(path, LastLink::Keep)
    }

    /// Like [`real`](Self::real), but what a link leads to, if the path ends with one.
    pub(super) fn real_target(&self, path: &Path) -> PathBuf {
        self.resolved(path, LastLink::Follow)
    }

    fn resolved(&self, path: &Path, last: LastLink) -> PathBuf {
        if self.is_live() {
            return path.to_owned();
        }
        // `guard` reports too many links. Nothing is below this file, and nothing can be created there.
        let nowhere = || Path::new("/dev/null").join(path.strip_prefix("/").unwrap_or(path));
        within::resolve(&self.root, path, last).unwrap_or_else(nowhere)
    }

    /// Whether something is installed.
    pub(super) fn is_installed(&self) -> bool {
        self.real(&self.receipt()).exists()
    }

    /// Whether the installation is part of the running system, not of an image or a chroot.
    pub(super) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    pub(super) fn receipt(&self) -> PathBuf {
        self.prefix.join("receipt.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.prefix.join(".lock")
    }

    /// The link to the version in use.
    pub(super) fn current(&self) -> PathBuf {
        self.prefix.join("current")
    }

    pub(super) fn versions(&self) -> PathBuf {
        self.prefix.join("versions")
    }

    /// The directory with the programs of a version.
    pub(super) fn programs(&self, version: &str) -> PathBuf {
        self.versions().join(version).join("bin")
    }

    /// The version that the path belongs to.
    pub(super) fn version_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(self.versions()).ok()?.iter().next()?.to_str()
    }

    /// The path of a program, through the link to the current version.
    pub(super) fn current_program(&self, name: &str) -> PathBuf {
        self.current().join("bin").join(name)
    }

    /// Whether the path belongs to the service: to its unit or its settings.
    pub(super) fn is_of_service(&self, path: &Path) -> bool {
        path.starts_with(&self.unit_dir) || path.starts_with(&self.config_dir)
    }

    /// The file with the service's settings.
    pub(super) fn config(&self) -> PathBuf {
        self.config_dir.join("etcdproxy.env")
    }

    pub(super) fn unit(&self) -> PathBuf {
        self.unit_dir.join(UNIT)
    }

    /// The drop-in of the unit that hands certificates to the service.
    pub(super) fn certificates_drop_in(&self) -> PathBuf {
        self.unit_dir.join(format!("{UNIT}.d")).join("10-certificates.conf")
    }

    /// The option of `systemctl` and `etcdproxy` for the user's own service, with a space after it. Empty for the system's
    /// service.
    pub(super) fn user_option(&self) -> &'static str {
        if self.user { "--user " } else { "" }
    }

    /// The link that makes the service manager start the service at boot, or at login.
    pub(super) fn enablement(&self) -> PathBuf {
        let target = if self.user { "default.target.wants" } else { "multi-user.target.wants" };
        self.unit_dir.join(target).join(UNIT)
    }

    /// Whether that link exists.
    pub(super) fn is_enabled(&self) -> bool {
        self.real(&self.enablement()).symlink_metadata().is_ok()
    }
}

/// Whether a unit can contain the path, in `ExecStart=` and `EnvironmentFile=`: no white space, control character, quotation
/// mark, backslash, variable or pattern (systemd.syntax(7), systemd.exec(5)); and no `..`. `%` is doubled there.
pub(super) fn fits_in_unit(path: &Path) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\"'\\$*?[".contains(c);
    path.to_str().is_some_and(|text| !text.contains(is_odd)) && !path.iter().any(|part| part == "..")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The usual layout, for root.
    pub(in crate::install) fn layout() -> Layout {
        Layout::of_system(0, 0)
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        let image = Layout { root: "/mnt/image".into(), ..layout() };
        assert_eq!(image.real(&image.config()), Path::new("/mnt/image/etc/etcdproxy/etcdproxy.env"));
        assert!(layout().is_live() && !image.is_live());
    }

    #[test]
    fn a_path_shows_what_it_belongs_to() {
        let layout = layout();
        assert_eq!(layout.version_of(&layout.programs("1.0").join("etcd")), Some("1.0"));
        assert_eq!(layout.version_of(&layout.current()), None);
        assert!(layout.is_of_service(&layout.unit()) && layout.is_of_service(&layout.config()));
        assert!(!layout.is_of_service(&layout.receipt()));
    }
}
