//! `supply`: puts etcd and the launcher into the droplet, and declares the sidecar.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::yaml::quoted;
use crate::buildpack::options::{Decision, Options};
use crate::buildpack::process::Sidecar;
use crate::buildpack::programs::{self, LAUNCHER, Staged, list, write_text};
use crate::fs::dirs::{self, REMEDY};
use crate::release::{Program, Release, VERSION};

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
    let programs = programs::put(&Staged { bin: &bin, exe: task.exe, place: "droplet" }, options, release, out)?;
    let mut written = vec![write_text(&dir, "config.yml", &config(release, programs))?];
    dirs::ensure(&dir.join("profile.d"), REMEDY)?;
    written.push(write_text(&dir, "profile.d/etcdproxy.sh", &PROFILE.replace("@IDX@", task.index))?);
    written.extend(declare(task, options, out)?);
    warn(task, options, out)?;
    if options.debug {
        let programs = programs.iter().map(|program| bin.join(program.name));
        list(programs.chain([bin.join(LAUNCHER)]).chain(written), out)?;
    }
    Ok(())
}

/// Prints the warnings about the options, and one about the Procfile.
fn warn(task: &Supply<'_>, options: &Options, out: &mut impl Write) -> Result<()> {
    options.warn(out)?;
    let name = &options.name;
    if matches!(options.declare, Decision::Yes(_)) && procfile_has(task.build, name) {
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
        Decision::No(why) => {
            writeln!(out, "       No sidecar is declared: {why}.")?;
            for dir in task.launch_dirs() {
                let _ = fs::remove_file(dir.join("launch.yml")); // of an earlier supply
            }
            Ok(Vec::new())
        }
        Decision::Yes(why) => {
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
            let put = |dir: PathBuf| dirs::ensure(&dir, REMEDY).and_then(|()| write_text(&dir, "launch.yml", &text));
            Ok(task.launch_dirs().into_iter().map(put).collect::<Result<_, _>>()?)
        }
    }
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
