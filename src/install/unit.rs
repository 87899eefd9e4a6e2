//! The service: its unit, its settings file, and the drop-in that hands it certificates.

use std::path::{Path, PathBuf};

use super::layout::Layout;
use crate::settings::{Needs, Setting};

/// For etcdproxy under systemd, as [systemd.unit(5)] and systemd.exec(5) describe it.
const SERVICE: &str = include_str!("../../assets/etcdproxy.service");
/// What only the system's manager can do.
const SYSTEM: &str = include_str!("../../assets/system.conf");
const ENVIRONMENT: &str = include_str!("../../assets/etcdproxy.env");

/// The unit for a service that needs this.
pub(super) fn unit(layout: &Layout, needs: &Needs) -> String {
    let mut families = vec!["AF_UNIX"];
    families.extend(needs.ipv4.then_some("AF_INET"));
    families.extend(needs.ipv6.then_some("AF_INET6"));
    let ports: Vec<String> = needs.ports.iter().map(|port| format!("SocketBindAllow=tcp:{port}")).collect();
    let system = if layout.user { String::new() } else { SYSTEM.replace("@PORTS@", &ports.join("\n")) };
    let target = if layout.user { "default.target" } else { "multi-user.target" };
    for_user(layout, SERVICE)
        .replace("@CONFIG@", &text(&layout.config()))
        .replace("@PROGRAM@", &text(&layout.current_program("etcdproxy")))
        .replace("@FAMILIES@", &families.join(" "))
        .replace("@SYSTEM@\n", &system)
        .replace("@TARGET@", target)
}

/// The settings file that a new installation begins with.
pub(super) fn environment(layout: &Layout) -> String {
    for_user(layout, ENVIRONMENT)
}

/// The drop-in, when there are certificates and the service is not run by who owns them.
pub(super) fn certificates(layout: &Layout, needs: &Needs) -> Option<String> {
    if layout.user || needs.files.is_empty() {
        return None;
    }
    let name = |setting: Setting| setting.flag().trim_start_matches("--");
    let load = |(setting, file): &(Setting, PathBuf)| format!("LoadCredential={}:{}\n", name(*setting), text(file));
    let flag = |(setting, _): &(Setting, PathBuf)| {
        format!(" {} ${{CREDENTIALS_DIRECTORY}}/{}", setting.flag(), name(*setting))
    };
    Some(format!(
        "# Written by etcdproxy install, from {}. Renewed certificates are seen after a restart.\n\
         [Service]\n{}ExecStart=\nExecStart={} run{}\n",
        layout.config().display(),
        needs.files.iter().map(load).collect::<String>(),
        text(&layout.current_program("etcdproxy")),
        needs.files.iter().map(flag).collect::<String>(),
    ))
}

fn for_user(layout: &Layout, template: &str) -> String {
    template.replace("@USER@", if layout.user { "--user " } else { "" })
}

/// A path in a unit: its percent signs are no specifiers.
fn text(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}
