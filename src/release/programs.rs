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
        Error::NotCarried { name: name.to_owned(), has: has.join(", ") }
    })
}

/// Unpacks `program` into nothing, checking each byte of its payload.
pub(crate) fn check(program: &Program) -> Result<(), Error> {
    payload::decode(program, |_, _| Ok(()))
        .map_err(|err| Error::of_decode(program, err, |cause| Error::NoMemory { name: program.name, cause }))
}

/// Leaves `program` in `dir` for the user. If the file exists, it is kept if it is that program, and an error if not.
/// Returns the path, and whether it was written now.
pub(crate) fn unpack_into(program: &'static Program, dir: &Path) -> Result<(PathBuf, bool), Error> {
    publish(program, dir, "choose another directory", &|path| {
        if path.symlink_metadata().is_err() {
            return Ok(false); // if it cannot be written either, that error says more
        }
        match difference(program, path)? {
            None => Ok(true),
            Some(difference) => {
                Err(Error::Occupied { path: path.to_owned(), name: program.name, version: RELEASE.version, difference })
            }
        }
    })
}

/// Leaves `program` in `dir`, replacing whatever is there. Errors end with `remedy`.
pub(crate) fn unpack_fresh(program: &'static Program, dir: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
    publish(program, dir, remedy, &|_| Ok(false)).map(|(path, _)| path)
}
