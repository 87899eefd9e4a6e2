//! Mistakes on the command line: what clap reports, with fitting hints.

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Nobody runs these by mistake because of a hint.
const DELETING: [&str; 2] = ["prune", "uninstall"];

/// What other programs call `install`.
const UPGRADES: [&str; 2] = ["upgrade", "update"];

/// The error with hints that fit.
pub(crate) fn with_fitting_hints(mut err: Error) -> Error {
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
        && UPGRADES.contains(&verb.as_str())
    {
        let hint = StyledStr::from("the 'install' of a newer etcdproxy upgrades an installation");
        err.remove(ContextKind::SuggestedSubcommand);
        err.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    err
}
