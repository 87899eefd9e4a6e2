//! `etcdproxy dev`

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::cli;
use crate::dev::{self, Dev};
use crate::os::env::Env;
use crate::settings::{Setting, Sources};

pub(crate) fn run(args: cli::Dev, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let is_set = args.listen_addr.is_some() || env.get(Setting::ListenAddr.variable()).is_some();
    let flag = args.listen_addr.map(|text| (Setting::ListenAddr, text));
    let listen_addr = Sources::new(flag, env).listen_addr()?;
    let dev = Dev {
        nodes: args.nodes.parse().context("--nodes")?,
        data_dir: args.data_dir,
        listen_addr: is_set.then_some(listen_addr),
        command: args.command,
    };
    dev::run(dev, env, out)
}
