//! Where unpacked programs are kept, and memory as the last resort.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::contents::{Program, RELEASE};
use super::error::Error;
use super::programs::program;
use super::unpack_roots::UnpackRoots;
use super::{payload, publish};
use crate::fs::trust::is_trusted;
use crate::os::env::Env;

const REMEDY: &str = "set ETCDPROXY_UNPACK_DIR to a directory that etcdproxy can write to and run programs from";
const REMEDY_FIXED: &str = "set ETCDPROXY_UNPACK_DIR to another directory";

/// Finds the programs of the release on disk, or unpacks them.
#[derive(Debug)]
pub(crate) struct Store {
    /// The directory of this binary: `supply` and `install` put the programs there, under their own names.
    beside: Option<PathBuf>,
    roots: UnpackRoots,
    /// The user who runs this.
    uid: u32,
}

/// A program that can be executed, as long as this value exists.
#[derive(Debug)]
pub(crate) struct Executable {
    path: PathBuf,
    /// What `path` stands for, if it is not a file on disk.
    memory: Option<InMemory>,
}

/// A program that no directory could take.
#[derive(Debug)]
struct InMemory {
    _fd: OwnedFd,
    /// What is wrong with each directory.
    why: Vec<Error>,
}

impl Executable {
    fn file(path: PathBuf) -> Self {
        Self { path, memory: None }
    }

    fn in_memory(fd: OwnedFd, why: Vec<Error>) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Self { path, memory: Some(InMemory { _fd: fd, why }) }
    }

    /// What to execute. Valid in this process and, until it executes something, in its children. It is borrowed, because
    /// a program in memory is gone with this value.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    pub(crate) fn new(env: &Env) -> Self {
        Self { beside: env.exe.parent().map(Path::to_owned), roots: UnpackRoots::new(env), uid: env.uid }
    }

    /// The program of this name, ready to be executed. Warns when it runs from memory.
    ///
    /// # Errors
    /// If this build does not contain it, or if it cannot be unpacked.
    pub(crate) fn obtain(&self, name: &str) -> Result<Executable, Error> {
        let program = program(name)?;
        let executable = self.get(program)?;
        if let Some(InMemory { why, .. }) = &executable.memory {
            let why: Vec<String> = why.iter().map(ToString::to_string).collect();
            let megabytes = program.size.div_ceil(1_000_000);
            log::warn!("{name} runs from memory, which takes {megabytes} MB of it: {}", why.join("; "));
        }
        Ok(executable)
    }

    /// Whether [`obtain`](Self::obtain) has something to give: this binary contains the program, or it is on disk.
    pub(crate) fn has(&self, name: &str) -> bool {
        payload::has_payload() || program(name).is_ok_and(|program| self.find(program).is_some())
    }

    /// The program, ready to be executed; unpacked now if needed.
    ///
    /// If the file exists, this looks only at the file and its directories, not at the payload.
    pub(crate) fn get(&self, program: &'static Program) -> Result<Executable, Error> {
        if let Some(path) = self.find(program) {
            return Ok(Executable::file(path));
        }
        if !payload::has_payload() {
            return Err(Error::Launcher { name: program.name });
        }
        match &self.roots {
            UnpackRoots::Fixed(root) => self.put(program, root, REMEDY_FIXED).map(Executable::file),
            UnpackRoots::FirstOf(roots) => {
                let mut why = Vec::new();
                for root in roots {
                    match self.put(program, root, REMEDY) {
                        Ok(path) => return Ok(Executable::file(path)),
                        Err(err @ Error::Damaged { .. }) => return Err(err),
                        Err(err) => why.push(err),
                    }
                }
                in_memory(program).map(|fd| Executable::in_memory(fd, why))
            }
        }
    }

    /// The file that an earlier [`get`](Self::get), a `supply` or an `install` wrote.
    pub(crate) fn find(&self, program: &Program) -> Option<PathBuf> {
        // Whoever owns the directory of this binary could replace the binary as well.
        let is_safe = |path: &Path| path.parent() == self.beside.as_deref() || self.in_trusted_directories(path);
        self.candidates(program).into_iter().find(|path| self.is_ready(program, path) && is_safe(path))
    }

    /// Every path where the program may be, whether it exists or not.
    pub(crate) fn candidates(&self, program: &Program) -> Vec<PathBuf> {
        let beside = self.beside.iter().map(|dir| dir.join(program.name));
        let roots = self.roots.as_slice().iter().map(|root| root.join(RELEASE.id).join(program.name));
        beside.chain(roots).collect()
    }

    fn put(&self, program: &Program, root: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
        let dir = root.join(RELEASE.id);
        self.refuse_wrong_owner(root, remedy)?;
        self.refuse_wrong_owner(&dir, remedy)?;
        publish::publish(program, &dir, remedy, &|path| Ok(self.is_ready(program, path))).map(|(path, _)| path)
    }

    /// Whoever owns the directory could replace the program after the check.
    fn refuse_wrong_owner(&self, dir: &Path, remedy: &'static str) -> Result<(), Error> {
        match fs::metadata(dir) {
            Ok(meta) if !is_trusted(meta.uid(), self.uid) => {
                Err(Error::WrongOwner { path: dir.to_owned(), owner: meta.uid(), remedy })
            }
            _ => Ok(()),
        }
    }

    /// Whether [`put`](Self::put) would accept the version's directory and the one above it.
    fn in_trusted_directories(&self, path: &Path) -> bool {
        let is_trusted_dir = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| is_trusted(meta.uid(), self.uid));
        path.ancestors().skip(1).take(2).all(is_trusted_dir)
    }

    /// Everything that a warm start checks. `verify` checks the content as well.
    fn is_ready(&self, program: &Program, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_file()
                && meta.len() == program.size
                && meta.mode() & 0o111 == 0o111
                && is_trusted(meta.uid(), self.uid)
        })
    }
}

fn in_memory(program: &'static Program) -> Result<OwnedFd, Error> {
    let failed = |cause: io::Error| Error::NoMemory { name: program.name, cause };
    // MFD_EXEC. Since Linux 6.3 a system may make memfds non-executable by default; older kernels reject the flag.
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A start accepts such a file without reading it.
    #[test]
    fn a_program_is_a_regular_file_of_the_right_size_that_can_be_executed() {
        let program = &RELEASE.programs[0];
        let dir = tempfile::tempdir().unwrap();
        let uid = dir.path().metadata().unwrap().uid();
        let root = dir.path().join("root");
        let store = Store { beside: None, roots: UnpackRoots::Fixed(root.clone()), uid };
        let path = root.join(RELEASE.id).join(program.name);
        assert_eq!(store.candidates(program), std::slice::from_ref(&path));
        assert_eq!(store.find(program), None);

        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        for (size, mode, is_ready) in [
            (program.size, 0o755, true),
            (program.size - 1, 0o755, false),
            (program.size, 0o644, false),
            (program.size, 0o711, true),
        ] {
            file.set_len(size).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(store.find(program).is_some(), is_ready, "{size} {mode:o}");
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(store.find(program), None, "a link");
    }

    #[test]
    fn the_directory_of_the_binary_comes_first() {
        let program = &RELEASE.programs[0];
        let roots = UnpackRoots::FirstOf(vec!["/a".into(), "/b".into()]);
        let store = Store { beside: Some("/bin".into()), roots, uid: 0 };
        let name = |dir: &str| Path::new(dir).join(RELEASE.id).join(program.name);
        assert_eq!(store.candidates(program), [Path::new("/bin").join(program.name), name("/a"), name("/b")]);
    }
}
