//! The owner rule: whatever etcdproxy runs or replaces must belong to root, who can change everything anyway, or to the
//! user who runs etcdproxy.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const WRITABLE_BY_ALL: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;
/// In such a directory, only a file's owner may remove or rename it.
pub(crate) const STICKY: u32 = 0o1000;

/// Who can write to a file or directory, besides root and the user who runs etcdproxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    Everybody,
    /// The members of this group.
    Group(u32),
}

/// Who else can write to the file or directory; `None` if only root and `uid`, whose group is `gid`. The owner, who can
/// change the permissions, is not considered.
pub(crate) fn other_writers(meta: &Metadata, uid: u32, gid: u32) -> Option<Writers> {
    if meta.mode() & WRITABLE_BY_ALL != 0 {
        Some(Writers::Everybody)
    } else if meta.mode() & WRITABLE_BY_GROUP != 0 && !is_trusted_group(meta.gid(), uid, gid) {
        Some(Writers::Group(meta.gid()))
    } else {
        None
    }
}

/// Whether only root and `uid` decide which directory the absolute path leads to: nobody else owns a directory or a link
/// on it, or can rename one.
pub(crate) fn is_private(dir: &Path, uid: u32, gid: u32) -> bool {
    let is_private = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| {
            is_trusted(meta.uid(), uid)
                && (meta.is_symlink() || meta.mode() & STICKY != 0 || other_writers(&meta, uid, gid).is_none())
        })
    };
    // The directories that links are in, and those that they lead to.
    dir.ancestors().all(is_private) && dir.canonicalize().is_ok_and(|target| target.ancestors().all(is_private))
}

/// Whether `owner`, a user id, is root or `uid`, the user who runs etcdproxy.
pub(crate) fn is_trusted(owner: u32, uid: u32) -> bool {
    owner == 0 || owner == uid
}

/// Whether the members of the group `owner` may write what etcdproxy runs or replaces: root's group and, for a user who is
/// not root, the user's own group `gid`. Many systems give each user a group of their own.
pub(crate) fn is_trusted_group(owner: u32, uid: u32, gid: u32) -> bool {
    owner == 0 || uid != 0 && owner == gid
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_path_is_private_if_nobody_else_can_make_it_lead_elsewhere() {
        let top = tempfile::tempdir().unwrap();
        let meta = top.path().metadata().unwrap();
        let (uid, gid) = (meta.uid(), meta.gid());
        let (a, b) = (top.path().join("a"), top.path().join("a/b"));
        fs::create_dir_all(&b).unwrap();
        let link = top.path().join("link");
        symlink("a/b", &link).unwrap();
        for (mode, expected) in [(0o755, true), (0o777, false), (0o1777, true), (0o700, true)] {
            fs::set_permissions(&a, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_private(&b, uid, gid), expected, "{mode:o}");
            assert_eq!(is_private(&link, uid, gid), expected, "a link, {mode:o}");
        }
        assert!(uid == 0 || !is_private(&b, uid + 1, gid), "another owner");
        assert!(!is_private(&top.path().join("missing"), uid, gid));
    }

    #[test]
    fn others_can_write_by_the_permissions_of_all_or_of_a_group() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writers = |mode, gid| {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            other_writers(&file.path().metadata().unwrap(), 1000, gid)
        };
        let gid = file.path().metadata().unwrap().gid();
        assert_eq!((writers(0o644, gid), writers(0o664, gid)), (None, None));
        assert_eq!(writers(0o646, gid), Some(Writers::Everybody));
        let foreign = (gid != 0).then_some(Writers::Group(gid));
        assert_eq!(writers(0o664, gid + 1), foreign, "root's own group may write");
    }

    #[test]
    fn root_and_the_user_are_trusted_and_nobody_else() {
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
        assert!(is_trusted_group(0, 0, 0) && is_trusted_group(0, 1000, 100) && is_trusted_group(100, 1000, 100));
        assert!(!is_trusted_group(50, 0, 50) && !is_trusted_group(50, 1000, 100));
    }
}
