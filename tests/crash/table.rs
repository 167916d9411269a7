//! What came of all cases: one line for each kind of case, with its outcomes; and each failure with the way to repeat it.

use std::collections::BTreeMap;

/// Outcomes by kind of case.
#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(String, String), BTreeMap<String, u32>>,
    failed: Vec<String>,
    notes: Vec<String>,
    began: bool,
}

impl Table {
    /// Counts a case. `row`: what is cut, and with what. A failure is shown at once.
    pub fn add(&mut self, row: (&str, &str), case: &str, outcome: Result<String, String>) {
        let outcomes = self.rows.entry((row.0.into(), row.1.into())).or_default();
        let word = match outcome {
            Ok(outcome) => outcome,
            Err(why) => {
                println!("FAILED {case}: {why}\n  repeat: tests/crash-matrix --only '{case}'");
                self.failed.push(case.to_string());
                "FAILED".into()
            }
        };
        *outcomes.entry(word).or_insert(0) += 1;
        self.began = true;
    }

    /// A line below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Cases so far.
    pub fn cases(&self) -> u32 {
        self.rows.values().flat_map(BTreeMap::values).sum()
    }

    /// Cases that failed.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Markdown, as the README's page has it.
    pub fn text(&self) -> String {
        let mut out = String::from("\n| what | with | cases | outcomes |\n|---|---|---:|---|\n");
        for ((what, with), outcomes) in &self.rows {
            let cases: u32 = outcomes.values().sum();
            let list: Vec<String> = outcomes.iter().map(|(word, n)| format!("{word} {n}")).collect();
            out.push_str(&format!("| {what} | {with} | {cases} | {} |\n", list.join(", ")));
        }
        let lost = self.failed.len();
        out.push_str(&format!("\n{} cases, {lost} lost\n", self.cases()));
        for note in &self.notes {
            out.push_str(&format!("{note}\n"));
        }
        out
    }
}
