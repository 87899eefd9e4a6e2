//! What was found: one line each, with one line of advice for what is wrong.

use serde::Serialize;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// It works, but something is worth a look.
    Warning,
    /// It does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub level: Level,
    /// What was looked at, as a member's address or the name of a setting.
    pub about: String,
    pub text: String,
    /// What to do, if the text does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn advise(&mut self, advice: impl Into<String>) {
        self.advice = Some(advice.into());
    }
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Chapter {
    pub name: &'static str,
    pub findings: Vec<Finding>,
}

impl Chapter {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    pub(super) fn good(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.add(Level::Ok, about.into(), text.into());
    }

    pub(super) fn warn(&mut self, about: impl Into<String>, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Warning, about.into(), text.into())
    }

    pub(super) fn fault(&mut self, about: impl Into<String>, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Fault, about.into(), text.into())
    }

    fn add(&mut self, level: Level, about: String, text: String) -> &mut Finding {
        self.findings.push(Finding { level, about, text, advice: None });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
}
