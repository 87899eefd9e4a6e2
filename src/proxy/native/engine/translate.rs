//! Changes messages on their way: the keys of a namespace, and the addresses in lists of members.

use std::rc::Rc;

use crate::api::member_list::replace_client_urls;
use crate::api::methods::{Method, Namespaced};
use crate::api::namespace::{Key, Namespace};
use crate::api::wire::{Error, Malformed, Schema};

use super::head::{Request, status};
use super::message::take_messages;

/// The longest message that is changed, in bytes. etcd's own limit for requests is 1.5 MB.
const LONGEST: usize = 64 * 1024 * 1024;

/// What is changed for all calls.
#[derive(Debug, Default)]
pub(in crate::proxy::native) struct Rules {
    pub namespace: Option<Namespace>,
    /// Calls that see or change more than the namespace are allowed.
    pub is_admin: bool,
    /// What lists of members say instead of the members' own client URLs.
    pub member_url: Option<String>,
}

/// Why a call is not forwarded, or not any further: gRPC's status, and a message for the client.
pub(super) type Refused = (u32, String);

fn beyond() -> Refused {
    (status::PERMISSION_DENIED, "etcdproxy: this call reaches beyond the namespace".to_owned())
}

/// The message is not what it should be.
pub(super) fn malformed() -> Refused {
    (status::INTERNAL, "grpc: failed to unmarshal the received message: it is not valid protobuf".to_owned())
}

/// As etcd says it, where etcd says it.
fn refused(err: Error) -> Refused {
    (err.status(), err.to_string())
}

/// What is changed in the messages of one call.
pub(super) struct Translation {
    rules: Rc<Rules>,
    keys: Option<(&'static Schema<Key>, &'static Schema<Key>)>,
    /// What each message of the request must pass before it goes on.
    must_only_read: Option<&'static Method>,
    lists_members: bool,
    /// Beginnings of messages.
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Translation {
    /// `None` when nothing is changed.
    ///
    /// # Errors
    /// When the call is not allowed.
    pub(super) fn of(rules: &Rc<Rules>, request: &Request) -> Result<Option<Box<Self>>, Refused> {
        let lists_members = rules.member_url.is_some() && request.method.is_some_and(Method::lists_members);
        let (mut keys, mut must_only_read) = (None, None);
        if rules.namespace.is_some() {
            match request.method.map(|method| (method, method.namespaced)) {
                Some((_, Namespaced::Rewrite { request, answer })) => keys = Some((request, answer)),
                Some((_, Namespaced::Pass)) => {}
                _ if rules.is_admin => {}
                Some((method, Namespaced::PassIfReadOnly)) => must_only_read = Some(method),
                Some((_, Namespaced::Refuse)) | None => return Err(beyond()),
            }
        }
        let is_bound = keys.is_some() || must_only_read.is_some();
        if !is_bound && (!lists_members || request.is_compressed) {
            return Ok(None);
        }
        if request.is_compressed {
            let why = "etcdproxy: compressed messages cannot be changed: send them without compression";
            return Err((status::UNIMPLEMENTED, why.to_owned()));
        }
        let rules = Rc::clone(rules);
        Ok(Some(Box::new(Self { rules, keys, must_only_read, lists_members, request: Vec::new(), answer: Vec::new() })))
    }

    /// What the member gets for these bytes of the request.
    pub(super) fn request(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let (rules, keys, must_only_read) = (&self.rules, self.keys, self.must_only_read);
        messages(&mut self.request, bytes, |message| {
            if must_only_read.is_some_and(|method| !method.is_read_only(message)) {
                return Err(beyond());
            }
            match (&rules.namespace, keys) {
                (Some(namespace), Some((schema, _))) => namespace.put_on(schema, message).map(Some).map_err(refused),
                _ => Ok(None),
            }
        })
    }

    /// What the client gets for these bytes of the answer.
    pub(super) fn answer(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let (rules, keys, lists_members) = (&self.rules, self.keys, self.lists_members);
        messages(&mut self.answer, bytes, |message| {
            let changed = match (&rules.namespace, keys, &rules.member_url) {
                (Some(namespace), Some((_, schema)), _) => namespace.take_off(schema, message),
                (_, _, Some(url)) if lists_members => replace_client_urls(message, url),
                _ => return Ok(None),
            };
            changed.map(Some).map_err(refused)
        })
    }

    /// Bytes of messages that are not complete.
    pub(super) fn memory(&self) -> usize {
        self.request.len() + self.answer.len()
    }

    /// The answer will come from another member.
    pub(super) fn forget_answer(&mut self) {
        self.answer = Vec::new();
    }
}

/// Changes the messages that are complete with these bytes; the beginning of the next one stays in `rest`.
fn messages(
    rest: &mut Vec<u8>,
    bytes: &[u8],
    mut change: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, Refused>,
) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::new();
    let unreadable = |_| refused(Malformed.into());
    take_messages(rest, bytes, LONGEST, unreadable, |message| {
        let changed = change(message)?;
        let message = changed.as_deref().unwrap_or(message);
        out.push(0);
        out.extend(u32::try_from(message.len()).map_err(|_| refused(Error::TooLarge))?.to_be_bytes());
        out.extend_from_slice(message);
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client that compresses everything must not lose a call that etcd answers.
    #[test]
    fn a_compressed_call_is_refused_only_within_a_namespace() {
        let path = b"/etcdserverpb.Cluster/MemberList";
        let request = |is_compressed| Request {
            method: Method::find(path),
            first: Vec::new(),
            rest: Vec::new(),
            timeout: None,
            token: None,
            is_compressed,
            refused: None,
        };
        let rules = Rc::new(Rules { member_url: Some("http://127.0.0.1:2379".to_owned()), ..Rules::default() });
        assert!(matches!(Translation::of(&rules, &request(false)), Ok(Some(_))));
        assert!(matches!(Translation::of(&rules, &request(true)), Ok(None)));
        let put = Request { method: Method::find(b"/etcdserverpb.KV/Put"), ..request(true) };
        assert!(matches!(Translation::of(&rules, &put), Ok(None)));
        let rules = Rc::new(Rules { namespace: Some(Namespace::new("app/")), ..Rules::default() });
        assert!(matches!(Translation::of(&rules, &put), Err((status::UNIMPLEMENTED, _))));
    }

    proptest! {
        /// However the bytes of messages are split, the same messages come out.
        #[test]
        fn messages_are_found_in_any_pieces(all: Vec<Vec<u8>>, piece in 1..40_usize) {
            let bytes: Vec<u8> = all
                .iter()
                .flat_map(|message| [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat())
                .collect();
            let (mut rest, mut out, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                let changed = messages(&mut rest, piece, |message| {
                    seen.push(message.to_vec());
                    Ok(None)
                });
                out.extend(changed.unwrap());
            }
            prop_assert_eq!((out, seen, rest.len()), (bytes, all, 0));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = messages(&mut Vec::new(), &bytes, |_| Ok(None));
        }
    }
}
