//! The unit, and the drop-in that hands certificates to the service.

use std::path::{Path, PathBuf};

use crate::install::layout::Layout;
use crate::settings::{Needs, Setting};

/// The unit, with placeholders (systemd.unit(5), systemd.exec(5)).
const SERVICE: &str = include_str!("../../../assets/etcdproxy.service");
/// The sandbox, which only the system's manager supports, not a user's.
const SANDBOX: &str = include_str!("../../../assets/sandbox.conf");

/// The unit for a service with these needs.
pub(in crate::install) fn unit(layout: &Layout, needs: &Needs) -> String {
    let mut families = vec!["AF_UNIX"];
    families.extend(needs.ipv4.then_some("AF_INET"));
    families.extend(needs.ipv6.then_some("AF_INET6"));
    let ports: Vec<String> = needs.ports.iter().map(|port| format!("SocketBindAllow=tcp:{port}")).collect();
    let system = if layout.user { String::new() } else { SANDBOX.replace("@PORTS@", &ports.join("\n")) };
    let target = if layout.user { "default.target" } else { "multi-user.target" };
    SERVICE
        .replace("@USER@", layout.user_option())
        .replace("@CONFIG@", &text(&layout.config()))
        .replace("@PROGRAM@", &text(&layout.current_program("etcdproxy")))
        .replace("@FAMILIES@", &families.join(" "))
        .replace("@SANDBOX@\n", &system)
        .replace("@TARGET@", target)
}

/// The text of the drop-in; `None` if there are no certificates, or if the service runs as the user who owns them.
pub(in crate::install) fn certificates(layout: &Layout, needs: &Needs) -> Option<String> {
    if layout.user || needs.files.is_empty() {
        return None;
    }
    let name = |setting: Setting| setting.flag().trim_start_matches("--");
    let load = |(setting, file): &(Setting, PathBuf)| format!("LoadCredential={}:{}\n", name(*setting), text(file));
    let flag = |(setting, _): &(Setting, PathBuf)| {
        format!(" {} ${{CREDENTIALS_DIRECTORY}}/{}", setting.flag(), name(*setting))
    };
    Some(format!(
        "# Written by etcdproxy install, from {}. After a renewal of certificates, restart the service.\n\
         [Service]\n{}ExecStart=\nExecStart={} run{}\n",
        layout.config().display(),
        needs.files.iter().map(load).collect::<String>(),
        text(&layout.current_program("etcdproxy")),
        needs.files.iter().map(flag).collect::<String>(),
    ))
}

/// A path as a unit contains it: `%` begins a specifier, so it is doubled (systemd.unit(5)).
fn text(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::tests::layout;
    use super::*;

    fn needs() -> Needs {
        Needs { configured: true, ipv4: true, ports: [2379, 4001].into(), ..Needs::default() }
    }

    #[test]
    fn the_sandbox_has_what_the_settings_need_and_no_more() {
        let text = unit(&layout(), &needs());
        assert!(text.contains("\nRestrictAddressFamilies=AF_UNIX AF_INET\n"), "{text}");
        assert!(text.contains("\nSocketBindAllow=tcp:2379\nSocketBindAllow=tcp:4001\n"), "{text}");
        let text = unit(&layout(), &Needs { ipv6: true, ..needs() });
        assert!(text.contains("\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"), "{text}");
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        for user in [false, true] {
            let layout = Layout { user, ..layout() };
            let text = unit(&layout, &needs());
            let is_filled_in = |part: &str| !part.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(text.split('@').skip(1).all(is_filled_in), "{text}");
            assert_eq!(text.contains("DynamicUser="), !user, "{text}");
            assert!(text.contains("\nLimitCORE=0\n"), "{text}");
        }
    }

    #[test]
    fn only_a_service_that_cannot_read_certificates_gets_them_as_credentials() {
        let files = vec![(Setting::CaCert, "/etc/100%/ca.pem".into())];
        let needs = Needs { files, ..needs() };
        let text = certificates(&layout(), &needs).unwrap();
        assert!(text.contains("\nLoadCredential=cacert:/etc/100%%/ca.pem\n"), "{text}");
        assert!(text.ends_with("/etcdproxy run --cacert ${CREDENTIALS_DIRECTORY}/cacert\n"), "{text}");
        assert_eq!(certificates(&Layout { user: true, ..layout() }, &needs), None);
        assert_eq!(certificates(&layout(), &super::tests::needs()), None);
    }
}
