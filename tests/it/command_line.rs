//! Help texts and error lines, as files in `tests/cmd`, which `TRYCMD=overwrite` writes anew; and what is made from the
//! same types: completions and manual pages.

use std::fs;
use std::path::PathBuf;

use crate::support::{binary, command, etcdproxy, fails_with, finish};

#[test]
fn help_texts_and_error_lines() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("etcdproxy", binary());
    cases.env("ETCDPROXY_UNPACK_DIR", "/no/such/dir").env("COLUMNS", "100");
    cases.case("tests/cmd/*.trycmd");
}

/// The commands that the help text names, but for `help`.
fn shown_commands() -> Vec<String> {
    let (_, help, _) = finish(&mut etcdproxy(["--help"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

fn completions(shell: &str) -> String {
    let (code, script, stderr) = finish(&mut etcdproxy(["completions", shell]));
    assert_eq!(code, 0, "{stderr}");
    script
}

/// What bash offers for the last of these words.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    let script = format!(
        "{}\nCOMP_WORDS=({}) COMP_CWORD={}\n_etcdproxy etcdproxy '{last}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions("bash"),
        words.join(" "),
        before.len(),
        before.last().unwrap()
    );
    let (code, stdout, stderr) = finish(&mut command("bash".as_ref(), ["--norc", "-c", &script]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let mut offered = bash_offers(&["etcdproxy", ""]);
    offered.retain(|word| !word.starts_with('-') && word != "help");
    assert_eq!(offered, shown_commands());
    assert_eq!(bash_offers(&["etcdproxy", "heal"]), ["health"]);
    assert_eq!(bash_offers(&["etcdproxy", "run", "--end"]), ["--endpoints"]);
    assert_eq!(bash_offers(&["etcdproxy", "dev", "--nodes", ""]), ["1", "3"]);
    assert_eq!(bash_offers(&["etcdproxy", "completions", "z"]), ["zsh"]);
    assert_eq!(bash_offers(&["etcdproxy", "run", "--mode", ""]), ["auto", "grpc-proxy", "tunnel"]);
}

#[test]
fn every_shell_knows_every_command_and_no_hidden_one() {
    for shell in ["bash", "zsh", "fish"] {
        let script = completions(shell);
        for name in shown_commands() {
            // As each shell's script writes it where commands are offered.
            let offer = match shell {
                "bash" => format!("etcdproxy,{name})"),
                "zsh" => format!("\n'{name}:"),
                _ => format!(" -a \"{name}\""),
            };
            assert!(script.contains(&offer), "{shell}: {offer}");
        }
        assert!(!script.contains("supply"), "{shell}");
    }
}

/// What groff says when it formats a page.
fn groff_complaints(page: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.1");
    fs::write(&file, page).unwrap();
    let mut groff = command("groff".as_ref(), ["-man", "-ww", "-z", "-Tutf8", "-Kutf8"]);
    let (code, stdout, stderr) = finish(groff.arg(file));
    assert_eq!(code, 0, "{stderr}");
    stdout + &stderr
}

#[test]
fn the_manual_page() {
    let (code, page, stderr) = finish(&mut etcdproxy(["man"]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(groff_complaints(&page), "");
    for name in shown_commands() {
        assert!(page.contains(&format!("etcdproxy\\-{name}(1)")), "{name}:\n{page}");
    }
}

#[test]
fn a_manual_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let man1 = dir.path().join("man/man1");
    let (code, stdout, stderr) = finish(etcdproxy(["man"]).arg(&man1));
    assert_eq!(code, 0, "{stderr}");
    let expected =
        ["etcdproxy".to_owned()].into_iter().chain(shown_commands().into_iter().map(|n| format!("etcdproxy-{n}")));
    let expected: Vec<_> = expected.map(|name| man1.join(name + ".1")).collect();
    assert_eq!(stdout.lines().map(PathBuf::from).collect::<Vec<_>>(), expected);
    for path in expected {
        assert_eq!(groff_complaints(&fs::read_to_string(&path).unwrap()), "", "{}", path.display());
    }
}

#[test]
fn a_manual_page_that_cannot_be_written() {
    let error = fails_with(73, &mut etcdproxy(["man", "/dev/null/man1"]));
    assert!(error.starts_with("etcdproxy: error: cannot write /dev/null/man1: "), "{error}");
}
