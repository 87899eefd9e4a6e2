//! The flags that are passed on to etcd as they are.

use std::ffi::OsString;

use super::error::Error;
use super::mode::Mode;
use super::table::Setting;

/// Flags of etcd that would override what was checked.
const CHECKED: [(&str, Setting); 5] = [
    ("--endpoints", Setting::Endpoints),
    ("--listen-addr", Setting::ListenAddr),
    ("--cacert", Setting::CaCert),
    ("--cert", Setting::Cert),
    ("--key", Setting::Key),
];

/// Checks the flags that are passed on to etcd.
///
/// # Errors
/// If the mode does not run etcd, if etcdproxy has its own flag for something, or if etcd would ignore a word.
pub(crate) fn check_etcd_flags(flags: &[OsString], mode: Mode) -> Result<(), Error> {
    let error = |flag: &OsString, problem: String| Error::usage(format!("-- {}", flag.display()), problem);
    let Some(first) = flags.first() else { return Ok(()) };
    if !mode.capabilities().runs_etcd {
        let problem = format!("it is for etcd, which mode {mode} does not run: remove it");
        return Err(Error::new(format!("-- {}", first.display()), problem));
    }
    if !first.as_encoded_bytes().starts_with(b"-") {
        return Err(error(first, "it is not a flag, and etcd would ignore it: remove it".to_owned()));
    }
    for flag in flags {
        let name = flag.to_string_lossy();
        let name = name.split('=').next().unwrap_or_default();
        if let Some((_, own)) = CHECKED.iter().find(|(etcds, _)| *etcds == name) {
            let problem = format!("it would override a checked setting: use {} before the --", own.flag());
            return Err(error(flag, problem));
        }
    }
    Ok(())
}
