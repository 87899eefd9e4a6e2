//! `supply`: etcd and the launcher into the droplet, and the sidecar's declaration.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::quoted;
use crate::fs::{WriteError, atomic, dirs};
use crate::release::{PROGRAM_NAMES, Program, Release, VERSION, unpack_fresh, write_launcher};
use crate::settings::Mode;
use crate::settings::staging::{Declare, Staging, Unpack};

/// Name of the launcher in `deps/IDX/bin`.
const LAUNCHER: &str = "etcdproxy";

/// 2 s less than the platform gives a process between SIGTERM and SIGKILL. What the user sets at launch wins.
const DRAIN: &str = "${ETCDPROXY_DRAIN:-8s}";

const PROFILE: &str = include_str!("../../assets/profile.sh");

/// The platform's arguments that matter. The application's directory and the cache are left alone.
#[derive(Debug)]
pub(crate) struct Supply<'a> {
    /// The directory of all buildpacks' results.
    pub deps: &'a Path,
    /// This buildpack's name in it, as the platform writes it: `0`, or `00` when there are ten or more.
    pub index: &'a str,
    /// This binary.
    pub exe: &'a Path,
}

impl Supply<'_> {
    /// Where `launch.yml` belongs: in this buildpack's directory, and with ten or more buildpacks also where the
    /// platform's builder looks then, below the number without its leading zero.
    fn launch_dirs(&self) -> Vec<PathBuf> {
        let unpadded = match self.index.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        let mut names = vec![self.index, unpadded];
        names.dedup();
        names.into_iter().map(|name| self.deps.join(name)).collect()
    }
}

/// Fills `deps/IDX`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn supply(
    task: &Supply<'_>,
    staging: &Staging,
    release: &'static Release,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "-----> Etcdproxy Buildpack version {VERSION}")?;
    let dir = task.deps.join(task.index);
    let bin = dir.join("bin");
    dirs::ensure(&bin)?;
    let programs = if staging.mode == Some(Mode::Tunnel) {
        writeln!(out, "-----> Supplying the tunnel, which needs no etcd")?;
        for name in PROGRAM_NAMES {
            let _ = fs::remove_file(bin.join(name)); // of an earlier supply
        }
        write_launcher(&bin, LAUNCHER)?;
        &[]
    } else {
        writeln!(out, "-----> Supplying etcd")?;
        writeln!(out, "       Using etcd version {}", release.version)?;
        writeln!(out, "-----> Installing etcd {}", release.version)?;
        install(task, staging, release, &bin)?;
        release.programs
    };

    let mut written = vec![write(&dir, "config.yml", &config(release, programs))?];
    dirs::ensure(&dir.join("profile.d"))?;
    written.push(write(&dir, "profile.d/etcdproxy.sh", &PROFILE.replace("@IDX@", task.index))?);
    written.extend(declare(task, staging, out)?);
    if staging.debug {
        let programs = programs.iter().map(|program| bin.join(program.name));
        for path in programs.chain([bin.join(LAUNCHER)]).chain(written) {
            let size = fs::metadata(&path).map_or(0, |meta| meta.len());
            writeln!(out, "       {} ({size} bytes)", path.display())?;
        }
    }
    Ok(())
}

/// etcd, and what starts it.
fn install(task: &Supply<'_>, staging: &Staging, release: &'static Release, bin: &Path) -> Result<()> {
    match staging.unpack {
        Unpack::Stage => {
            for program in release.programs {
                unpack_fresh(program, bin, "make room for it")?;
            }
            Ok(write_launcher(bin, LAUNCHER)?)
        }
        Unpack::Launch => pack_in(task.exe, bin, release.programs),
    }
}

/// The whole binary, under its own name and as links of the programs it unpacks at the first start.
fn pack_in(exe: &Path, bin: &Path, programs: &[Program]) -> Result<()> {
    let mut whole = fs::File::open(exe).with_context(|| format!("cannot read {}", exe.display()))?;
    atomic::replace(&bin.join(LAUNCHER), 0o755, |copy| std::io::copy(&mut whole, copy).map(|_| ()))?;
    for program in programs {
        let link = bin.join(program.name);
        let _ = fs::remove_file(&link);
        symlink(LAUNCHER, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    Ok(())
}

/// Says what was decided about the sidecar, and writes it down.
fn declare(task: &Supply<'_>, staging: &Staging, out: &mut impl Write) -> Result<Vec<PathBuf>> {
    match &staging.declare {
        Declare::No(why) => {
            writeln!(out, "       No sidecar is declared: {why}.")?;
            for dir in task.launch_dirs() {
                let _ = fs::remove_file(dir.join("launch.yml")); // of an earlier supply
            }
            Ok(Vec::new())
        }
        Declare::Yes(why) => {
            let processes = staging.processes.join(", ");
            writeln!(out, "       Declaring the sidecar {} for {processes}: {why}.", staging.name)?;
            writeln!(out, "       If the manifest has an etcd sidecar of its own, set BP_ETCDPROXY_SIDECAR=false.")?;
            let text = launch(task.index, staging);
            let put = |dir: PathBuf| dirs::ensure(&dir).and_then(|()| write(&dir, "launch.yml", &text));
            Ok(task.launch_dirs().into_iter().map(put).collect::<Result<_, _>>()?)
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, WriteError> {
    let path = dir.join(name);
    atomic::replace(&path, 0o644, |file| file.write_all(text.as_bytes()))?;
    Ok(path)
}

/// Shown by `cf app`, and kept by the platform.
fn config(release: &Release, programs: &[Program]) -> String {
    let head = format!("name: etcdproxy\nversion: {}\nconfig: {{}}\n", quoted(VERSION));
    if programs.is_empty() {
        return head;
    }
    let hash = |program: &Program| format!("    {}: {{sha256: {}}}\n", program.name, quoted(program.sha256));
    let hashes: String = programs.iter().map(hash).collect();
    format!("{head}output_metadata:\n  etcd_version: {}\n  programs:\n{hashes}", quoted(release.version))
}

/// `sidecar_for` makes the process a sidecar instead of a process type of its own.
fn launch(index: &str, staging: &Staging) -> String {
    let mode = staging.mode.map(|mode| format!(" --mode {mode}")).unwrap_or_default();
    // Of the memory, etcd itself must be told, too.
    let budget = staging.memory.map(|mb| format!(" --memory {mb}")).unwrap_or_default();
    let command = format!("exec \"$DEPS_DIR/{index}/bin/{LAUNCHER}\" run --drain \"{DRAIN}\"{mode}{budget}");
    let memory = staging.memory.map(|mb| format!("  limits: {{memory: {mb}}}\n")).unwrap_or_default();
    let processes: Vec<String> = staging.processes.iter().map(|process| quoted(process)).collect();
    format!(
        "processes:\n- type: {}\n  command: {}\n{memory}  platforms: {{cloudfoundry: {{sidecar_for: [{}]}}}}\n",
        quoted(&staging.name),
        quoted(&command),
        processes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::env::Env;
    use crate::release::RELEASE;

    fn staging<const N: usize>(vars: [(&str, &str); N]) -> Staging {
        Staging::resolve(&Env::from(vars), &RELEASE).unwrap()
    }

    #[test]
    fn the_declaration() {
        assert_eq!(
            launch("0", &staging([])),
            "processes:\n- type: \"etcd-proxy\"\n  command: \"exec \\\"$DEPS_DIR/0/bin/etcdproxy\\\" run --drain \\\"${ETCDPROXY_DRAIN:-8s}\\\"\"\n  \
             platforms: {cloudfoundry: {sidecar_for: [\"web\"]}}\n"
        );
        let all = staging([
            ("BP_ETCDPROXY_SIDECAR_NAME", "my_etcd"),
            ("BP_ETCDPROXY_SIDECAR_FOR", "web,worker"),
            ("BP_ETCDPROXY_MEMORY", "64"),
            ("BP_ETCDPROXY_MODE", "grpc-proxy"),
        ]);
        assert_eq!(
            launch("07", &all),
            "processes:\n- type: \"my_etcd\"\n  command: \"exec \\\"$DEPS_DIR/07/bin/etcdproxy\\\" run --drain \\\"${ETCDPROXY_DRAIN:-8s}\\\" --mode grpc-proxy --memory 64\"\n  \
             limits: {memory: 64}\n  platforms: {cloudfoundry: {sidecar_for: [\"web\", \"worker\"]}}\n"
        );
    }
}
