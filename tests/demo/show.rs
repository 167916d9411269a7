//! What the reader sees: a timeline in plain words, then a table. At most 120 columns.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use vmetric::director::records::Event;
use vmetric::io::clock;

const WIDTH: usize = 120;

/// The terminal.
pub struct Show {
    began: Duration,
    colour: bool,
    /// Taken out of what is shown: it says nothing to the reader.
    work: String,
    one_at_a_time: Mutex<()>,
    /// Letters and lines of the timeline, whole, for what is said of a failure at the end.
    said: Mutex<Vec<(String, String)>>,
}

/// How a scenario ended.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// `updated`, `rolled back`, ...
    pub result: String,
    /// Verdict and stable code.
    pub code: String,
    /// Bytes fetched.
    pub bytes: u64,
    /// Seconds from the order to the end.
    pub seconds: f64,
    /// Milliseconds without a running agent.
    pub gap_ms: u64,
}

impl Show {
    /// Starts the clock of the timeline.
    pub fn new(work: &Path) -> Show {
        let (colour, work) = (std::io::stdout().is_terminal(), format!("{}/", work.display()));
        Show { began: clock::monotonic(), colour, work, one_at_a_time: Mutex::default(), said: Mutex::default() }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        clock::monotonic().saturating_sub(self.began).as_secs_f64()
    }

    /// One line of the timeline.
    pub fn say(&self, letter: &str, who: &str, what: &str) {
        let mark = if letter.is_empty() { String::new() } else { format!("[{letter}]") };
        let head = format!("{:>8.3} s  {mark:<5} {who:<11} ", self.seconds());
        let what = what.replace(&self.work, "");
        if let Ok(mut said) = self.said.lock() {
            said.push((letter.to_string(), format!("{head}{what}")));
        }
        let room = WIDTH.saturating_sub(head.chars().count());
        let what: String = match what.chars().count() > room {
            true => what.chars().take(room - 3).chain("...".chars()).collect(),
            false => what,
        };
        let colour = match what.split([' ', ':']).next().unwrap_or("") {
            "PASS" | "confirmed" => "32",
            "FAIL" => "31",
            "rolled" | "refused" => "33",
            "DEMO" => "36",
            _ => "0",
        };
        self.plain(&format!("{head}{}", self.paint(colour, &what)));
    }

    /// One line as it is.
    pub fn plain(&self, line: &str) {
        let _held = self.one_at_a_time.lock();
        let mut out = std::io::stdout();
        // Whoever reads may have left; the exit code still tells.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// The end of a demo that failed: its last lines are all that some readers see. What failed and why, each with the end of
    /// its timeline as far as there is room.
    pub fn failures(&self, failed: &[(&str, String)]) {
        const WITH_TIMELINE: usize = 4;
        const LINES: usize = 8;
        const COLUMNS: usize = 300;
        let cut = |text: &str| text.replace(&self.work, "").chars().take(COLUMNS).collect::<String>();
        self.plain("\n--- what failed");
        for (number, (letter, why)) in failed.iter().enumerate() {
            self.plain(&cut(&format!("FAIL [{letter}] {}", why.replace('\n', " | "))));
            if let (true, Ok(said)) = (number < WITH_TIMELINE, self.said.lock()) {
                let own: Vec<_> = said
                    .iter()
                    .filter(|(of, line)| of == letter && !line.contains("PASS:") && !line.contains("FAIL:"))
                    .map(|(_, line)| line)
                    .collect();
                own.iter().skip(own.len().saturating_sub(LINES)).for_each(|line| self.plain(&cut(&format!("  {}", line.trim_start()))));
            }
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && colour != "0" { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// The table's first two lines.
    pub fn table_head(&self) {
        self.plain("");
        self.plain(&format!(
            "{:<2} {:<46} {:<9} {:<21} {:<29} {:>8} {:>4} {:>5} ",
            "", "what happens", "mode", "result", "verdict/code", "bytes", "s", "gap"
        ));
        self.plain(&"-".repeat(135));
    }

    /// One scenario's line; a failure has a second one with its reason.
    pub fn table_row(&self, letter: &str, what: &str, mode: &str, end: &Result<Row, String>) {
        let none = Row::default();
        let (row, word) = match end {
            Ok(row) => (row, self.paint("32", "PASS")),
            Err(_) => (&none, self.paint("31", "FAIL")),
        };
        // A device that slept in between: its gap is the night's.
        const DAY_MS: u64 = 86_400_000;
        let number = |n: u64| if n == 0 { "-".to_string() } else { n.to_string() };
        let seconds = if row.seconds > 0.0 { format!("{:.1}", row.seconds) } else { "-".into() };
        self.plain(&format!(
            "{letter:<2} {what:<46} {mode:<9} {:<21} {:<29} {:>8} {seconds:>4} {:>5} {word}",
            row.result,
            row.code,
            number(row.bytes),
            number(if row.gap_ms < DAY_MS { row.gap_ms } else { 0 }),
        ));
        if let Err(reason) = end {
            self.plain(&format!("   {}", self.paint("31", reason)));
        }
    }
}

/// An event of the Director in plain words; `None`: not worth a line. `slow`: the link of that device is.
pub fn words(event: &Event, slow: bool) -> Option<String> {
    let (version, detail) = (&event.version, &event.detail);
    let or = |text: String| if detail.is_empty() { text } else { format!("{text}: {detail}") };
    Some(match event.code.as_str() {
        "rollout_halted" => detail.clone(),
        "update_triggered" => format!("is ordered to update to {version}"),
        "waiting" => format!("waits: {detail}"),
        "download_started" => format!("downloads {version}, {detail}"),
        // Most downloads here are over in a tenth of a second.
        "download_progress" if slow => format!("has {detail}"),
        "signature_verified" => "downloaded; hash and both signatures are good".into(),
        "deployment_started" => "switches".into(),
        "trial_started" => format!("{version} runs, on trial"),
        "confirmed" => format!("confirmed: {detail}"),
        "rolled_back" => format!("rolled back {version}: {detail}"),
        "refused" => format!("refused {version}: {detail}"),
        "cancel_issued" => or("is told to drop the order".into()),
        "cancelled" => or("the order is withdrawn".into()),
        "version_changed" => format!("runs another version: {detail}"),
        "repair_ordered" => format!("lost {version}, which it had confirmed; it is to be restored"),
        "local_update" | "result_foreign" => format!("tells: {detail}"),
        "mirror_refused" | "silent" | "flapping" | "already" | "no_artifact" => or(event.code.clone()),
        _ => return None,
    })
}
