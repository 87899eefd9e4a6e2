//! Spoils what a stream has really heard, to see that the verdict notices.

use std::collections::BTreeMap;

use super::moments::Moment;
use crate::attack::Random;

/// The same stream with one event lost, doubled or in the place of the one before it; and what was done. `None` when no
/// watch that lives has heard enough up to the revision `end`.
pub(super) fn spoil(moments: &[Moment], end: i64, random: &mut Random) -> Option<(String, Vec<Moment>)> {
    let places = events_of_the_living(moments, end);
    let lists: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    if lists.is_empty() {
        return None;
    }
    let (id, places) = &lists[random.below(lists.len())];
    // Not the first one: nobody knows exactly where a watch of what is new begins.
    let which = 1 + random.below(places.len() - 1);
    let (before, (moment, place)) = (places[which - 1], places[which]);
    let mut moments = moments.to_vec();
    let event = events(&mut moments, moment)[place].clone();
    let text = event.short();
    let what = match random.below(3) {
        0 => {
            events(&mut moments, moment).remove(place);
            if events(&mut moments, moment).is_empty() {
                moments.remove(moment);
            }
            "lost"
        }
        1 => {
            events(&mut moments, moment).insert(place, event);
            "doubled"
        }
        _ => {
            let other = std::mem::replace(&mut events(&mut moments, before.0)[before.1], event);
            events(&mut moments, moment)[place] = other;
            "too early"
        }
    };
    Some((format!("id {id}, event {which}: {what}: {text}"), moments))
}

fn events(moments: &mut [Moment], place: usize) -> &mut Vec<super::messages::Event> {
    let Moment::Heard { response, .. } = &mut moments[place] else { unreachable!("only responses have events") };
    &mut response.events
}

/// For each watch that nobody has canceled, the places of its events: the moment, and which event of its response.
fn events_of_the_living(moments: &[Moment], end: i64) -> BTreeMap<i64, Vec<(usize, usize)>> {
    let mut living: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
    for (moment, what) in moments.iter().enumerate() {
        match what {
            Moment::Ended(_) | Moment::GiveUp => return BTreeMap::new(),
            Moment::Cancel(id) => {
                living.remove(id);
            }
            Moment::Heard { response, .. } if response.canceled => {
                living.remove(&response.watch_id);
            }
            Moment::Heard { response, .. } if response.created => {
                living.insert(response.watch_id, Vec::new());
            }
            Moment::Heard { response, .. } => {
                let Some(places) = living.get_mut(&response.watch_id) else { continue };
                let known = response.events.iter().enumerate().filter(|(_, event)| event.revision() <= end);
                places.extend(known.map(|(place, _)| (moment, place)));
            }
            _ => {}
        }
    }
    living
}
