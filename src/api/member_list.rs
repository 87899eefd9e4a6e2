//! The client URLs in answers that list members.

use super::wire::{Error, Old, Rule, Schema, rewrite};

/// `clientURLs` of `Member`.
static MEMBER: Schema<()> = Schema(&[(4, Rule::Edit(()))]);
/// All answers of the service `Cluster`: `members`, and in that of `MemberAdd` also `member`.
static ANSWER: Schema<()> = Schema(&[(2, Rule::Message(&MEMBER)), (3, Rule::Message(&MEMBER))]);

/// Replaces the client URLs of each member by `url`, and leaves everything else as it is. A member without client URLs
/// has not started yet; it gets none.
///
/// It is for the answers of all methods that [`super::methods::Method::lists_members`]: libraries may follow the list
/// that comes with a change, too.
///
/// # Errors
/// When the answer is malformed, or would be too long.
pub(crate) fn replace_client_urls(answer: &[u8], url: &str) -> Result<Vec<u8>, Error> {
    rewrite(answer, &ANSWER, &|old: Old<'_, ()>| Ok(old.is_first.then_some([url.as_bytes(), b""])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_started_member_has_the_url() {
        // Header; a member with id, name, peer URL, two client URLs and isLearner; one that has not started.
        let answer = b"\x0a\x02\x08\x05\x12\x11\x08\x07\x12\x01a\x1a\x01p\x22\x01x\x22\x02yz\x28\x01\x12\x02\x08\x09";
        let replaced = b"\x0a\x02\x08\x05\x12\x0f\x08\x07\x12\x01a\x1a\x01p\x22\x03u:1\x28\x01\x12\x02\x08\x09";
        assert_eq!(replace_client_urls(answer, "u:1").unwrap(), replaced);
    }

    proptest! {
        #[test]
        fn no_answer_causes_a_panic(answer: Vec<u8>) {
            let _ = replace_client_urls(&answer, "http://localhost:2379");
        }
    }
}
