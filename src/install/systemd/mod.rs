//! The service: its unit, its settings file, and the manager that runs it.

pub(super) mod env_file;
pub(super) mod manager;
pub(super) mod unit;

use super::layout::Layout;

/// Fills in the option by which `systemctl` and `etcdproxy` mean the user's own service.
fn for_user(layout: &Layout, template: &str) -> String {
    template.replace("@USER@", if layout.user { "--user " } else { "" })
}
