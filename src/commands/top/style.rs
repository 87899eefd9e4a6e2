//! Lines of text with styles, and how a terminal shows them.

use std::fmt::Write as _;

use crate::os::log::escaped;

/// How a part of a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Quiet,
    Good,
    Warn,
    Bad,
}

impl Style {
    /// The style of a level of the report.
    pub(super) fn of(level: &str) -> Self {
        match level {
            "good" | "up" => Self::Good,
            "warn" | "failing" => Self::Warn,
            "bad" | "down" | "error" => Self::Bad,
            _ => Self::Plain,
        }
    }

    /// The parameters of SGR (ECMA-48, section 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Quiet => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
        }
    }
}

/// A line as parts.
pub(super) type Line = Vec<(Style, String)>;

/// A part. Whatever it contains, it is one line and moves no cursor.
pub(super) fn part(style: Style, text: impl AsRef<str>) -> (Style, String) {
    (style, escaped(&text.as_ref().replace('\t', " ")).into_owned())
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    pub has_colour: bool,
}

impl Palette {
    /// The line as text, cut to `width` characters.
    pub(super) fn line(self, line: &Line, width: usize) -> String {
        let mut text = String::new();
        let mut left = width;
        for (style, part) in line {
            let length = part.chars().count();
            let fits = length <= left;
            let kept: String = part.chars().take(if fits { length } else { left.saturating_sub(1) }).collect();
            let end = if fits || left == 0 { "" } else { "…" };
            if self.has_colour && *style != Style::Plain {
                let _ = write!(text, "\x1b[{}m{kept}{end}\x1b[0m", style.code()); // writing to a string cannot fail
            } else {
                text.push_str(&kept);
                text.push_str(end);
            }
            left = left.saturating_sub(length);
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_and_hostile_texts_are_harmless() {
        let line = vec![part(Style::Bold, "ab"), part(Style::Plain, "\x1b[2Jc\nd\te")];
        let plain = Palette { has_colour: false };
        assert_eq!(plain.line(&line, 80), "ab\\u{1b}[2Jc\\nd e");
        assert_eq!(plain.line(&line, 5), "ab\\u…");
        assert_eq!(plain.line(&line, 2), "ab");
        assert_eq!(plain.line(&line, 1), "…");
        assert_eq!(plain.line(&line, 0), "");
        assert_eq!(Palette { has_colour: true }.line(&line, 3), "\x1b[1mab\x1b[0m…");
    }
}
