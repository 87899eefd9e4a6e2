//! `package`: puts this binary into the file that a platform takes.
//!
//! - [`binaries`]: which etcdproxies go in: this one, one for another architecture, or both
//! - [`entry`], [`tree`]: the files of the buildpack, whatever the format
//! - [`zip`], [`cnb`]: formats of the buildpack; the tgz is a plain [`tar`]
//! - [`image`]: an image that runs the proxy
//! - [`layout`], [`tar`]: what images and archives are made of
//!
//! The same binaries give the same bytes.

mod binaries;
mod cnb;
mod entry;
mod error;
mod image;
mod layout;
mod tar;
mod tree;
mod zip;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub(crate) use error::Error;

use self::image::Image;
use self::tar::Effort;
use crate::fs::atomic::{self, Durability};
use crate::fs::{WriteError, dirs, regular};
use crate::os::log::without_errno;
use crate::release::{self, Binary, VERSION, has_payload};

/// What a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The classic buildpack of Cloud Foundry.
    Zip,
    /// A buildpackage of Cloud Native Buildpacks.
    Cnb,
    /// The files of the buildpack, which Cloud Foundry takes for its lifecycle `cnb`.
    Tgz,
    /// An image that runs the proxy.
    Oci,
}

impl Format {
    /// The formats by their names.
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("zip", Self::Zip), ("cnb", Self::Cnb), ("tgz", Self::Tgz), ("oci", Self::Oci)];
}

/// What to make.
#[derive(Debug)]
pub(crate) struct Package<'a> {
    pub format: Format,
    /// The only stack of Cloud Foundry that it is for; by default any, because a static binary needs no stack.
    pub stack: Option<&'a str>,
    /// `amd64`, `arm64` or `both`; by default the architecture of this binary.
    pub arch: Option<&'a str>,
    /// The etcdproxy for the other architecture.
    pub other: Option<&'a Path>,
    /// Whether an image contains the launcher only.
    pub without_etcd: bool,
    /// The file with the authorities that an image trusts.
    pub ca_bundle: Option<&'a Path>,
    /// The file to write; by default one in the current directory, with a name for the format.
    pub output: Option<PathBuf>,
    /// The path of this binary.
    pub exe: &'a Path,
}

/// Writes the package and returns its path.
///
/// # Errors
/// If this binary is a launcher, an option is wrong or does not fit the format, the binary for an architecture is missing,
/// or the file cannot be written.
pub(crate) fn package(task: &Package<'_>) -> Result<PathBuf> {
    if !has_payload() {
        bail!(Error::Launcher);
    }
    task.check()?;
    let binaries = binaries::chosen(task.arch, task.other, task.exe)?;
    let ca_bundle = task.ca_bundle.map(read_bundle).transpose()?;
    let image = Image { binaries: &binaries, with_etcd: !task.without_etcd, ca_bundle: ca_bundle.as_deref() };
    let path = task.output.clone().unwrap_or_else(|| task.default_name(&binaries).into());
    // Temporary files are where the package will be: there is room for it, or nowhere.
    let dir = dirs::parent(&path);
    atomic::write(&path, 0o644, Durability::Cached, |file| {
        let files = || tree::buildpack(&binaries, task.stack);
        match task.format {
            Format::Zip => zip::write(&files(), file),
            Format::Tgz => tar::write_gz("", &files(), Effort::Fast, file).map(|_| ()),
            Format::Cnb => cnb::write(&files(), &binaries[0].label.arch, dir, file),
            Format::Oci => image.write(dir, file),
        }
    })
    .map_err(|err| explain(err, &path))?;
    Ok(path)
}

/// An error of writing names the file, and says what to do. Other errors do so already.
fn explain(err: anyhow::Error, path: &Path) -> anyhow::Error {
    let explain = |err: &io::Error| WriteError::new(path, err, "choose another --output", None).into();
    match err.downcast_ref::<release::Error>() {
        Some(release::Error::Sink(err)) => explain(err),
        Some(_) => err,
        None => err.downcast_ref().map(explain).unwrap_or(err),
    }
}

impl Package<'_> {
    /// Refuses what does not fit the format.
    fn check(&self) -> Result<(), Error> {
        let options = [
            (self.stack.is_some(), "--stack", "zip"),
            (self.without_etcd, "--without-etcd", "oci"),
            (self.ca_bundle.is_some(), "--ca-bundle", "oci"),
        ];
        let format = self.format.name();
        for (is_given, option, only) in options {
            if is_given && format != only {
                return Err(Error::OtherFormat { option, format, only });
            }
        }
        if self.format == Format::Cnb && self.arch == Some("both") {
            return Err(Error::OneArch);
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        match self.stack {
            Some(stack) if stack.is_empty() || !stack.chars().all(is_name) => {
                Err(Error::InvalidStack(stack.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The name of the zip is the one that Cloud Foundry's own packager would give it.
    fn default_name(&self, binaries: &[Binary]) -> String {
        let arch = match binaries {
            [only] => &only.label.arch,
            _ => "both",
        };
        let native = if self.without_etcd { "-native" } else { "" };
        match self.format {
            Format::Zip => {
                let stack = self.stack.map(|stack| format!("-{stack}")).unwrap_or_default();
                format!("etcdproxy_buildpack-cached{stack}-v{VERSION}.zip")
            }
            Format::Cnb => format!("etcdproxy-buildpack-v{VERSION}-{arch}.cnb"),
            Format::Tgz => format!("etcdproxy-buildpack-v{VERSION}-{arch}.tgz"),
            Format::Oci => format!("etcdproxy{native}-v{VERSION}-{arch}.oci.tar"),
        }
    }
}

impl Format {
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

/// Everybody can read an image, so a key that was put into the file by mistake must not get there.
fn read_bundle(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |why: &str| Error::CaBundle { path: path.to_owned(), why: why.to_owned() };
    let bytes = regular::read(path).map_err(|err| failed(&without_errno(&err)))?;
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    if has("PRIVATE KEY-----") {
        return Err(failed("it contains a private key"));
    }
    if !has("-----BEGIN CERTIFICATE-----") {
        return Err(failed("it contains no certificate (PEM)"));
    }
    Ok(bytes)
}
