//! Says what is wrong: with the settings, the members, the proxy of this host, and the host itself.
//!
//! It changes nothing: it connects, asks and reads.

mod finding;
mod host;
mod members;

use crate::net;
use crate::os::env::Env;
use crate::os::log::without_errno;
use crate::settings::{Error, Mode, Settings, Sources};
pub(crate) use finding::{Chapter, Level};

/// Examines everything. Takes some seconds at most.
pub(crate) fn examine(sources: Result<Sources, Error>, env: &Env) -> Vec<Chapter> {
    let addr = sources.as_ref().ok().and_then(|sources| sources.listen_addr().ok());
    let resolved = sources.and_then(|sources| sources.resolve());
    let mut members = Chapter::new("members");
    if let Ok(settings) = &resolved
        && let Err(err) = net::block_on(members::examine(settings, &mut members))
    {
        members.fault("this host", without_errno(&err)).advise("raise the limit of open files (ulimit -n)");
    }
    let mut proxy = Chapter::new("proxy");
    if let Some(addr) = &addr {
        host::examine_proxy(addr, &mut proxy);
    }
    let mode = resolved.as_ref().map_or(Mode::GrpcProxy, |settings| settings.run.mode());
    vec![settings(&resolved), members, proxy, host::examine(env, mode)]
}

/// What is in effect, and from where.
fn settings(resolved: &Result<Settings, Error>) -> Chapter {
    let mut chapter = Chapter::new("settings");
    let settings = match resolved {
        Ok(settings) => settings,
        Err(err) => {
            // It says what to do.
            chapter.fault("settings", err.to_string());
            return chapter;
        }
    };
    let mode = settings.run.mode();
    let why = settings.mode_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    chapter.good("mode", format!("{mode}{why}"));
    chapter.good("binding", settings.binding.as_deref().unwrap_or("no etcd service is bound"));
    for shown in &settings.shown {
        let from = match shown.from.as_str() {
            from if from == shown.name || from.is_empty() => format!("({})", shown.source),
            from => format!("({} {from})", shown.source),
        };
        chapter.good(shown.name, format!("{} {from}", shown.value));
    }
    for warning in &settings.warnings {
        chapter.warn("settings", warning);
    }
    chapter
}
