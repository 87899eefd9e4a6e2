//! The messages with events. Each is made once, however many clients get it.

use std::rc::Rc;

use crate::api::watch::{Answer, Event};

/// When events take more bytes, a client that asked for pieces gets pieces. etcd's default is 2 MB.
pub(super) const LARGE: usize = 1_572_864;

/// The messages that can be made of the events of one answer.
pub(super) struct Bodies<'a> {
    /// Without events.
    head: Answer<'a>,
    events: &'a [Event<'a>],
    made: Vec<Made>,
}

/// The messages from an event on.
struct Made {
    first: usize,
    in_pieces: bool,
    messages: Vec<Rc<[u8]>>,
}

impl<'a> Bodies<'a> {
    pub(super) fn new(head: Answer<'a>, events: &'a [Event<'a>]) -> Self {
        Self { head, events, made: Vec::new() }
    }

    /// The index of the first event of this revision or a later one.
    pub(super) fn first(&self, revision: i64) -> usize {
        match self.events.first() {
            Some(first) if first.revision >= revision => 0,
            _ => self.events.partition_point(|event| event.revision < revision),
        }
    }

    /// How many events there are from this one on.
    pub(super) fn count(&self, first: usize) -> usize {
        self.events.len() - first
    }

    /// The messages with all events from this one on: one, or several for a client that takes pieces.
    pub(super) fn from(&mut self, first: usize, in_pieces: bool) -> &[Rc<[u8]>] {
        let found = self.made.iter().position(|made| (made.first, made.in_pieces) == (first, in_pieces));
        let index = found.unwrap_or_else(|| {
            let messages = self.make(first, in_pieces);
            self.made.push(Made { first, in_pieces, messages });
            self.made.len() - 1
        });
        &self.made[index].messages
    }

    fn make(&self, first: usize, in_pieces: bool) -> Vec<Rc<[u8]>> {
        let mut rest = &self.events[first..];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let count = if in_pieces { piece(rest) } else { rest.len() };
            let (events, after) = rest.split_at(count);
            rest = after;
            let answer = Answer { events: events.to_vec(), fragment: !rest.is_empty(), ..self.head.clone() };
            messages.push(answer.body().into());
        }
        messages
    }
}

/// How many of these events fit into a piece; at least one.
fn piece(events: &[Event<'_>]) -> usize {
    let mut size = 0;
    let fits = |event: &&Event<'_>| {
        size += event.raw.len();
        size < LARGE
    };
    events.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::watch::Header;

    #[test]
    fn pieces_are_not_larger_than_they_must_be() {
        let raws: Vec<Vec<u8>> = [LARGE / 2, LARGE / 2 - 1, 5, LARGE * 2, 1].map(|size| vec![0; size]).into();
        let events: Vec<_> = raws.iter().zip(1..).map(|(raw, revision)| Event { revision, raw }).collect();
        let header = Header::decode(b"").unwrap();
        let mut bodies = Bodies::new(Answer::new(&header), &events);
        assert_eq!(bodies.from(0, false).len(), 1);
        assert_eq!(bodies.from(0, true).len(), 4);
        assert_eq!(bodies.from(3, true).len(), 2);
        assert_eq!(bodies.first(0), 0);
        assert_eq!(bodies.first(3), 2);
        assert_eq!(bodies.first(9), 5);
    }
}
