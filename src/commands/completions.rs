//! `etcdproxy completions SHELL`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::VERSION;
use crate::cli::{self, Cli};

pub(crate) fn run(args: &cli::Completions, out: &mut impl Write) -> Result<ExitCode> {
    let shell = match args.shell {
        cli::Shell::Bash => Shell::Bash,
        cli::Shell::Zsh => Shell::Zsh,
        cli::Shell::Fish => Shell::Fish,
    };
    // Without what the help texts hide: that would be offered, too.
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut cli = clap::Command::new("etcdproxy").version(VERSION).subcommands(shown);
    let mut script = Vec::new();
    generate(shell, &mut cli, "etcdproxy", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
