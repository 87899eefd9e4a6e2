//! Files for `EnvironmentFile=` (systemd.exec(5)), as systemd reads them.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use crate::os::env::Env;
use crate::settings::Error;

/// Parses `text`, the content of `file`. The last value of a variable wins.
///
/// # Errors
/// If a line is not `NAME=VALUE`, or if a quotation mark is not closed.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Env, Error> {
    let variables = variables(text);
    variables.map(Env::from_iter).map_err(|(line, problem)| Error::new(format!("line {line}"), problem).in_file(file))
}

/// Names and values in order, or the number of the invalid line and what is wrong with it.
///
/// Only quotation marks at the beginning of a value count. A backslash escapes the next character.
fn variables(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(first) = rest.peek() {
        if first.is_whitespace() {
            line += usize::from(rest.next() == Some('\n'));
            continue;
        }
        let begin = line;
        if "#;".contains(*first) {
            line += value(&mut rest, false).1;
            continue;
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| !"=\n".contains(*c)) {
            name.push(c);
        }
        if rest.next() != Some('=') || name.trim().contains(char::is_whitespace) {
            return Err((begin, "it is not NAME=VALUE"));
        }
        let (text, lines, is_whole) = value(&mut rest, true);
        if !is_whole {
            return Err((begin, "a quotation mark is not closed"));
        }
        line += lines;
        found.push((name.trim().to_owned(), text));
    }
    Ok(found)
}

/// Reads a value, or a comment, to the end of its line. Also returns how many line ends it has, and whether its
/// quotation marks are closed.
fn value(rest: &mut Peekable<Chars<'_>>, may_be_quoted: bool) -> (String, usize, bool) {
    let (mut text, mut lines, mut quoted, mut is_plain) = (String::new(), 0, None, !may_be_quoted);
    while let Some(c) = rest.next() {
        lines += usize::from(c == '\n');
        match (quoted, c) {
            (Some(mark), c) if c == mark => quoted = None,
            (Some('"') | None, '\\') => match rest.next() {
                Some('\n') => lines += 1,
                Some(c) if quoted.is_none() || "\"\\`$".contains(c) => text.push(c),
                Some(c) => text.extend(['\\', c]),
                None => {}
            },
            (Some(_), c) => text.push(c),
            (None, '\n') => return (text.trim_end().to_owned(), lines, true),
            (None, '\'' | '"') if !is_plain => quoted = Some(c),
            (None, c) => {
                is_plain |= !c.is_whitespace();
                if is_plain {
                    text.push(c);
                }
            }
        }
    }
    (text.trim_end().to_owned(), lines, quoted.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file() {
        let text = "# all
            ETCDPROXY_ENDPOINTS='unix:///run/etcd.sock'
            ETCDPROXY_LISTEN_ADDR=127.0.0.1:1
            ETCDPROXY_LISTEN_ADDR=\"[::1]:2\"
            ETCDPROXY_KEY=\"-----BEGIN\nx\"\nOTHER=a \\\n  b";
        let env = parse(Path::new("/x.env"), text).unwrap();
        for (name, value) in [
            ("ETCDPROXY_ENDPOINTS", "unix:///run/etcd.sock"),
            ("ETCDPROXY_LISTEN_ADDR", "[::1]:2"),
            ("ETCDPROXY_KEY", "-----BEGIN\nx"),
            ("OTHER", "a   b"),
        ] {
            assert_eq!(env.get(name).unwrap(), value);
        }
    }

    /// Checked with systemd 252: `systemd-run --property EnvironmentFile=…`.
    #[test]
    fn values_as_systemd_reads_them() {
        for (text, wanted) in [
            ("A=it's/", "it's/"),
            ("A= 'b c' # d", "b c# d"),
            ("A=b # c \n", "b # c"),
            ("A=\"b\\\"\\c\\\nd\"", "b\"\\cd"),
            ("A=b\\ c\\\n d", "b c d"),
            ("A='b\nc'\nB=", "b\nc"),
            ("# c\\\nA=x\n;\n  A=b", "b"),
            ("A=", ""),
        ] {
            assert_eq!(variables(text).unwrap()[0].1, wanted, "{text}");
        }
    }

    #[test]
    fn a_problem_is_reported_with_its_line() {
        for (text, problem) in [
            ("\nETCDPROXY", "/x.env: line 2: it is not NAME=VALUE"),
            ("A='b", "/x.env: line 1: a quotation mark is not closed"),
        ] {
            assert_eq!(parse(Path::new("/x.env"), text).unwrap_err().to_string(), problem);
        }
    }
}
