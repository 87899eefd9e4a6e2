//! Packs the etcd release into the binary.
//!
//! Takes etcd from the pinned build-dependency, or from the official tarball that
//! `ETCD_RELEASE_TARBALL` names; checks it against `manifest.yml`; compresses it; and leaves
//! `payload/release.zst`, `release.rs` and `documents.rs` (the tables of what is inside) and `label.json` in `OUT_DIR`.
//! Nothing is downloaded. `build/` tells what the binary is made of.

#[path = "src/commands/cli.rs"]
#[allow(dead_code, reason = "nothing is parsed here")]
mod cli;
#[path = "build/help.rs"]
mod help;
#[path = "build/inventory.rs"]
mod inventory;
#[path = "build/payload.rs"]
mod payload;
#[path = "build/source.rs"]
mod source;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `cli.rs` uses of the program's `settings`.
#[path = "src/settings"]
#[allow(dead_code, reason = "nothing is parsed here")]
mod settings {
    mod duration;
    mod table;

    pub(crate) use duration::duration;
    pub(crate) use table::{Kind, Setting};
}

fn main() {
    leave_unwind_tables_out();
    if let Err(err) = pack() {
        println!("cargo::error={}", format!("{err:#}").replace('\n', " "));
        std::process::exit(1);
    }
}

/// A third of a megabyte that nothing reads: in the release profiles a panic aborts.
fn leave_unwind_tables_out() {
    const SCRIPT: &str = ".cargo/no-unwind-tables.ld";
    println!("cargo::rerun-if-changed={SCRIPT}");
    let var = |name| std::env::var(name).unwrap_or_default();
    if var("CARGO_CFG_TARGET_ENV") == "musl" && var("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/{SCRIPT}", var("CARGO_MANIFEST_DIR"));
    }
}

fn pack() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let arch = target_arch()?;
    let found = source::take(arch)?;
    let documents = inventory::documents(&found, arch, &sources()?)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    payload::embed(&found, &documents, arch, &out)
}

/// The directory where Cargo, or `cargo vendor`, has put the sources of all crates: that of any of them is in it.
fn sources() -> Result<PathBuf> {
    let one = etcd_bin_vendored_linux_amd64::etcd_bin_path()?;
    Ok(one.ancestors().nth(3).context("the package of etcd is not in a directory with others")?.to_owned())
}

fn target_arch() -> Result<&'static str> {
    let var = |name| std::env::var(name).unwrap_or_default();
    ensure!(
        var("CARGO_CFG_TARGET_OS") == "linux",
        "etcdproxy is built for Linux only, not for {:?}",
        var("CARGO_CFG_TARGET_OS")
    );
    match var("CARGO_CFG_TARGET_ARCH").as_str() {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no etcd release is pinned for the architecture {other:?}: x86_64 and aarch64 are"),
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
