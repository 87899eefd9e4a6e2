//! `etcdproxy completions SHELL`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::{Generator, shells};

use crate::VERSION;
use crate::cli::{self, Cli, Shell};

pub(crate) fn run(args: &cli::Completions, out: &mut impl Write) -> Result<ExitCode> {
    // Not clap_complete's own enum, which brings the code for more shells into the binary.
    let shell: &dyn Generator = match args.shell {
        Shell::Bash => &shells::Bash,
        Shell::Zsh => &shells::Zsh,
        Shell::Fish => &shells::Fish,
    };
    // Without what the help texts hide: that would be offered, too.
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut cli = clap::Command::new("etcdproxy").version(VERSION).subcommands(shown);
    cli.set_bin_name("etcdproxy");
    cli.build();
    shell.try_generate(&cli, out)?;
    Ok(ExitCode::SUCCESS)
}
