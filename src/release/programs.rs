//! The programs inside this binary: looked up, checked, and written for the user.

use std::path::{Path, PathBuf};

use super::contents::{Program, RELEASE};
use super::error::Error;
use super::payload;
use super::publish::{difference, publish};

/// The program called `name`, or an error that says how to get a build that has it.
pub(crate) fn program(name: &str) -> Result<&'static Program, Error> {
    let found = RELEASE.programs.iter().find(|program| program.name == name);
    found.ok_or_else(|| {
        let has: Vec<&str> = RELEASE.programs.iter().map(|program| program.name).collect();
        Error::NotIncluded { name: name.to_owned(), has: has.join(", ") }
    })
}

/// Checks every byte of `program` in the payload: unpacks it and discards the result.
pub(crate) fn check(program: &Program) -> Result<(), Error> {
    payload::decode(program, |_, _| Ok(()))
        .map_err(|err| Error::of_decode(program, err, |cause| Error::NoMemory { name: program.name, cause }))
}

/// Writes `program` into `dir` for the user. Keeps an existing file that is the same program; another one is an error.
/// Returns the path, and whether the file was written now.
pub(crate) fn unpack_into(program: &'static Program, dir: &Path) -> Result<(PathBuf, bool), Error> {
    publish(program, dir, "choose another directory", &|path| {
        if path.symlink_metadata().is_err() {
            return Ok(false); // a file that cannot be looked at cannot be written either, and that error says more
        }
        match difference(program, path)? {
            None => Ok(true),
            Some(difference) => {
                Err(Error::Occupied { path: path.to_owned(), name: program.name, version: RELEASE.version, difference })
            }
        }
    })
}

/// Writes `program` into `dir`, and replaces whatever is there. Errors end with `remedy`.
pub(crate) fn unpack_fresh(program: &'static Program, dir: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
    publish(program, dir, remedy, &|_| Ok(false)).map(|(path, _)| path)
}
