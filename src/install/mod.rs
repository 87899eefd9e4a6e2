//! The offline installer: one binary on a host becomes etcd, the proxy and a service, and what was done can be seen
//! beforehand, checked afterwards and undone.
//!
//! What is wanted is compared with what is there (`plan`), the receipt is written with all that may be there from then
//! on, and the steps are done one by one (`apply`). Whenever that is interrupted, the same command does the rest.

mod apply;
mod disk;
mod guard;
pub(crate) mod host;
mod layout;
mod plan;
mod receipt;
mod systemd {
    pub(super) mod env_file;
}
mod unit;
mod verify;
mod versions;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) use apply::{Lock, Progress, apply};
pub(crate) use layout::Layout;
pub(crate) use plan::{Plan, Step};
pub(crate) use receipt::{Receipt, Version};
pub(crate) use verify::{Finding, verify};
pub(crate) use versions::running;

use plan::{Item, Planner, Rule, Source};
use receipt::{Mode, What};

use crate::fs as file;
use crate::release::{self, RELEASE};
use crate::settings::{self, Needs};

/// Name of the service.
pub(crate) const UNIT: &str = "etcdproxy.service";

const REMEDY: &str = "make room or give permission (--user needs none), or choose another --prefix";

/// Why something cannot be installed, or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} is there and is not ours, but {what}: move it away, or \"install --force\" keeps it as {}",
        disk::saved(path).display())]
    Foreign { path: PathBuf, what: String },

    #[error("{path} was changed since it was installed: move it away, or \"install --force\" keeps it as {}",
        disk::saved(path).display())]
    Changed { path: PathBuf },

    #[error("{path} cannot be kept as {saved}, which is there already: move one of them away")]
    SavedTwice { path: PathBuf, saved: PathBuf },

    #[error("{path} belongs to uid {owner}, who could change what is installed: choose another place, or chown it")]
    NotOurs { path: PathBuf, owner: u32 },

    #[error("{path} can be written by everybody: choose another place, or take that permission away (chmod o-w)")]
    Shared { path: PathBuf },

    #[error("{path} leads out of --root, to {target}: make it a link within it")]
    LeavesRoot { path: PathBuf, target: PathBuf },

    #[error("{path} is no directory: move it away, or choose another place")]
    NoDirectory { path: PathBuf },

    #[error("{path} is neither a file nor a link: move it away")]
    Special { path: PathBuf },

    #[error("{path} is on a file system mounted noexec, so nothing can be run from it: choose another --prefix")]
    NoExec { path: PathBuf },

    #[error("{path} is in use by another etcdproxy: let it finish, then try again")]
    Busy { path: PathBuf },

    #[error("{path} is no receipt of etcdproxy ({why}): \"install --force\" writes a new one")]
    Receipt { path: PathBuf, why: String },

    #[error("{path} was written by a newer etcdproxy: use that one")]
    NewerReceipt { path: PathBuf },

    #[error("cannot read {path}: {}: give permission, or move it away", crate::os::log::without_errno(cause))]
    CannotRead { path: PathBuf, cause: io::Error },

    #[error("nothing is installed in {path}: name the place with --prefix, --user or --root")]
    NothingThere { path: PathBuf },

    #[error("no version {wanted} is installed, only {has}")]
    NoVersion { wanted: String, has: String },

    #[error("{wanted} can be {has}: give more of the name")]
    Ambiguous { wanted: String, has: String },

    #[error("there is no version to go back to: {has} is the only one")]
    NoPrevious { has: String },

    #[error("{path} is not as it was installed ({why}): install that version again")]
    Damaged { path: PathBuf, why: String },

    #[error("the service is not started: set ETCDPROXY_ENDPOINTS in {path}, then try again")]
    NotConfigured { path: PathBuf },

    #[error("{path}: the service's sandbox hides what is in {hidden}: choose another --prefix, or --no-systemd")]
    Hidden { path: PathBuf, hidden: &'static str },

    #[error("the service is not started: no service manager runs here that could do it")]
    NoManager,

    #[error("{command}: {why}")]
    Service { command: String, why: String },

    #[error(transparent)]
    File(#[from] file::Error),

    #[error(transparent)]
    Release(#[from] release::Error),

    #[error(transparent)]
    Settings(#[from] settings::Error),
}

/// Whether the link is there that has the service started at boot, or at login.
pub(crate) fn is_enabled(layout: &Layout) -> bool {
    layout.real(&layout.enabled()).symlink_metadata().is_ok()
}

/// What `install` is asked for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// With a unit for systemd.
    pub systemd: bool,
    /// Started at boot, or at login.
    pub enable: bool,
    /// What is in the way is moved away.
    pub force: bool,
}

/// This binary as it is going to be installed.
#[derive(Debug)]
pub(crate) struct Own {
    pub name: String,
    sha256: String,
}

impl Own {
    /// # Errors
    /// When it is the small launcher, which has nothing to install, or cannot be read.
    pub(crate) fn new() -> Result<Self, Error> {
        if !release::has_payload() {
            return Err(release::Error::Launcher { name: "etcd" }.into());
        }
        let sha256 = open_own().and_then(file::sha256);
        let sha256 = sha256.map_err(|cause| Error::CannotRead { path: OWN.into(), cause })?;
        Ok(Self { name: format!("{}-{}", crate::VERSION, &sha256[..12]), sha256 })
    }
}

/// This binary, even when its file was moved or replaced.
const OWN: &str = "/proc/self/exe";

fn open_own() -> io::Result<File> {
    File::open(OWN)
}

/// What must be done for this binary to be the one that is installed. `made` are directories that were made for it.
///
/// # Errors
/// For anything in the way that is not ours to replace.
pub(crate) fn plan_install(
    layout: &Layout,
    receipt: Option<&Receipt>,
    made: &[PathBuf],
    own: &Own,
    request: &Request,
) -> Result<Plan, Error> {
    refuse_noexec(layout)?;
    let none = Receipt::new(layout);
    let before = receipt.unwrap_or(&none);
    let mut programs = vec!["etcdproxy".to_owned()];
    programs.extend(RELEASE.programs.iter().map(|program| program.name.to_owned()));

    let mut planner = Planner::new(layout, before, made, request.force);
    let is_complete = |version: &Version| {
        let dir = layout.real(&layout.programs(&version.name));
        version.programs.iter().all(|name| dir.join(name).symlink_metadata().is_ok())
    };
    let (kept, unfinished): (Vec<&Version>, Vec<&Version>) =
        before.versions.iter().partition(|version| version.name == own.name || is_complete(version));
    for version in kept.iter().filter(|version| version.name != own.name) {
        planner.keep_version(&version.name);
    }
    for version in unfinished {
        planner.note(format!("{} was not complete, and is removed", version.name));
    }
    let dir = layout.programs(&own.name);
    let executable = |name: &str, sha256: &str, source| Item {
        path: dir.join(name),
        what: What::File { sha256: sha256.to_owned(), mode: Mode(0o755) },
        source,
        rule: Rule::Replace,
    };
    planner.want(executable("etcdproxy", &own.sha256, Source::Own))?;
    for program in RELEASE.programs {
        planner.want(executable(program.name, program.sha256, Source::Program(program)))?;
    }
    if request.systemd {
        refuse_hidden(layout)?;
        want_service(layout, &mut planner, request.enable)?;
    }
    want_links(layout, &mut planner, &own.name, &programs)?;
    planner.remove_rest(false)?;

    let mut after = Receipt {
        versions: kept.into_iter().cloned().collect(),
        systemd: request.systemd,
        enabled: request.systemd && request.enable,
        current: before.current.clone(),
        previous: before.previous.clone(),
        ..Receipt::new(layout)
    };
    if before.version(&own.name).is_none() {
        after.versions.push(Version {
            name: own.name.clone(),
            etcd: RELEASE.version.to_owned(),
            installed: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            programs,
        });
    }
    after.set_current(&own.name);
    Ok(planner.finish(Some(after)))
}

/// A receipt that cannot be read is kept, but not in its place.
pub(crate) fn save_receipt_away(layout: &Layout) -> Result<(), Error> {
    let path = layout.real(&layout.receipt());
    disk::rename(&path, &disk::saved(&path))
}

fn want_service(layout: &Layout, planner: &mut Planner<'_>, enable: bool) -> Result<(), Error> {
    let config = layout.config();
    let real = layout.real(&config);
    if let Some(What::Link { .. }) = planner.look(&config)? {
        guard::within_root(layout, &real)?;
    }
    let needs = needs(layout)?;
    for (setting, file) in needs.files.iter().filter(|(_, file)| layout.is_live() && !file.exists()) {
        planner.note(format!("{}: {} is not there", setting.variable(), file.display()));
    }
    if needs.holds_key && readable_by_others(&real) {
        planner.note(format!("{} holds a private key, and everybody can read it: chmod 600 it", real.display()));
    }
    if !needs.configured {
        planner.note(format!("the service does not start before ETCDPROXY_ENDPOINTS is set in {}", real.display()));
    }
    if let Some(port) = needs.ports.first().filter(|port| **port < 1024 && !layout.user) {
        planner.note(format!("the service's user may not listen on port {port}: choose one from 1024 on"));
    }
    planner.want(text_item(config, unit::environment(layout), Rule::Keep))?;
    planner.want(text_item(layout.unit(), unit::unit(layout, &needs), Rule::Refuse))?;
    if let Some(text) = unit::certificates(layout, &needs) {
        planner.want(text_item(layout.certificates_drop_in(), text, Rule::Refuse))?;
    }
    if enable {
        planner.want(link(layout.enabled(), layout.unit()))?;
    }
    Ok(())
}

/// What `ProtectHome=` and `PrivateTmp=` hide from the service (systemd.exec(5)).
fn refuse_hidden(layout: &Layout) -> Result<(), Error> {
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
    match hidden.into_iter().find(|dir| !layout.user && layout.prefix.starts_with(dir)) {
        Some(hidden) => Err(Error::Hidden { path: layout.prefix.clone(), hidden }),
        None => Ok(()),
    }
}

fn needs(layout: &Layout) -> Result<Needs, Error> {
    let path = layout.real(&layout.config());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        Err(cause) => return Err(Error::CannotRead { path, cause }),
    };
    let env = systemd::env_file::parse(&path, &text)?;
    Needs::of(&env).map_err(|err| err.in_file(&path).into())
}

/// # Errors
/// When the service has nothing to connect to.
pub(crate) fn refuse_unconfigured(layout: &Layout) -> Result<(), Error> {
    if needs(layout)?.configured { Ok(()) } else { Err(Error::NotConfigured { path: layout.config() }) }
}

fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o044 != 0)
}

/// The link to the current version comes first: those to its programs lead through it.
fn want_links(layout: &Layout, planner: &mut Planner<'_>, version: &str, programs: &[String]) -> Result<(), Error> {
    planner.want(link(layout.current(), Path::new("versions").join(version)))?;
    for name in programs {
        planner.want(link(layout.bin_dir.join(name), layout.current_program(name)))?;
    }
    Ok(())
}

fn link(path: PathBuf, target: PathBuf) -> Item {
    Item { path, what: What::Link { target }, source: Source::None, rule: Rule::Refuse }
}

fn text_item(path: PathBuf, text: String, rule: Rule) -> Item {
    let sha256 = file::sha256(text.as_bytes()).unwrap_or_default(); // reading from memory cannot fail
    Item { path, what: What::File { sha256, mode: Mode(0o644) }, source: Source::Text(text), rule }
}

/// Said before anything is written; a bare "permission denied" at the start of the service would be all there is later.
fn refuse_noexec(layout: &Layout) -> Result<(), Error> {
    let path = layout.real(&layout.prefix);
    if file::is_noexec(&path) { Err(Error::NoExec { path }) } else { Ok(()) }
}

/// What must be done for nothing of it to be left; with `purge` also what was changed since.
pub(crate) fn plan_uninstall(layout: &Layout, receipt: &Receipt, purge: bool) -> Result<Plan, Error> {
    let mut planner = Planner::new(layout, receipt, &[], false);
    planner.remove_rest(purge)?;
    let config = layout.config();
    if receipt.entry(&config).is_none() && planner.look(&config)?.is_some() {
        planner.note(format!("kept, for install has not written it: {}", layout.real(&config).display()));
    }
    if !planner.leaves_something() {
        return Ok(planner.finish(None));
    }
    let path = layout.real(&layout.receipt());
    planner.note(format!("kept, so that uninstall --purge and install know of it: {}", path.display()));
    let gone = Receipt { versions: Vec::new(), current: None, previous: None, enabled: false, ..receipt.clone() };
    Ok(planner.finish(Some(gone)))
}

/// What must be done for another installed version to be current.
pub(crate) fn plan_rollback(layout: &Layout, receipt: &Receipt, wanted: Option<&str>) -> Result<Plan, Error> {
    if receipt.versions.is_empty() {
        return Err(Error::NothingThere { path: layout.real(&layout.prefix) });
    }
    let version = versions::to_go_back_to(receipt, wanted)?;
    verify::refuse_damaged(layout, receipt, &version.name)?;
    let mut planner = Planner::new(layout, receipt, &[], false);
    for version in &receipt.versions {
        planner.keep_version(&version.name);
    }
    for entry in receipt.entries.iter().filter(|entry| is_of_service(layout, &entry.path)) {
        planner.keep(entry)?;
    }
    want_links(layout, &mut planner, &version.name, &version.programs)?;
    planner.remove_rest(false)?;
    let mut after = receipt.clone();
    after.set_current(&version.name);
    Ok(planner.finish(Some(after)))
}

fn is_of_service(layout: &Layout, path: &Path) -> bool {
    path.starts_with(&layout.unit_dir) || path.starts_with(&layout.config_dir)
}

/// What must be done for only the newest `keep` versions to be left, the current one and those that run included.
pub(crate) fn plan_prune(layout: &Layout, receipt: &Receipt, keep: usize) -> Result<Plan, Error> {
    let (gone, notes) = versions::to_prune(layout, receipt, keep);
    let mut planner = Planner::new(layout, receipt, &[], false);
    for note in notes {
        planner.note(note);
    }
    for entry in &receipt.entries {
        if layout.version_of(&entry.path).is_none_or(|version| !gone.iter().any(|gone| gone == version)) {
            planner.keep(entry)?;
        }
    }
    planner.remove_rest(true)?;
    let mut after = receipt.clone();
    after.versions.retain(|version| !gone.contains(&version.name));
    after.previous = after.previous.filter(|previous| !gone.contains(previous));
    Ok(planner.finish(Some(after)))
}
