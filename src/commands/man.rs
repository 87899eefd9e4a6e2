//! `etcdproxy man [DIR]`

use std::io::Write;
use std::iter;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::VERSION;
use crate::cli::{self, Cli};
use crate::file;

pub(crate) fn run(args: &cli::Man, out: &mut impl Write) -> Result<ExitCode> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    // Gives the commands the names of their pages, as in etcdproxy-run.
    cli.build();
    let page = |command: &clap::Command| Man::new(command.clone()).source(format!("etcdproxy {VERSION}"));
    let Some(dir) = &args.dir else {
        page(&cli).render(out)?;
        return Ok(ExitCode::SUCCESS);
    };
    file::make_dir(dir)?;
    for command in iter::once(&cli).chain(cli.get_subcommands().filter(|command| !command.is_hide_set())) {
        let page = page(command);
        let path = dir.join(page.get_filename());
        file::replace(&path, 0o644, |file| page.render(file))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
