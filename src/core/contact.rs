//! Whether an authority can be reached, told once when it is lost and once when it is back.

use super::reason::Reason;

/// Failures in a row before it counts as lost: a restart of the other side costs one or two.
pub const LOST_AFTER: u32 = 3;

/// How it stands with one authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Failures in a row.
    pub failures: u32,
    /// When the first of them was; absent = it answered last.
    pub since: Option<u64>,
    /// Code of the loss that was told.
    pub told: Option<String>,
}

/// What is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It cannot be reached, or turns us down, since then.
    Lost {
        /// Seconds since 1970.
        since: u64,
    },
    /// It answers again; it was away since then.
    Back {
        /// Seconds since 1970.
        since: u64,
    },
}

impl Contact {
    /// One that was lost and told as lost by an earlier process.
    pub fn lost(since: u64, code: String) -> Contact {
        Contact { failures: LOST_AFTER, since: Some(since), told: Some(code) }
    }

    /// A try failed.
    pub fn failed(&mut self, why: &Reason, now: u64) -> Option<Word> {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        if self.failures < LOST_AFTER || self.told.is_some() {
            return None;
        }
        self.told = Some(why.code.to_string());
        Some(Word::Lost { since })
    }

    /// It answered.
    pub fn answered(&mut self) -> Option<Word> {
        let before = std::mem::take(self);
        before.told.and(before.since).map(|since| Word::Back { since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_a_week_is_told_once_and_a_hiccup_never() {
        let why = Reason::new("unreachable", "no route");
        let mut contact = Contact::default();
        assert_eq!((contact.failed(&why, 100), contact.failed(&why, 101), contact.answered()), (None, None, None));
        let told: Vec<Word> = (0..20_000).filter_map(|n| contact.failed(&why, 200 + n * 30)).collect();
        assert_eq!(told, [Word::Lost { since: 200 }]);
        // Another process goes on where this one was.
        let mut contact = Contact::lost(200, "unreachable".into());
        assert_eq!(contact.failed(&why, 700_000), None);
        assert_eq!((contact.answered(), contact.answered()), (Some(Word::Back { since: 200 }), None));
    }
}
