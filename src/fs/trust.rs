//! The owner rule: whatever etcdproxy runs or replaces must belong to root, who can change everything anyway, or to the
//! user who runs etcdproxy.

/// Whether `owner`, a user id, is root or `uid`, the user who runs etcdproxy.
pub(crate) fn is_trusted(owner: u32, uid: u32) -> bool {
    owner == 0 || owner == uid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_user_are_trusted_and_nobody_else() {
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
    }
}
