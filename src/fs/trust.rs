//! The owner rule: whatever etcdproxy runs or replaces must belong to root, who can change everything anyway, or to the
//! user who runs etcdproxy.

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
    use super::*;

    #[test]
    fn root_and_the_user_are_trusted_and_nobody_else() {
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
        assert!(is_trusted_group(0, 0, 0) && is_trusted_group(0, 1000, 100) && is_trusted_group(100, 1000, 100));
        assert!(!is_trusted_group(50, 0, 50) && !is_trusted_group(50, 1000, 100));
    }
}
