//! `etcdproxy manifest`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::cli;
use crate::install::{self, Location};
use crate::manifest::{Request, compose, kubernetes};
use crate::os::env::Env;
use crate::os::log::warn_all;
use crate::release::VERSION;
use crate::settings::{Error, Sources};

/// The longest name of DNS, in bytes (RFC 1123), and of one of its labels.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

pub(crate) fn run(args: cli::Manifest, env: &Env, out: &mut impl Write) -> Result<ExitCode> {
    let text = match args.platform.as_str() {
        "kubernetes" => {
            refuse(&args, &[("--user", args.user)])?;
            kubernetes(&request(args, env)?)?
        }
        "compose" => {
            refuse(
                &args,
                &[("--user", args.user), ("--secret", args.secret.is_some()), ("--with-secret", args.with_secret)],
            )?;
            compose(&request(args, env)?)?
        }
        _ => {
            let settings = args.settings.0.iter().map(|(setting, _)| (setting.flag(), true));
            let others = [
                ("--image", args.image.is_some()),
                ("--app-image", args.app_image.is_some()),
                ("--name", args.name.is_some()),
                ("--secret", args.secret.is_some()),
                ("--with-secret", args.with_secret),
            ];
            refuse(&args, &others.into_iter().chain(settings).collect::<Vec<_>>())?;
            install::unit_text(&Location { user: args.user, ..Location::default() }, env)?
        }
    };
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses flags that mean nothing for the platform.
fn refuse(args: &cli::Manifest, flags: &[(&'static str, bool)]) -> Result<(), Error> {
    let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given) else { return Ok(()) };
    let platform = &args.platform;
    let remedy = if platform == "systemd" && !["--secret", "--with-secret"].contains(flag) {
        "remove it (the settings of the service are in its file etcdproxy.env)"
    } else {
        "remove it"
    };
    Err(Error::usage(*flag, format_args!("manifest {platform} does not have it: {remedy}")))
}

fn request(args: cli::Manifest, env: &Env) -> Result<Request, Error> {
    let name = args.name.unwrap_or_else(|| "app".to_owned());
    if !is_label(&name) {
        return Err(not_a_name("--name", &name, "at most 63 small letters, digits and hyphens, as in my-app"));
    }
    if let Some(name) = args.secret.as_ref().filter(|name| name.len() > LONGEST_NAME || !name.split('.').all(is_label))
    {
        return Err(not_a_name("--secret", name, "small letters, digits, hyphens and dots, as in my-etcd"));
    }
    let image = |flag, given: Option<String>, default: String| match given {
        Some(image) if image.is_empty() || image.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(not_a_name(flag, &image, "the name of an image, as in registry.example.org/app:1"))
        }
        given => Ok(given.unwrap_or(default)),
    };
    let elsewhere = Sources::new(args.settings.0, env).for_elsewhere(args.secret.is_some())?;
    warn_all(&elsewhere.settings.warnings);
    Ok(Request {
        elsewhere,
        image: image("--image", args.image, format!("localhost/etcdproxy:{VERSION}"))?,
        app_image: image("--app-image", args.app_image, "registry.example.org/app:1".to_owned())?,
        name,
        secret: args.secret,
        with_secret: args.with_secret,
    })
}

fn not_a_name(flag: &str, text: &str, expected: &str) -> Error {
    Error::usage(flag, format_args!("invalid name {text:?}: expected {expected}"))
}

/// Whether it is a label of DNS (RFC 1123), which Kubernetes and compose take as a name.
fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LONGEST_LABEL).contains(&text.len())
        && text.chars().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
