//! Help texts and error messages, which `TRYCMD=overwrite` updates in `tests/cmd`; and completions and manual pages,
//! which are generated from the same types.

use std::fs;
use std::path::PathBuf;

use crate::support::{binary, command, etcdproxy, fails_with, finish, succeeds};

#[test]
fn help_texts_and_error_messages_match_the_files_in_tests_cmd() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("etcdproxy", binary());
    cases.env("ETCDPROXY_UNPACK_DIR", "/no/such/dir").env("COLUMNS", "100");
    // The program would warn of these. An empty variable counts as unset.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCDPROXY_TEST_")) {
        cases.env(name.to_str().unwrap(), "");
    }
    cases.case("tests/cmd/*.trycmd");
}

/// The commands in the help text, except `help`.
fn shown_commands() -> Vec<String> {
    let help = succeeds(&mut etcdproxy(["--help"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

fn completions(shell: &str) -> String {
    succeeds(&mut etcdproxy(["completions", shell]))
}

/// The words that bash offers in place of the last one.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    let script = format!(
        "{}\nCOMP_WORDS=({}) COMP_CWORD={}\n_etcdproxy etcdproxy '{last}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions("bash"),
        words.join(" "),
        before.len(),
        before.last().unwrap()
    );
    let stdout = succeeds(&mut command("bash".as_ref(), ["--norc", "-c", &script]));
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
    assert_eq!(bash_offers(&["etcdproxy", "run", "--mode", ""]), ["auto", "grpc-proxy", "native"]);
}

#[test]
fn every_shell_completes_every_command_except_hidden_ones() {
    for shell in ["bash", "zsh", "fish"] {
        let script = completions(shell);
        for name in shown_commands() {
            // How the script of each shell offers a command.
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

/// groff's warnings about a page.
fn groff_warnings(page: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.1");
    fs::write(&file, page).unwrap();
    let mut groff = command("groff".as_ref(), ["-man", "-ww", "-z", "-Tutf8", "-Kutf8"]);
    let (code, stdout, stderr) = finish(groff.arg(file));
    assert_eq!(code, 0, "{stderr}");
    stdout + &stderr
}

#[test]
fn the_main_manual_page_refers_to_the_page_of_each_command() {
    let page = succeeds(&mut etcdproxy(["man"]));
    for name in shown_commands() {
        assert!(page.contains(&format!("etcdproxy\\-{name}(1)")), "{name}:\n{page}");
    }
}

#[test]
fn man_writes_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let man1 = dir.path().join("man/man1");
    let stdout = succeeds(etcdproxy(["man"]).arg(&man1));
    let expected =
        ["etcdproxy".to_owned()].into_iter().chain(shown_commands().into_iter().map(|n| format!("etcdproxy-{n}")));
    let expected: Vec<_> = expected.map(|name| man1.join(name + ".1")).collect();
    assert_eq!(stdout.lines().map(PathBuf::from).collect::<Vec<_>>(), expected);
    for path in expected {
        assert!(fs::read_to_string(&path).unwrap().contains("\n.TH "), "{}", path.display());
    }
}

#[test]
#[ignore = "needs groff: run ./scripts/test.sh"]
fn groff_has_no_warnings_about_any_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(groff_warnings(&succeeds(&mut etcdproxy(["man"]))), "");
    for path in succeeds(etcdproxy(["man"]).arg(dir.path())).lines() {
        assert_eq!(groff_warnings(&fs::read_to_string(path).unwrap()), "", "{path}");
    }
}

#[test]
fn man_reports_a_page_that_cannot_be_written() {
    let error = fails_with(73, &mut etcdproxy(["man", "/dev/null/man1"]));
    assert!(error.starts_with("etcdproxy: error: cannot write /dev/null/man1: "), "{error}");
}
