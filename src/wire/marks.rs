//! `marks.0` and `marks.1`: one record of [`RECORD`] bytes each, written in turn and in place.
//!
//! A record is a JSON line, its SHA-256 in hex on the second line, and spaces up to the fixed length: the files are
//! allocated once, so that a full disk never stops a rollback, and a torn or rotten copy is told by its checksum.
//! Frozen (FROZEN.md): fields are only added; a reader ignores what it does not know.

use miniserde::{Deserialize, Serialize, json};

use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::slots::{Condition, Ended, Evidence, Image, Marks, Reached, SlotMarks};

/// Length of a marks file. About three times the longest record of today.
pub const RECORD: usize = 4096;
/// Longest boot id kept, bytes: Linux and macOS use 36.
const BOOT_ID_MAX: usize = 64;
/// Longest failure sentence kept in a record, bytes: both slots' must fit.
const FAILURE_MAX: usize = 300;

#[derive(Serialize, Deserialize)]
struct MarksWire {
    format: u32,
    sequence: u64,
    active: String,
    a: SlotWire,
    b: SlotWire,
    factory: String,
    factory_evidence: EvidenceWire,
    manual: bool,
    floor: u64,
    probation_boot: String,
    probation_until: u64,
}

#[derive(Serialize, Deserialize)]
struct SlotWire {
    condition: String,
    sha256: String,
    evidence: EvidenceWire,
    failure_code: Option<String>,
    failure_detail: Option<String>,
    bad: bool,
}

#[derive(Serialize, Deserialize)]
struct EvidenceWire {
    boot_id: String,
    starts: u32,
    crashes: u32,
    reached: String,
    ended: String,
}

const CONDITIONS: [(&str, Condition); 4] =
    [("empty", Condition::Empty), ("trial", Condition::Trial), ("confirmed", Condition::Confirmed), ("failed", Condition::Failed)];
const REACHED: [(&str, Reached); 3] = [("started", Reached::Started), ("self_check", Reached::SelfCheck), ("contact", Reached::Contact)];
const ENDED: [(&str, Ended); 5] = [
    ("none", Ended::None),
    ("stopped", Ended::Stopped),
    ("no_contact", Ended::NoContact),
    ("self_check_failed", Ended::SelfCheckFailed),
    ("operator", Ended::Operator),
];

fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> String {
    table.iter().find(|(_, v)| v == value).map_or(String::new(), |(w, _)| w.to_string())
}

fn value<T: Copy>(table: &[(&'static str, T)], text: &str, field: &str) -> Result<T, String> {
    table.iter().find(|(w, _)| *w == text).map(|(_, v)| *v).ok_or_else(|| format!("field {field} has the unknown value '{text}'"))
}

fn clip(text: &str, max: usize) -> String {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

impl EvidenceWire {
    fn from_core(e: &Evidence) -> EvidenceWire {
        EvidenceWire {
            boot_id: clip(&e.boot_id, BOOT_ID_MAX),
            starts: e.starts,
            crashes: e.crashes,
            reached: word(&REACHED, &e.reached),
            ended: word(&ENDED, &e.ended),
        }
    }

    fn into_core(self) -> Result<Evidence, String> {
        Ok(Evidence {
            boot_id: clip(&self.boot_id, BOOT_ID_MAX),
            starts: self.starts,
            crashes: self.crashes,
            reached: value(&REACHED, &self.reached, "reached")?,
            ended: value(&ENDED, &self.ended, "ended")?,
        })
    }
}

impl SlotWire {
    fn from_core(s: &SlotMarks) -> SlotWire {
        SlotWire {
            condition: word(&CONDITIONS, &s.condition),
            sha256: hex::encode(&s.sha256),
            evidence: EvidenceWire::from_core(&s.evidence),
            failure_code: s.failure.as_ref().map(|r| clip(&r.code, 40)),
            failure_detail: s.failure.as_ref().map(|r| clip(&r.detail, FAILURE_MAX)),
            bad: s.bad,
        }
    }

    fn into_core(self) -> Result<SlotMarks, String> {
        let failure = match (self.failure_code, self.failure_detail) {
            (Some(code), detail) => Some(Reason::received(code, detail.unwrap_or_default())),
            (None, _) => None,
        };
        Ok(SlotMarks {
            condition: value(&CONDITIONS, &self.condition, "condition")?,
            sha256: hex::decode(&self.sha256).ok_or("field sha256 is no SHA-256")?,
            evidence: self.evidence.into_core()?,
            failure,
            bad: self.bad,
        })
    }
}

/// One record of marks, [`RECORD`] bytes.
pub fn encode(marks: &Marks) -> Vec<u8> {
    let wire = MarksWire {
        format: 1,
        sequence: marks.sequence,
        active: marks.active.name().to_string(),
        a: SlotWire::from_core(&marks.a),
        b: SlotWire::from_core(&marks.b),
        factory: hex::encode(&marks.factory),
        factory_evidence: EvidenceWire::from_core(&marks.factory_evidence),
        manual: marks.manual,
        floor: marks.floor,
        probation_boot: clip(&marks.probation_boot, BOOT_ID_MAX),
        probation_until: marks.probation_until,
    };
    let mut record = json::to_string(&wire).into_bytes();
    let sum = hex::encode(&hex::sha256(&record));
    record.push(b'\n');
    record.extend_from_slice(sum.as_bytes());
    record.push(b'\n');
    record.resize(RECORD.max(record.len()), b' ');
    record
}

/// Marks from a record, or what is wrong with it.
pub fn decode(record: &[u8]) -> Result<Marks, String> {
    if record.len() > RECORD {
        return Err(format!("{} bytes, expected {RECORD}", record.len()));
    }
    let mut lines = record.splitn(3, |b| *b == b'\n');
    let (line, sum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if hex::encode(&hex::sha256(line)).as_bytes() != sum {
        return Err("checksum does not match: a torn or rotten record".into());
    }
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    let wire: MarksWire = json::from_str(text).map_err(|_| "a field is missing or has the wrong type")?;
    Ok(Marks {
        sequence: wire.sequence,
        active: Image::from_name(&wire.active).ok_or("field active is none of a, b, factory")?,
        a: wire.a.into_core()?,
        b: wire.b.into_core()?,
        factory: hex::decode(&wire.factory).ok_or("field factory is no SHA-256")?,
        factory_evidence: wire.factory_evidence.into_core()?,
        manual: wire.manual,
        floor: wire.floor,
        probation_boot: clip(&wire.probation_boot, BOOT_ID_MAX),
        probation_until: wire.probation_until,
    })
}

/// The newer of two records that are whole, and which file it came from; or why neither is.
pub fn newest(copies: [Result<Marks, String>; 2]) -> Result<(Marks, usize), String> {
    let [first, second] = copies;
    match (first, second) {
        (Ok(a), Ok(b)) if b.sequence > a.sequence => Ok((b, 1)),
        (Ok(a), _) => Ok((a, 0)),
        (Err(_), Ok(b)) => Ok((b, 1)),
        (Err(a), Err(b)) => Err(format!("marks.0: {a}; marks.1: {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::slots::{Seen, Slot, next_boot};

    fn busy() -> Marks {
        let seen = Seen { factory: [7; 32], boot_id: "11111111-2222-3333-4444-555555555555".into(), ..Seen::default() };
        let marks = next_boot(&Marks::default(), &seen).marks;
        let marks = marks.start_trial(Slot::B, [9; 32]).confirm(Slot::B, 4, &seen.boot_id, 1_800_000_000);
        let mut marks = marks.start_trial(Slot::A, [8; 32]).end(Image::Slot(Slot::A), Ended::NoContact);
        marks.a.condition = Condition::Failed;
        marks.a.failure = Some(Reason::new("no_contact", "é\"\\\n".repeat(99)));
        marks.b.failure = marks.a.failure.clone();
        marks
    }

    #[test]
    fn a_record_survives_the_round_trip_at_its_longest() {
        let record = encode(&busy());
        assert_eq!(record.len(), RECORD);
        let back = decode(&record).unwrap();
        assert_eq!(back.sequence, busy().sequence);
        assert_eq!((back.active, back.floor, back.b.condition), (Image::Slot(Slot::A), 4, Condition::Confirmed));
        assert_eq!(encode(&back), record, "reading and writing changes nothing");
    }

    #[test]
    fn no_failure_makes_a_record_too_long_for_its_file() {
        // A control character takes six bytes when it is escaped.
        let reason = Reason::new("self_check_failed", "\u{1}\0\u{1f}".repeat(200));
        let mut marks = busy();
        (marks.a.failure, marks.b.failure) = (Some(reason.clone()), Some(reason));
        let record = encode(&marks);
        assert_eq!(record.len(), RECORD);
        assert_eq!(
            decode(&record).unwrap().a.failure,
            marks.a.failure.map(|r| Reason::received(r.code.to_string(), r.detail[..300].into()))
        );
    }

    #[test]
    fn every_single_flipped_bit_before_the_padding_is_told() {
        let record = encode(&Marks::default());
        let end = record.iter().rposition(|b| *b != b' ').unwrap();
        for at in 0..end {
            for bit in 0..8 {
                let mut bad = record.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_is_told() {
        let record = encode(&Marks::default());
        let end = record.iter().rposition(|b| *b != b' ').unwrap();
        for length in 0..end {
            assert!(decode(&record[..length]).is_err(), "{length}");
        }
        assert!(decode(&[0; RECORD]).is_err() && decode(&[b' '; RECORD + 1]).is_err());
    }

    #[test]
    fn the_newer_whole_copy_counts() {
        let marks = |sequence| Ok(Marks { sequence, ..Marks::default() });
        let bad = || Err("torn".to_string());
        let pick = |copies| newest(copies).map(|(m, at)| (m.sequence, at));
        assert_eq!(pick([marks(4), marks(5)]), Ok((5, 1)));
        assert_eq!(pick([marks(6), marks(5)]), Ok((6, 0)));
        assert_eq!(pick([bad(), marks(5)]), Ok((5, 1)));
        assert_eq!(pick([marks(4), bad()]), Ok((4, 0)));
        assert!(pick([bad(), bad()]).unwrap_err().contains("marks.1"));
    }
}
