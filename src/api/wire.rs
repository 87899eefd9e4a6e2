//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>): reads the fields of a message, and
//! rewrites some of them. All other fields stay as they are, byte for byte and in their order, also those that a later
//! etcd adds.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// How deep messages may be inside of each other: protobuf's own limit in most languages. A transaction in a
/// transaction is two levels deeper.
const MAX_DEPTH: u32 = 100;

/// By how many bytes a rewritten message may be longer than it was. Otherwise a small message of many empty keys would
/// need as much memory as it likes.
const MAX_GROWTH: usize = 4 << 20;

/// A message is not protobuf, or the messages in it are too deep inside of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not valid protobuf")]
pub(crate) struct Malformed;

/// Why a message cannot be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The key of a request is empty. etcd refuses that with the same text.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// The rewritten message would be too long. etcd uses the same text.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// A member answered with a key that is not in the namespace.
    #[error("the answer has a key outside of the namespace")]
    Outside,
}

impl Error {
    /// The code of gRPC (<https://grpc.io/docs/guides/status-codes/>) that the caller gets, with the error's text.
    pub(crate) fn status(self) -> u32 {
        const INVALID_ARGUMENT: u32 = 3;
        const INTERNAL: u32 = 13;
        match self {
            Self::EmptyKey | Self::TooLarge => INVALID_ARGUMENT,
            // As gRPC's own servers do.
            Self::Malformed(_) | Self::Outside => INTERNAL,
        }
    }
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
    raw: &'a [u8],
}

impl<'a> Field<'a> {
    pub(crate) fn number_and_value(self) -> (u32, Value<'a>) {
        (self.number, self.value)
    }

    /// The whole field, with its number.
    pub(crate) fn raw(self) -> &'a [u8] {
        self.raw
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number, a bool or an enum.
    Varint(u64),
    /// Bytes, a string or a message.
    Bytes(&'a [u8]),
    /// No field that etcd has is of another kind.
    Other,
}

/// The fields of a message, in their order. Ends after the first error.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// See [`fields`].
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<Field<'a>> {
        let start = self.rest;
        let (number, wire_type) = decode_key(&mut self.rest).ok()?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut self.rest).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.rest).ok()?).ok()?;
                Value::Bytes(self.rest.split_off(..length)?)
            }
            _ => {
                skip_field(wire_type, number, &mut self.rest, DecodeContext::default()).ok()?;
                Value::Other
            }
        };
        Some(Field { number, value, raw: &start[..start.len() - self.rest.len()] })
    }
}

/// Adds a field of bytes, a string or a message, whose value is given in two parts.
pub(crate) fn put(number: u32, [head, tail]: [&[u8]; 2], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint((head.len() + tail.len()) as u64, out);
    out.extend(head);
    out.extend(tail);
}

/// Adds a field that is a number, a bool or an enum, unless it is 0, which needs no field.
pub(crate) fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// Which fields of a message are rewritten: their numbers and rules. `K` says what such a field is.
pub(crate) struct Schema<K: 'static>(pub &'static [(u32, Rule<K>)]);

/// What happens to a field.
pub(crate) enum Rule<K: 'static> {
    /// It is edited if it is there.
    Edit(K),
    /// The same; and if it is not there, it counts as empty, as everywhere in protobuf.
    EditAlways(K),
    /// It is a message with fields to be rewritten.
    Message(&'static Schema<K>),
}

/// A value to be edited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Old<'a, K> {
    pub what: K,
    pub bytes: &'a [u8],
    /// The first one of its number in its message.
    pub is_first: bool,
}

/// The new value, in two parts; `None` leaves the field out.
pub(crate) type New<'a> = Option<[&'a [u8]; 2]>;

/// Rewrites a message.
///
/// # Errors
/// [`Error::Malformed`], [`Error::TooLarge`], and those of `edit`.
pub(crate) fn rewrite<'a, K: Copy>(
    message: &'a [u8],
    schema: &Schema<K>,
    edit: &dyn Fn(Old<'a, K>) -> Result<New<'a>, Error>,
) -> Result<Vec<u8>, Error> {
    // Room for the usual case: one key, and its end.
    let out = Vec::with_capacity(message.len() + 128);
    let mut rewriter = Rewriter { edit, out, limit: message.len() + MAX_GROWTH };
    rewriter.message(message, schema, MAX_DEPTH)?;
    Ok(rewriter.out)
}

struct Rewriter<'e, 'a, K> {
    edit: &'e dyn Fn(Old<'a, K>) -> Result<New<'a>, Error>,
    out: Vec<u8>,
    limit: usize,
}

impl<'a, K: Copy> Rewriter<'_, 'a, K> {
    fn message(&mut self, message: &'a [u8], schema: &Schema<K>, depth: u32) -> Result<(), Error> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        // A bit for each row of the schema.
        let mut seen = 0_u32;
        for field in fields(message) {
            let field = field?;
            let row = schema.0.iter().position(|(number, _)| *number == field.number);
            let (Some(row), Value::Bytes(bytes)) = (row, field.value) else {
                self.out.extend(field.raw);
                continue;
            };
            let is_first = seen & (1 << row) == 0;
            seen |= 1 << row;
            match &schema.0[row].1 {
                Rule::Edit(what) | Rule::EditAlways(what) => {
                    self.edit(field.number, Old { what: *what, bytes, is_first })?;
                }
                Rule::Message(inner) => {
                    encode_key(field.number, WireType::LengthDelimited, &mut self.out);
                    let start = self.out.len();
                    self.message(bytes, inner, depth)?;
                    self.put_length(start);
                }
            }
        }
        for (row, (number, rule)) in schema.0.iter().enumerate() {
            if let (Rule::EditAlways(what), 0) = (rule, seen & (1 << row)) {
                self.edit(*number, Old { what: *what, bytes: &[], is_first: true })?;
            }
        }
        Ok(())
    }

    fn edit(&mut self, number: u32, old: Old<'a, K>) -> Result<(), Error> {
        let Some([head, tail]) = (self.edit)(old)? else { return Ok(()) };
        if self.out.len() + head.len() + tail.len() > self.limit {
            return Err(Error::TooLarge);
        }
        put(number, [head, tail], &mut self.out);
        Ok(())
    }

    /// Puts the length of a message before it. It is known only when the message is complete.
    fn put_length(&mut self, start: usize) {
        let mut bytes = [0; 10];
        let mut rest = &mut bytes[..];
        encode_varint((self.out.len() - start) as u64, &mut rest);
        let unused = rest.len();
        self.out.splice(start..start, bytes[..bytes.len() - unused].iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static NESTED: Schema<()> = Schema(&[(1, Rule::Message(&NESTED)), (2, Rule::Edit(()))]);

    #[test]
    fn fields_have_numbers_and_values() {
        let message = b"\x08\x96\x01\x12\x02ab\x1d\x01\x02\x03\x04\x23\x28\x01\x24";
        let found: Vec<_> = fields(message).map(|field| field.map(|field| (field.number, field.value))).collect();
        let bytes = Value::Bytes(b"ab");
        assert_eq!(found, [Ok((1, Value::Varint(150))), Ok((2, bytes)), Ok((3, Value::Other)), Ok((4, Value::Other))]);
        for wrong in [&b"\x12\x03ab"[..], b"\x08", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", b"\0\0", b"\x24"] {
            assert_eq!(fields(wrong).last(), Some(Err(Malformed)), "{wrong:?}");
        }
    }

    #[test]
    fn an_edit_changes_its_field_only() {
        let edit = |old: Old<'static, ()>| Ok(old.is_first.then_some([&b"<"[..], old.bytes]));
        // Unknown, to be edited, known with another type, to be left out, a message.
        let message = b"\x1a\x01x\x12\x01a\x10\x05\x12\x01b\x0a\x03\x12\x01c";
        assert_eq!(rewrite(message, &NESTED, &edit), Ok(b"\x1a\x01x\x12\x02<a\x10\x05\x0a\x04\x12\x02<c".to_vec()));
    }

    #[test]
    fn depth_and_length_have_limits() {
        let keep = |old: Old<'static, ()>| Ok(Some([old.bytes, &b""[..]]));
        let nested = |levels| {
            let wrap = |message: Vec<u8>, _| {
                let mut outer = vec![0x0a];
                encode_varint(message.len() as u64, &mut outer);
                [outer, message].concat()
            };
            &*Vec::leak((1..levels).fold(Vec::new(), wrap))
        };
        assert_eq!(rewrite(nested(MAX_DEPTH), &NESTED, &keep).as_deref(), Ok(nested(MAX_DEPTH)));
        assert_eq!(rewrite(nested(MAX_DEPTH + 1), &NESTED, &keep), Err(Malformed.into()));

        let grow = |_: Old<'static, ()>| Ok(Some([&[0; 1024][..], b""]));
        let many = &*Vec::leak(b"\x12\0".repeat(8 * 1024));
        assert_eq!(rewrite(many, &NESTED, &grow), Err(Error::TooLarge));
    }

    proptest! {
        #[test]
        fn nothing_to_edit_leaves_every_message_as_it_is(message: Vec<u8>) {
            let out = rewrite(&message, &Schema::<()>(&[]), &|_| Ok(None));
            prop_assert_eq!(out.is_ok(), fields(&message).all(|field| field.is_ok()));
            prop_assert!(out.map_or(true, |out| out == message));
        }
    }
}
