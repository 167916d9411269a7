//! `fleet.redb` as it is: the tables that Fleet writes through [`crate::director::store`], read and made whole while no Fleet
//! runs. Tables are taken by the names that are in the file, so a newer version's are not lost.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::dump::Item;
use crate::core::reason::Reason;
use crate::io::fs::{remove_if_there, sync_folder_of};

/// Rows that are written in one transaction.
const BATCH: usize = 10_000;
/// Longest name of a table, bytes.
const NAME_MAX: usize = 40;

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn failed(path: &Path, error: &redb::Error) -> Reason {
    let file = path.display();
    match error {
        redb::Error::DatabaseAlreadyOpen => {
            Reason::new("store_in_use", format!("{file} is in use: stop Fleet first (vmetric-fleet -service stop)"))
        }
        redb::Error::Io(e) => Reason::new("store_unreachable", format!("{file}: {e}; check the path, its rights and the free space")),
        other => Reason::new("store_damaged", format!("{file} is damaged: {other}; restore it from a backup")),
    }
}

/// Shows every row, table by table.
///
/// # Errors
/// `store_in_use`, `store_unreachable`, `store_damaged`, and those of `take`.
pub fn rows(path: &Path, mut take: impl FnMut(Item) -> Result<(), Reason>) -> Result<(), Reason> {
    let bad = |e: redb::Error| failed(path, &e);
    let mut database = Database::open(path).map_err(|e: DatabaseError| bad(e.into()))?;
    // Every page: a backup of a file with bit rot would be one of bit rot.
    database.check_integrity().map_err(|e| bad(e.into()))?;
    let transaction = database.begin_read().map_err(|e| bad(e.into()))?;
    let mut names: Vec<String> = transaction.list_tables().map_err(|e| bad(e.into()))?.map(|t| t.name().to_string()).collect();
    names.sort();
    for name in names {
        let rows = transaction.open_table(table(&name)).map_err(|e| bad(e.into()))?;
        for row in rows.iter().map_err(|e| bad(e.into()))? {
            let (key, value) = row.map_err(|e| bad(e.into()))?;
            let key = std::str::from_utf8(key.value()).map_err(|_| bad(redb::Error::Corrupted(format!("a key of {name} is no text"))))?;
            take(Item { key: format!("{name}/{key}"), value: value.value().to_vec() })?;
        }
    }
    Ok(())
}

/// Makes the file anew; it must not be there. It has its name only when all of it is there.
pub struct Maker {
    path: std::path::PathBuf,
    part: std::path::PathBuf,
    database: Database,
    waiting: Vec<Item>,
}

impl Maker {
    /// Begins.
    ///
    /// # Errors
    /// `store_not_empty`, `store_unreachable`.
    pub fn begin(path: &Path) -> Result<Maker, Reason> {
        if path.exists() {
            let detail = format!("{} is there already; stop Fleet and move it away first", path.display());
            return Err(Reason::new("store_not_empty", detail));
        }
        let part = path.with_added_extension("part");
        remove_if_there(&part).map_err(|e| failed(&part, &redb::Error::Io(e)))?;
        let database = Database::create(&part).map_err(|e| failed(&part, &e.into()))?;
        Ok(Maker { path: path.into(), part, database, waiting: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `backup_damaged` for a row of no table; `store_unreachable`.
    pub fn add(&mut self, item: Item) -> Result<(), Reason> {
        self.waiting.push(item);
        if self.waiting.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Reason> {
        let bad = |e: redb::Error| failed(&self.part, &e);
        let transaction = self.database.begin_write().map_err(|e| bad(e.into()))?;
        for Item { key, value } in self.waiting.drain(..) {
            let named =
                |name: &str| name.len() <= NAME_MAX && !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let Some((name, key)) = key.split_once('/').filter(|(name, _)| named(name)) else {
                let key: String = key.chars().take(80).collect();
                return Err(Reason::new("backup_damaged", format!("the row '{key}' names no table of Fleet")));
            };
            let mut rows = transaction.open_table(table(name)).map_err(|e| bad(e.into()))?;
            rows.insert(key.as_bytes(), value.as_slice()).map_err(|e| bad(e.into()))?;
        }
        transaction.commit().map_err(|e| bad(e.into()))
    }

    /// Ends it, durably.
    ///
    /// # Errors
    /// `store_unreachable`.
    pub fn end(mut self) -> Result<(), Reason> {
        self.flush()?;
        let Maker { path, part, database, .. } = self;
        drop(database);
        let bad = |e: std::io::Error| failed(&path, &redb::Error::Io(e));
        std::fs::rename(&part, &path).map_err(bad)?;
        sync_folder_of(&path).map_err(bad)
    }
}
