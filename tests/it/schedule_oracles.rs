//! Our schedules beside four cron libraries of PyPI and a plain walk over the calendar (tests/python/schedule_cases.py, which
//! has the table of what differs and who is right).

use std::io::Write;
use std::process::{Command, Stdio};

use vmetric::core::schedule::{Schedule, Zone};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/schedule_cases.py");
/// Instants that both sides say for one case; ANSWERS in the script.
const ANSWERS: usize = 5;
/// Cases of a run: each zone has its changes many times over.
const CASES: &str = "6000";

#[expect(clippy::disallowed_methods, reason = "the test runner says where Python is, and which seed")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn python(words: &[&str]) -> Command {
    let python =
        setting("VMETRIC_SCHEDULE_ORACLES").expect("VMETRIC_SCHEDULE_ORACLES names a python; tests/python/setup-schedule makes one");
    let mut command = Command::new(python);
    // The zones of PyPI's tzdata, not those of this system.
    command.arg(SCRIPT).args(words).env("PYTHONTZPATH", "");
    command
}

/// The case with our answer behind.
fn answered(case: &str) -> String {
    let [expression, zone, after] = *case.split('\t').collect::<Vec<_>>() else { panic!("{case}") };
    let schedule = Schedule::parse(expression, &Zone::named(zone).unwrap());
    let said = schedule.map_or_else(
        |refused| format!("!{}", refused.code),
        |schedule| {
            let first = schedule.next_after(after.parse().unwrap());
            let instants = std::iter::successors(first, |at| schedule.next_after(*at));
            instants.take(ANSWERS).map(|at| at.to_string()).collect::<Vec<_>>().join(",")
        },
    );
    format!("{case}\t{said}\n")
}

#[test]
#[ignore = "needs VMETRIC_SCHEDULE_ORACLES; tests/run sets it"]
fn schedules_agree_with_cron_libraries() {
    let seed = setting("VMETRIC_SEED").unwrap_or("1".into());
    let count = setting("VMETRIC_CASES").unwrap_or(CASES.into());
    let made = python(&["cases", &seed, &count]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let cases: String = String::from_utf8(made.stdout).unwrap().lines().map(answered).collect();

    let mut judge = python(&["judge"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = judge.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(cases.as_bytes()));
    let ended = judge.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.ends_with(" 0 failed\n"), "seed {seed}:\n{said}");
    println!("seed {seed}:\n{said}");
}
