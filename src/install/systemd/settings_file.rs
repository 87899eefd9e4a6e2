//! The file with the service's settings.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::env_file;
use crate::fs::regular::{self, Links};
use crate::install::error::Error;
use crate::install::file_state::FileState;
use crate::install::guard;
use crate::install::layout::Layout;
use crate::settings::Needs;

const TEMPLATE: &str = include_str!("../../../assets/etcdproxy.env");

/// The settings file of a new installation.
pub(in crate::install) fn template(layout: &Layout) -> String {
    TEMPLATE.replace("@USER@", layout.user_option())
}

/// What the service needs, according to its settings.
///
/// # Errors
/// If the file cannot be read, or if a setting cannot work.
pub(in crate::install) fn read(layout: &Layout) -> Result<Needs, Error> {
    let path = layout.real(&layout.config());
    let state = if guard::check(layout, &layout.config_dir)? { FileState::read(&path, layout.uid)? } else { None };
    let text = match state {
        None => String::new(),
        Some(_) => {
            match regular::open(&layout.real_target(&layout.config()), Links::Follow).and_then(io::read_to_string) {
                Ok(text) => text,
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => return Err(Error::Special { path }),
                Err(cause) => return Err(Error::CannotRead { path, cause }),
            }
        }
    };
    let env = env_file::parse(&path, &text)?;
    Needs::of(&env).map_err(|err| err.in_file(&path).into())
}

/// # Errors
/// If the settings name no endpoint.
pub(in crate::install) fn refuse_unconfigured(layout: &Layout) -> Result<(), Error> {
    if read(layout)?.configured { Ok(()) } else { Err(Error::NotConfigured { path: layout.config() }) }
}

/// Problems of the settings that do not prevent an installation, one line each.
pub(in crate::install) fn problems(layout: &Layout, needs: &Needs) -> Vec<String> {
    let path = layout.real(&layout.config());
    let shown = path.display();
    let missing = needs.files.iter().filter(|(_, file)| layout.is_live() && !file.exists());
    let mut problems: Vec<String> =
        missing.map(|(setting, file)| format!("{}: {} does not exist", setting.variable(), file.display())).collect();
    if needs.holds_secret
        && fs::metadata(layout.real_target(&layout.config())).is_ok_and(|meta| meta.mode() & 0o044 != 0)
    {
        problems.push(format!(
            "{shown} holds a private key or a password that other users can read: run chmod 600 {shown}"
        ));
    }
    if !needs.configured {
        problems.push(format!("the service does not start until ETCDPROXY_ENDPOINTS is set in {shown}"));
    }
    if let Some(port) = needs.ports.first().filter(|port| **port < 1024 && !layout.user) {
        problems.push(format!("the service's user may not listen on port {port}: choose 1024 or above"));
    }
    problems
}
