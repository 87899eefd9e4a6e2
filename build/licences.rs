//! The licence texts that travel with the binary, each once, with what it is for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// Texts, and under which names they came.
#[derive(Default)]
pub(crate) struct Texts {
    /// By the text without its line breaks and indents: many packages have the same one, laid out differently.
    texts: BTreeMap<String, Text>,
}

struct Text {
    text: String,
    of: Vec<String>,
}

impl Texts {
    pub(crate) fn add(&mut self, of: String, text: &str) {
        let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let new = || Text { text: text.trim_matches('\n').replace("\r\n", "\n"), of: Vec::new() };
        self.texts.entry(key).or_insert_with(new).of.push(of);
    }

    /// The texts of all licences in an expression, as SPDX has them; `holder` stands where they have a blank.
    pub(crate) fn add_standard(&mut self, of: &str, expression: &str, holder: &str) -> Result<()> {
        let parsed = spdx::Expression::parse(expression).with_context(|| format!("{of}: {expression}"))?;
        for requirement in parsed.requirements() {
            let id = requirement.req.license.id().with_context(|| format!("{of}: {expression}"))?;
            self.add(format!("{of}: {}", id.name), &filled_in(id.text(), holder));
        }
        Ok(())
    }

    /// In the order of who has them.
    pub(crate) fn print(self, out: &mut String) -> Result<()> {
        let mut texts: Vec<Text> = self.texts.into_values().collect();
        texts.sort_by(|a, b| a.of.cmp(&b.of));
        for Text { text, of } in texts {
            writeln!(out, "\n{}", "=".repeat(80))?;
            for name in of {
                writeln!(out, "{name}")?;
            }
            writeln!(out, "{}\n\n{text}", "-".repeat(80))?;
        }
        Ok(())
    }
}

/// What the table `go-licences.txt` has for a Go module: its licence, and the copyright notices in that, a line each.
pub(crate) fn of_go_module(path: &str) -> Option<(&'static str, String)> {
    let lines = include_str!("go-licences.txt").lines().filter(|line| !line.starts_with('#'));
    let (_, known) = lines
        .filter_map(|line| line.split_once(' '))
        .filter(|(prefix, _)| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .max_by_key(|(prefix, _)| prefix.len())?;
    let (license, notices) = known.split_once(" | ").unwrap_or((known, ""));
    Some((license, notices.replace(" | ", "\n")))
}

/// The line with the blanks for year and owner becomes `holder`.
fn filled_in(text: &str, holder: &str) -> String {
    let blank = |line: &&str| line.starts_with("Copyright") && line.contains("<year>");
    match text.lines().find(blank) {
        Some(line) if !holder.is_empty() => text.replacen(line, holder, 1),
        _ => text.to_owned(),
    }
}
