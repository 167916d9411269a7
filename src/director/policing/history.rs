//! Who changed which settings, when, and what they were before and after.

use miniserde::{Deserialize, Serialize};

use super::rows::PolicyRow;
use crate::core::reason::Reason;
use crate::core::time;
use crate::director::activity;
use crate::director::registry::Registry;
use crate::director::store::Table;
use crate::director::table::{self, utc};
use crate::wire::settings::{FIELDS, SettingsWire};

/// Changes that are kept, over all scopes: years of people's changes, and about 2 MB of memory.
pub const CHANGES_MAX: usize = 3_000;
/// Changes that one answer has at most.
pub const SHOWN_MAX: u64 = 1_000;
/// Others' changes that a conflict names: those before are in the history.
const NAMED_MAX: usize = 3;

/// One change of one scope's settings.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ChangeRow {
    /// The revision that it made.
    pub revision: u64,
    /// Whose settings.
    pub scope: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Who.
    pub by: String,
    /// What changed, field by field, for people.
    pub what: String,
    /// Custom Policy before.
    pub custom_before: bool,
    /// And after.
    pub custom_after: bool,
    /// As typed before.
    pub before: SettingsWire,
    /// And after.
    pub after: SettingsWire,
}

/// `policy history`.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HistoryView {
    /// Newest first.
    pub changes: Vec<ChangeRow>,
    /// There are older ones.
    pub more: bool,
    /// Server's time.
    pub time: u64,
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_changes(&mut self, rows: Vec<ChangeRow>) {
        self.policing.changes = rows.into_iter().map(|row| (row.revision, row)).collect();
    }

    pub(super) fn keep_change(&mut self, before: &PolicyRow, after: &PolicyRow, what: String) {
        let row = ChangeRow {
            revision: after.revision,
            scope: after.scope.clone(),
            at: after.changed_at,
            by: after.by.clone(),
            what,
            custom_before: before.custom,
            custom_after: after.custom,
            before: before.settings.clone(),
            after: after.settings.clone(),
        };
        self.put(Table::PolicyChanges, activity::key(row.revision), &row);
        self.policing.changes.insert(row.revision, row);
        while self.policing.changes.len() > CHANGES_MAX {
            if let Some((revision, _)) = self.policing.changes.pop_first() {
                self.delete(Table::PolicyChanges, activity::key(revision));
            }
        }
    }

    /// What others changed since the revision that somebody started from.
    pub(super) fn conflict(&self, key: &str, revision: u64, expected: u64) -> Reason {
        let since = self.policing.changes.range(expected.saturating_add(1)..).map(|(_, row)| row).filter(|row| row.scope == key);
        let newest: Vec<&ChangeRow> = since.rev().take(NAMED_MAX).collect();
        let said: Vec<String> = newest.iter().map(|row| format!("{} {}: {}", time::format(row.at), row.by, row.what)).collect();
        let said = if said.is_empty() { String::new() } else { format!("; meanwhile: {}", said.join("; ")) };
        Reason::new("revision_conflict", format!("{key} is at revision {revision}, not {expected}: look at it again{said}"))
    }

    /// Changes of one scope or of all, newest first.
    pub fn history(&self, scope: Option<&str>, before: Option<u64>, limit: u64, now: u64) -> HistoryView {
        let most = usize::try_from(limit.clamp(1, SHOWN_MAX)).unwrap_or(1);
        let older = self.policing.changes.range(..before.unwrap_or(u64::MAX)).rev().map(|(_, row)| row);
        let mut fit = older.filter(|row| scope.is_none_or(|scope| row.scope == scope));
        let changes: Vec<ChangeRow> = fit.by_ref().take(most).cloned().collect();
        HistoryView { changes, more: fit.next().is_some(), time: now }
    }
}

/// Before and after, field by field.
pub(super) fn difference(before: &PolicyRow, after: &PolicyRow) -> String {
    let (mut old, mut new) = (before.settings.clone(), after.settings.clone());
    let mut out = Vec::new();
    if before.custom != after.custom {
        out.push(format!("custom policy {}", if after.custom { "on" } else { "off" }));
    }
    for name in FIELDS {
        let (was, is) = (old.field(name).and_then(Option::take), new.field(name).and_then(Option::take));
        if was != is {
            let text = |value: Option<String>| value.unwrap_or_else(|| "inherited".into());
            out.push(format!("{name} {} -> {}", text(was), text(is)));
        }
    }
    out.join(", ")
}

/// `policy history` for people.
pub fn text(view: &HistoryView) -> String {
    if view.changes.is_empty() {
        return "nobody has changed any settings yet\n".into();
    }
    let mut table = table::Table::new(&["REVISION", "TIME", "BY", "SETTINGS OF", "WHAT"]);
    for row in &view.changes {
        table.row(vec![row.revision.to_string(), utc(row.at), row.by.clone(), row.scope.clone(), row.what.clone()]);
    }
    let more = if view.more { "... and older ones: --before REVISION, --limit N\n" } else { "" };
    format!("{}{more}", table.text())
}
