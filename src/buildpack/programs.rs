//! What the application's image gets: etcd and the launcher, or the launcher alone. The same for each kind of buildpack.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::options::{Options, Unpack};
use crate::fs::dirs::{self, REMEDY};
use crate::fs::{WriteError, atomic};
use crate::release::{PROGRAM_NAMES, Program, Release, unpack_fresh, write_launcher};

/// Name of the launcher.
pub(super) const LAUNCHER: &str = "etcdproxy";

/// Where the programs go.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    /// The directory for them, which will be on `PATH`.
    pub bin: &'a Path,
    /// This binary.
    pub exe: &'a Path,
    /// What users call the whole.
    pub place: &'a str,
}

/// The programs of etcd that the image gets: none if the mode needs none.
pub(super) fn chosen(options: &Options, release: &'static Release) -> &'static [Program] {
    match options.mode {
        Some(mode) if !mode.capabilities().runs_etcd => &[],
        _ => release.programs,
    }
}

/// Writes the programs, replaces those of an earlier staging, and says so. Returns the programs of etcd.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn put(
    staged: &Staged<'_>,
    options: &Options,
    release: &'static Release,
    out: &mut impl Write,
) -> Result<&'static [Program]> {
    let Staged { bin, exe, place } = *staged;
    dirs::ensure(bin, REMEDY)?;
    let programs = chosen(options, release);
    if let (Some(mode), []) = (options.mode, programs) {
        writeln!(out, "-----> Supplying mode {mode}, which needs no etcd")?;
        for name in PROGRAM_NAMES {
            let _ = fs::remove_file(bin.join(name)); // of an earlier staging
        }
        write_launcher(bin, LAUNCHER)?;
        // Called by this name, the launcher says what is wrong. Otherwise the log would say only "command not found".
        link(bin, "etcd")?;
        writeln!(out, "       The {place} contains no etcd. A command that runs etcd, such as etcd grpc-proxy, ends")?;
        writeln!(out, "       with an error: use etcdproxy run in it, or unset BP_ETCDPROXY_MODE.")?;
        return Ok(programs);
    }
    writeln!(out, "-----> Supplying etcd")?;
    writeln!(out, "       Using etcd version {}", release.version)?;
    writeln!(out, "-----> Installing etcd {}", release.version)?;
    match options.unpack {
        Unpack::Stage => {
            for program in programs {
                unpack_fresh(program, bin, REMEDY)?;
            }
            write_launcher(bin, LAUNCHER)?;
        }
        Unpack::Launch => put_packed(exe, bin, programs)?,
    }
    Ok(programs)
}

/// Writes the whole binary, and links to it with the names of the programs that it unpacks at the first start.
fn put_packed(exe: &Path, bin: &Path, programs: &[Program]) -> Result<()> {
    let mut whole = File::open(exe).with_context(|| format!("cannot read {}", exe.display()))?;
    atomic::replace(&bin.join(LAUNCHER), 0o755, REMEDY, |copy| io::copy(&mut whole, copy).map(drop))?;
    for program in programs {
        link(bin, program.name)?;
    }
    Ok(())
}

/// Links `name` to the launcher.
fn link(bin: &Path, name: &str) -> Result<(), WriteError> {
    let link = bin.join(name);
    atomic::link(&link, Path::new(LAUNCHER)).map_err(|err| WriteError::new(&link, &err, REMEDY, None))
}

/// Writes a text file, and returns its path.
pub(super) fn write_text(dir: &Path, name: &str, text: &str) -> Result<PathBuf, WriteError> {
    let path = dir.join(name);
    atomic::replace(&path, 0o644, REMEDY, |file| file.write_all(text.as_bytes()))?;
    Ok(path)
}

/// Lists files with their sizes, for `BP_DEBUG`.
pub(super) fn list(files: impl Iterator<Item = PathBuf>, out: &mut impl Write) -> io::Result<()> {
    for path in files {
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        writeln!(out, "       {} ({size} bytes)", path.display())?;
    }
    Ok(())
}
