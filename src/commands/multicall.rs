//! `etcd`, `etcdctl`, `etcdutl`: a link of that name to this binary runs that program.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::os::env::Env;
use crate::os::exec;
use crate::os::log::Log;
use crate::release::PROGRAM_NAMES;

use super::obtain;

/// The program that `argv[0]` names. `current_exe` would not do: it resolves the link whose name counts.
pub(crate) fn program(arg0: &OsStr) -> Option<&'static str> {
    let name = Path::new(arg0).file_name()?;
    PROGRAM_NAMES.into_iter().find(|program| name == *program)
}

/// Replaces this process by that program.
pub(crate) fn run(name: &str, args: &[OsString], env: &Env) -> Result<ExitCode> {
    let executable = obtain(name, env, Log::default())?;
    let mut command = Command::new(executable.path());
    command.args(args);
    Err(exec::exec(command, name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_counts() {
        for (arg0, expected) in [
            ("etcd", Some("etcd")),
            ("/usr/local/bin/etcdctl", Some("etcdctl")),
            ("./etcdutl", Some("etcdutl")),
            ("etcdproxy", None),
            ("etcd.old", None),
            ("", None),
        ] {
            assert_eq!(program(OsStr::new(arg0)), expected, "{arg0}");
        }
    }
}
