//! Paths in the root directory of another system: an image or a chroot. Links there lead to where they lead in that system,
//! never out of it. The kernel can do this itself (openat2(2), `RESOLVE_IN_ROOT`) only since Linux 5.6.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The number of links on a path, as in the kernel (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// What to do with a link that a path ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

/// Is called with a path on the way and what is there. Returns whether to go on.
pub(crate) type Visit<'a, E> = dyn FnMut(&Path, &io::Result<Metadata>) -> Result<bool, E> + 'a;

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The path exists.
    Exists,
    /// Something on the path does not exist.
    Missing,
    /// There are too many links on the path, or one of them cannot be read.
    Broken,
}

/// Resolves `path` as a process whose root directory is `root` would, and returns it as this process sees it; `None` if
/// there are too many links on it. What does not exist has no links.
///
/// Nobody else must be able to change the directories meanwhile.
pub(crate) fn resolve(root: &Path, path: &Path, last: LastLink) -> Option<PathBuf> {
    let walked: Result<_, Infallible> = walk(root, path, last, &mut |_, found| Ok(found.is_ok()));
    match walked {
        Ok((_, End::Broken)) => None,
        Ok((resolved, _)) => Some(resolved),
    }
}

/// Like [`resolve`], and calls `visit` with each directory, file and link on the way, or with the error of looking at it.
/// After `visit` has returned false, the rest of the path counts as missing.
///
/// # Errors
/// Those of `visit`.
pub(crate) fn walk<E>(root: &Path, path: &Path, last: LastLink, visit: &mut Visit<'_, E>) -> Result<(PathBuf, End), E> {
    let mut resolved = root.to_owned();
    let mut end = End::Exists;
    let mut links = 0;
    let mut rest = parts(path);
    while let Some(part) = rest.pop_front() {
        if part == "/" {
            root.clone_into(&mut resolved);
            continue;
        }
        if part == ".." {
            // The root directory is its own parent.
            if resolved != root {
                resolved.pop();
            }
            continue;
        }
        resolved.push(part);
        if end == End::Missing {
            continue;
        }
        let found = fs::symlink_metadata(&resolved);
        if !visit(&resolved, &found)? {
            end = End::Missing;
        } else if found.is_ok_and(|meta| meta.is_symlink()) && (last == LastLink::Follow || !rest.is_empty()) {
            links += 1;
            match fs::read_link(&resolved) {
                Ok(target) if links <= MOST_LINKS => {
                    resolved.pop();
                    parts(&target).into_iter().rev().for_each(|part| rest.push_front(part));
                }
                _ => return Ok((resolved, End::Broken)),
            }
        }
    }
    Ok((resolved, end))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter(|part| !matches!(part, Component::CurDir | Component::Prefix(_)));
    names.map(|part| OsStr::to_owned(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Checked with `chroot ROOT realpath PATH`.
    #[test]
    fn links_lead_to_where_they_lead_in_that_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("data/opt")).unwrap();
        fs::create_dir(root.join("usr")).unwrap();
        for (target, link) in [
            ("/data/opt", "opt"),
            ("../../../../data", "up"),
            ("/up/opt", "two"),
            ("../../usr/../../data/./opt", "data/dots"),
            ("/", "all"),
            ("/nowhere/x", "dangling"),
            ("loop", "loop"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let resolve = |path: &str, last| resolve(&root, Path::new(path), last);
        for (path, expected) in [
            ("/", ""),
            ("/opt/x", "data/opt/x"),
            ("/up/opt", "data/opt"),
            ("/two/x", "data/opt/x"),
            ("/data/dots/x/y", "data/opt/x/y"),
            ("/all/all/up/x", "data/x"),
            ("/opt/../x", "data/x"),
            ("/../../x", "x"),
            ("/dangling/y", "nowhere/x/y"),
            ("/usr", "usr"),
        ] {
            assert_eq!(resolve(path, LastLink::Follow).unwrap(), root.join(expected), "{path}");
        }
        assert_eq!(resolve("/opt", LastLink::Keep).unwrap(), root.join("opt"));
        assert_eq!(resolve("/opt", LastLink::Follow).unwrap(), root.join("data/opt"));
        assert_eq!(resolve("/two/opt", LastLink::Keep).unwrap(), root.join("data/opt/opt"));
        assert_eq!(resolve("/loop/x", LastLink::Keep), None);
    }

    #[test]
    fn each_step_is_visited_until_one_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let mut seen = Vec::new();
        let (_, end) = walk(dir.path(), Path::new("/link/b/c/d"), LastLink::Follow, &mut |path, found| {
            seen.push((path.strip_prefix(dir.path()).unwrap().display().to_string(), found.is_ok()));
            Ok::<_, Infallible>(found.is_ok())
        })
        .unwrap();
        let seen: Vec<(&str, bool)> = seen.iter().map(|(path, exists)| (path.as_str(), *exists)).collect();
        assert_eq!(seen, [("link", true), ("a", true), ("a/b", true), ("a/b/c", false)]);
        assert_eq!(end, End::Missing);
    }
}
