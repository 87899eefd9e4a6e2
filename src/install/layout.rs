//! Where things are put.

use std::path::{Path, PathBuf};

/// Where an installation is. All paths are as its own system has them; [`real`](Self::real) is where they are now.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The system's root directory: `/`, or that of an image or a chroot.
    pub root: PathBuf,
    /// All versions, the link to the current one, the receipt.
    pub prefix: PathBuf,
    /// Links to the current version's programs.
    pub bin_dir: PathBuf,
    /// Where an administrator's units are (systemd.unit(5)).
    pub unit_dir: PathBuf,
    /// The service's configuration.
    pub config_dir: PathBuf,
    /// For one user, with their own service manager, and not for the system.
    pub user: bool,
}

impl Layout {
    /// Where the path is for this process.
    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether something is.
    pub(crate) fn is_installed(&self) -> bool {
        self.real(&self.receipt()).exists()
    }

    /// Whether it is the system that runs now.
    pub(crate) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    pub(super) fn receipt(&self) -> PathBuf {
        self.prefix.join("receipt.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.prefix.join(".lock")
    }

    /// The link to the version that is in use.
    pub(super) fn current(&self) -> PathBuf {
        self.prefix.join("current")
    }

    pub(super) fn versions(&self) -> PathBuf {
        self.prefix.join("versions")
    }

    /// The programs of a version.
    pub(super) fn programs(&self, version: &str) -> PathBuf {
        self.versions().join(version).join("bin")
    }

    /// The version that the path is part of.
    pub(super) fn version_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(self.versions()).ok()?.iter().next()?.to_str()
    }

    /// A program of whatever version is current.
    pub(super) fn current_program(&self, name: &str) -> PathBuf {
        self.current().join("bin").join(name)
    }

    /// The file that the service reads its settings from.
    pub(super) fn config(&self) -> PathBuf {
        self.config_dir.join("etcdproxy.env")
    }

    pub(super) fn unit(&self) -> PathBuf {
        self.unit_dir.join(super::UNIT)
    }

    /// The part of the unit that hands certificates to the service.
    pub(super) fn certificates_drop_in(&self) -> PathBuf {
        self.unit_dir.join(format!("{}.d", super::UNIT)).join("10-certificates.conf")
    }

    /// The link that makes the service manager start the service at boot, or at login.
    pub(super) fn enabled(&self) -> PathBuf {
        let target = if self.user { "default.target.wants" } else { "multi-user.target.wants" };
        self.unit_dir.join(target).join(super::UNIT)
    }
}
