//! Fills in templates, and writes what YAML needs.

/// Replaces each `@NAME@` in the template by its value. Where it is alone in its line, the value is a block of lines, which
/// get the line's indentation; without any, the line is left out.
pub(super) fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut filled = String::new();
    for line in template.lines() {
        let parts: Vec<&str> = line.split('@').collect();
        match parts[..] {
            [indentation, name, ""] if indentation.trim().is_empty() => {
                for line in value(name).lines() {
                    filled.extend([format!("{indentation}{line}\n")]);
                }
            }
            _ => {
                let part = |(n, part): (usize, &&str)| if n % 2 == 0 { (*part).to_owned() } else { value(part) };
                filled.extend(parts.iter().enumerate().map(part));
                filled.push('\n');
            }
        }
    }
    filled
}

/// A string between double quotation marks (YAML 1.2, 7.3.1). In this form, no text is anything but a string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if is_odd(c) => quoted.extend([format!("\\u{:04x}", u32::from(c))]),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Lines as comments. Nothing in them can end the comment.
pub(super) fn comment(text: &str) -> String {
    let plain = |line: &str| line.chars().map(|c| if is_odd(c) { '?' } else { c }).collect::<String>();
    text.lines().map(|line| format!("# {}", plain(line)).trim_end().to_owned() + "\n").collect()
}

/// Whether YAML does not take the character as it is, or takes it for a line end. All of these have four digits.
fn is_odd(c: char) -> bool {
    c.is_control() || "\u{2028}\u{2029}\u{feff}".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_the_indentation_and_values_are_not_filled_in_again() {
        let value = |name: &str| match name {
            "BLOCK" => "a: 1\n  b: \"@NAME@\"\n".to_owned(),
            "NONE" => String::new(),
            name => format!("<{name}>"),
        };
        let filled = fill("x: @NAME@-@OTHER@\n  @BLOCK@\n  @NONE@\nend\n", value);
        assert_eq!(filled, "x: <NAME>-<OTHER>\n  a: 1\n    b: \"@NAME@\"\nend\n");
    }

    #[test]
    fn every_text_stays_a_string() {
        for (text, expected) in [
            ("off", "\"off\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\nb\u{85}\u{2028}\t", "\"a\\nb\\u0085\\u2028\\u0009\""),
            ("größe", "\"größe\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn nothing_leaves_a_comment() {
        assert_eq!(comment("a\n\nb\u{85}c\rd"), "# a\n#\n# b?c?d\n");
    }
}
