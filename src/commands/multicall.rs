//! `etcd`, `etcdctl`, `etcdutl`: a link to this binary with such a name runs that program.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::os::env::Env;
use crate::os::process::exec;
use crate::release::{Error, PROGRAM_NAMES, Store};
use crate::settings;

/// The program that `argv[0]` names. `current_exe` is no help: it resolves the link, and we need its name.
pub(crate) fn program(arg0: &OsStr) -> Option<&'static str> {
    let name = Path::new(arg0).file_name()?;
    PROGRAM_NAMES.into_iter().find(|program| name == *program)
}

/// Replaces this process by that program.
pub(crate) fn run(name: &str, args: &[OsString], env: &Env) -> Result<ExitCode> {
    let executable = match Store::new(env).obtain(name) {
        // A droplet for mode native has this link, so that a command that runs etcd says what is wrong with it.
        Err(Error::Launcher { .. }) => return Err(settings::Error::needs_etcd(name).into()),
        obtained => obtained?,
    };
    let mut command = Command::new(executable.path());
    command.args(args);
    Err(exec(command, name, executable.shown()).into())
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
