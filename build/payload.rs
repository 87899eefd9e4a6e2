//! Compresses the programs and the documents, and writes the tables by which they are found.
//!
//! Format of `release.zst`: independent zstd frames, [`FRAMES`] to a program, so that they can be unpacked
//! on several threads, in bounded memory, each checked against its own sha256. The first program
//! (etcd) stands alone. Each later one (etcdctl, etcdutl) is packed with all before it as its
//! zstd prefix: they are built from the same Go packages, and this makes them four times smaller. The last frame holds
//! the documents: bills of materials, licences, completions and manual pages.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use crate::inventory::Documents;
use crate::source::Found;
use crate::{help, sha256_hex};

/// Frames of a program: an even number, for two threads unpack them. Two frames are in memory at once.
const FRAMES: usize = 8;

/// Bytes in one frame of a program with a prefix: each frame costs a search of the whole prefix, and unpacking
/// has that in memory anyway.
const PREFIXED_FRAME: usize = 8 << 20;

struct Frame {
    packed: Vec<u8>,
    size: usize,
    sha256: [u8; 32],
}

/// Writes all of it to the directory `out`.
pub(crate) fn embed(found: &Found, documents: &Documents, arch: &str, out: &Path) -> Result<()> {
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
