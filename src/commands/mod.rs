//! One verb, one file: each turns parsed arguments into calls of the core and its results into output.

pub(crate) mod buildpack;
pub(crate) mod dev;
pub(crate) mod health;
pub(crate) mod list;
pub(crate) mod multicall;
pub(crate) mod run;
pub(crate) mod unpack;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod wait;

use crate::env::Env;
use crate::place;
use crate::release::{Error, Found, RELEASE};

/// A program of the release, ready to be executed.
fn obtain(name: &str, env: &Env) -> Result<Found, Error> {
    let found = place::store(env).get(RELEASE.program(name)?)?;
    if let Found::Memory { why, .. } = &found {
        let why: Vec<String> = why.iter().map(ToString::to_string).collect();
        warn(&format!(
            "{name} runs from memory, which costs {} MB of it: {}",
            RELEASE.program(name)?.size / 1_000_000,
            why.join("; ")
        ));
    }
    Ok(found)
}

/// One line for the user, on stderr.
fn say(text: &str) {
    eprintln!("etcdproxy: {text}");
}

/// The same, for what should not be.
fn warn(text: &str) {
    eprintln!("etcdproxy: warning: {text}");
}
