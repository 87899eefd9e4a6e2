//! Who calls act as, and which member serves them, in the mode that sees calls.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::Error;
use super::sources::{Origin, Sources, Value};
use super::table::Setting;
use crate::os::log::without_errno;

/// The longest password that a file may have, in bytes. etcd itself takes 72 (bcrypt).
const LONGEST: usize = 1024;

/// A user of etcd.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub username: String,
    /// Never shown.
    pub password: String,
    /// Where the password comes from, if it can change while the proxy runs.
    file: Option<Value>,
}

impl Login {
    /// With the password that its file has now. The same as before if the file cannot be read: it may be about to be
    /// replaced.
    pub(crate) fn current(&self) -> Self {
        let password = self.file.as_ref().and_then(|file| read(file).ok());
        Self { password: password.unwrap_or_else(|| self.password.clone()), ..self.clone() }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Which member serves calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The one that leads.
    #[default]
    Leader,
    /// A random healthy one.
    Spread,
    /// The one that answers fastest.
    Nearest,
}

impl Prefer {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "leader" => Ok(Self::Leader),
            "spread" => Ok(Self::Spread),
            "nearest" => Ok(Self::Nearest),
            other => Err(Setting::Prefer.invalid(other)),
        }
    }
}

impl fmt::Display for Prefer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the leader",
            Self::Spread => "a random member",
            Self::Nearest => "the nearest member",
        })
    }
}

/// Whether lists of members keep the members' own client URLs.
pub(super) fn keeps_urls(text: &str) -> Result<bool, String> {
    match text {
        "proxy" => Ok(false),
        "keep" => Ok(true),
        other => Err(Setting::MemberUrls.invalid(other)),
    }
}

impl Sources {
    /// The first setting by which somebody asks for a login. A binding asks for none: its application may log in itself.
    pub(super) fn wants_login(&self) -> Option<Value> {
        let given = |setting| self.get(setting).filter(|value| value.origin != Origin::Binding);
        [Setting::Username, Setting::PasswordFile, Setting::Password].into_iter().find_map(given)
    }

    /// The user that calls without a token act as. The binding's password belongs to the binding's user.
    ///
    /// # Errors
    /// If there is a user without a password, or a password without a user, or the file cannot be used.
    pub(super) fn login(&self, warnings: &mut Vec<String>) -> Result<Option<Login>, Error> {
        let own = self.own_password()?;
        let bound = self.get(Setting::Password).filter(|value| value.origin == Origin::Binding);
        let Some(user) = self.get(Setting::Username) else {
            if let Some((_, value)) = own {
                let username = value.origin.name_of(Setting::Username);
                return Err(value.error(format_args!("the password has no user: give the user's name with {username}")));
            }
            warnings.extend(bound.map(|value| {
                format!(
                    "{}: the password has no user, so the proxy does not log in: set {}, or {}=false",
                    value.name,
                    Setting::Username.variable(),
                    Setting::LoginFromBinding.variable()
                )
            }));
            return Ok(None);
        };
        let username = user.text()?.to_owned();
        if username.is_empty() {
            return Err(user.invalid("the user's name is empty"));
        }
        let bound = bound.filter(|_| user.origin == Origin::Binding || !self.binding_has(Setting::Username));
        let (password, file) = match own.or(bound.map(|value| (Setting::Password, value))) {
            Some((Setting::PasswordFile, file)) => (read(&file)?, Some(file)),
            Some((_, value)) => (exact(&value)?, None),
            // The user of a certificate, for example.
            None if user.origin == Origin::Binding => return Ok(None),
            None => {
                return Err(user.error(format_args!(
                    "the user has no password: set {}, or name a file with {}",
                    Setting::Password.variable(),
                    user.origin.name_of(Setting::PasswordFile)
                )));
            }
        };
        Ok(Some(Login { username, password, file }))
    }

    /// The password that no binding gives, or its file.
    fn own_password(&self) -> Result<Option<(Setting, Value)>, Error> {
        let text = self.get(Setting::Password).filter(|value| value.origin != Origin::Binding);
        match (self.get(Setting::PasswordFile), text) {
            (Some(file), Some(text)) if file.origin == text.origin => {
                Err(text.error(format_args!("{} gives a password too: remove one of them", file.name)))
            }
            (Some(file), _) => Ok(Some((Setting::PasswordFile, file))),
            (None, text) => Ok(text.map(|text| (Setting::Password, text))),
        }
    }
}

/// The text with the white space around it, which may belong to a password.
fn exact(value: &Value) -> Result<String, Error> {
    value.text.to_str().map(ToOwned::to_owned).ok_or_else(|| value.invalid("it is not valid UTF-8"))
}

/// Reads a file with a password. One line end at its end is not part of the password.
fn read(file: &Value) -> Result<String, Error> {
    let path = Path::new(&file.text);
    let shown = path.display();
    let not_yet = |problem: &str| {
        let problem = format!("{shown} {problem}: write the password into it, or name another file");
        Error::not_yet(&file.name, problem)
    };
    let unreadable = |err: &io::Error| match err.kind() {
        io::ErrorKind::NotFound => not_yet("does not exist"),
        _ => {
            file.error(format_args!("cannot read {shown}: {}: name a file that this user can read", without_errno(err)))
        }
    };
    // Looked at before it is opened: to open a FIFO waits for a writer.
    if !path.metadata().map_err(|err| unreadable(&err))?.is_file() {
        return Err(file.error(format_args!("{shown} is not a regular file: name one that contains the password")));
    }
    let mut bytes = Vec::new();
    let limit = LONGEST as u64 + 3; // a line end, and one byte more
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|err| unreadable(&err))?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(file.error(format_args!("{shown} is not text in UTF-8: name a file that contains the password")));
    };
    let password = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() {
        return Err(not_yet("is empty"));
    }
    if password.len() > LONGEST {
        let problem = format!("{shown} has more than {LONGEST} bytes: name a file that contains only the password");
        return Err(file.error(problem));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::os::env::Env;
    use crate::settings::{Kind, Mode, Settings};

    /// Resolves flags and variables, each given by its name, in mode native.
    fn resolve(given: &[(&str, &str)], services: &str) -> Result<Settings, Error> {
        let is_flag = |(name, _): &&(&str, &str)| name.starts_with("--");
        let setting = |name: &str| *Setting::ALL.iter().find(|setting| setting.flag() == name).unwrap();
        let flags = given.iter().filter(is_flag).map(|(name, text)| (setting(name), (*text).into()));
        let mode = [(Setting::Mode, "native".into()), (Setting::Endpoints, "h:1".into())];
        let env: Env = given.iter().filter(|it| !is_flag(it)).copied().chain([("VCAP_SERVICES", services)]).collect();
        Sources::new(flags.chain(mode), &env).with_binding(&env)?.resolve()
    }

    fn login(given: &[(&str, &str)], credentials: &str) -> Result<Option<(String, String)>, String> {
        let services = format!(r#"{{"etcd":[{{"name":"e","credentials":{credentials}}}]}}"#);
        let settings = resolve(given, &services).map_err(|err| err.to_string())?;
        Ok(settings.login.map(|login| (login.username, login.password)))
    }

    #[track_caller]
    fn logs_in(given: &[(&str, &str)], credentials: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(user, password)| (user.to_owned(), password.to_owned()));
        assert_eq!(login(given, credentials), Ok(expected), "{given:?} {credentials}");
    }

    const USER: (&str, &str) = ("ETCDPROXY_USERNAME", "app");
    const PASSWORD: (&str, &str) = ("ETCDPROXY_PASSWORD", " pw ");

    #[test]
    fn every_source_of_a_login() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "from file\n").unwrap();
        let file = file.to_str().unwrap();
        let bound = r#"{"uri":"h:1","username":"bound","password":"b"}"#;
        logs_in(&[], "{}", None);
        logs_in(&[USER, PASSWORD], "{}", Some(("app", " pw ")));
        logs_in(&[("--username", "flag"), USER, PASSWORD], "{}", Some(("flag", " pw ")));
        logs_in(&[USER, ("ETCDPROXY_PASSWORD_FILE", file)], "{}", Some(("app", "from file")));
        logs_in(&[USER, PASSWORD, ("--password-file", file)], bound, Some(("app", "from file")));
        logs_in(&[], bound, Some(("bound", "b")));
        logs_in(&[PASSWORD], bound, Some(("bound", " pw ")));
        logs_in(&[USER], r#"{"uri":"h:1","password":"b"}"#, Some(("app", "b")));
        for off in ["0", "false", "off"] {
            logs_in(&[("ETCDPROXY_LOGIN_FROM_BINDING", off)], bound, None);
        }
        // A binding's user may be that of its certificate.
        logs_in(&[], r#"{"uri":"h:1","username":"bound"}"#, None);
    }

    #[test]
    fn a_login_that_is_not_complete_is_an_error_or_for_a_binding_a_warning() {
        let bound = r#"{"uri":"h:1","username":"bound","password":"s3cret"}"#;
        for (given, credentials, problem) in [
            (
                &[USER][..],
                "{}",
                "ETCDPROXY_USERNAME: the user has no password: set ETCDPROXY_PASSWORD, or name a file with ETCDPROXY_PASSWORD_FILE",
            ),
            (
                &[("--username", "app")],
                bound,
                "--username: the user has no password: set ETCDPROXY_PASSWORD, or name a file with --password-file",
            ),
            (
                &[PASSWORD],
                "{}",
                "ETCDPROXY_PASSWORD: the password has no user: give the user's name with ETCDPROXY_USERNAME",
            ),
            (&[("--username", ""), PASSWORD], "{}", "--username: the user's name is empty"),
            (
                &[USER, PASSWORD, ("ETCDPROXY_PASSWORD_FILE", "/x")],
                "{}",
                "ETCDPROXY_PASSWORD: ETCDPROXY_PASSWORD_FILE gives a password too: remove one of them",
            ),
        ] {
            assert_eq!(login(given, credentials), Err(problem.to_owned()));
        }
        let services = r#"{"etcd":[{"name":"e","credentials":{"uri":"h:1","password":"s3cret"}}]}"#;
        let settings = resolve(&[], services).unwrap();
        assert_eq!(
            (settings.login, &settings.warnings[..]),
            (
                None,
                &["service binding \"e\", password: the password has no user, so the proxy does not log in: set \
                     ETCDPROXY_USERNAME, or ETCDPROXY_LOGIN_FROM_BINDING=false"
                    .to_owned()][..]
            )
        );
    }

    #[test]
    fn files_with_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let file = path.to_str().unwrap();
        let with = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            login(&[("--username", "app"), ("--password-file", file)], "{}").map(|login| login.unwrap().1)
        };
        for (content, expected) in
            [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), (" pw \n", " pw "), ("pw\r", "pw\r")]
        {
            assert_eq!(with(content.as_bytes()).as_deref(), Ok(expected), "{content:?}");
        }
        assert_eq!(with(&[b"x".repeat(LONGEST), b"\r\n".to_vec()].concat()).unwrap().len(), LONGEST);
        for (content, problem) in [
            (&b""[..], "is empty: write the password into it, or name another file"),
            (b"\n", "is empty: write the password into it, or name another file"),
            (b"\xff\xfe", "is not text in UTF-8: name a file that contains the password"),
            (&b"x".repeat(LONGEST + 1), "has more than 1024 bytes: name a file that contains only the password"),
            (&b"\n".repeat(1 << 20), "has more than 1024 bytes: name a file that contains only the password"),
        ] {
            assert_eq!(with(content), Err(format!("--password-file: {file} {problem}")));
        }
        fs::write(&path, "old").unwrap();
        let old = resolve(&[("--username", "app"), ("--password-file", file)], "{}").unwrap().login.unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!((old.password.as_str(), old.current().password.as_str()), ("old", "new"));
        fs::remove_file(&path).unwrap();
        assert_eq!(old.current(), old);
        let named =
            |path: &Path| resolve(&[USER, ("ETCDPROXY_PASSWORD_FILE", path.to_str().unwrap())], "{}").unwrap_err();
        let missing = named(&dir.path().join("none"));
        assert!(missing.time_can_mend() && missing.to_string().contains("none does not exist: write"), "{missing}");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for odd in [dir.path(), &fifo, Path::new("/dev/zero")] {
            let found = named(odd);
            assert!(!found.time_can_mend() && found.to_string().contains(" is not a regular file: "), "{found}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let settings = resolve(&[USER, ("ETCDPROXY_PASSWORD", "s3cret")], "{}").unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("\"app\"") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn every_word_of_the_table() {
        let Kind::Choice(_, words) = Setting::Prefer.kind() else { panic!() };
        let prefer = words.iter().map(|word| resolve(&[("--prefer", word)], "{}").unwrap().prefer);
        assert_eq!(prefer.collect::<Vec<_>>(), [Prefer::Leader, Prefer::Spread, Prefer::Nearest]);
        let Kind::Choice(_, words) = Setting::MemberUrls.kind() else { panic!() };
        let keeps = words.iter().map(|word| resolve(&[("--member-urls", word)], "{}").unwrap().keeps_member_urls);
        assert_eq!(keeps.collect::<Vec<_>>(), [false, true]);
        let without = resolve(&[], "{}").unwrap();
        assert_eq!((without.run.mode(), without.prefer), (Mode::Native, Prefer::Leader));
        assert!(!without.keeps_member_urls && !without.namespace_admin);
        let found = resolve(&[("--prefer", "fast")], "{}").unwrap_err().to_string();
        assert_eq!(found, "--prefer: invalid prefer \"fast\": expected leader, spread or nearest");
    }
}
