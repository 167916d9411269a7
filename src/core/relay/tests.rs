use proptest::prelude::*;

use super::*;

fn at(stream: &str, next: u64, last: &str) -> Position {
    Position { stream: stream.into(), next, last: last.into() }
}

#[test]
fn only_what_begins_where_the_receiver_stands_is_taken() {
    let have = at("s", 10, "d9");
    let head = |first, count| Head { stream: "s", first, count, previous: None, lost_from: None };
    let take = Merge::Take { gap: None, anew: false };
    assert_eq!(merge(&have, &[], &head(10, 5)), take);
    for (first, count) in [(0, 10), (9, 1), (9, 5), (11, 5), (0, 0), (u64::MAX, 1)] {
        assert_eq!(merge(&have, &[], &head(first, count)), Merge::Nothing, "{first} {count}");
    }
    // The sender says that the rest is gone, and from exactly where.
    let lost = |from| Head { lost_from: Some(from), ..head(20, 5) };
    assert_eq!(merge(&have, &[], &lost(10)), Merge::Take { gap: Some((10, 20)), anew: false });
    assert_eq!((merge(&have, &[], &lost(9)), merge(&have, &[], &lost(11))), (Merge::Nothing, Merge::Nothing));
    // Another history under the same name.
    assert_eq!(merge(&have, &[], &Head { previous: Some("other"), ..head(10, 5) }), Merge::Nothing);
    assert_eq!(merge(&have, &[], &Head { previous: Some("d9"), ..head(10, 5) }), take);
}

#[test]
fn a_new_stream_is_taken_once_and_a_former_one_never_again() {
    let head = Head { stream: "new", first: 7, count: 2, previous: None, lost_from: None };
    assert_eq!(merge(&at("old", 10, "x"), &[], &head), Merge::Take { gap: None, anew: true });
    assert_eq!(merge(&at("old", 10, "x"), &["new".into()], &head), Merge::Nothing);
    // Whoever knows nothing at all (a lost store) wants what there is from the beginning on.
    assert_eq!(merge(&Position::default(), &[], &head), Merge::Nothing);
    assert_eq!(merge(&Position::default(), &[], &Head { first: 0, ..head.clone() }), Merge::Take { gap: None, anew: false });
    let rest = Head { lost_from: Some(0), ..head };
    assert_eq!(merge(&Position::default(), &[], &rest), Merge::Take { gap: Some((0, 7)), anew: false });
}

#[test]
fn a_sender_goes_on_goes_back_or_forks() {
    assert_eq!(follow("s", 10, &at("s", 10, "d"), Some("d")), Follow::From(10));
    assert_eq!(follow("s", 10, &at("s", 4, "d"), Some("d")), Follow::From(4), "the receiver was restored");
    assert_eq!(follow("s", 10, &at("s", 4, "d"), None), Follow::From(4), "too old to compare");
    assert_eq!(follow("s", 10, &at("", 0, ""), None), Follow::From(0), "it lost everything");
    assert_eq!(follow("s", 10, &at("s", 4, "e"), Some("d")), Follow::Fork);
    assert_eq!(follow("s", 10, &at("s", 11, "d"), None), Follow::Fork, "the sender was restored");
    assert_eq!(follow("s", 10, &at("t", 4, "d"), Some("d")), Follow::Fork);
}

/// A sender, a receiver and the messages between them, which a test loses, doubles and delays.
#[derive(Default)]
struct World {
    /// The sender's kept events: sequence and text; retention cuts the beginning.
    log: Vec<(u64, u64)>,
    next: u64,
    stream: u64,
    cursor: u64,
    taken: Vec<u64>,
    gaps: Vec<(u64, u64)>,
    have: Position,
    former: Vec<String>,
    anew: usize,
}

type Message = (String, u64, Vec<(u64, u64)>, Option<String>, Option<u64>);

impl World {
    fn digest(&self, seq: u64) -> Option<String> {
        self.log.iter().find(|(s, _)| *s == seq).map(|(_, text)| text.to_string())
    }

    fn message(&self, most: usize) -> Message {
        let first = self.log.iter().map(|(s, _)| *s).find(|s| *s >= self.cursor).unwrap_or(self.next);
        let events: Vec<(u64, u64)> = self.log.iter().filter(|(s, _)| *s >= first).take(most).copied().collect();
        let previous = first.checked_sub(1).and_then(|seq| self.digest(seq));
        (self.stream.to_string() + "s", first, events, previous, (first > self.cursor).then_some(self.cursor))
    }

    fn receive(&mut self, (stream, first, events, previous, lost_from): &Message) -> Position {
        let head = Head { stream, first: *first, count: events.len() as u64, previous: previous.as_deref(), lost_from: *lost_from };
        if let Merge::Take { gap, anew } = merge(&self.have, &self.former, &head) {
            if anew {
                self.former.push(std::mem::take(&mut self.have.stream));
                self.anew += 1;
            }
            self.gaps.extend(gap);
            self.taken.extend(events.iter().map(|(_, text)| *text));
            self.have = after(&head, &events.last().map(|(_, text)| text.to_string()).unwrap_or_default());
        }
        self.have.clone()
    }

    fn hear(&mut self, said: &Position) {
        let digest = said.next.checked_sub(1).and_then(|seq| self.digest(seq));
        match follow(&(self.stream.to_string() + "s"), self.next, said, digest.as_deref()) {
            Follow::From(next) => self.cursor = next,
            Follow::Fork => self.stream += 1,
        }
    }
}

proptest! {
    /// Whatever happens on the way: order is kept, nothing is there twice, and what is missing is told.
    #[test]
    fn every_event_arrives_once_and_in_order_or_is_told_as_a_gap(steps in prop::collection::vec((0u8..8, 0usize..40), 1..200)) {
        let mut world = World::default();
        let mut air: Vec<Message> = Vec::new();
        for (what, n) in steps {
            match what {
                // Something happens at the sender; its retention removes the oldest; it dies and knows an older cursor.
                0 | 1 => for _ in 0..=n % 5 {
                    world.log.push((world.next, world.next * 1_000));
                    world.next += 1;
                },
                2 => drop(world.log.drain(..(n % 4).min(world.log.len()))),
                3 => world.cursor = world.cursor.saturating_sub(n as u64 % 7),
                // A message is answered, loses its answer, is delayed, or one from long ago arrives, again or late.
                4 => {
                    let message = world.message(1 + n % 6);
                    let said = world.receive(&message);
                    world.hear(&said);
                    air.push(message);
                }
                5 => {
                    let message = world.message(1 + n % 6);
                    world.receive(&message);
                    air.push(message);
                }
                6 => air.push(world.message(1 + n % 6)),
                _ => if !air.is_empty() {
                    let message = air[n % air.len()].clone();
                    world.receive(&message);
                },
            }
        }
        // Then it is calm, and a few rounds bring the rest.
        for _ in 0..world.log.len() + 3 {
            let message = world.message(6);
            let said = world.receive(&message);
            world.hear(&said);
        }
        prop_assert_eq!(world.anew, 0, "nobody was restored");
        prop_assert!(world.taken.windows(2).all(|pair| pair[0] < pair[1]), "order and once: {:?}", world.taken);
        prop_assert_eq!(world.have.next, world.next, "all of it");
        for seq in 0..world.next {
            let told = world.gaps.iter().any(|(from, to)| (*from..*to).contains(&seq));
            prop_assert!(told != world.taken.contains(&(seq * 1_000)), "event {} is there or told as missing", seq);
        }
    }

    /// A sender that was restored from a backup: what it made since arrives, and the receiver is told.
    #[test]
    fn after_a_restoration_nothing_new_is_lost(before in 1u64..30, kept in 0u64..30, acked in 0u64..30, since in 0u64..60, lost_receiver: bool) {
        let (kept, mut world) = (kept.min(before), World::default());
        world.log = (0..before).map(|seq| (seq, seq * 1_000)).collect();
        world.next = before;
        for _ in 0..before {
            let message = world.message(6);
            let said = world.receive(&message);
            world.hear(&said);
        }
        prop_assert_eq!(world.have.next, before);
        world.log.truncate(kept as usize);
        world.log.extend((0..since).map(|n| (kept + n, (kept + n) * 1_000 + 1)));
        (world.next, world.cursor) = (kept + since, acked.min(kept));
        if lost_receiver {
            (world.have, world.former) = (Position::default(), Vec::new());
        }
        for _ in 0..100 {
            let message = world.message(6);
            let said = world.receive(&message);
            world.hear(&said);
        }
        let new: Vec<u64> = (0..since).map(|n| (kept + n) * 1_000 + 1).collect();
        prop_assert!(world.taken.ends_with(&new), "{:?} lacks {:?}", world.taken, new);
        prop_assert_eq!(world.anew, usize::from(!lost_receiver && before > kept), "forked once, if anything was lost");
    }
}
