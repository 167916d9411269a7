//! One ordered stream of events from a sender's disk to a receiver's, over messages that may be lost, doubled, late or
//! overtaken, and over either side's restoration from a backup.
//!
//! The receiver says where it is: the stream, the next sequence it wants, and the digest that the sender gave to the event
//! before that. It takes a batch only if it begins exactly there; everything else changes nothing and is answered with the
//! same words. The sender has the last word on what to do about it ([`follow`]): go on, go back, or, when the two cannot be
//! of one history (a store was restored), begin a stream of a new name. Events that the sender's retention removed
//! before they could be sent are named by it, and become a gap that is told, never silence.

/// Former streams of one sender that are remembered, so that a late message of one is not taken for a new one.
pub const FORMER_MAX: usize = 8;

/// How far a receiver is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Name of the stream; empty = nothing was ever taken.
    pub stream: String,
    /// The next sequence that it takes.
    pub next: u64,
    /// The sender's digest of the event before; empty = there is none, or it is not known.
    pub last: String,
}

/// What a batch says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Sequence of its first event; with none, the next one that there will be.
    pub first: u64,
    /// How many events there are.
    pub count: u64,
    /// Digest of the event before the first one; `None`: the sender has it no more.
    pub previous: Option<&'a str>,
    /// Events from this sequence up to the first one are gone at the sender.
    pub lost_from: Option<u64>,
}

/// What a receiver does with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Takes all of it.
    Take {
        /// Sequences that nobody will ever send: from, and the first that is there again.
        gap: Option<(u64, u64)>,
        /// The sender begins anew: its store is another one, or was restored.
        anew: bool,
    },
    /// Takes nothing: a double, too far ahead, or of another history. The answer says where the receiver is.
    Nothing,
}

/// Whether a batch is the next one.
pub fn merge(have: &Position, former: &[String], head: &Head) -> Merge {
    if head.stream.is_empty() || head.first.checked_add(head.count).is_none() || former.iter().any(|name| name == head.stream) {
        return Merge::Nothing;
    }
    let anew = have.stream != head.stream;
    if anew {
        // A receiver that knows nothing wants everything there is; after a fork the sender knows what was not sent.
        let all = have.stream.is_empty() && head.first > 0 && head.lost_from != Some(0);
        let gap = head.lost_from.filter(|from| *from < head.first).map(|from| (from, head.first));
        return if all { Merge::Nothing } else { Merge::Take { gap, anew: !have.stream.is_empty() } };
    }
    if head.first == have.next {
        let same = head.previous.is_none_or(|previous| have.last.is_empty() || previous == have.last);
        return if same { Merge::Take { gap: None, anew: false } } else { Merge::Nothing };
    }
    match head.lost_from {
        Some(from) if head.first > have.next && from == have.next => Merge::Take { gap: Some((from, head.first)), anew: false },
        _ => Merge::Nothing,
    }
}

/// Where the receiver is after it has taken a batch. `last`: the digest of the batch's last event.
pub fn after(head: &Head, last: &str) -> Position {
    let last = if head.count == 0 { head.previous.unwrap_or_default() } else { last };
    Position { stream: head.stream.to_string(), next: head.first + head.count, last: last.to_string() }
}

/// What a sender does after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// All before this sequence is at the receiver.
    From(u64),
    /// The histories differ: begin a stream of a new name with what has not been acknowledged.
    Fork,
}

/// What an answer means. `next`: the sequence after the sender's newest event; `digest`: of its own event before
/// [`Position::next`], if it still has it.
pub fn follow(stream: &str, next: u64, said: &Position, digest: Option<&str>) -> Follow {
    if said.stream.is_empty() {
        return Follow::From(0);
    }
    let ours = said.stream == stream && said.next <= next;
    let same = said.last.is_empty() || digest.is_none_or(|digest| digest == said.last);
    if ours && same { Follow::From(said.next) } else { Follow::Fork }
}

/// Names one update everywhere: at the manager that ordered it, in its node's own activity, at Fleet.
///
/// Generations rise per node and issuer; so node, generation and the beginning of the issuer's random id are one of a kind.
pub fn update_id(node: &str, generation: u64, issuer: &str) -> String {
    let issuer: String = issuer.chars().take(8).collect();
    format!("{node}.{generation}.{issuer}")
}

#[cfg(test)]
mod tests;
