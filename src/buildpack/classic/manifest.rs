//! `manifest.yml` of the zip.

use super::yaml::quoted;
use crate::release::{Label, LabelledProgram};

/// The platform reads `stack` only. The rest is for people and scanners.
pub(crate) fn manifest(stack: Option<&str>, labels: &[&Label]) -> String {
    let stack = stack.map(|stack| format!("stack: {}\n", quoted(stack))).unwrap_or_default();
    let dependency = |label: &&Label| {
        let program = |program: &LabelledProgram| {
            format!("  - name: {}\n    sha256: {}\n", program.name, quoted(&program.sha256))
        };
        let programs: String = label.programs.iter().map(program).collect();
        format!(
            "- name: etcd\n  version: {}\n  arch: {}\n  cf_stacks: [cflinuxfs3, cflinuxfs4, cflinuxfs5]\n  \
             binaries:\n{programs}",
            quoted(&label.etcd),
            label.arch
        )
    };
    let version = labels.first().map(|label| quoted(&label.etcd)).unwrap_or_default();
    let dependencies: String = labels.iter().map(dependency).collect();
    format!(
        "---\nlanguage: etcdproxy\n{stack}default_versions:\n- name: etcd\n  version: {version}\ndependencies:\n{dependencies}"
    )
}
