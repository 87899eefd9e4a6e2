//! The licence texts inside the binary: each one once, with the names of all parts that it applies to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// Licence texts, and the names of the parts that they apply to.
#[derive(Default)]
pub(super) struct Texts {
    /// The key is the text without its line breaks and indents, because many packages lay out the same text differently.
    texts: BTreeMap<String, Text>,
}

struct Text {
    text: String,
    of: Vec<String>,
}

impl Texts {
    pub(super) fn add(&mut self, of: String, text: &str) {
        let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let new = || Text { text: text.trim_matches('\n').replace("\r\n", "\n"), of: Vec::new() };
        self.texts.entry(key).or_insert_with(new).of.push(of);
    }

    /// Adds SPDX's texts of all licences in an SPDX expression. `holder` replaces the blank copyright line.
    pub(super) fn add_standard(&mut self, of: &str, expression: &str, holder: &str) -> Result<()> {
        let parsed = spdx::Expression::parse(expression).with_context(|| format!("{of}: {expression}"))?;
        for requirement in parsed.requirements() {
            let id = requirement.req.license.id().with_context(|| format!("{of}: {expression}"))?;
            self.add(format!("{of}: {}", id.name), &filled_in(id.text(), holder));
        }
        Ok(())
    }

    /// Appends all texts to `out`, sorted by their names.
    pub(super) fn print(self, out: &mut String) -> Result<()> {
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

const GO_LICENCES: &str = include_str!("../../go-licences.txt");

/// A Go module's licence and copyright notices, one line each, from the table `go-licences.txt`.
pub(super) fn of_go_module(path: &str) -> Option<(&'static str, String)> {
    let lines = GO_LICENCES.lines().filter(|line| !line.starts_with('#'));
    let (_, known) = lines
        .filter_map(|line| line.split_once(' '))
        .filter(|(prefix, _)| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .max_by_key(|(prefix, _)| prefix.len())?;
    let (license, notices) = known.split_once(" | ").unwrap_or((known, ""));
    Some((license, notices.replace(" | ", "\n")))
}

/// Replaces the line with the blanks for year and owner by `holder`.
fn filled_in(text: &str, holder: &str) -> String {
    let blank = |line: &&str| line.starts_with("Copyright") && line.contains("<year>");
    match text.lines().find(blank) {
        Some(line) if !holder.is_empty() => text.replacen(line, holder, 1),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_printed_once_with_all_its_names() {
        let mut texts = Texts::default();
        texts.add("b 1.0: LICENSE".to_owned(), "\nOne\r\n  text.\n");
        texts.add("c 1.0: LICENSE".to_owned(), "Another text.");
        texts.add("a 1.0: COPYING".to_owned(), "One text.");
        let mut out = String::new();
        texts.print(&mut out).unwrap();
        let (double, single) = ("=".repeat(80), "-".repeat(80));
        let expected = format!(
            "\n{double}\nb 1.0: LICENSE\na 1.0: COPYING\n{single}\n\nOne\n  text.\n\
             \n{double}\nc 1.0: LICENSE\n{single}\n\nAnother text.\n"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn an_expression_gives_the_text_of_each_of_its_licences() {
        let mut texts = Texts::default();
        texts.add_standard("x 1.0", "MIT OR ISC", "Copyright (c) The Xs").unwrap();
        let mut out = String::new();
        texts.print(&mut out).unwrap();
        for part in ["x 1.0: MIT\n", "x 1.0: ISC\n", "Copyright (c) The Xs\n"] {
            assert!(out.contains(part), "{part:?} is not in {out}");
        }
        assert!(!out.contains("<year>"), "{out}");

        let wrong = |expression| format!("{:#}", Texts::default().add_standard("x 1.0", expression, "").unwrap_err());
        assert!(wrong("MIT OR").starts_with("x 1.0: MIT OR: "));
        assert_eq!(wrong("LicenseRef-Own"), "x 1.0: LicenseRef-Own");
    }

    #[test]
    fn the_longest_matching_path_counts_for_a_go_module() {
        let licence = |path| of_go_module(path).map(|(licence, _)| licence);
        assert_eq!(licence("github.com/go-logr/stdr"), Some("Apache-2.0"));
        assert_eq!(licence("github.com/go-logr"), Some("Apache-2.0"));
        assert_eq!(licence("github.com/go-logrus/x"), None);
        let (licence, notices) = of_go_module("github.com/cheggaaa/pb/v3").unwrap();
        assert_eq!((licence, notices.lines().count()), ("BSD-3-Clause", 2));
    }

    #[test]
    fn every_licence_in_the_table_is_known_and_has_the_notice_that_its_text_needs() {
        let lines = GO_LICENCES.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let path = line.split(' ').next().unwrap();
            let (licence, notices) = of_go_module(path).unwrap();
            let mut texts = Texts::default();
            texts.add_standard(path, licence, &notices).unwrap();
            let mut out = String::new();
            texts.print(&mut out).unwrap();
            assert!(!out.lines().any(|line| line.starts_with("Copyright") && line.contains("<year>")), "{line}");
        }
    }
}
