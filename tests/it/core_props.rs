//! Properties of the small words of the core, over random input: what is true of every version, path, reason, rejection.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vmetric::core::backoff::{CAP_MS, RETRY_AFTER_CAP_MS, SPREAD_MAX_S, park_s, spread_ms, wait_ms};
use vmetric::core::clock::Moment;
use vmetric::core::hex;
use vmetric::core::reason::{DETAIL_MAX, Reason};
use vmetric::core::rejected::{REJECTED_MAX, Rejected, reject};
use vmetric::core::release::{ARCH_NAMES, OS_NAMES, TargetPath, build_prefix, is_name};
use vmetric::core::slots::{Condition, Ended, Evidence, Image, Marks, Reached, Slot, SlotMarks};
use vmetric::core::time;
use vmetric::core::times::Times;
use vmetric::core::version::Version;
use vmetric::wire::marks::{RECORD, decode, encode};

fn identifier() -> impl Strategy<Value = String> {
    prop_oneof![(0u64..50).prop_map(|n| n.to_string()), "[a-z][a-z0-9-]{0,4}"]
}

fn version() -> impl Strategy<Value = Version> {
    let pre = proptest::collection::vec(identifier(), 0..4);
    (0u64..4, 0u64..4, 0u64..4, pre).prop_map(|(a, b, c, pre)| {
        let text = format!("{a}.{b}.{c}");
        let text = if pre.is_empty() { text } else { format!("{text}-{}", pre.join(".")) };
        text.parse().unwrap()
    })
}

/// SemVer 11 once more, by another way: a key that sorts as the section says.
fn sort_key(version: &Version) -> (Vec<u64>, bool, Vec<(bool, u64, String)>) {
    let text = version.to_string();
    let (core, pre) = text.split_once('-').unwrap_or((&text, ""));
    let numbers = core.split('.').map(|n| n.parse().unwrap()).collect();
    let identifiers = pre.split('.').filter(|id| !id.is_empty()).map(|id| match id.parse::<u64>() {
        Ok(n) => (false, n, String::new()),
        Err(_) => (true, 0, id.to_string()),
    });
    (numbers, pre.is_empty(), identifiers.collect())
}

fn moment() -> impl Strategy<Value = Moment> {
    let director = prop::option::of(0u64..4_000_000_000);
    (0u64..4_000_000_000, 0u64..1_000_000, 0u8..3, director).prop_map(|(unix, monotonic, boot, director)| Moment {
        director,
        unix,
        monotonic,
        boot_id: format!("boot-{boot}"),
    })
}

fn rejected() -> impl Strategy<Value = Rejected> {
    (0u8..40, any::<bool>(), moment(), 0u32..6).prop_map(|(sha, bad, at, count)| Rejected {
        sha256: [sha; 32],
        version: "1.0.0".into(),
        bad,
        reason: Reason::new("no_contact", "x"),
        count,
        issuer: "site".into(),
        generation: 1,
        since: at.unix,
        since_monotonic: at.monotonic,
        since_director: at.director,
        boot_id: at.boot_id,
    })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let reached = prop_oneof![Just(Reached::Started), Just(Reached::SelfCheck), Just(Reached::Contact)];
    let ended =
        prop_oneof![Just(Ended::None), Just(Ended::Stopped), Just(Ended::NoContact), Just(Ended::SelfCheckFailed), Just(Ended::Operator)];
    ("[0-9a-f-]{0,64}", any::<u32>(), any::<u32>(), reached, ended).prop_map(|(boot_id, starts, crashes, reached, ended)| Evidence {
        boot_id,
        starts,
        crashes,
        reached,
        ended,
    })
}

fn slot_marks() -> impl Strategy<Value = SlotMarks> {
    let condition = prop_oneof![Just(Condition::Empty), Just(Condition::Trial), Just(Condition::Confirmed), Just(Condition::Failed)];
    let failure = proptest::option::of(".{0,150}".prop_map(|detail| Reason::new("no_contact", detail)));
    (condition, any::<[u8; 32]>(), evidence(), failure, any::<bool>()).prop_map(|(condition, sha256, evidence, failure, bad)| SlotMarks {
        condition,
        sha256,
        evidence,
        failure,
        bad,
    })
}

fn marks() -> impl Strategy<Value = Marks> {
    let active = prop_oneof![Just(Image::Factory), Just(Image::Slot(Slot::A)), Just(Image::Slot(Slot::B))];
    let rest = (any::<u64>(), active, any::<[u8; 32]>(), evidence(), any::<bool>(), any::<u64>(), any::<u64>());
    (rest, slot_marks(), slot_marks()).prop_map(|((sequence, active, factory, factory_evidence, manual, floor, until), a, b)| Marks {
        sequence,
        active,
        a,
        b,
        factory,
        factory_evidence,
        manual,
        floor,
        probation_boot: "boot-1".into(),
        probation_until: until,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn versions_are_ordered_as_semver_says(a in version(), b in version()) {
        prop_assert_eq!(a.cmp(&b), sort_key(&a).cmp(&sort_key(&b)), "{} {}", a, b);
        prop_assert_eq!(a.to_string().parse::<Version>().unwrap(), a);
    }

    #[test]
    fn what_parses_as_a_version_has_one_spelling(text in "[0-9v.+a-z-]{0,12}") {
        if let Ok(version) = text.parse::<Version>() {
            prop_assert_eq!(version.to_string(), text);
        }
    }

    #[test]
    fn a_target_path_never_leaves_its_folder(text in "[a-z0-9./\\\\:%~ -]{0,60}") {
        if let Ok(path) = text.parse::<TargetPath>() {
            prop_assert_eq!(path.to_string(), text.clone());
            for part in text.split('/') {
                prop_assert!(!part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '%']), "{}", text);
            }
        }
    }

    #[test]
    fn every_whole_target_path_parses(product in "[a-z0-9][a-z0-9._-]{0,20}[a-z0-9_-]", version in version(), os in 0usize..3, arch in 0usize..3, file in "[a-z0-9][a-z0-9._-]{0,20}[a-z0-9_-]") {
        // Devices of Windows are no names: `com1`, `nul.txt`.
        let device = |name: &str| ["aux", "con", "nul", "prn", "com", "lpt"].iter().any(|d| name.starts_with(d));
        prop_assume!(!device(&product) && !device(&file));
        prop_assert!(is_name(&product) && is_name(&file));
        let text = format!("{product}/{version}/{}-{}/{file}", OS_NAMES[os], ARCH_NAMES[arch]);
        prop_assert_eq!(text.parse::<TargetPath>().unwrap().to_string(), text);
    }

    #[test]
    fn build_signatures_of_two_files_never_cover_the_same_bytes(a in "[a-z0-9/]{1,8}", b in "[a-z0-9/]{1,8}", x in 0u64..2_000, y in 0u64..2_000) {
        prop_assert_eq!(build_prefix(&a, x) == build_prefix(&b, y), a == b && x == y);
    }

    #[test]
    fn a_reason_is_bounded_and_whole(text in ".{0,600}") {
        let reason = Reason::new("x", text.clone());
        let text = text.replace(char::is_control, " ");
        prop_assert!(reason.detail.len() <= DETAIL_MAX && text.starts_with(&reason.detail));
        prop_assert!(text.len() <= DETAIL_MAX || reason.detail.len() + 4 > DETAIL_MAX, "not more is lost than has to be");
    }

    #[test]
    fn hexadecimal_goes_there_and_back(bytes in any::<[u8; 32]>(), text in "[0-9a-fA-F]{6}") {
        prop_assert_eq!(hex::decode::<32>(&hex::encode(&bytes)), Some(bytes));
        if let Some(bytes) = hex::decode::<3>(&text) {
            prop_assert_eq!(hex::encode(&bytes), text);
        }
    }

    #[test]
    fn times_go_there_and_back(unix in 0u64..4_000_000_000) {
        prop_assert_eq!(time::parse(&time::format(unix)), Some(unix));
    }

    #[test]
    fn waits_are_bounded_whatever_a_server_says(failures: u32, seed: u64, asked: Option<u64>) {
        let wait = wait_ms(failures, seed, asked);
        prop_assert!(wait >= 500 && wait <= CAP_MS.max(RETRY_AFTER_CAP_MS + RETRY_AFTER_CAP_MS / 10));
        prop_assert!(wait >= asked.unwrap_or(0).saturating_mul(1_000).min(RETRY_AFTER_CAP_MS));
        prop_assert!((48..=58).contains(&park_s(53, seed)));
        prop_assert!(spread_ms(failures, seed, None, asked) <= asked.unwrap_or(0).min(SPREAD_MAX_S) * 1_000);
    }

    #[test]
    fn a_cooldown_never_grows_while_time_passes(entry in rejected(), now in moment(), later in 0u64..100_000) {
        let then = Moment { unix: now.unix + later, monotonic: now.monotonic + later, boot_id: now.boot_id.clone(), director: now.director.map(|d| d + later) };
        match (entry.remaining_s(&now, &Times::DEFAULT), entry.remaining_s(&then, &Times::DEFAULT)) {
            (None, None) => prop_assert!(entry.bad),
            (Some(before), Some(after)) => {
                prop_assert!(!entry.bad && after <= before && before <= 24 * 3600);
                prop_assert!(before - after <= later, "it ends no sooner than time passes");
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn the_rejected_list_is_bounded_and_bad_stays_bad(entries in proptest::collection::vec(rejected(), 0..80)) {
        let (mut list, mut lost) = (Vec::new(), BTreeMap::new());
        for entry in entries {
            let (sha, bad) = (entry.sha256, entry.bad);
            reject(&mut list, entry);
            prop_assert!(list.len() <= REJECTED_MAX);
            prop_assert_eq!(list.last().unwrap().sha256, sha);
            prop_assert_eq!(list.iter().filter(|r| r.sha256 == sha).count(), 1, "one entry per file");
            // What fell off the end is forgotten; what is there remembers.
            lost.retain(|known: &[u8; 32], _| list.iter().any(|r| r.sha256 == *known));
            *lost.entry(sha).or_insert(false) |= bad;
            prop_assert_eq!(list.last().unwrap().bad, lost[&sha]);
        }
    }

    #[test]
    fn any_marks_survive_their_record(marks in marks()) {
        let record = encode(&marks);
        prop_assert_eq!(record.len(), RECORD, "they always fit into their place on the disk");
        let back = decode(&record).unwrap();
        prop_assert_eq!(encode(&back), record);
        prop_assert_eq!((back.sequence, back.active, back.floor, back.a.condition), (marks.sequence, marks.active, marks.floor, marks.a.condition));
        prop_assert_eq!((back.a.evidence, back.b.sha256), (marks.a.evidence, marks.b.sha256));
    }
}
