//! Packs the etcd release into the binary.
//!
//! Takes etcd from the pinned build-dependency, or from the official tarball that `ETCD_RELEASE_TARBALL` names; checks it
//! against `manifest.yml`; compresses it; and writes it to `OUT_DIR`, with tables of its contents. Nothing is downloaded.
//! The package in `build/` does the work.

#[path = "src/commands/cli.rs"]
#[allow(dead_code, reason = "nothing is parsed here")]
mod cli;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use etcdproxy_payload::pack::{
    Arch, EtcdSource, FAST, Inventory, Manifest, Packed, Product, SMALL, TARBALL, TARBALL_SHA256, help,
};

/// The part of the program's `settings` that `cli.rs` uses.
#[path = "src/settings"]
#[allow(dead_code, reason = "nothing is parsed here")]
mod settings {
    mod duration;
    mod table;

    pub(crate) use duration::duration;
    pub(crate) use table::{Kind, Setting};
}

const PRODUCT: Product = Product {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    repository: env!("CARGO_PKG_REPOSITORY"),
};

use settings::{Kind, Setting};

fn main() {
    leave_unwind_tables_out();
    if let Err(err) = pack() {
        println!("cargo::error={}", format!("{err:#}").replace('\n', " "));
        std::process::exit(1);
    }
}

/// Saves a third of a megabyte that nothing reads, because in the release profiles a panic aborts.
fn leave_unwind_tables_out() {
    const SCRIPT: &str = ".cargo/no-unwind-tables.ld";
    println!("cargo::rerun-if-changed={SCRIPT}");
    if var("CARGO_CFG_TARGET_ENV") == "musl" && var("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/{SCRIPT}", var("CARGO_MANIFEST_DIR"));
    }
}

fn pack() -> Result<()> {
    for file in ["build.rs", "manifest.yml", "Cargo.toml", "Cargo.lock", "LICENSE", "NOTICE"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in [TARBALL, TARBALL_SHA256, "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    let os = var("CARGO_CFG_TARGET_OS");
    ensure!(os == "linux", "etcdproxy is built for Linux only, not for {os:?}");
    let arch = Arch::of_rust(&var("CARGO_CFG_TARGET_ARCH"))?;
    let package = match arch {
        Arch::Amd64 => etcd_bin_vendored_linux_amd64::etcd_bin_path(),
        Arch::Arm64 => etcd_bin_vendored_linux_arm64::etcd_bin_path(),
    }?;
    // The directory into which Cargo, or `cargo vendor`, has put the sources of all crates.
    let sources =
        package.ancestors().nth(3).context("the package of etcd is not in a directory with other packages")?;

    let source = etcd(arch, package)?;
    let inventory = Inventory::new(PRODUCT, &source, sources)?;
    for warning in &inventory.warnings {
        println!("cargo::warning={warning}");
    }
    let help = help::texts(&cli::Cli::command(), &choices(), PRODUCT.version)?;
    let level = if var("PROFILE") == "release" { SMALL } else { FAST };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    Packed::new(PRODUCT.version, &source, &inventory, &help, level)?.write(&out)
}

/// The flags that accept only a few words, with these words.
fn choices() -> Vec<(&'static str, &'static [&'static str])> {
    let choice = |setting: &Setting| match setting.kind() {
        Kind::Choice(_, words) => Some((setting.flag().strip_prefix("--")?, words)),
        _ => None,
    };
    Setting::ALL.iter().filter_map(choice).collect()
}

/// The release that the environment names, or otherwise the one in the package.
fn etcd(arch: Arch, package: &Path) -> Result<EtcdSource> {
    let manifest = Manifest::parse(&fs::read_to_string("manifest.yml").context("manifest.yml")?)?;
    let known = manifest.etcd(arch)?;
    let Some(path) = std::env::var_os(TARBALL).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        println!("cargo::rerun-if-changed={}", package.display());
        let etcd = fs::read(package).with_context(|| format!("cannot read {}", package.display()))?;
        return EtcdSource::from_package(etcd, arch, known);
    };
    println!("cargo::rerun-if-changed={}", path.display());
    let tarball = fs::read(&path).with_context(|| format!("{TARBALL}: cannot read {}", path.display()))?;
    let vouched = Some(var(TARBALL_SHA256)).filter(|sha256| !sha256.is_empty());
    let source = EtcdSource::from_tarball(&path, &tarball, vouched.as_deref(), arch, known)?;
    if source.uri.is_none() {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        println!("cargo::warning=etcd {} comes from {file_name}; only {TARBALL_SHA256} vouches for it", source.version);
    }
    Ok(source)
}

/// A variable that Cargo sets, or an empty string.
fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
