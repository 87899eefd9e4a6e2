//! Completions and manual pages, made from the command line's types. The build makes them, because the code for it would be
//! larger than the texts.

use anyhow::Result;
use clap::{Arg, Command};
use clap_complete::{Generator, shells};
use clap_mangen::Man;

/// A long flag without its dashes, and the words that it accepts.
pub type Choice = (&'static str, &'static [&'static str]);

/// The texts for a command line, each with its name. The main manual page is the first page.
///
/// clap does not know `choices`, because the same values can come from the environment and are checked elsewhere.
pub fn texts(cli: &Command, choices: &[Choice], version: &'static str) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();

    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    // A new command without the hidden sub-commands, because completions would offer them.
    let mut offered = Command::new("etcdproxy").version(version).subcommands(shown);
    for (flag, words) in choices {
        let add = |arg: Arg| if arg.get_long() == Some(flag) { arg.value_parser(words.to_vec()) } else { arg };
        offered = offered.mut_subcommands(|command| command.mut_args(add));
    }
    offered.set_bin_name("etcdproxy");
    offered.build();
    let shells: [(&str, &dyn Generator); 3] = [("bash", &shells::Bash), ("zsh", &shells::Zsh), ("fish", &shells::Fish)];
    for (name, shell) in shells {
        let mut script = Vec::new();
        shell.try_generate(&offered, &mut script)?;
        texts.push((format!("completions/{name}"), String::from_utf8(script)?));
    }

    let mut cli = cli.clone().disable_help_subcommand(true);
    // Gives the commands the names of their pages, such as etcdproxy-run.
    cli.build();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
    for command in std::iter::once(&cli).chain(shown) {
        let page = Man::new(command.clone()).source(format!("etcdproxy {version}"));
        let mut roff = Vec::new();
        page.render(&mut roff)?;
        // Sections as man-pages(7) names them.
        let roff = String::from_utf8(roff)?
            .replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n")
            .replace(".SH EXTRA\n", ".SH NOTES\n");
        texts.push((format!("man/{}", page.get_filename()), roff));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<(String, String)> {
        let run = Command::new("run").about("Run it").arg(Arg::new("mode").long("mode")).after_help("Examples:\n  run");
        let cli = Command::new("etcdproxy").subcommand(run).subcommand(Command::new("supply").hide(true));
        super::texts(&cli, &[("mode", &["auto", "grpc-proxy"])], "0.1.0").unwrap()
    }

    #[test]
    fn there_is_a_script_for_each_shell_and_a_page_for_each_command() {
        let texts = texts();
        let names: Vec<&str> = texts.iter().map(|(name, _)| &**name).collect();
        let expected =
            ["completions/bash", "completions/zsh", "completions/fish", "man/etcdproxy.1", "man/etcdproxy-run.1"];
        assert_eq!(names, expected);
        assert!(texts.iter().all(|(_, text)| !text.contains("supply")), "it is hidden");
    }

    #[test]
    fn completions_offer_the_values_of_settings() {
        for (name, script) in texts().iter().filter(|(name, _)| name.starts_with("completions/")) {
            assert!(script.contains("grpc-proxy"), "{name}");
        }
    }

    #[test]
    fn pages_have_the_usual_sections() {
        let texts = texts();
        let (_, page) = texts.last().unwrap();
        assert!(page.contains("etcdproxy 0.1.0") && page.contains("\n.SH EXAMPLES\n"), "{page}");
    }
}
