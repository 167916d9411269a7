//! A sender's table of rows, kept alike at a receiver by what changed since it was acknowledged.
//!
//! Each row has a sum that only the sender understands, a part of a hash of the row with its id; both sides know the total of all sums and the number of rows. A
//! page names the rows that changed, those that are gone, and what total and number the receiver has afterwards. Where they
//! differ (a lost store, a late message, a restoration), the receiver asks for all of it once more: the table heals by
//! itself, and nothing depends on either side's memory.

use std::collections::{BTreeMap, BTreeSet};

/// What a table comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Sum of the rows' sums.
    pub sum: u64,
    /// Rows.
    pub count: u64,
}

/// Where a page stands in a full synchronization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Changes only.
    Changes,
    /// The first page of all rows.
    First,
    /// One between.
    More,
    /// The last one: what was not named since the first page is gone.
    Last,
    /// The first one and the last.
    Only,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 5] = [Part::Changes, Part::First, Part::More, Part::Last, Part::Only];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Part::Changes => "changes",
            Part::First => "first",
            Part::More => "more",
            Part::Last => "last",
            Part::Only => "only",
        }
    }

    fn begins(self) -> bool {
        matches!(self, Part::First | Part::Only)
    }

    fn ends(self) -> bool {
        matches!(self, Part::Last | Part::Only)
    }
}

/// Rows by id, with their sums.
#[derive(Clone, Debug, Default)]
struct Rows {
    sums: BTreeMap<String, u64>,
    total: u64,
}

impl Rows {
    fn put(&mut self, id: &str, sum: Option<u64>) {
        let before = match sum {
            Some(sum) => self.sums.insert(id.to_string(), sum),
            None => self.sums.remove(id),
        };
        self.total = self.total.wrapping_sub(before.unwrap_or(0)).wrapping_add(sum.unwrap_or(0));
    }

    fn total(&self) -> Total {
        Total { sum: self.total, count: self.sums.len() as u64 }
    }
}

/// The sender's side.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// What the receiver holds, as far as is known.
    there: Rows,
    /// Ids to be looked at again.
    changed: BTreeSet<String>,
    /// In a full synchronization: the last id sent.
    full: Option<Option<String>>,
    wants_full: bool,
}

/// What the next page is about; the sender renders these rows as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Where it stands.
    pub part: Part,
    /// Rows to name; one that is not there any more is named as gone.
    pub ids: Vec<String>,
}

impl Sender {
    /// One whose receiver is believed to hold these rows; the first page shows whether it does.
    pub fn believing(rows: impl IntoIterator<Item = (String, u64)>) -> Sender {
        let mut sender = Sender::default();
        rows.into_iter().for_each(|(id, sum)| sender.there.put(&id, Some(sum)));
        sender
    }

    /// A row is to be looked at again.
    pub fn touch(&mut self, id: String) {
        self.changed.insert(id);
    }

    /// The receiver asked for everything.
    pub fn restart(&mut self) {
        (self.wants_full, self.full) = (true, None);
    }

    /// Whether there is something to say.
    pub fn is_pending(&self) -> bool {
        self.wants_full || self.full.is_some() || !self.changed.is_empty()
    }

    /// What the next page is about. `all`: every id after this one, in order.
    pub fn pick<'a, I: Iterator<Item = &'a String>>(&self, most: usize, all: impl FnOnce(Option<&str>) -> I) -> Pick {
        if !self.wants_full && self.full.is_none() {
            return Pick { part: Part::Changes, ids: self.changed.iter().take(most).cloned().collect() };
        }
        let after = self.full.as_ref().and_then(|after| after.as_deref());
        let mut ids: Vec<String> = all(after).take(most + 1).cloned().collect();
        let rest = ids.len() > most;
        ids.truncate(most);
        let part = match (self.full.is_none(), rest) {
            (true, true) => Part::First,
            (true, false) => Part::Only,
            (false, true) => Part::More,
            (false, false) => Part::Last,
        };
        Pick { part, ids }
    }

    /// What the receiver has once it took this page. `rows`: sum by id, `None` = gone.
    pub fn total_with(&self, part: Part, rows: &[(String, Option<u64>)]) -> Total {
        let before = if part.begins() { Rows::default() } else { self.there.clone_if(rows) };
        let mut total = if part.begins() { Total::default() } else { self.there.total() };
        for (id, sum) in rows {
            let was = before.sums.get(id);
            total.sum = total.sum.wrapping_sub(*was.unwrap_or(&0)).wrapping_add(sum.unwrap_or(0));
            total.count = total.count + u64::from(sum.is_some()) - u64::from(was.is_some());
        }
        total
    }

    /// The receiver took the page. `touched_since`: ids that changed between the page and the answer are looked at again.
    pub fn acknowledged(&mut self, part: Part, rows: &[(String, Option<u64>)]) {
        if part.begins() {
            self.there = Rows::default();
        }
        for (id, sum) in rows {
            self.there.put(id, *sum);
            self.changed.remove(id);
        }
        if part != Part::Changes {
            self.wants_full = false;
            self.full = (!part.ends()).then(|| rows.last().map(|(id, _)| id.clone()));
        }
    }
}

impl Rows {
    /// Only the named rows: a page's total needs no more.
    fn clone_if(&self, rows: &[(String, Option<u64>)]) -> Rows {
        let sums = rows.iter().filter_map(|(id, _)| Some((id.clone(), *self.sums.get(id)?))).collect();
        Rows { sums, total: 0 }
    }
}

/// The receiver's side.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    rows: Rows,
    /// In a full synchronization: what was named so far.
    named: Option<BTreeSet<String>>,
}

/// What a page did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows to remove: named as gone, or not named in a full synchronization.
    pub gone: Vec<String>,
    /// Rows that found no place.
    pub refused: Vec<String>,
    /// The table is not the sender's: all of it is wanted again.
    pub wants_full: bool,
}

impl Receiver {
    /// One that holds these rows.
    pub fn holding(rows: impl IntoIterator<Item = (String, u64)>) -> Receiver {
        let mut receiver = Receiver::default();
        rows.into_iter().for_each(|(id, sum)| receiver.rows.put(&id, Some(sum)));
        receiver
    }

    /// Rows held.
    pub fn count(&self) -> usize {
        self.rows.sums.len()
    }

    /// Whether a row is held.
    pub fn holds(&self, id: &str) -> bool {
        self.rows.sums.contains_key(id)
    }

    /// Takes a page. `most`: rows that one sender may have.
    pub fn apply(&mut self, part: Part, rows: &[(String, Option<u64>)], said: Total, most: usize) -> Applied {
        let mut out = Applied::default();
        if part.begins() {
            self.named = Some(BTreeSet::new());
        } else if part == Part::Changes {
            // The sender died in the middle of a full synchronization, and begins with what it believes.
            self.named = None;
        } else if self.named.is_none() {
            // The beginning was lost with a restart of this side.
            return Applied { wants_full: true, ..out };
        }
        for (id, sum) in rows {
            if sum.is_some() && !self.holds(id) && self.count() >= most {
                out.refused.push(id.clone());
                continue;
            }
            if sum.is_none() && self.holds(id) {
                out.gone.push(id.clone());
            }
            self.rows.put(id, *sum);
            if let (Some(named), Some(_)) = (&mut self.named, sum) {
                named.insert(id.clone());
            }
        }
        if part.ends()
            && let Some(named) = self.named.take()
        {
            let left: Vec<String> = self.rows.sums.keys().filter(|id| !named.contains(*id)).cloned().collect();
            left.iter().for_each(|id| self.rows.put(id, None));
            out.gone.extend(left);
        }
        // In the middle of it the totals say nothing; and what found no place is no reason to begin again.
        out.wants_full = self.named.is_none() && self.rows.total() != said && out.refused.is_empty() && self.count() < most;
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A part that comes late.
    type Late = (Part, Vec<(String, Option<u64>)>, Total);

    /// Both sides, and the sender's true table.
    struct World {
        table: BTreeMap<String, u64>,
        sender: Sender,
        receiver: Receiver,
        late: Vec<Late>,
    }

    impl World {
        fn new() -> World {
            World { table: BTreeMap::new(), sender: Sender::default(), receiver: Receiver::default(), late: Vec::new() }
        }

        fn page(&self) -> (Part, Vec<(String, Option<u64>)>, Total) {
            let table = &self.table;
            let pick = self.sender.pick(3, |after| {
                let after = after.map(String::from);
                table.keys().filter(move |id| after.as_ref().is_none_or(|a| *id > a))
            });
            let rows: Vec<_> = pick.ids.iter().map(|id| (id.clone(), table.get(id).copied())).collect();
            let total = self.sender.total_with(pick.part, &rows);
            (pick.part, rows, total)
        }

        fn exchange(&mut self) {
            let (part, rows, total) = self.page();
            let wants = self.receiver.apply(part, &rows, total, 1_000).wants_full;
            self.sender.acknowledged(part, &rows);
            if wants {
                self.sender.restart();
            }
        }
    }

    proptest! {
        #[test]
        fn the_two_tables_become_alike(steps in prop::collection::vec((0u8..9, 0u8..12, any::<u64>()), 0..120)) {
            let mut world = World::new();
            for (what, id, sum) in steps {
                let id = format!("a{id:02}");
                let hash = crate::core::hex::sha256(format!("{id} {}", sum % 8).as_bytes());
                let sum = u64::from_le_bytes(hash[..8].try_into().unwrap());
                match what {
                    0..=2 => { world.table.insert(id.clone(), sum); world.sender.touch(id); }
                    3 => { world.table.remove(&id); world.sender.touch(id); }
                    4 => world.exchange(),
                    // The answer is lost; the page comes again, late; either side dies.
                    5 => {
                        let (part, rows, total) = world.page();
                        world.receiver.apply(part, &rows, total, 1_000);
                        world.late.push((part, rows, total));
                    }
                    6 => if let Some((part, rows, total)) = world.late.pop() {
                        world.receiver.apply(part, &rows, total, 1_000);
                    },
                    7 => world.sender = Sender::believing(world.table.clone()),
                    _ => world.receiver = Receiver::holding(world.receiver.rows.sums.clone()),
                }
            }
            for _ in 0..40 {
                world.exchange();
            }
            prop_assert_eq!(&world.receiver.rows.sums, &world.table);
            prop_assert!(!world.sender.is_pending());
        }
    }

    #[test]
    fn nobody_takes_more_places_than_one_may_have() {
        let mut receiver = Receiver::default();
        let rows: Vec<(String, Option<u64>)> = (0..5).map(|n| (format!("a{n}"), Some(n))).collect();
        let done = receiver.apply(Part::Only, &rows, Total { sum: 10, count: 5 }, 3);
        assert_eq!((receiver.count(), done.refused.len(), done.wants_full), (3, 2, false));
        // A place that became free is taken.
        let done = receiver.apply(Part::Changes, &[("a0".into(), None), ("a4".into(), Some(4))], Total::default(), 3);
        assert_eq!((done.gone, done.refused), (vec!["a0".to_string()], vec![]));
    }

    #[test]
    fn a_restart_with_the_same_rows_sends_none() {
        let rows = || (0..50).map(|n| (format!("a{n}"), n));
        let (sender, mut receiver) = (Sender::believing(rows()), Receiver::holding(rows()));
        let pick = sender.pick(10, |_| [].iter());
        assert_eq!(pick, Pick { part: Part::Changes, ids: vec![] });
        assert_eq!(receiver.apply(Part::Changes, &[], sender.total_with(Part::Changes, &[]), 100), Applied::default());
        let other = Sender::believing(rows().skip(1));
        assert!(receiver.apply(Part::Changes, &[], other.total_with(Part::Changes, &[]), 100).wants_full);
    }
}
