//! This host: who serves the proxy's address, and what a proxy needs.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};

use super::finding::Chapter;
use crate::net::etcd_health::{self, Occupant};
use crate::net::sockets;
use crate::os::cgroup;
use crate::os::env::Env;
use crate::release::{PROGRAM_NAMES, RELEASE, Store};
use crate::settings::ListenAddr;

/// Fewer open files than this limit the clients of a proxy.
const FILES: u64 = 1024;

/// Less memory is too little, in MB: for native, and for etcd's own proxy.
const MEMORY: [u64; 2] = [8, 32];

/// The unit that `install` writes.
const UNIT: &str = "etcdproxy.service";

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

/// What the host gives a proxy.
pub(super) fn examine(env: &Env, runs_etcd: bool) -> Chapter {
    let mut chapter = Chapter::new("host");
    if runs_etcd {
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
        let (limit, needed) = (bytes / 1_000_000, MEMORY[usize::from(runs_etcd)]);
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
    let Some(program) = RELEASE.programs.iter().find(|program| program.name == PROGRAM_NAMES[0]) else { return };
    if let Some(path) = store.find(program) {
        chapter.good("etcd", format!("is unpacked: {}", path.display()));
    } else if store.has(program.name) {
        match store.place() {
            Ok(dir) => chapter.good("etcd", format!("will be unpacked into {}", dir.display())),
            Err(why) => chapter
                .warn("etcd", why.to_string())
                .advise("until then, etcd runs from memory, which takes 25 MB of it"),
        }
    } else {
        chapter
            .fault("etcd", "this is the small launcher, and no etcd is beside it")
            .advise("use --mode native, or the full etcdproxy");
    }
}

/// What the service manager says about the installed service, if there is one.
fn examine_service(chapter: &mut Chapter) {
    if !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let show = ["show", UNIT, "--property=LoadState,ActiveState,SubState,Result,NRestarts"];
    let Ok(shown) = Command::new("systemctl").args(show).stdin(Stdio::null()).stderr(Stdio::null()).output() else {
        return;
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let property =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    if property("LoadState") != "loaded" {
        return;
    }
    let state = format!("{} ({}), restarts: {}", property("ActiveState"), property("SubState"), property("NRestarts"));
    match property("ActiveState") {
        "active" | "reloading" => chapter.good(UNIT, state),
        "failed" => {
            chapter.fault(UNIT, format!("{state}, {}", property("Result"))).advise("journalctl -u etcdproxy says why");
        }
        _ => {
            chapter.warn(UNIT, state).advise("start it: systemctl start etcdproxy");
        }
    }
}
