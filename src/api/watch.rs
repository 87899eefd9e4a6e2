//! The messages of `Watch`: what a client asks, what a member answers, and the parts of new messages.

use std::rc::Rc;

use prost::encoding::decode_varint;

use super::wire::{Malformed, Value, fields, put, put_number};

/// The path of `Watch`.
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The watch id of an answer that belongs to no watcher: a refused watch, or progress of all watchers of a stream.
pub(crate) const NO_ID: i64 = -1;

/// What a message of a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Create(Create),
    /// The watch id.
    Cancel(i64),
    Progress,
    /// etcd ignores it.
    Nothing,
}

/// `WatchCreateRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Create {
    pub spec: Spec,
    /// 0: from now on.
    pub start_revision: i64,
    /// 0: the server chooses.
    pub watch_id: i64,
    pub fragment: bool,
}

/// What a watcher watches: all of its request but the start, the id, and whether large answers come in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Four bytes for the length of what follows; fields of `WatchCreateRequest`; fields of `WatchRequest`. Two
    /// requests that ask for the same have the same bytes, whatever the order of their fields.
    bytes: Rc<[u8]>,
}

impl Request {
    /// # Errors
    /// When the message is not a `WatchRequest`.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found: Option<(u32, Vec<u8>)> = None;
        let mut others = Vec::new();
        for field in fields(message) {
            let field = field?;
            match field.number_and_value() {
                // Of the three, the last one counts. When it comes twice, both are parts of one message.
                (number @ 1..=3, Value::Bytes(content)) => match &mut found {
                    Some((before, rest)) if *before == number => rest.extend_from_slice(content),
                    found => *found = Some((number, content.to_vec())),
                },
                (1..=3, _) => return Err(Malformed),
                _ => others.extend_from_slice(field.raw()),
            }
        }
        match found {
            Some((1, content)) => Ok(Self::Create(Create::decode(&content, &others)?)),
            Some((2, content)) => {
                let mut id = 0;
                for field in fields(&content) {
                    if let (1, value) = field?.number_and_value() {
                        id = number(value)?;
                    }
                }
                Ok(Self::Cancel(id))
            }
            Some(_) => Ok(Self::Progress),
            None => Ok(Self::Nothing),
        }
    }
}

impl Create {
    fn decode(content: &[u8], others: &[u8]) -> Result<Self, Malformed> {
        let (mut key, mut range_end): (&[u8], &[u8]) = (b"", b"");
        let (mut start_revision, mut watch_id, mut fragment) = (0, 0, false);
        let (mut notifies, mut with_previous) = (false, false);
        let mut filters = Vec::new();
        let mut unknown: Vec<u8> = Vec::new();
        for field in fields(content) {
            let field = field?;
            match field.number_and_value() {
                (1, value) => key = bytes(value)?,
                (2, value) => range_end = bytes(value)?,
                (3, value) => start_revision = number(value)?,
                (4, value) => notifies = number(value)? != 0,
                (5, Value::Varint(filter)) => filters.push(filter),
                // Packed.
                (5, value) => {
                    let mut rest = bytes(value)?;
                    while !rest.is_empty() {
                        filters.push(decode_varint(&mut rest).map_err(|_| Malformed)?);
                    }
                }
                (6, value) => with_previous = number(value)? != 0,
                (7, value) => watch_id = number(value)?,
                (8, value) => fragment = number(value)? != 0,
                _ => unknown.extend_from_slice(field.raw()),
            }
        }
        filters.sort_unstable();
        filters.dedup();
        let mut all = vec![0; 4];
        for (number, value) in [(1, key), (2, range_end)] {
            if !value.is_empty() {
                put(number, [value, b""], &mut all);
            }
        }
        put_number(4, notifies.into(), &mut all);
        for filter in filters {
            // A filter may be 0, so it needs its field. A list of bytes is the packed form, which needs no case for it.
            let mut packed = Vec::new();
            prost::encoding::encode_varint(filter, &mut packed);
            put(5, [&packed, b""], &mut all);
        }
        put_number(6, with_previous.into(), &mut all);
        all.extend(unknown);
        let length = u32::try_from(all.len() - 4).map_err(|_| Malformed)?;
        all[..4].copy_from_slice(&length.to_be_bytes());
        all.extend_from_slice(others);
        Ok(Self { spec: Spec { bytes: all.into() }, start_revision, watch_id, fragment })
    }
}

impl Spec {
    /// The same bytes: the same watch.
    pub(crate) fn bytes(&self) -> &Rc<[u8]> {
        &self.bytes
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self.bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        rest.split_at_checked(length).unwrap_or((rest, &[]))
    }

    fn find(&self, wanted: u32) -> Option<Value<'_>> {
        fields(self.parts().0).filter_map(Result::ok).find(|field| field.number == wanted).map(|field| field.value)
    }

    /// The key and the end of the range, as a `RangeRequest` needs them for the same keys.
    pub(crate) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let text = |number| self.find(number).and_then(|value| bytes(value).ok()).unwrap_or_default();
        // An empty key is that of the first key of all, which a `RangeRequest` must name.
        let key = if text(1).is_empty() { b"\0" } else { text(1) };
        (key.to_vec(), text(2).to_vec())
    }

    /// Whether it asks for progress from time to time.
    pub(crate) fn notifies(&self) -> bool {
        self.find(4).is_some()
    }

    /// A `WatchRequest` that creates a watcher. Its large answers come in pieces.
    pub(crate) fn create(&self, start_revision: i64, watch_id: i64) -> Vec<u8> {
        let (inner, outer) = self.parts();
        let mut content = inner.to_vec();
        put_number(3, start_revision.cast_unsigned(), &mut content);
        put_number(7, watch_id.cast_unsigned(), &mut content);
        put_number(8, 1, &mut content);
        let mut message = Vec::with_capacity(content.len() + outer.len() + 8);
        put(1, [&content, b""], &mut message);
        message.extend_from_slice(outer);
        message
    }
}

/// A `WatchRequest` that ends a watcher.
pub(crate) fn cancel(watch_id: i64) -> Vec<u8> {
    let (mut content, mut message) = (Vec::new(), Vec::new());
    put_number(1, watch_id.cast_unsigned(), &mut content);
    put(2, [&content, b""], &mut message);
    message
}

/// A `WatchRequest` that asks for progress.
pub(crate) fn ask_progress() -> Vec<u8> {
    let mut message = Vec::new();
    put(3, [b"", b""], &mut message);
    message
}

/// A `ResponseHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    bytes: Rc<[u8]>,
    pub revision: i64,
}

impl Header {
    /// # Errors
    /// When it is no `ResponseHeader`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self { bytes: bytes.into(), revision: find_number(bytes, 3)? })
    }

    /// The header of an answer that has it as its first field, as all answers of etcd have.
    ///
    /// # Errors
    /// When the message is no such answer.
    pub(crate) fn of(answer: &[u8]) -> Result<Self, Malformed> {
        for field in fields(answer) {
            if let (1, Value::Bytes(header)) = field?.number_and_value() {
                return Self::decode(header);
            }
        }
        Err(Malformed)
    }

    /// The same with another revision.
    pub(crate) fn at(&self, revision: i64) -> Self {
        if revision == self.revision {
            return self.clone();
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() + 10);
        for field in fields(&self.bytes).filter_map(Result::ok).filter(|field| field.number != 3) {
            bytes.extend_from_slice(field.raw());
        }
        put_number(3, revision.cast_unsigned(), &mut bytes);
        Self { bytes: bytes.into(), revision }
    }
}

/// `WatchResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub header: &'a [u8],
    /// The header's.
    pub revision: i64,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a [u8],
    /// The rest of this answer comes with the next one.
    pub fragment: bool,
    pub events: Vec<Event<'a>>,
    /// The fields that we do not know.
    pub others: Vec<u8>,
}

/// An event of a `WatchResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// That of its key.
    pub revision: i64,
    /// The whole field.
    pub raw: &'a [u8],
}

impl<'a> Answer<'a> {
    /// # Errors
    /// When the message is no `WatchResponse`.
    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        for field in fields(message) {
            let field = field?;
            match field.number_and_value() {
                (1, value) => answer.header = bytes(value)?,
                (2, value) => answer.watch_id = number(value)?,
                (3, value) => answer.created = number(value)? != 0,
                (4, value) => answer.canceled = number(value)? != 0,
                (5, value) => answer.compact_revision = number(value)?,
                (6, value) => answer.cancel_reason = bytes(value)?,
                (7, value) => answer.fragment = number(value)? != 0,
                (11, value) => {
                    let revision = mod_revision(bytes(value)?)?;
                    answer.events.push(Event { revision, raw: field.raw() });
                }
                _ => answer.others.extend_from_slice(field.raw()),
            }
        }
        answer.revision = find_number(answer.header, 3)?;
        Ok(answer)
    }

    /// The message without its watch id.
    pub(crate) fn body(&self) -> Vec<u8> {
        let events = self.events.iter().map(|event| event.raw.len()).sum::<usize>();
        let size = self.header.len() + self.cancel_reason.len() + self.others.len() + events + 32;
        let mut out = Vec::with_capacity(size);
        put(1, [self.header, b""], &mut out);
        put_number(3, self.created.into(), &mut out);
        put_number(4, self.canceled.into(), &mut out);
        put_number(5, self.compact_revision.cast_unsigned(), &mut out);
        if !self.cancel_reason.is_empty() {
            put(6, [self.cancel_reason, b""], &mut out);
        }
        put_number(7, self.fragment.into(), &mut out);
        out.extend_from_slice(&self.others);
        for event in &self.events {
            out.extend_from_slice(event.raw);
        }
        out
    }

    /// An answer that has nothing but a header.
    pub(crate) fn new(header: &'a Header) -> Self {
        Self { header: &header.bytes, revision: header.revision, ..Self::default() }
    }
}

/// `mod_revision` of an event's key.
fn mod_revision(event: &[u8]) -> Result<i64, Malformed> {
    let mut revision = None;
    for field in fields(event) {
        if let (2, value) = field?.number_and_value() {
            revision = Some(find_number(bytes(value)?, 3)?);
        }
    }
    revision.ok_or(Malformed)
}

/// The field with this number; 0 when there is none.
fn find_number(message: &[u8], wanted: u32) -> Result<i64, Malformed> {
    let mut found = 0;
    for field in fields(message) {
        let field = field?;
        if field.number == wanted {
            found = number(field.value)?;
        }
    }
    Ok(found)
}

fn number(value: Value<'_>) -> Result<i64, Malformed> {
    match value {
        Value::Varint(value) => Ok(value.cast_signed()),
        _ => Err(Malformed),
    }
}

fn bytes(value: Value<'_>) -> Result<&[u8], Malformed> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Malformed),
    }
}

/// The field `watch_id` of a `WatchResponse`, to be put behind a body.
pub(crate) fn put_watch_id(watch_id: i64, out: &mut Vec<u8>) {
    put_number(2, watch_id.cast_unsigned(), out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn create_of(message: &[u8]) -> Create {
        match Request::decode(message) {
            Ok(Request::Create(create)) => create,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_say_what_they_ask() {
        assert_eq!(Request::decode(b""), Ok(Request::Nothing));
        assert_eq!(Request::decode(b"\x48\x01"), Ok(Request::Nothing));
        assert_eq!(Request::decode(b"\x12\0"), Ok(Request::Cancel(0)));
        assert_eq!(Request::decode(&cancel(-7)), Ok(Request::Cancel(-7)));
        assert_eq!(Request::decode(&ask_progress()), Ok(Request::Progress));
        // Of several, the last one counts.
        assert_eq!(Request::decode(b"\x1a\0\x12\x02\x08\x05"), Ok(Request::Cancel(5)));
        for wrong in [&b"\xff"[..], b"\x08\x01", b"\x0a\x02\x08\x01", b"\x12\x02\x0a\0", b"\x0a\x03\x2a\x01\xff"] {
            assert_eq!(Request::decode(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn the_same_watch_is_recognized_however_it_is_written() {
        // Key, filters (not packed), start, id, previous values; then the other way round, and packed.
        let one = create_of(b"\x0a\x0d\x0a\x01k\x28\x01\x28\0\x18\x07\x38\x03\x30\x01");
        let other = create_of(b"\x0a\x0e\x40\x01\x30\x01\x2a\x03\0\x01\x01\x0a\x01k\x20\0");
        assert_eq!(one.spec, other.spec);
        assert_eq!((one.start_revision, one.watch_id, one.fragment), (7, 3, false));
        assert_eq!((other.start_revision, other.watch_id, other.fragment), (0, 0, true));
        // No previous values, another key, an unknown field inside, and one outside.
        for different in [
            &b"\x0a\x07\x0a\x01k\x28\x01\x28\0"[..],
            b"\x0a\x09\x0a\x01l\x28\x01\x28\0\x30\x01",
            b"\x0a\x0b\x0a\x01k\x28\x01\x28\0\x30\x01\x48\x01",
            b"\x0a\x09\x0a\x01k\x28\x01\x28\0\x30\x01\x48\x01",
        ] {
            assert_ne!(create_of(different).spec, one.spec);
        }
        let again = create_of(&one.spec.create(9, 4));
        let wanted = Create { spec: one.spec, start_revision: 9, watch_id: 4, fragment: true };
        assert_eq!(again, wanted);
    }

    #[test]
    fn a_range_is_that_of_a_read() {
        assert_eq!(create_of(b"\x0a\0").spec.range(), (b"\0".to_vec(), Vec::new()));
        assert_eq!(create_of(b"\x0a\x06\x12\x01z\x0a\x01a").spec.range(), (b"a".to_vec(), b"z".to_vec()));
        assert!(create_of(b"\x0a\x02\x20\x01").spec.notifies() && !create_of(b"\x0a\0").spec.notifies());
    }

    #[test]
    fn a_header_gets_another_revision_and_keeps_the_rest() {
        let header = Header::decode(b"\x08\x07\x10\x08\x18\x0a\x20\x09\x48\x01").unwrap();
        assert_eq!(header.revision, 10);
        assert_eq!(&*header.at(11).bytes, b"\x08\x07\x10\x08\x20\x09\x48\x01\x18\x0b");
        assert_eq!(header.at(10), header);
        assert_eq!(Header::of(b"\x0a\x02\x18\x05\x20\x01").map(|header| header.revision), Ok(5));
        assert!(Header::of(b"").is_err() && Header::of(b"\x0a\x05").is_err());
    }

    #[test]
    fn a_body_has_all_but_the_id() {
        // Header, id, created, canceled, compacted, a reason, a piece, an unknown field, two events.
        let message = b"\x0a\x02\x18\x05\x10\x03\x18\x01\x20\x01\x28\x06\x32\x01x\x38\x01\x48\x02\
            \x5a\x04\x12\x02\x18\x05\x5a\x06\x08\x01\x12\x02\x18\x06";
        let answer = Answer::decode(message).unwrap();
        assert_eq!((answer.watch_id, answer.revision, answer.compact_revision), (3, 5, 6));
        assert_eq!(answer.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [5, 6]);
        let mut body = answer.body();
        let without_id = [&message[..4], &message[6..]].concat();
        assert_eq!(body, without_id);
        put_watch_id(3, &mut body);
        assert_eq!(Answer::decode(&body), Ok(answer));
        // An event without a key is none.
        assert!(Answer::decode(b"\x5a\0").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(message: Vec<u8>) {
            let _ = Answer::decode(&message);
            let _ = Header::of(&message);
            if let Ok(Request::Create(create)) = Request::decode(&message) {
                create.spec.range();
                prop_assert_eq!(create_of(&create.spec.create(0, 0)).spec, create.spec);
            }
        }
    }
}
