//! `SELinux` labels.

use std::path::Path;
use std::process::{Command, Stdio};

use super::layout::Layout;
use super::receipt::Receipt;

/// Gives the files the labels that the system's policy has for their paths (restorecon(8)), if the system uses `SELinux`.
pub(super) fn restore_labels(layout: &Layout, receipt: &Receipt) {
    let tools = ["/usr/sbin/restorecon", "/sbin/restorecon"];
    if let Some(tool) = tools.iter().find(|tool| layout.is_live() && Path::new(tool).exists()) {
        let paths = receipt.entries.iter().map(|entry| &entry.path);
        let _ = Command::new(tool).args(paths).arg(layout.receipt()).stdin(Stdio::null()).status();
    }
}
