//! The messages of `LeaseKeepAlive`.

use super::wire::{Malformed, Value, fields, put_number};

/// The path of `LeaseKeepAlive`.
pub(crate) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// The lease that a `LeaseKeepAliveRequest` names.
pub(crate) fn id_of_request(message: &[u8]) -> Result<i64, Malformed> {
    id(message, 1)
}

/// The lease that a `LeaseKeepAliveResponse` is about.
pub(crate) fn id_of_answer(message: &[u8]) -> Result<i64, Malformed> {
    id(message, 2)
}

/// A `LeaseKeepAliveRequest`.
pub(crate) fn keep_alive(id: i64) -> Vec<u8> {
    with_id(1, id)
}

/// A message that has this id as its only field.
pub(crate) fn with_id(number: u32, id: i64) -> Vec<u8> {
    let mut message = Vec::new();
    put_number(number, id.cast_unsigned(), &mut message);
    message
}

fn id(message: &[u8], number: u32) -> Result<i64, Malformed> {
    let mut id = 0;
    for field in fields(message) {
        let field = field?;
        if let (true, Value::Varint(value)) = (field.number == number, field.value) {
            id = value.cast_signed();
        }
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_sign() {
        for lease in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(id_of_request(&keep_alive(lease)), Ok(lease));
            assert_eq!(id_of_answer(&with_id(2, lease)), Ok(lease));
        }
        assert_eq!(id_of_request(b""), Ok(0));
        assert_eq!(id_of_request(b"\x08"), Err(Malformed));
    }
}
