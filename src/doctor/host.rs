//! This host: who serves the proxy's address, and what a proxy needs.

use nix::sys::resource::{Resource, getrlimit};

use super::finding::Chapter;
use crate::install::{ServiceState, UNIT};
use crate::net::etcd_health::{self, Occupant};
use crate::net::sockets;
use crate::os::cgroup;
use crate::os::env::Env;
use crate::release::{Store, program};
use crate::settings::{ListenAddr, Mode};

/// Fewer open files than this limit the clients of a proxy.
const FILES: u64 = 1024;

const IN_MEMORY: &str = "until then, etcd runs from memory, which takes 25 MB of it";

/// Who serves the address.
pub(super) fn examine_proxy(addr: &ListenAddr, chapter: &mut Chapter) {
    let about = addr.to_string();
    let owner = sockets::listener(addr);
    let who = owner.as_ref().map(|owner| format!(" ({}, pid {})", owner.name, owner.pid)).unwrap_or_default();
    match etcd_health::occupant(addr) {
        Occupant::Nobody => chapter.good(about, "is free: no proxy runs"),
        Occupant::Other if owner.as_ref().is_none_or(|owner| !owner.is_etcd) => {
            chapter
                .fault(about, format!("is in use by another program{who}"))
                .advise("stop that program, or choose another --listen-addr");
        }
        _ => match etcd_health::check(addr, etcd_health::TIMEOUT).reason {
            None => chapter.good(about, format!("is ready{who}")),
            Some(reason) => {
                chapter
                    .fault(about, format!("is not ready{who}: {reason}"))
                    .advise("see what is said about the members");
            }
        },
    }
}

/// What the host gives a proxy of this mode.
pub(super) fn examine(env: &Env, mode: Mode) -> Chapter {
    let mut chapter = Chapter::new("host");
    let needs = mode.capabilities();
    if needs.runs_etcd {
        examine_etcd(env, &mut chapter);
    }
    if let Ok((files, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if files < FILES {
            chapter
                .warn("open files", format!("{files} at most, which limits the clients"))
                .advise("raise it: ulimit -n, LimitNOFILE= of the service, or the container's ulimits");
        } else {
            chapter.good("open files", format!("{files} at most"));
        }
    }
    if let Some(bytes) = cgroup::memory_limit() {
        let (limit, needed) = (bytes / 1_000_000, u64::from(needs.min_memory));
        if limit < needed {
            chapter.warn("memory", format!("{limit} MB at most")).advise(format!("allow {needed} MB or more"));
        } else {
            chapter.good("memory", format!("{limit} MB at most"));
        }
    }
    examine_service(&mut chapter);
    chapter
}

/// Whether etcd is there, or can be unpacked.
fn examine_etcd(env: &Env, chapter: &mut Chapter) {
    let store = Store::new(env);
    let Ok(program) = program("etcd") else { return };
    if let Some(path) = store.find(program) {
        chapter.good("etcd", format!("is unpacked: {}", path.display()));
    } else if store.has(program.name) {
        match store.place() {
            Ok(Some(dir)) => chapter.good("etcd", format!("will be unpacked into {}", dir.display())),
            Ok(None) => {
                chapter.warn("etcd", "no directory is known to unpack it into").advise(IN_MEMORY);
            }
            Err(why) if store.is_fixed() => {
                // It says what to do.
                chapter.fault("etcd", why.to_string());
            }
            Err(why) => chapter.warn("etcd", why.to_string()).advise(IN_MEMORY),
        }
    } else {
        chapter
            .fault("etcd", "this is the small launcher, and no etcd is beside it")
            .advise("use --mode native, or the full etcdproxy");
    }
}

/// What the service manager says about the installed service, if there is one.
fn examine_service(chapter: &mut Chapter) {
    let Some(ServiceState { active, sub, result, restarts }) = ServiceState::of_system() else { return };
    let state = format!("{active} ({sub}), restarts: {restarts}");
    match &*active {
        "active" | "reloading" => chapter.good(UNIT, state),
        "failed" => chapter.fault(UNIT, format!("{state}, {result}")).advise("journalctl -u etcdproxy says why"),
        _ => chapter.warn(UNIT, state).advise("start it: systemctl start etcdproxy"),
    }
}
