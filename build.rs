//! Packs the etcd release into the binary.
//!
//! Takes etcd from the pinned build-dependency, or from the official tarball that
//! `ETCD_RELEASE_TARBALL` names; checks it against `manifest.yml`; compresses it; and leaves
//! `payload/release.zst`, `release.rs` and `documents.rs` (the tables of what is inside) and `label.json` in `OUT_DIR`.
//! Nothing is downloaded. `build/` tells what the binary is made of.
//!
//! Format of `release.zst`: independent zstd frames, [`FRAMES`] to a program, so that they can be unpacked
//! on several threads, in bounded memory, each checked against its own sha256. The first program
//! (etcd) stands alone. Each later one (etcdctl, etcdutl) is packed with all before it as its
//! zstd prefix: they are built from the same Go packages, and this makes them four times smaller. The last frame holds
//! the documents: bills of materials, licences, completions and manual pages.

#[path = "src/cli.rs"]
#[allow(dead_code, reason = "nothing is parsed here")]
mod cli;
#[path = "build/help.rs"]
mod help;
#[path = "build/inventory.rs"]
mod inventory;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use inventory::Documents;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

/// Frames of a program: an even number, for two threads unpack them. Two frames are in memory at once.
const FRAMES: usize = 8;

/// Bytes in one frame of a program with a prefix: each frame costs a search of the whole prefix, and unpacking
/// has that in memory anyway.
const PREFIXED_FRAME: usize = 8 << 20;

/// What an etcd release can hold; the first is required and is the prefix of the others.
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

const TARBALL: &str = "ETCD_RELEASE_TARBALL";
const TARBALL_SHA256: &str = "ETCD_RELEASE_SHA256";

/// For `src/cli.rs`, which finds these two in the program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
mod settings {
    use std::time::Duration;

    #[allow(clippy::unnecessary_wraps, reason = "as the program's")]
    pub(crate) fn duration(_: &str) -> Result<Duration, String> {
        Ok(Duration::ZERO)
    }
}

#[derive(Deserialize)]
struct Manifest {
    default_versions: Vec<DefaultVersion>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct DefaultVersion {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    version: String,
    arch: String,
    uri: String,
    sha256: Option<String>,
    binaries: Vec<Binary>,
}

#[derive(Deserialize)]
struct Binary {
    name: String,
    sha256: String,
}

/// A release as it was found, before it is compressed.
struct Found {
    version: String,
    origin: String,
    /// Where upstream has it, if it is the release of the manifest.
    uri: Option<String>,
    programs: Vec<(&'static str, Vec<u8>)>,
}

struct Frame {
    packed: Vec<u8>,
    size: usize,
    sha256: [u8; 32],
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
    println!("cargo::rerun-if-changed=manifest.yml");
    println!("cargo::rerun-if-env-changed={TARBALL}");
    println!("cargo::rerun-if-env-changed={TARBALL_SHA256}");

    let manifest: Manifest = serde_saphyr::from_str(&fs::read_to_string("manifest.yml").context("manifest.yml")?)
        .context("manifest.yml is not the YAML this build expects")?;
    let arch = target_arch()?;
    let known = manifest.dependency(arch)?;

    let found = match std::env::var_os(TARBALL).filter(|path| !path.is_empty()) {
        Some(path) => from_tarball(Path::new(&path), known, arch)?,
        None => from_package(known, arch)?,
    };
    for (name, bytes) in &found.programs {
        check_elf(name, bytes, arch)?;
    }

    let documents = inventory::documents(&found, arch, &sources()?)?;

    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    embed(&found, &documents, arch, &out)
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

impl Manifest {
    fn dependency(&self, arch: &str) -> Result<&Dependency> {
        let default = self
            .default_versions
            .iter()
            .find(|default| default.name == "etcd")
            .context("manifest.yml: default_versions has no entry named etcd")?;
        self.dependencies
            .iter()
            .find(|d| d.name == "etcd" && d.version == default.version && d.arch == arch)
            .with_context(|| format!("manifest.yml: dependencies has no etcd {} for {arch}", default.version))
    }
}

impl Dependency {
    /// Refuses a program that differs from the hash the manifest gives for it.
    fn check(&self, name: &str, bytes: &[u8], origin: &str) -> Result<()> {
        let Some(known) = self.binaries.iter().find(|binary| binary.name == name) else {
            return Ok(());
        };
        let actual = sha256_hex(bytes);
        ensure!(
            actual == known.sha256,
            "{name} from {origin} is not the {name} {} linux-{} of manifest.yml: sha256 {actual}, expected {}",
            self.version,
            self.arch,
            known.sha256
        );
        Ok(())
    }
}

fn from_package(known: &Dependency, arch: &str) -> Result<Found> {
    let path = match arch {
        "amd64" => etcd_bin_vendored_linux_amd64::etcd_bin_path(),
        _ => etcd_bin_vendored_linux_arm64::etcd_bin_path(),
    }?;
    println!("cargo::rerun-if-changed={}", path.display());
    let origin = format!("the package etcd-bin-vendored-linux-{arch}");
    let bytes = fs::read(path).with_context(|| format!("cannot read etcd from {origin}"))?;
    ensure!(
        known.binaries.iter().any(|binary| binary.name == "etcd"),
        "manifest.yml: etcd {} for {arch} has no binaries entry named etcd",
        known.version
    );
    known.check("etcd", &bytes, &origin)?;
    Ok(Found { version: known.version.clone(), origin, uri: Some(known.uri.clone()), programs: vec![("etcd", bytes)] })
}

fn from_tarball(path: &Path, known: &Dependency, arch: &str) -> Result<Found> {
    println!("cargo::rerun-if-changed={}", path.display());
    let packed = fs::read(path).with_context(|| format!("{TARBALL}: cannot read {}", path.display()))?;
    let actual = sha256_hex(&packed);
    let given = std::env::var(TARBALL_SHA256).ok().filter(|sha256| !sha256.is_empty());
    let in_manifest = known.sha256.as_deref() == Some(actual.as_str());
    match &given {
        Some(given) => ensure!(
            given.eq_ignore_ascii_case(&actual),
            "{TARBALL_SHA256} is {given}, but {} has sha256 {actual}",
            path.display()
        ),
        None => ensure!(
            in_manifest,
            "{} has sha256 {actual}, which manifest.yml does not know for etcd {} linux-{arch}; to build from it all the \
             same, set {TARBALL_SHA256} to that hash",
            path.display(),
            known.version
        ),
    }

    let (version, mut files) = read_tarball(&packed, arch).with_context(|| format!("{}", path.display()))?;
    let mut programs = Vec::new();
    for name in PROGRAMS {
        if let Some(bytes) = files.remove(name) {
            programs.push((name, bytes));
        }
    }
    ensure!(
        programs.first().is_some_and(|(name, _)| *name == "etcd"),
        "{} holds no etcd-v{version}-linux-{arch}/etcd",
        path.display()
    );

    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    if in_manifest {
        ensure!(
            version == known.version,
            "{file_name} holds etcd {version}, but manifest.yml gives its hash for {}",
            known.version
        );
    } else {
        println!("cargo::warning=etcd {version} is taken from {file_name} on the word of {TARBALL_SHA256}");
    }
    // Whoever vouches for the tarball: there is one etcd of that version.
    if version == known.version {
        for (name, bytes) in &programs {
            known.check(name, bytes, &file_name)?;
        }
    }
    let origin = format!("the tarball {file_name}, sha256 {actual}");
    Ok(Found { version, origin, uri: in_manifest.then(|| known.uri.clone()), programs })
}

/// Gives the version in the top directory's name, and the files in it.
fn read_tarball(packed: &[u8], arch: &str) -> Result<(String, BTreeMap<String, Vec<u8>>)> {
    let mut version: Option<String> = None;
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    for entry in archive.entries()? {
        let mut entry = entry.context("not a .tar.gz")?;
        let path = entry.path()?.into_owned();
        let mut parts = path.iter().filter_map(|part| part.to_str()).filter(|part| *part != ".");
        let (Some(top), name, None) = (parts.next(), parts.next(), parts.next()) else { continue };
        let found = top
            .strip_prefix("etcd-v")
            .and_then(|rest| rest.strip_suffix(&format!("-linux-{arch}")))
            .with_context(|| format!("its top directory {top:?} is not etcd-vVERSION-linux-{arch}"))?;
        ensure!(version.get_or_insert_with(|| found.to_owned()) == found, "it holds two releases");
        if let Some(name) = name.filter(|name| PROGRAMS.contains(name)) {
            ensure!(entry.header().entry_type().is_file(), "{} is not a regular file", path.display());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name.to_owned(), bytes);
        }
    }
    Ok((version.context("it is empty")?, files))
}

/// Refuses a program for another machine: `e_machine` is the 16-bit field at offset 18 of an ELF file.
fn check_elf(name: &str, bytes: &[u8], arch: &str) -> Result<()> {
    let machine: [u8; 2] = if arch == "amd64" { [62, 0] } else { [183, 0] };
    ensure!(
        bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&machine),
        "{name} is not an ELF program for linux-{arch}"
    );
    Ok(())
}

fn embed(found: &Found, documents: &Documents, arch: &str, out: &Path) -> Result<()> {
    // The strongest level costs seconds per build: a debug build does not wait for it.
    let level = if std::env::var("PROFILE").as_deref() == Ok("release") { 22 } else { 3 };

    let mut listing = String::new();
    let mut programs = String::new();
    let mut payload = Vec::new();
    let mut prefix = Vec::new();
    for (name, bytes) in &found.programs {
        let frames = compress(bytes, &prefix, level)?;
        prefix.extend_from_slice(bytes);
        let sha256 = sha256_hex(bytes);
        writeln!(listing, "{sha256}  {name}")?;
        writeln!(programs, "Program {{ name: {name:?}, size: {}, sha256: {sha256:?}, frames: &[", bytes.len())?;
        for frame in &frames {
            writeln!(programs, "{},", frame.append_to(&mut payload))?;
        }
        writeln!(programs, "] }},")?;
    }
    let Documents { cyclonedx, spdx, licenses } = documents;
    let mut all = [cyclonedx.as_str(), spdx, licenses].concat();
    let inventory = all.len();
    let mut help = String::new();
    for (name, text) in help::texts()? {
        writeln!(help, "({name:?}, {}..{}),", all.len(), all.len() + text.len())?;
        all.push_str(&text);
    }
    let frame = compress_frame(all.as_bytes(), &[], level)?.append_to(&mut payload);
    let (spdx, licenses) = (cyclonedx.len(), cyclonedx.len() + spdx.len());
    let documents = format!(
        "Documents {{ frame: {frame}, cyclonedx: 0..{spdx}, spdx: {spdx}..{licenses}, licenses: {licenses}..{inventory}, \
         help: &[\n{help}] }}\n"
    );
    fs::write(out.join("documents.rs"), documents)?;
    // Empty: everything in this directory is embedded, what an earlier build left included.
    let dir = out.join("payload");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    fs::write(dir.join("release.zst"), &payload).with_context(|| format!("{}", dir.display()))?;
    // Names the directory it is unpacked into: the same programs, the same place.
    let id = format!("{}-{}", found.version, &sha256_hex(listing.as_bytes())[..16]);
    let Found { version, origin, .. } = found;
    let release = format!(
        "Release {{ version: {version:?}, arch: {arch:?}, origin: {origin:?}, id: {id:?}, programs: &[\n{programs}] }}\n"
    );
    fs::write(out.join("release.rs"), release)?;
    fs::write(out.join("label.json"), label(found, arch))?;
    Ok(())
}

impl Frame {
    /// Gives its entry in the table.
    fn append_to(&self, payload: &mut Vec<u8>) -> String {
        let start = payload.len();
        payload.extend_from_slice(&self.packed);
        format!("Frame {{ packed: {start}..{}, size: {}, sha256: {:?} }}", payload.len(), self.size, self.sha256)
    }
}

/// What this binary is, for an etcdproxy that cannot run it: `src/release/label.rs` looks for the first key.
fn label(found: &Found, arch: &str) -> String {
    let (etcdproxy, etcd) = (env!("CARGO_PKG_VERSION"), &found.version);
    let program = |(name, bytes): &(_, Vec<u8>)| format!(r#"{{"name":"{name}","sha256":"{}"}}"#, sha256_hex(bytes));
    let programs: Vec<String> = found.programs.iter().map(program).collect();
    let programs = programs.join(",");
    format!(r#"{{"etcdproxy-label":"{etcdproxy}","etcd":"{etcd}","arch":"{arch}","programs":[{programs}]}}"#)
}

fn compress(bytes: &[u8], prefix: &[u8], level: i32) -> Result<Vec<Frame>> {
    let frame = if prefix.is_empty() { bytes.len().div_ceil(FRAMES) } else { PREFIXED_FRAME };
    let chunks: Vec<&[u8]> = bytes.chunks(frame).collect();
    let frames: Vec<Mutex<Option<Result<Frame>>>> = chunks.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(chunk) = chunks.get(index) else { break };
                    *frames[index].lock().expect("no thread panicked") = Some(compress_frame(chunk, prefix, level));
                }
            });
        }
    });
    frames
        .into_iter()
        .map(|frame| frame.into_inner().expect("no thread panicked").expect("every frame was taken"))
        .collect()
}

fn compress_frame(chunk: &[u8], prefix: &[u8], level: i32) -> Result<Frame> {
    let zstd_error = |code| anyhow::anyhow!("zstd: {}", get_error_name(code));
    let mut zstd = CCtx::create();
    zstd.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
    // Size and checksum stand in the table, and the table is what is trusted.
    zstd.set_parameter(CParameter::ContentSizeFlag(false)).map_err(zstd_error)?;
    if !prefix.is_empty() {
        let reach = (usize::BITS - (prefix.len() + chunk.len()).leading_zeros()).max(10);
        zstd.set_parameter(CParameter::WindowLog(reach)).map_err(zstd_error)?;
        zstd.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(zstd_error)?;
        zstd.ref_prefix(prefix).map_err(zstd_error)?;
    }
    let mut packed = Vec::with_capacity(compress_bound(chunk.len()));
    zstd.compress2(&mut packed, chunk).map_err(zstd_error)?;
    Ok(Frame { packed, size: chunk.len(), sha256: Sha256::digest(chunk).into() })
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
