//! Mistakes on the command line: what clap reports, with fitting hints.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit_code::Code;
use super::secret_args::safe_to_show;

/// Nobody runs these by mistake because of a hint.
const DELETING: [&str; 2] = ["prune", "uninstall"];

/// What other programs call ours.
const SYNONYMS: [(&str, &str); 4] = [
    ("upgrade", "the 'install' of a newer etcdproxy upgrades an installation"),
    ("update", "the 'install' of a newer etcdproxy upgrades an installation"),
    ("start", "'run' starts the proxy"),
    ("status", "'top' shows the state of a running proxy"),
];

/// Prints what clap has to say, and returns the exit code: a mistake, or the help or version that was asked for.
pub(crate) fn report(err: Error, args: &[OsString]) -> ExitCode {
    let err = with_fitting_hints(err);
    if !err.use_stderr() {
        err.exit();
    }
    let _ = write!(io::stderr(), "{}", safe_to_show(&err.render().to_string(), args));
    Code::Usage.into()
}

/// The error with hints that fit.
fn with_fitting_hints(mut err: Error) -> Error {
    if err.kind() != ErrorKind::InvalidSubcommand {
        return err;
    }
    // clap puts the most similar one last.
    if let Some(ContextValue::Strings(verbs)) = err.get(ContextKind::SuggestedSubcommand)
        && verbs.iter().any(|verb| DELETING.contains(&verb.as_str()))
    {
        let is_similar = |verb: &&String| !DELETING.contains(&verb.as_str());
        let rest = verbs.iter().rev().take_while(is_similar).cloned().collect::<Vec<_>>();
        err.remove(ContextKind::SuggestedSubcommand);
        if !rest.is_empty() {
            err.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(rest));
        }
    }
    if let Some(ContextValue::String(verb)) = err.get(ContextKind::InvalidSubcommand)
        && let Some((_, hint)) = SYNONYMS.iter().find(|(synonym, _)| synonym == verb)
    {
        let hint = StyledStr::from(*hint);
        err.remove(ContextKind::SuggestedSubcommand);
        err.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    err
}
