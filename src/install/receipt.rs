//! What was installed, and what was there before.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{Error, disk};

/// The form of the file. A newer etcdproxy may have another.
const FORMAT: u32 = 1;

/// Everything an installation consists of.
///
/// It is written before anything is changed, with all that will be, and again at the end: whenever the work is
/// interrupted, it lists every file that may be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(super) format: u32,
    pub prefix: PathBuf,
    pub bin_dir: PathBuf,
    pub unit_dir: PathBuf,
    pub config_dir: PathBuf,
    pub user: bool,
    /// Where links may still be, because the work was interrupted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_bin_dirs: Vec<PathBuf>,
    /// With a unit for systemd.
    pub systemd: bool,
    /// Started at boot, or at login.
    pub enabled: bool,
    pub current: Option<String>,
    /// What was current before it.
    pub previous: Option<String>,
    /// In the order of their installation.
    pub versions: Vec<Version>,
    pub entries: Vec<Entry>,
}

/// What all forms of the file have.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// One version that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Of etcdproxy, with the beginning of its binary's sha256.
    pub name: String,
    /// Version of the etcd in it.
    pub etcd: String,
    /// The day and time of its installation (RFC 3339).
    pub installed: String,
    /// Names of the files in its `bin`.
    pub programs: Vec<String>,
}

/// One path that is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub path: PathBuf,
    #[serde(flatten)]
    pub what: What,
    /// What it may be instead, because the work was interrupted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub was: Vec<What>,
    /// What was there before: where that file is now; `None` when it was nothing.
    #[serde(rename = "before")]
    pub saved: Option<PathBuf>,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum What {
    Directory,
    File { sha256: String, mode: Mode },
    Link { target: PathBuf },
}

/// Permissions, written as in `0755`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Mode(pub u32);

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

impl TryFrom<String> for Mode {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u32::from_str_radix(&text, 8).map(Self)
    }
}

impl Entry {
    pub(super) fn new(path: PathBuf, what: What) -> Self {
        Self { path, what, was: Vec::new(), saved: None }
    }

    /// Whether `found` is what was put there.
    pub(super) fn is(&self, found: &What) -> bool {
        self.what == *found || self.was.contains(found)
    }
}

impl Receipt {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            format: FORMAT,
            prefix: layout.prefix.clone(),
            bin_dir: layout.bin_dir.clone(),
            unit_dir: layout.unit_dir.clone(),
            config_dir: layout.config_dir.clone(),
            user: layout.user,
            old_bin_dirs: Vec::new(),
            systemd: false,
            enabled: false,
            current: None,
            previous: None,
            versions: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Reads it; `None` when nothing is installed.
    ///
    /// # Errors
    /// When it cannot be read, or is no receipt.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, Error> {
        let path = layout.real(&layout.receipt());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::Receipt { path, why: err.to_string() });
            }
            Err(cause) => return Err(Error::CannotRead { path, cause }),
        };
        let is_no_receipt = |why: String| Error::Receipt { path: path.clone(), why };
        let Form { format } = serde_json::from_str(&text).map_err(|err| is_no_receipt(err.to_string()))?;
        if format > FORMAT {
            return Err(Error::NewerReceipt { path });
        }
        let mut receipt: Self = serde_json::from_str(&text).map_err(|err| is_no_receipt(err.to_string()))?;
        receipt.check(layout).map_err(is_no_receipt)?;
        receipt.look_at_current(layout);
        Ok(Some(receipt))
    }

    /// As [`load`](Self::load), but what an uninstall has left is no installation.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_installed(layout: &Layout) -> Result<Option<Self>, Error> {
        Ok(Self::load(layout)?.filter(|receipt| !receipt.versions.is_empty()))
    }

    /// It has no path that is outside of the directories it names, and no prefix but the one it is in.
    fn check(&self, layout: &Layout) -> Result<(), String> {
        let canonical = |prefix: &Path| layout.real(prefix).canonicalize().ok();
        if self.prefix != layout.prefix && canonical(&self.prefix) != canonical(&layout.prefix) {
            return Err(format!("it is that of {}", self.prefix.display()));
        }
        let dirs = [&self.prefix, &self.bin_dir, &self.unit_dir, &self.config_dir];
        for path in self.entries.iter().flat_map(|entry| std::iter::once(&entry.path).chain(&entry.saved)) {
            let is_plain = path.components().all(|part| part != Component::ParentDir);
            let is_ours = |dir: &PathBuf| path.starts_with(dir) || dir.starts_with(path);
            if !is_plain || !dirs.into_iter().chain(&self.old_bin_dirs).any(is_ours) {
                return Err(format!("{} is no path of an installation", path.display()));
            }
        }
        Ok(())
    }

    /// An upgrade that was interrupted may have made another version the current one.
    fn look_at_current(&mut self, layout: &Layout) {
        let Ok(target) = fs::read_link(layout.real(&layout.current())) else { return };
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if self.version(name).is_some() {
            self.set_current(name);
        }
    }

    pub(super) fn save(&self, layout: &Layout) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        disk::write(&layout.real(&layout.receipt()), 0o644, &mut text.as_bytes())
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    pub(super) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    pub(super) fn set_current(&mut self, version: &str) {
        if self.current.as_deref() != Some(version) {
            self.previous = self.current.replace(version.to_owned());
        }
    }

    /// The layout it was made with.
    pub(crate) fn adopt(&self, layout: Layout) -> Layout {
        Layout {
            prefix: self.prefix.clone(),
            bin_dir: self.bin_dir.clone(),
            unit_dir: self.unit_dir.clone(),
            config_dir: self.config_dir.clone(),
            user: self.user,
            ..layout
        }
    }
}
