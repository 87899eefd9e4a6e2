//! `supply`: puts etcd and the launcher into the droplet, and declares the sidecar.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::yaml::quoted;
use crate::buildpack::options::{Declare, Options, Unpack};
use crate::buildpack::process::Sidecar;
use crate::fs::dirs::{self, REMEDY};
use crate::fs::{WriteError, atomic};
use crate::release::{PROGRAM_NAMES, Program, Release, VERSION, unpack_fresh, write_launcher};

/// Name of the launcher in `deps/IDX/bin`.
const LAUNCHER: &str = "etcdproxy";

const PROFILE: &str = include_str!("../../../assets/profile.sh");

/// The platform's arguments, except the cache, which supply does not touch.
#[derive(Debug)]
pub(crate) struct Supply<'a> {
    /// The application's directory.
    pub build: &'a Path,
    /// Directory for the results of all buildpacks.
    pub deps: &'a Path,
    /// Name of this buildpack's directory in it: `0`, or `00` if there are ten or more buildpacks.
    pub index: &'a str,
    /// This binary.
    pub exe: &'a Path,
    /// Whether the application waits for the cluster.
    pub waits: bool,
}

impl Supply<'_> {
    /// Where to write `launch.yml`: in this buildpack's directory and, with ten or more buildpacks, in the one without
    /// the leading zero, because the platform's builder looks there.
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
/// If a file cannot be written.
pub(crate) fn supply(
    task: &Supply<'_>,
    options: &Options,
    release: &'static Release,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "-----> Etcdproxy Buildpack version {VERSION}")?;
    let dir = task.deps.join(task.index);
    let bin = dir.join("bin");
    dirs::ensure(&bin, REMEDY)?;
    let without_etcd = options.mode.filter(|mode| !mode.capabilities().runs_etcd);
    let programs = if let Some(mode) = without_etcd {
        writeln!(out, "-----> Supplying mode {mode}, which needs no etcd")?;
        for name in PROGRAM_NAMES {
            let _ = fs::remove_file(bin.join(name)); // of an earlier supply
        }
        write_launcher(&bin, LAUNCHER)?;
        // Called by this name, the launcher says what is wrong. Otherwise the log would say only "command not found".
        link(&bin, "etcd")?;
        writeln!(out, "       The droplet contains no etcd. A command of the manifest that runs etcd, such as")?;
        writeln!(
            out,
            "       etcd grpc-proxy, ends with an error: use etcdproxy run in it, or unset BP_ETCDPROXY_MODE."
        )?;
        &[]
    } else {
        writeln!(out, "-----> Supplying etcd")?;
        writeln!(out, "       Using etcd version {}", release.version)?;
        writeln!(out, "-----> Installing etcd {}", release.version)?;
        install(task, options, release, &bin)?;
        release.programs
    };

    let mut written = vec![write(&dir, "config.yml", &config(release, programs))?];
    dirs::ensure(&dir.join("profile.d"), REMEDY)?;
    written.push(write(&dir, "profile.d/etcdproxy.sh", &PROFILE.replace("@IDX@", task.index))?);
    written.extend(declare(task, options, out)?);
    warn(task, options, out)?;
    if options.debug {
        let programs = programs.iter().map(|program| bin.join(program.name));
        for path in programs.chain([bin.join(LAUNCHER)]).chain(written) {
            let size = fs::metadata(&path).map_or(0, |meta| meta.len());
            writeln!(out, "       {} ({size} bytes)", path.display())?;
        }
    }
    Ok(())
}

/// Writes etcd and the launcher.
fn install(task: &Supply<'_>, options: &Options, release: &'static Release, bin: &Path) -> Result<()> {
    match options.unpack {
        Unpack::Stage => {
            for program in release.programs {
                unpack_fresh(program, bin, REMEDY)?;
            }
            Ok(write_launcher(bin, LAUNCHER)?)
        }
        Unpack::Launch => install_packed(task.exe, bin, release.programs),
    }
}

/// Writes the whole binary, and links to it with the names of the programs that it unpacks at the first start.
fn install_packed(exe: &Path, bin: &Path, programs: &[Program]) -> Result<()> {
    let mut whole = fs::File::open(exe).with_context(|| format!("cannot read {}", exe.display()))?;
    atomic::replace(&bin.join(LAUNCHER), 0o755, REMEDY, |copy| std::io::copy(&mut whole, copy).map(|_| ()))?;
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

/// Prints the warnings about the options, and one about the Procfile.
fn warn(task: &Supply<'_>, options: &Options, out: &mut impl Write) -> Result<()> {
    for warning in &options.warnings {
        writeln!(out, "       WARNING: {warning}")?;
    }
    let name = &options.name;
    if matches!(options.declare, Declare::Yes(_)) && procfile_has(task.build, name) {
        writeln!(
            out,
            "       WARNING: the Procfile has a process named {name}, which replaces the sidecar: rename it, or set \
             BP_ETCDPROXY_SIDECAR_NAME"
        )?;
    }
    Ok(())
}

/// Whether the application's Procfile has a process of this name. It is a map in YAML, one process a line.
fn procfile_has(build: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(build.join("Procfile")) else { return false };
    text.lines().filter_map(|line| line.split_once(':')).any(|(key, _)| key.trim().trim_matches(['"', '\'']) == name)
}

/// Declares the sidecar, or removes an earlier declaration, and says why.
fn declare(task: &Supply<'_>, options: &Options, out: &mut impl Write) -> Result<Vec<PathBuf>> {
    match &options.declare {
        Declare::No(why) => {
            writeln!(out, "       No sidecar is declared: {why}.")?;
            for dir in task.launch_dirs() {
                let _ = fs::remove_file(dir.join("launch.yml")); // of an earlier supply
            }
            Ok(Vec::new())
        }
        Declare::Yes(why) => {
            let sidecar = Sidecar::new(options, &format!("$DEPS_DIR/{}/bin/{LAUNCHER}", task.index));
            let process_types = sidecar.process_types.join(", ");
            writeln!(out, "       Declaring the sidecar {} for {process_types}: {why}.", sidecar.name)?;
            writeln!(out, "       If the manifest has an etcd sidecar of its own, set BP_ETCDPROXY_SIDECAR=false.")?;
            if !task.waits {
                writeln!(
                    out,
                    "       Application and sidecar start at the same time: with ETCDPROXY_WAIT=30s, the application"
                )?;
                writeln!(out, "       starts as soon as the cluster answers, after 30 s at the latest.")?;
            }
            let text = launch(&sidecar);
            let put = |dir: PathBuf| dirs::ensure(&dir, REMEDY).and_then(|()| write(&dir, "launch.yml", &text));
            Ok(task.launch_dirs().into_iter().map(put).collect::<Result<_, _>>()?)
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, WriteError> {
    let path = dir.join(name);
    atomic::replace(&path, 0o644, REMEDY, |file| file.write_all(text.as_bytes()))?;
    Ok(path)
}

/// `config.yml`, which `cf app` shows and the platform keeps.
fn config(release: &Release, programs: &[Program]) -> String {
    let head = format!("name: etcdproxy\nversion: {}\nconfig: {{}}\n", quoted(VERSION));
    if programs.is_empty() {
        return head;
    }
    let hash = |program: &Program| format!("    {}: {{sha256: {}}}\n", program.name, quoted(program.sha256));
    let hashes: String = programs.iter().map(hash).collect();
    format!("{head}output_metadata:\n  etcd_version: {}\n  programs:\n{hashes}", quoted(release.version))
}

/// `launch.yml`. `sidecar_for` makes the process a sidecar instead of a process type of its own.
fn launch(sidecar: &Sidecar<'_>) -> String {
    let memory = sidecar.memory.map(|mb| format!("  limits: {{memory: {mb}}}\n")).unwrap_or_default();
    let process_types: Vec<String> = sidecar.process_types.iter().map(|name| quoted(name)).collect();
    format!(
        "processes:\n- type: {}\n  command: {}\n{memory}  platforms: {{cloudfoundry: {{sidecar_for: [{}]}}}}\n",
        quoted(sidecar.name),
        quoted(&sidecar.command),
        process_types.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::env::Env;
    use crate::release::RELEASE;

    fn options<const N: usize>(vars: [(&str, &str); N]) -> Options {
        Options::resolve(&Env::from(vars), &RELEASE).unwrap()
    }

    #[test]
    fn the_declaration() {
        assert_eq!(
            launch(&Sidecar::new(&options([]), "$DEPS_DIR/0/bin/etcdproxy")),
            "processes:\n- type: \"etcd-proxy\"\n  command: \"exec \\\"$DEPS_DIR/0/bin/etcdproxy\\\" run --drain \\\"${ETCDPROXY_DRAIN:-8s}\\\"\"\n  \
             platforms: {cloudfoundry: {sidecar_for: [\"web\"]}}\n"
        );
        let all = options([
            ("BP_ETCDPROXY_SIDECAR_NAME", "my_etcd"),
            ("BP_ETCDPROXY_SIDECAR_FOR", "web,worker"),
            ("BP_ETCDPROXY_MEMORY", "64"),
            ("BP_ETCDPROXY_MODE", "grpc-proxy"),
        ]);
        assert_eq!(
            launch(&Sidecar::new(&all, "$DEPS_DIR/07/bin/etcdproxy")),
            "processes:\n- type: \"my_etcd\"\n  command: \"exec \\\"$DEPS_DIR/07/bin/etcdproxy\\\" run --drain \\\"${ETCDPROXY_DRAIN:-8s}\\\" --mode grpc-proxy --memory 64\"\n  \
             limits: {memory: 64}\n  platforms: {cloudfoundry: {sidecar_for: [\"web\", \"worker\"]}}\n"
        );
    }
}
