//! The receipt: what was installed, and where the user's own files went.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, REMEDY};
use super::file_state::FileState;
use super::guard;
use super::layout::{Layout, fits_in_unit};
use crate::fs::WriteError;
use crate::fs::atomic::{self, Durability};
use crate::fs::regular::{self, Links};

/// The number of the file's format. A newer etcdproxy may write another.
const FORMAT: u32 = 1;

/// The number of bytes to read at most. A version has some ten paths, so a real receipt has some kB.
const LARGEST: u64 = 16 << 20;

/// Everything that an installation consists of.
///
/// It is written before the first change, with every path that may exist until the work is done, and again at the end. So it
/// lists every such path whenever the work is interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub format: u32,
    pub prefix: PathBuf,
    pub bin_dir: PathBuf,
    pub unit_dir: PathBuf,
    pub config_dir: PathBuf,
    pub user: bool,
    /// Other directories that may still hold links, because the work was interrupted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_bin_dirs: Vec<PathBuf>,
    /// Whether there is a unit for systemd.
    pub systemd: bool,
    /// Whether the service starts at boot, or at login.
    pub enabled: bool,
    /// The name of the version in use.
    pub current: Option<String>,
    /// The name of the version that was in use before.
    pub previous: Option<String>,
    /// In the order of their installation.
    pub versions: Vec<Version>,
    pub entries: Vec<Entry>,
}

/// The part that all formats have in common.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// One version that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// The version of etcdproxy and the first 12 digits of its binary's sha256.
    pub name: String,
    /// The version of the etcd in it.
    pub etcd: String,
    /// The time of its installation (RFC 3339, UTC).
    pub installed: String,
    /// Names of the files in its `bin`.
    pub programs: Vec<String>,
}

/// One path that etcdproxy installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub path: PathBuf,
    #[serde(flatten)]
    pub state: FileState,
    /// The states that the path may still have, because the work was interrupted.
    #[serde(rename = "was", default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<FileState>,
    /// Where the user's own file from this path is kept; `None` if there was none.
    #[serde(rename = "before")]
    pub backup: Option<PathBuf>,
}

impl Entry {
    pub(super) fn new(path: PathBuf, state: FileState) -> Self {
        Self { path, state, previous: Vec::new(), backup: None }
    }

    /// Whether etcdproxy wrote what was found at the path.
    pub(super) fn is(&self, found: &FileState) -> bool {
        self.state == *found || self.previous.contains(found)
    }
}

impl Receipt {
    pub(super) fn new(layout: &Layout) -> Self {
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

    /// Reads the receipt. Returns `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or is not valid.
    pub(super) fn load(layout: &Layout) -> Result<Option<Self>, Error> {
        let path = layout.real(&layout.receipt());
        let file = match regular::open(&path, Links::Refuse) {
            Ok(file) => file,
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(err) if err.kind() == io::ErrorKind::InvalidInput => return Err(Error::Special { path }),
            Err(cause) => return Err(Error::CannotRead { path, cause }),
        };
        // Whoever writes the receipt says what this user removes.
        match file.metadata() {
            Ok(meta) => {
                guard::refuse_others(layout, &path, &meta)?;
                guard::refuse_other_writers(layout, &path, &meta)?;
            }
            Err(cause) => return Err(Error::CannotRead { path, cause }),
        }
        let mut text = String::new();
        match file.take(LARGEST).read_to_string(&mut text) {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::Receipt { path, why: err.to_string() });
            }
            Err(cause) => return Err(Error::CannotRead { path, cause }),
        }
        let mut receipt = Self::parse(&text, &path)?;
        let canonical = |prefix: &Path| layout.real_target(prefix).canonicalize().ok();
        if receipt.prefix != layout.prefix && canonical(&receipt.prefix) != canonical(&layout.prefix) {
            return Err(Error::Receipt {
                path,
                why: format!("it belongs to the installation in {}", receipt.prefix.display()),
            });
        }
        if let Ok(target) = fs::read_link(layout.real(&layout.current())) {
            receipt.follow_current(&target);
        }
        Ok(Some(receipt))
    }

    /// Like [`load`](Self::load), but returns `None` as well if an uninstall has left nothing but settings.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub(super) fn load_installed(layout: &Layout) -> Result<Option<Self>, Error> {
        Ok(Self::load(layout)?.filter(|receipt| !receipt.versions.is_empty()))
    }

    /// Parses the text of the file at `path`.
    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let invalid = |why: String| Error::Receipt { path: path.to_owned(), why };
        let AnyFormat { format } = serde_json::from_str(text).map_err(|err| invalid(err.to_string()))?;
        if format > FORMAT {
            return Err(Error::NewerReceipt { path: path.to_owned() });
        }
        let receipt: Self = serde_json::from_str(text).map_err(|err| invalid(err.to_string()))?;
        receipt.refuse_foreign_paths().map_err(invalid)?;
        Ok(receipt)
    }

    /// Refuses paths outside of the receipt's own directories, so that nobody can use a receipt to have other files removed.
    fn refuse_foreign_paths(&self) -> Result<(), String> {
        // Control characters could do anything to a terminal.
        let shown = |path: &Path| path.to_string_lossy().escape_debug().to_string();
        let dirs = [&self.prefix, &self.bin_dir, &self.unit_dir, &self.config_dir];
        let is_plain = |path: &Path| {
            path.is_absolute()
                && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        };
        for dir in dirs.into_iter().chain(&self.old_bin_dirs) {
            if !is_plain(dir) || !fits_in_unit(dir) {
                return Err(format!("{} is not a directory of an installation", shown(dir)));
            }
        }
        let is_name = |name: &str| Path::new(name).components().eq([Component::Normal(name.as_ref())]);
        let versions = self.versions.iter().flat_map(|version| std::iter::once(&version.name).chain(&version.programs));
        for name in versions.chain(&self.current).chain(&self.previous) {
            if !is_name(name) {
                return Err(format!("{name:?} is not the name of a version or program"));
            }
        }
        for path in self.entries.iter().flat_map(|entry| std::iter::once(&entry.path).chain(&entry.backup)) {
            let is_ours = |dir: &PathBuf| path.starts_with(dir) || dir.starts_with(path);
            if !is_plain(path) || !dirs.into_iter().chain(&self.old_bin_dirs).any(is_ours) {
                return Err(format!("{} is not a path of an installation", shown(path)));
            }
        }
        Ok(())
    }

    pub(super) fn save(&self, layout: &Layout) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        let path = layout.real(&layout.receipt());
        atomic::write(&path, 0o644, Durability::Synced, |file| file.write_all(text.as_bytes()))
            .map_err(|err| WriteError::new(&path, &err, REMEDY, None).into())
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    pub(super) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// Takes the current version from the target of its link, which may have changed without the receipt: in an upgrade
    /// that was interrupted, or in a rollback on a full disk.
    pub(super) fn follow_current(&mut self, target: &Path) {
        let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return };
        if self.version(name).is_none() {
            return;
        }
        self.set_current(name);
        let (path, found) = (self.prefix.join("current"), FileState::Link { target: target.to_owned() });
        if target == Path::new("versions").join(name)
            && let Some(entry) = self.entries.iter_mut().find(|entry| entry.path == path && !entry.is(&found))
        {
            let recorded = std::mem::replace(&mut entry.state, found);
            entry.previous.push(recorded);
        }
    }

    /// Makes a version the current one, and remembers the one before.
    pub(super) fn set_current(&mut self, version: &str) {
        if self.current.as_deref() != Some(version) {
            self.previous = self.current.replace(version.to_owned());
        }
    }

    /// The layout with the directories that the installation was made with.
    pub(super) fn adopt(&self, layout: Layout) -> Layout {
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

#[cfg(test)]
mod tests {
    use super::super::file_state::Mode;
    use super::super::layout::tests::layout;
    use super::*;

    /// A receipt that etcdproxy 0.1.0 writes in the middle of an upgrade.
    const OLD: &str = r#"{
  "format": 1,
  "prefix": "/opt/etcdproxy",
  "bin_dir": "/usr/bin",
  "unit_dir": "/etc/systemd/system",
  "config_dir": "/etc/etcdproxy",
  "user": false,
  "old_bin_dirs": [
    "/usr/local/bin"
  ],
  "systemd": true,
  "enabled": true,
  "current": "0.1.0-aaaaaaaaaaaa",
  "previous": null,
  "versions": [
    {
      "name": "0.1.0-aaaaaaaaaaaa",
      "etcd": "3.7.2",
      "installed": "2026-11-23T16:38:50Z",
      "programs": [
        "etcdproxy",
        "etcd"
      ]
    }
  ],
  "entries": [
    {
      "path": "/etc/systemd/system/etcdproxy.service",
      "kind": "file",
      "sha256": "bb",
      "mode": "0644",
      "was": [
        {
          "kind": "file",
          "sha256": "aa",
          "mode": "0644"
        }
      ],
      "before": null
    },
    {
      "path": "/usr/local/bin/etcd",
      "kind": "link",
      "target": "/opt/etcdproxy/current/bin/etcd",
      "before": "/usr/local/bin/etcd.etcdproxy-saved"
    },
    {
      "path": "/opt/etcdproxy",
      "kind": "directory",
      "before": null
    }
  ]
}"#;

    fn parse(text: &str) -> Result<Receipt, String> {
        Receipt::parse(text, Path::new("/r")).map_err(|err| err.to_string())
    }

    #[test]
    fn an_older_versions_receipt_is_read_and_written_as_it_was() {
        let receipt = parse(OLD).unwrap();
        assert_eq!(serde_json::to_string_pretty(&receipt).unwrap(), OLD);
        let unit = receipt.entry(Path::new("/etc/systemd/system/etcdproxy.service")).unwrap();
        let file = |sha256: &str| FileState::File { sha256: sha256.to_owned(), mode: Mode(0o644) };
        assert_eq!((&unit.state, &unit.previous), (&file("bb"), &vec![file("aa")]));
        assert!(unit.is(&file("aa")) && unit.is(&file("bb")) && !unit.is(&file("cc")));
        let link = receipt.entry(Path::new("/usr/local/bin/etcd")).unwrap();
        assert_eq!(link.backup.as_deref(), Some(Path::new("/usr/local/bin/etcd.etcdproxy-saved")));
    }

    #[test]
    fn what_is_not_a_receipt_is_refused() {
        for (text, problem) in [
            ("{", "/r is not a valid receipt (EOF while parsing"),
            ("{}", "/r is not a valid receipt (missing field `format`"),
            (r#"{"format": 1}"#, "/r is not a valid receipt (missing field `prefix`"),
            (r#"{"format": 2, "all": "new"}"#, "/r was written by a newer etcdproxy: use that one"),
            (&OLD.replace("\"0644\"", "\"0988\""), "/r is not a valid receipt (invalid digit"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.starts_with(problem), "{text}: {found}");
        }
    }

    #[test]
    fn paths_outside_of_its_directories_are_refused() {
        let etcd = "/usr/local/bin/etcd\"";
        for path in ["/etc/passwd", "/opt/etcdproxy/../../etc/passwd", "/usr/local/binary"] {
            let found = parse(&OLD.replace(etcd, &format!("{path}\""))).unwrap_err();
            assert!(found.contains(&format!("({path} is not a path of an installation)")), "{found}");
        }
        let found = parse(&OLD.replace("/usr/local/bin/etcd.etcdproxy-saved", "/etc/shadow")).unwrap_err();
        assert!(found.contains("(/etc/shadow is not a path of an installation)"), "{found}");
        for (ours, theirs) in [
            ("\"/usr/bin\"", "\"/../out/bin\""),
            ("\"/usr/bin\"", "\"usr/bin\""),
            ("\"/usr/bin\"", r#""/usr/bin\n[Service]""#),
            ("    \"/usr/local/bin\"", "    \"/usr/../local\""),
            ("\"/opt/etcdproxy\",\n  \"bin", "\"/../out\",\n  \"bin"),
        ] {
            let found = parse(&OLD.replace(ours, theirs)).unwrap_err();
            assert!(found.contains("is not a directory of an installation)"), "{found}");
        }
        for name in ["../../x", "a/b", "..", ""] {
            for ours in ["\"0.1.0-aaaaaaaaaaaa\"", "\"etcdproxy\",", "\"etcd\"\n"] {
                let theirs = ours.replacen(ours.split('"').nth(1).unwrap(), name, 1);
                let found = parse(&OLD.replace(ours, &theirs)).unwrap_err();
                assert!(found.contains("is not the name of a version or program)"), "{name} {ours}: {found}");
            }
        }
        // Directories above them may be ours, because an installation creates missing ones.
        assert!(parse(&OLD.replace("\"path\": \"/opt/etcdproxy\"", "\"path\": \"/opt\"")).is_ok());
    }

    #[test]
    fn the_version_before_the_current_one_is_remembered() {
        let mut receipt = Receipt::new(&layout());
        for (version, previous) in [("a", None), ("a", None), ("b", Some("a")), ("b", Some("a")), ("a", Some("b"))] {
            receipt.set_current(version);
            assert_eq!((receipt.current.as_deref(), receipt.previous.as_deref()), (Some(version), previous));
        }
    }

    #[test]
    fn it_remembers_where_it_was_installed() {
        let receipt = parse(OLD).unwrap();
        let adopted = receipt.adopt(Layout { root: "/mnt".into(), bin_dir: "/opt/bin".into(), ..layout() });
        assert_eq!((adopted.bin_dir, adopted.root), ("/usr/bin".into(), "/mnt".into()));
    }
}
