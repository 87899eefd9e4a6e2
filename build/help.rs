//! What is made from the command line's types: completions and manual pages. Here, for in the binary the code for it
//! would be larger than its result.

use anyhow::Result;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::{Generator, shells};
use clap_mangen::Man;

use crate::VERSION;
use crate::cli::Cli;
use crate::settings::{Kind, Setting};

/// The texts, by name; the main manual page is the first of all pages.
pub(crate) fn texts() -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();

    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    // Without what the help texts hide: that would be offered, too.
    let mut cli = Command::new("etcdproxy").version(VERSION).subcommands(shown);
    // clap itself takes any text for a setting.
    for setting in Setting::ALL {
        let Kind::Choice(_, words) = setting.kind() else { continue };
        let is_flag = |arg: &Arg| arg.get_long().is_some_and(|long| setting.flag().strip_prefix("--") == Some(long));
        let add = |arg: Arg| if is_flag(&arg) { arg.value_parser(words.to_vec()) } else { arg };
        cli = cli.mut_subcommands(|command| command.mut_args(add));
    }
    cli.set_bin_name("etcdproxy");
    cli.build();
    let shells: [(&str, &dyn Generator); 3] = [("bash", &shells::Bash), ("zsh", &shells::Zsh), ("fish", &shells::Fish)];
    for (name, shell) in shells {
        let mut script = Vec::new();
        shell.try_generate(&cli, &mut script)?;
        texts.push((format!("completions/{name}"), String::from_utf8(script)?));
    }

    let mut cli = all.disable_help_subcommand(true);
    // Gives the commands the names of their pages, as in etcdproxy-run.
    cli.build();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
    for command in std::iter::once(&cli).chain(shown) {
        let page = Man::new(command.clone()).source(format!("etcdproxy {VERSION}"));
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
