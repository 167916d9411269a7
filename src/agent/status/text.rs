//! `status` for people: a name and what is to be said of it on each line, nothing where there is nothing to say.

use std::fmt::{Arguments, Write};

use super::{StatusReport, place};

/// The lines so far.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: Arguments<'_>) {
        // A String takes everything.
        let _ = writeln!(self.0, "{name:<13}{value}");
    }

    /// Nothing for `None`.
    fn perhaps(&mut self, name: &str, value: &Option<String>) {
        if let Some(value) = value {
            self.add(name, format_args!("{value}"));
        }
    }
}

/// `, since ...`, or nothing.
fn more(words: &str, value: &Option<String>) -> String {
    value.as_ref().map_or(String::new(), |value| format!("{words}{value}"))
}

impl StatusReport {
    /// [`StatusReport::json`] for people.
    pub fn text(&self) -> String {
        let mut lines = Lines(String::new());
        lines.add("version", format_args!("{} ({}, {})", self.version, place(&self.running), self.running_as));
        lines.perhaps("scheduled", &self.scheduled_version);
        match self.runs {
            true => lines.add("agent", format_args!("runs, process {}", self.pid)),
            false => lines.add("agent", format_args!("does not run")),
        }
        self.site(&mut lines);
        self.clock(&mut lines);
        self.doing(&mut lines);
        self.slots(&mut lines);
        self.past(&mut lines);
        lines.0
    }

    /// Who manages this device, and whether it can be asked.
    fn site(&self, lines: &mut Lines) {
        match self.enrolled {
            true => lines.add("director", format_args!("{} as {}", self.director, self.agent_id)),
            false => lines.add("director", format_args!("not enrolled")),
        }
        lines.add("last contact", format_args!("{}", self.last_contact.as_deref().unwrap_or("none by this process")));
        lines.perhaps("refused", &self.refused);
        if self.runs && !self.contact_code.is_empty() {
            let (detail, code, next) = (&self.contact_detail, &self.contact_code, more(", next try at ", &self.next_contact));
            lines.add("no contact", format_args!("{detail} ({code}), failures in a row: {}{next}", self.contact_failures));
        }
        for source in &self.sources {
            lines.add("source", format_args!("{}: {}", source.name, source.said));
        }
        lines.perhaps("fingerprint", &self.fingerprint);
        lines.perhaps("token", &self.token_left);
    }

    fn clock(&self, lines: &mut Lines) {
        match (self.clock.as_str(), &self.director_time) {
            ("ahead", Some(time)) => lines.add(
                "clock",
                format_args!("over a day ahead of the Director's, which showed {time}; no new metadata are accepted until it is set"),
            ),
            ("unsure", _) => lines.add("clock", format_args!("before times that are signed; those are used instead until it is set")),
            _ => {}
        }
    }

    fn doing(&self, lines: &mut Lines) {
        if self.runs && !self.step.is_empty() {
            let (since, until) = (more(", since ", &self.since), more(", until ", &self.until));
            lines.add("doing", format_args!("{}: {} ({}){since}{until}", self.step, self.detail, self.code));
            if let (Some(owner), Some(deadline)) = (&self.owner, &self.deadline) {
                lines.add("next move", format_args!("{owner}; given up at {deadline}"));
            }
            if self.bytes_done > 0 {
                lines.add("fetched", format_args!("{} of {} bytes", self.bytes_done, self.bytes_total));
            }
        }
        if let Some(problem) = &self.problem {
            lines.add("problem", format_args!("{} ({})", problem.detail, problem.code));
        }
    }

    fn slots(&self, lines: &mut Lines) {
        for slot in &self.slots {
            let mut said = slot.condition.clone();
            for (before, words) in [(" ", Some(&slot.version).filter(|v| !v.is_empty())), (": ", slot.failure.as_ref())] {
                words.iter().for_each(|words| said.extend([before, words]));
            }
            lines.add(&format!("slot {}", slot.slot), format_args!("{said}"));
        }
        if let Some(t) = &self.trial {
            lines.add("trial", format_args!("{} in slot {}, start {} of 6, reached {}", t.version, t.slot, t.starts, t.reached));
        }
    }

    fn past(&self, lines: &mut Lines) {
        if let Some(r) = &self.last_result {
            let reported = if r.reported { "reported" } else { "not reported yet" };
            lines.add("last result", format_args!("{} {} at {}: {} ({}; {reported})", r.outcome, r.version, r.at, r.detail, r.code));
        }
        for r in &self.rejected {
            lines.add("rejected", format_args!("{} {} since {}: {} ({})", r.version, r.verdict, r.since, r.detail, r.code));
        }
        lines.add("floor", format_args!("security counter {}", self.security_floor));
        let m = &self.metadata;
        lines.add("metadata", format_args!("root {}, timestamp {}, snapshot {}, targets {}", m.root, m.timestamp, m.snapshot, m.targets));
    }
}
