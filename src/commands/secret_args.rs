//! Secrets on the command line: other programs can read it, and an error message must not repeat them.

use std::ffi::OsString;

/// The length of the shortest base64 text that counts as a key or a certificate. A path seldom has so many characters
/// without a dot, a hyphen or an underscore, and a sha256 has no upper case.
const SHORTEST_KEY: usize = 44;

/// With the @ that ends it. A shorter one would be found in other words as well.
const SHORTEST_PASSWORD: usize = 4;

/// Whether an argument contains the text of a certificate or key, whole or mangled. Arguments after `--` are those of
/// other programs, which may take base64.
pub(crate) fn contain_pem(args: &[OsString]) -> bool {
    let own = args.iter().take_while(|arg| *arg != "--");
    args.iter().any(|arg| has_marker(&arg.to_string_lossy()))
        || own.into_iter().any(|arg| is_base64(&arg.to_string_lossy()))
}

/// `LS0tLS1CRUdJ` is the marker as base64.
fn has_marker(arg: &str) -> bool {
    ["-----BEGIN", "-----END", "PRIVATE KEY", "LS0tLS1CRUdJ"].iter().any(|marker| arg.contains(marker))
}

fn is_base64(arg: &str) -> bool {
    let value = match arg.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => value,
        _ => arg,
    };
    // Line ends may have become these.
    let value = value.replace("\\n", "\n");
    let value = value.trim_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_whitespace();
    value.len() >= SHORTEST_KEY
        && value.chars().all(is_allowed)
        && value.contains(|c: char| c.is_ascii_uppercase())
        && value.contains(|c: char| c.is_ascii_lowercase())
        && value.contains(|c: char| c.is_ascii_digit())
        && !std::path::Path::new(value).exists()
}

/// `message` without the keys and the passwords of addresses in `args`, and with their control characters escaped.
pub(crate) fn safe_to_show(message: &str, args: &[OsString]) -> String {
    let mut message = message.to_owned();
    for arg in args.iter().map(|arg| arg.to_string_lossy()) {
        for part in arg.split("://").skip(1) {
            // A password can contain any character, so it ends at the last @.
            let Some((user, _)) = part.rsplit_once('@') else { continue };
            let password = user.split_once(':').map_or("", |(_, password)| password);
            let and_at = |secret: &str| format!("{secret}@");
            let longest_first = [and_at(user), and_at(password), password.to_owned()];
            for secret in longest_first.iter().filter(|secret| secret.len() >= SHORTEST_PASSWORD) {
                let end = if secret.ends_with('@') { "@" } else { "" };
                for shown in [secret.clone(), secret.escape_debug().to_string()] {
                    message = message.replace(&shown, &format!("(not shown){end}"));
                }
            }
        }
        // clap shows the value of --flag=value alone.
        for shown in [&*arg, arg.split_once('=').map_or("", |(_, value)| value)] {
            // After the -- of a command that passes nothing on.
            if is_base64(shown) {
                message = message.replace(shown, "(not shown)");
            }
            if shown.contains('\n') {
                message = message.replace(shown, &shown.escape_debug().to_string());
            }
        }
    }
    // What is left of line ends is the message's own.
    let escaped =
        message.chars().map(|c| if c.is_control() && c != '\n' { c.escape_debug().to_string() } else { c.into() });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2";

    #[test]
    fn keys_are_recognized_however_a_shell_mangled_them() {
        for arg in [
            "-----BEGIN PRIVATE KEY-----",
            "--key=-----BEGIN PRIVATE KEY-----",
            " -----BEGIN",
            "BEGIN EC PRIVATE KEY",
            LINE,
            &format!("--key={LINE}\\n{LINE}"),
            &format!("\"{LINE}\""),
            "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
        ] {
            assert!(contain_pem(&["run".into(), arg.into()]), "{arg}");
        }
        for arg in [
            "/etc/pki/tls/private/Etcd1/a/very/long/path/to/a/key.pem",
            "https://h:1,https://h:2,https://h:3,https://h:4",
            "0.1.0-e3b0c44298fc",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "--drain=8s",
        ] {
            assert!(!contain_pem(&["run".into(), arg.into()]), "{arg}");
        }
        assert!(!contain_pem(&["exec".into(), "--".into(), LINE.into()]), "for another program");
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        for (message, arg, expected) in [
            ("bad https://u:s3\"@x@h:1", "https://u:s3\"@x@h:1", "bad https://(not shown)@h:1"),
            ("bad https://u:s3\\\"@x@h:1", "https://u:s3\"@x@h:1", "bad https://(not shown)@h:1"),
            (&format!("bad {LINE}"), LINE, "bad (not shown)"),
            ("bad s3cret", "--endpoints=https://u:s3cret@h:1", "bad (not shown)"),
            ("bad https://u@h:1", "https://u@h:1", "bad https://u@h:1"),
            ("bad https://h:1", "https://h:1", "bad https://h:1"),
            ("bad a\n\u{1b}b", "a\n\u{1b}b", "bad a\\n\\u{1b}b"),
            ("bad a\nb\nUsage", "--x=a\nb", "bad a\\nb\nUsage"),
        ] {
            assert_eq!(safe_to_show(message, &[arg.into()]), expected);
        }
    }
}
