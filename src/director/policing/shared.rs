//! Rows that another server of the same store wrote, or that go back to what the store has: put in force one by one.

use miniserde::{Deserialize, json};

use super::confirmations::ConfirmationRow;
use super::history::ChangeRow;
use super::layer_of;
use super::rows::{PolicyRow, Scope};
use super::templates::TemplateRow;
use crate::director::registry::Registry;
use crate::director::store::{Change, Table};

use super::clusters::ClusterRow;

/// Tables of settings: what people decide. They change together under one order of revisions.
pub const SETTINGS: [Table; 5] = [Table::Policies, Table::PolicyChanges, Table::Clusters, Table::Templates, Table::Confirmations];

impl Registry {
    /// Takes over a row as the store has it now. False: it is none of [`SETTINGS`], or does not parse, and what was there stays.
    pub fn take_shared(&mut self, row: &Change) -> bool {
        let (key, value) = (row.key.as_str(), row.value.as_deref());
        match row.table {
            Table::Policies => self.take_policy(key, value),
            Table::PolicyChanges => self.take_change(key, value),
            Table::Clusters => self.take_cluster_row(key, value),
            Table::Templates => {
                let Ok(row) = parsed::<TemplateRow>(value) else { return false };
                put_or_remove(&mut self.policing.templates, key, row);
                self.hand_out = true;
                true
            }
            Table::Confirmations => {
                let Ok(row) = parsed::<ConfirmationRow>(value) else { return false };
                put_or_remove(&mut self.policing.confirmations, key, row);
                self.hand_out = true;
                true
            }
            _ => false,
        }
    }

    /// What was said of a revision that was undone must be said again: another server's change may have its number.
    pub fn forget_told_revisions(&mut self) {
        self.handed_told.clear();
        self.hand_out = true;
    }

    /// Notes in the activity what a person did at another server.
    pub fn note_elsewhere(&mut self, row: &Change, now: u64) {
        let Ok(Some(change)) = parsed::<ChangeRow>(row.value.as_deref()) else { return };
        let node = change.scope.strip_prefix("node/").unwrap_or_default().to_string();
        let before = self.by.replace(change.by);
        let detail = format!("{}: {}; revision {}, at another {}", change.scope, change.what, change.revision, self.role.title);
        self.event(now, &node, "policy_changed", detail, None);
        self.by = before;
    }

    fn take_policy(&mut self, key: &str, value: Option<&str>) -> bool {
        let (Ok(scope), Ok(row)) = (Scope::of(key), parsed::<PolicyRow>(value)) else { return false };
        if row.as_ref().is_some_and(|row| row.scope != key) {
            return false;
        }
        match row.as_ref().and_then(|row| layer_of(&scope, row)) {
            Some(layer) => drop(self.policing.layers.insert(key.into(), layer)),
            None => drop(self.policing.layers.remove(key)),
        }
        put_or_remove(&mut self.policing.rows, key, row);
        self.settings_changed(&scope);
        true
    }

    fn take_change(&mut self, key: &str, value: Option<&str>) -> bool {
        let (Ok(revision), Ok(row)) = (key.parse::<u64>(), parsed::<ChangeRow>(value)) else { return false };
        match row {
            Some(row) if row.revision == revision => drop(self.policing.changes.insert(revision, row)),
            Some(_) => return false,
            None => drop(self.policing.changes.remove(&revision)),
        }
        true
    }

    fn take_cluster_row(&mut self, key: &str, value: Option<&str>) -> bool {
        let Ok(row) = parsed::<ClusterRow>(value) else { return false };
        self.mark_members(key);
        if row.is_none() && self.policing.books.contains_key(key) {
            self.forget_leases(key);
        }
        put_or_remove(&mut self.policing.clusters, key, row);
        self.index_clusters();
        self.mark_members(key);
        self.hand_out = true;
        true
    }
}

fn parsed<T: Deserialize>(value: Option<&str>) -> Result<Option<T>, miniserde::Error> {
    value.map(json::from_str::<T>).transpose()
}

fn put_or_remove<T>(rows: &mut std::collections::BTreeMap<String, T>, key: &str, row: Option<T>) {
    match row {
        Some(row) => drop(rows.insert(key.to_string(), row)),
        None => drop(rows.remove(key)),
    }
}
