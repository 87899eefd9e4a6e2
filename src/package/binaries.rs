//! Which binaries go into a package: this one, the one for the other architecture, or both.

use std::path::Path;

use anyhow::{Result, bail};

use super::error::Error;
use crate::release::{Binary, RELEASE};

/// The binaries for `arch`: `amd64`, `arm64`, `both`, or by default that of this binary. amd64 comes first. `exe` is the path
/// of this binary, and `other` that of the other one.
pub(super) fn chosen(arch: Option<&str>, other: Option<&Path>, exe: &Path) -> Result<Vec<Binary>> {
    let this = RELEASE.arch;
    let missing = if this == "amd64" { "arm64" } else { "amd64" };
    let arch = arch.unwrap_or(this);
    let mut binaries = Vec::new();
    if arch != missing {
        binaries.push(Binary::own(exe)?);
    }
    match other {
        Some(_) if arch == this => bail!(Error::OtherNotNeeded { this }),
        Some(path) => binaries.push(read(path, exe, missing)?),
        None if arch == this => {}
        None => bail!(Error::OtherNeeded { arch: arch.to_owned(), this, missing }),
    }
    binaries.sort_by(|a, b| a.label.arch.cmp(&b.label.arch));
    Ok(binaries)
}

/// The binary for the other architecture, if both are of the same release.
fn read(path: &Path, exe: &Path, missing: &'static str) -> Result<Binary> {
    let path = path.to_owned();
    let other = match Binary::read(&path) {
        Ok(other) => other,
        Err(why) => bail!(Error::Unusable { path, why: why.to_string() }),
    };
    if other.label.arch != missing {
        bail!(Error::WrongArch { path, arch: other.label.arch, missing });
    }
    let this = Binary::own(exe)?.label;
    if (&other.label.etcdproxy, &other.label.etcd) != (&this.etcdproxy, &this.etcd) {
        bail!(Error::OtherRelease { path, other: Box::new(other.label), this: Box::new(this) });
    }
    Ok(other)
}
