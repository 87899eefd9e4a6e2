//! Where unpacked programs are kept, and memory as the last resort.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{AccessFlags, access};

use super::contents::{Program, RELEASE};
use super::error::Error;
use super::programs::program;
use super::unpack_roots::UnpackRoots;
use super::{payload, publish};
use crate::fs::trust::{is_private, is_trusted, other_writers};
use crate::fs::{WriteError, dirs};
use crate::os::env::{Env, OWN_EXE};

const OPEN_FILES: &str = "/proc/self/fd";

const REMEDY: &str = "set ETCDPROXY_UNPACK_DIR to a directory that etcdproxy can write to and run programs from";
const REMEDY_FIXED: &str = "set ETCDPROXY_UNPACK_DIR to another directory";

/// Finds the programs of the release on disk, or unpacks them.
#[derive(Debug)]
pub(crate) struct Store {
    /// The directory of this binary: `supply` and `install` put the programs there, under their own names.
    beside: Option<PathBuf>,
    /// Who owns this binary: in the images of Cloud Native Buildpacks, the user who has built them, and not the one who runs
    /// this. Whoever owns it could replace it, so its owner may own the programs beside it, too.
    owner: u32,
    roots: UnpackRoots,
    /// The user who runs this.
    uid: u32,
    /// That user's group.
    gid: u32,
}

/// A program that can be executed, as long as this value exists.
#[derive(Debug)]
pub(crate) struct Executable {
    path: PathBuf,
    shown: PathBuf,
    held: Held,
}

/// What must stay open so that the path of an [`Executable`] leads to the program.
#[derive(Debug)]
enum Held {
    /// It is an ordinary path.
    Nothing,
    /// It leads through this descriptor of the program's directory.
    Directory { _dir: File },
    /// It leads to this file in memory, because no directory could take the program.
    Memory {
        _file: OwnedFd,
        /// What is wrong with each directory.
        why: Vec<Error>,
    },
}

impl Executable {
    fn file(path: PathBuf) -> Self {
        Self { shown: path.clone(), path, held: Held::Nothing }
    }

    fn in_directory(dir: Directory, name: &str) -> Self {
        let (path, shown) = (dir.path.join(name), dir.shown.join(name));
        Self { path, shown, held: dir.held.map_or(Held::Nothing, |dir| Held::Directory { _dir: dir }) }
    }

    fn in_memory(file: OwnedFd, why: Vec<Error>) -> Self {
        let path = through(&file);
        Self { shown: path.clone(), path, held: Held::Memory { _file: file, why } }
    }

    /// What to execute. Valid in this process and, until it executes something, in its children. It is borrowed, because
    /// a program in memory is gone with this value.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path as users know it, for messages only: by now, it may lead elsewhere.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }
}

/// The path of an open file (proc(5)).
fn through(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("{OPEN_FILES}/{}", file.as_raw_fd()))
}

/// A directory of programs. Only root and the user who runs this can change what is in it.
#[derive(Debug)]
struct Directory {
    /// Leads to it whatever other users do.
    path: PathBuf,
    /// The path as users know it.
    shown: PathBuf,
    /// The directory, if other users could replace it, so that `path` must lead through this descriptor.
    held: Option<File>,
}

impl Store {
    pub(crate) fn new(env: &Env) -> Self {
        let beside = env.exe.parent().map(Path::to_owned);
        let owner = fs::metadata(OWN_EXE).map_or(env.uid, |meta| meta.uid());
        Self { beside, owner, roots: UnpackRoots::new(env), uid: env.uid, gid: env.gid }
    }

    /// The program of this name, ready to be executed. Warns when it runs from memory.
    ///
    /// # Errors
    /// If this build does not contain it, or if it cannot be unpacked.
    pub(crate) fn obtain(&self, name: &str) -> Result<Executable, Error> {
        let program = program(name)?;
        let executable = self.get(program)?;
        if let Held::Memory { why, .. } = &executable.held {
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
        if let Some(found) = self.found(program) {
            return Ok(found);
        }
        if !payload::has_payload() {
            return Err(Error::Launcher { name: program.name });
        }
        match &self.roots {
            UnpackRoots::Fixed(root) => self.put(program, root, REMEDY_FIXED),
            UnpackRoots::FirstOf(roots) => {
                let mut why = Vec::new();
                for root in roots {
                    match self.put(program, root, REMEDY) {
                        Ok(executable) => return Ok(executable),
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
        self.found(program).map(|executable| executable.shown)
    }

    fn found(&self, program: &Program) -> Option<Executable> {
        let mut beside = self.beside.iter().map(|dir| dir.join(program.name));
        let beside =
            beside.find(|path| self.is_ready(program, path, self.uid) || self.is_ready(program, path, self.owner));
        let unpacked = |root: &PathBuf| {
            let dir = self.directory(root, REMEDY).ok()??;
            self.is_ready_in(program, &dir).then(|| Executable::in_directory(dir, program.name))
        };
        beside.map(Executable::file).or_else(|| self.roots.as_slice().iter().find_map(unpacked))
    }

    /// The directory that the program would be unpacked into, without writing anything. What only a write shows, such as
    /// a full disk, is not seen. `None` if there is only memory.
    ///
    /// # Errors
    /// Why the first directory cannot be used, if no other one can.
    pub(crate) fn place(&self) -> Result<Option<PathBuf>, Error> {
        let (roots, remedy) = match &self.roots {
            UnpackRoots::Fixed(root) => (std::slice::from_ref(root), REMEDY_FIXED),
            UnpackRoots::FirstOf(roots) => (roots.as_slice(), REMEDY),
        };
        let usable = |root: &PathBuf| {
            let dir = self.usable(root, remedy)?;
            let nearest = dir.ancestors().find(|dir| dir.exists()).unwrap_or(&dir);
            match access(nearest, AccessFlags::W_OK) {
                Ok(()) => Ok(dir),
                Err(errno) => Err(WriteError::new(&dir, &errno.into(), remedy, None).into()),
            }
        };
        let mut tried = roots.iter().map(usable);
        let Some(first) = tried.next() else { return Ok(None) };
        first.or_else(|err| tried.find_map(Result::ok).ok_or(err)).map(Some)
    }

    /// Whether the user has chosen the directory, so that there is no other place, not even memory.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.roots, UnpackRoots::Fixed(_))
    }

    /// The directory of this version below `root`, if its programs may be and can run there.
    fn usable(&self, root: &Path, remedy: &'static str) -> Result<PathBuf, Error> {
        let dir = root.join(RELEASE.id);
        self.refuse_wrong_owner(root, remedy)?;
        // Otherwise the only sign would be a "permission denied" when the program is executed.
        if dirs::is_noexec(&dir) {
            return Err(Error::NoExec { path: dir, remedy });
        }
        Ok(dir)
    }

    /// Every path where the program may be, whether it exists or not.
    pub(crate) fn candidates(&self, program: &Program) -> Vec<PathBuf> {
        let beside = self.beside.iter().map(|dir| dir.join(program.name));
        let roots = self.roots.as_slice().iter().map(|root| root.join(RELEASE.id).join(program.name));
        beside.chain(roots).collect()
    }

    fn put(&self, program: &'static Program, root: &Path, remedy: &'static str) -> Result<Executable, Error> {
        let shown = self.usable(root, remedy)?;
        let failed =
            |err: &io::Error| WriteError::new(&shown.join(program.name), err, remedy, Some(program.size)).into();
        let new = dirs::create_all(&shown).map_err(|err| failed(&err))?;
        let put = || {
            let missing = || failed(&io::ErrorKind::NotFound.into());
            let dir = self.directory(root, remedy)?.ok_or_else(missing)?;
            let accept = |_: &Path| Ok(self.is_ready_in(program, &dir));
            if publish::write_locked(program, &dir.path, &accept, &failed)? {
                let _ = dirs::sync(root);
            }
            Ok(Executable::in_directory(dir, program.name))
        };
        put().inspect_err(|_| dirs::remove_empty(&new))
    }

    /// The directory of this version below `root`; `None` if it does not exist. If other users can replace it, the answer
    /// holds it open: whatever they do, it is the directory that was checked.
    ///
    /// # Errors
    /// If other users can change what is in it, or if it is a link.
    fn directory(&self, root: &Path, remedy: &'static str) -> Result<Option<Directory>, Error> {
        let shown = root.join(RELEASE.id);
        self.refuse_wrong_owner(root, remedy)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let opened = File::options().read(true).custom_flags(flags.bits()).open(&shown);
        let (dir, meta) = match opened.and_then(|dir| dir.metadata().map(|meta| (dir, meta))) {
            Ok(opened) => opened,
            Err(_) if shown.is_symlink() => return Err(Error::Link { path: shown, remedy }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(WriteError::new(&shown, &err, remedy, None).into()),
        };
        if !is_trusted(meta.uid(), self.uid) {
            return Err(Error::WrongOwner { path: shown, owner: meta.uid(), remedy });
        }
        if other_writers(&meta, self.uid, self.gid).is_some() {
            return Err(Error::Shared { path: shown, remedy });
        }
        if is_private(&shown, self.uid, self.gid) {
            return Ok(Some(Directory { path: shown.clone(), shown, held: None }));
        }
        let path = through(&dir);
        if !path.exists() {
            return Err(Error::Replaceable { path: shown, remedy });
        }
        Ok(Some(Directory { path, shown, held: Some(dir) }))
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

    /// Whether the program in the directory can be executed. Other users may have put another directory of ours in the
    /// place of one that they can replace, so the content counts there.
    fn is_ready_in(&self, program: &Program, dir: &Directory) -> bool {
        let path = dir.path.join(program.name);
        self.is_ready(program, &path, self.uid)
            && (dir.held.is_none() || matches!(publish::difference(program, &path), Ok(None)))
    }

    /// Everything that a warm start checks. `verify` checks the content as well. The program belongs to `owner` or root.
    fn is_ready(&self, program: &Program, path: &Path, owner: u32) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_file()
                && meta.len() == program.size
                && meta.mode() & 0o111 == 0o111
                && other_writers(&meta, self.uid, self.gid).is_none()
                && is_trusted(meta.uid(), owner)
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
        let store = Store { beside: None, owner: uid, roots: UnpackRoots::Fixed(root.clone()), uid, gid: 0 };
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
            (program.size, 0o777, false),
        ] {
            file.set_len(size).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(store.find(program).is_some(), is_ready, "{size} {mode:o}");
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(store.find(program), None, "a link");

        // A directory that nobody else can change, in one that everybody can: only the content counts.
        fs::rename(&elsewhere, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        file.set_len(program.size).unwrap();
        assert!(store.find(program).is_some());
        fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(store.find(program), None, "it is not the program");
    }

    #[test]
    fn the_directory_of_the_binary_comes_first() {
        let program = &RELEASE.programs[0];
        let roots = UnpackRoots::FirstOf(vec!["/a".into(), "/b".into()]);
        let store = Store { beside: Some("/bin".into()), owner: 0, roots, uid: 0, gid: 0 };
        let name = |dir: &str| Path::new(dir).join(RELEASE.id).join(program.name);
        assert_eq!(store.candidates(program), [Path::new("/bin").join(program.name), name("/a"), name("/b")]);
    }
}
