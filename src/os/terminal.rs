//! A terminal that one program draws on: its second screen, keys without Enter.

use std::io::{self, IsTerminal as _, Read as _, Write};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::env::Env;
use super::signals::{Events, pause};

/// The second screen, no cursor, no line breaks of the terminal's own; and back (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How long to wait for a key, in tenths of a second.
const KEY_TIMEOUT: u8 = 1;

/// Whether standard output is a terminal that can be drawn on.
pub(crate) fn is_stdout(env: &Env) -> bool {
    io::stdout().is_terminal() && env.get("TERM").is_none_or(|term| term != "dumb")
}

/// Whether the user takes colours on a terminal (<https://no-color.org>).
pub(crate) fn takes_colour(env: &Env) -> bool {
    env.get("NO_COLOR").is_none()
}

/// The terminal of this process. Dropping this gives it back as it was.
pub(crate) struct Terminal {
    /// How its input was; `None` if that is no terminal.
    before: Option<Termios>,
}

impl Terminal {
    /// # Errors
    /// When the terminal cannot be written to.
    pub(crate) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut now = before.clone();
            // Ctrl-C still sends its signal. Ctrl-Z would leave the second screen to the shell.
            now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            now.special_codes[SpecialCodeIndex::VMIN] = 0;
            now.special_codes[SpecialCodeIndex::VTIME] = KEY_TIMEOUT;
            now.special_codes[SpecialCodeIndex::VSUSP] = 0;
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &now);
        }
        let terminal = Self { before };
        write(&mut io::stdout(), ENTER)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub(crate) fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Draws these lines, from the top.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn draw(lines: impl Iterator<Item = String>, out: &mut impl Write) -> io::Result<()> {
        // Over the last picture, so that nothing flickers; then clears what is left of it.
        let lines: Vec<String> = lines.map(|line| format!("{line}\x1b[K")).collect();
        write(out, &format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }

    /// Waits for a moment. Returns whether a signal or the key `q` has come.
    pub(crate) fn wants_to_quit(&self, events: &Events) -> bool {
        let mut keys = [0; 64];
        match &self.before {
            // Returns after the timeout.
            Some(_) => match io::stdin().read(&mut keys) {
                Ok(read) => keys[..read].contains(&b'q') || events.ending().is_some(),
                Err(_) => true,
            },
            None => pause(Some(events), Duration::from_millis(u64::from(KEY_TIMEOUT) * 100)).is_some(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write(&mut io::stdout(), LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}
