//! The little YAML that the platform reads.

/// A scalar that is valid YAML for any text, because JSON's strings are YAML's.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
