use std::collections::BTreeMap;

use super::*;

fn intake() -> Intake {
    Intake { sources: Default::default(), throttle: Default::default(), agents_changed: Default::default() }
}

fn event(seq: u64) -> EventWire {
    EventWire { seq, time: 5, code: "confirmed".into(), agent: Some("edge-1".into()), ..Default::default() }
}

fn batch(stream: &str, first: u64, count: u64) -> ActivityWire {
    let events = (first..first + count).map(event).collect();
    ActivityWire { protocol: 1, stream: stream.into(), first, events, last: Some(format!("d{}", first + count)), ..Default::default() }
}

fn page(part: Part, ids: &[&str]) -> HealthWire {
    let rows = ids.iter().map(|id| AgentRowWire { id: id.to_string(), sum: 1, ..Default::default() }).collect();
    let wire =
        PageWire { part: part.word().into(), rows: Some(rows), sum: ids.len() as u64, count: ids.len() as u64, ..Default::default() };
    HealthWire { protocol: 1, version: "1.0.0".into(), inventory: Some(wire), ..Default::default() }
}

/// The tables as the disk has them.
#[derive(Default)]
struct Disk(BTreeMap<(Table, String), String>);

impl Disk {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change.value {
                Some(value) => drop(self.0.insert((change.table, change.key), value)),
                None => drop(self.0.remove(&(change.table, change.key))),
            }
        }
    }

    fn keys(&self, table: Table) -> Vec<&str> {
        self.0.keys().filter(|(t, _)| *t == table).map(|(_, key)| key.as_str()).collect()
    }
}

#[test]
fn a_director_speaks_for_its_own_agents_only() {
    let (intake, mut disk) = (intake(), Disk::default());
    disk.write(intake.take_health("alpha", page(Part::Only, &["edge-1", "edge-2"]), 9).unwrap().0);
    disk.write(intake.take_activity("alpha", batch("s", 0, 2), 9).unwrap().0);
    // Another one names the same agents, those of the first by their whole key, and nothing at all.
    disk.write(intake.take_health("beta", page(Part::Only, &["edge-1"]), 9).unwrap().0);
    for id in ["alpha/edge-1", "../alpha", "", "EDGE", "edge\n1", &"e".repeat(65)] {
        assert_eq!(intake.take_health("beta", page(Part::Only, &[id]), 9).unwrap_err().code, "bad_request", "{id}");
    }
    disk.write(intake.take_health("beta", page(Part::Only, &[]), 9).unwrap().0);
    disk.write(intake.take_activity("beta", batch("s", 0, 1), 9).unwrap().0);
    assert_eq!(disk.keys(Table::Inventory), ["alpha/edge-1", "alpha/edge-2"]);
    let told: Vec<Told> = disk.0.iter().filter(|((t, _), _)| *t == Table::Relayed).map(|(_, v)| json::from_str(v).unwrap()).collect();
    assert_eq!(told.iter().map(|e| e.director.as_str()).collect::<Vec<_>>(), ["alpha", "alpha", "beta"]);
}

#[test]
fn doubles_change_nothing_and_every_answer_says_where_fleet_is() {
    let intake = intake();
    let (first, answer) = intake.take_activity("a", batch("s", 0, 3), 9).unwrap();
    assert_eq!((first.len(), answer.next, answer.last.as_str()), (4, 3, "d3"));
    for again in [batch("s", 0, 3), batch("s", 1, 2), batch("s", 0, 5), batch("s", 7, 1)] {
        let (changes, answer) = intake.take_activity("a", again, 9).unwrap();
        assert_eq!((changes.len(), answer.next, answer.last.as_str()), (0, 3, "d3"));
    }
    let lost = ActivityWire { lost_from: Some(3), ..batch("s", 10, 1) };
    let (changes, answer) = intake.take_activity("a", lost, 9).unwrap();
    let gap: Told = json::from_str(changes[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((answer.next, gap.code.as_str(), gap.position), (11, "activity_gap", 3));
    assert!(gap.detail.contains("3 to 9"), "{}", gap.detail);
}

#[test]
fn what_is_no_batch_is_refused_whole() {
    let intake = intake();
    let mut torn = batch("s", 0, 3);
    torn.events[1].seq = 7;
    let long = ActivityWire { stream: "s".repeat(65), ..batch("s", 0, 1) };
    let many = batch("s", 0, BATCH_MAX as u64 + 1);
    let mut high = batch("s", 0, 1);
    (high.first, high.events[0].seq) = (u64::MAX, u64::MAX);
    for bad in [torn, long, many, high, batch("", 0, 1)] {
        assert_eq!(intake.take_activity("a", bad, 9).unwrap_err().code, "bad_request");
    }
    assert_eq!(intake.take_activity("a", batch("s", 0, 0), 9).unwrap().1.next, 0);
    let many: Vec<String> = (0..PAGE_MAX + 1).map(|n| format!("a{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(intake.take_health("a", page(Part::Only, &many), 9).is_err());
    let mut odd = page(Part::Only, &["a"]);
    odd.inventory.as_mut().unwrap().part = "all".into();
    assert!(intake.take_health("a", odd, 9).is_err());
}

#[test]
fn text_of_a_director_is_harmless_and_short() {
    let intake = intake();
    let mut wire = batch("s", 0, 1);
    wire.events[0] =
        EventWire { code: "\x1b[2J".into(), detail: Some("x\x1b[31m\n".repeat(1_000)), agent: Some("e\u{202e}".repeat(500)), ..event(0) };
    let (changes, _) = intake.take_activity("a", wire, 9).unwrap();
    let told: Told = json::from_str(changes[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(told.code, "unknown_code");
    assert!(told.detail.len() <= DETAIL_MAX && told.agent.len() <= NAME_MAX && !told.detail.contains(char::is_control));
    let health =
        HealthWire { hostname: Some("h\x07".repeat(900)), agents: Some(vec![Default::default(); 9_999]), ..page(Part::Changes, &[]) };
    intake.take_health("a", health, 9).unwrap();
    let (kept, at) = intake.health_of("a").unwrap();
    assert!(kept.hostname.unwrap().len() <= NAME_MAX && kept.agents.unwrap().len() <= STATES_MAX && at == 9);
}

#[test]
fn a_liar_whose_totals_never_fit_is_asked_for_everything_once_a_minute() {
    let intake = intake();
    let wrong = || {
        let mut wire = page(Part::Changes, &["a"]);
        wire.inventory.as_mut().unwrap().sum = 77;
        wire
    };
    let asked: Vec<bool> = (0..120).map(|s| intake.take_health("a", wrong(), 1_000 + s).unwrap().1.full == Some(true)).collect();
    assert_eq!(asked.iter().filter(|a| **a).count(), 2);
}
