//! Where unpacked programs are kept, and the last resort when they cannot be.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Uid;

use super::{Error, Program, RELEASE, payload, unpack};

const REMEDY: &str = "set ETCDPROXY_UNPACK_DIR to a directory that can be written and run from";
const REMEDY_FIXED: &str = "let ETCDPROXY_UNPACK_DIR name another directory";

/// The directories a program may be unpacked below, best first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// The user chose this one: it is used or it is an error.
    Fixed(PathBuf),
    /// The first that can be written and run from; when none can, memory.
    FirstOf(Vec<PathBuf>),
}

/// Finds programs of the release on disk, or puts them there.
#[derive(Debug)]
pub(crate) struct Store {
    beside: Option<PathBuf>,
    home: Home,
}

/// A program that can be executed.
#[derive(Debug)]
pub(crate) enum Found {
    File(PathBuf),
    /// In memory for the life of the process; `why` says what was wrong with each directory.
    Memory {
        fd: OwnedFd,
        why: Vec<Error>,
    },
}

impl Found {
    /// What to execute. Valid in this process and, until it executes something, in its children.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Memory { fd, .. } => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        }
    }
}

impl Store {
    /// `beside` is a directory where the programs may stand ready under their own names.
    pub(crate) fn new(beside: Option<PathBuf>, home: Home) -> Self {
        Self { beside, home }
    }

    /// The program as a file, unpacked now if need be.
    ///
    /// When it is there this costs a look at the file and its directories, and none at the payload.
    pub(crate) fn get(&self, program: &'static Program) -> Result<Found, Error> {
        if let Some(path) = self.find(program) {
            return Ok(Found::File(path));
        }
        if !payload::has_payload() {
            return Err(Error::Launcher { name: program.name });
        }
        match &self.home {
            Home::Fixed(root) => put(program, root, REMEDY_FIXED).map(Found::File),
            Home::FirstOf(roots) => {
                let mut why = Vec::new();
                for root in roots {
                    match put(program, root, REMEDY) {
                        Ok(path) => return Ok(Found::File(path)),
                        Err(err @ Error::Damaged { .. }) => return Err(err),
                        Err(err) => why.push(err),
                    }
                }
                in_memory(program).map(|fd| Found::Memory { fd, why })
            }
        }
    }

    /// The program where an earlier [`get`](Self::get) left it.
    pub(crate) fn find(&self, program: &Program) -> Option<PathBuf> {
        // Whoever owns the directory of this binary could replace the binary as well.
        let is_safe = |path: &Path| path.parent() == self.beside.as_deref() || in_own_directories(path);
        self.places(program).into_iter().find(|path| ready(program, path) && is_safe(path))
    }

    /// Every path where the program may be, there or not.
    pub(crate) fn places(&self, program: &Program) -> Vec<PathBuf> {
        let roots = match &self.home {
            Home::Fixed(root) => std::slice::from_ref(root),
            Home::FirstOf(roots) => roots,
        };
        let beside = self.beside.iter().map(|dir| dir.join(program.name));
        beside.chain(roots.iter().map(|root| root.join(RELEASE.id).join(program.name))).collect()
    }
}

fn put(program: &Program, root: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
    let dir = root.join(RELEASE.id);
    refuse_foreign(root, remedy)?;
    refuse_foreign(&dir, remedy)?;
    unpack::publish(program, &dir, remedy, &|path| Ok(ready(program, path))).map(|(path, _)| path)
}

/// Whoever owns the directory can replace the program after it was checked.
fn refuse_foreign(dir: &Path, remedy: &'static str) -> Result<(), Error> {
    match fs::metadata(dir) {
        Ok(meta) if !trusted(meta.uid()) => Err(Error::Foreign { path: dir.to_owned(), owner: meta.uid(), remedy }),
        _ => Ok(()),
    }
}

/// Whether the directory of the version and the one above it are what [`put`] would take.
fn in_own_directories(path: &Path) -> bool {
    path.ancestors().skip(1).take(2).all(|dir| fs::metadata(dir).is_ok_and(|meta| trusted(meta.uid())))
}

fn trusted(owner: u32) -> bool {
    owner == 0 || owner == Uid::effective().as_raw()
}

/// The whole check of a warm start. What it cannot see, `verify` does.
fn ready(program: &Program, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.is_file() && meta.len() == program.size && meta.mode() & 0o111 == 0o111 && trusted(meta.uid())
    })
}

fn in_memory(program: &'static Program) -> Result<OwnedFd, Error> {
    let failed = |cause: io::Error| Error::NoMemory { name: program.name, cause };
    // Since Linux 6.3 a system may make memfds non-executable unless asked; older kernels do not know the flag.
    let executable = MFdFlags::from_bits_retain(0x10);
    let fd = memfd_create(program.name, MFdFlags::MFD_CLOEXEC | executable)
        .or_else(|_| memfd_create(program.name, MFdFlags::MFD_CLOEXEC))
        .map_err(|errno| failed(errno.into()))?;
    let file = File::from(fd);
    file.set_len(program.size).map_err(failed)?;
    payload::decode(program, |offset, bytes| file.write_all_at(bytes, offset))
        .map_err(|err| Error::of_decode(program, err, failed))?;
    Ok(file.into())
}
