//! A Fleet comes to a store that others share: what it finds there, what it had itself, and which of the two counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use super::place::{Place, UNFINISHED, unfinished};
use super::shared::HEAD;
use super::{Commit, Event, Outcome, Revision, Row, Span, Step, Store, all, place};
use crate::core::reason::Reason;
use crate::director::policing::shared::SETTINGS;
use crate::director::site::random_hex;
use crate::director::store::{Change, Store as File, Table};

/// Who this store is: a row that never changes.
const ID: &str = "id";
/// The row of [`Table::Meta`] that says which store this file is a copy of.
const COPY_OF: &str = "shared_store";
/// Most rows: settings of every agent of the largest fleet are at their Directors, not here.
const ROWS_MAX: usize = 300_000;

/// What the store has, as far as this Fleet was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    rows: BTreeMap<(Table, String), (String, Revision)>,
    /// Removed, by which commit: a watch may still tell of what was before.
    gone: BTreeMap<(Table, String), Revision>,
    /// The commit that changed [`HEAD`] last.
    pub head: Revision,
}

impl Rows {
    /// A row's text.
    pub fn text(&self, table: Table, key: &str) -> Option<String> {
        self.rows.get(&(table, key.to_string())).map(|(text, _)| text.clone())
    }

    /// A row is so since a commit.
    pub fn put(&mut self, change: &Change, modified: Revision) {
        let key = (change.table, change.key.clone());
        match &change.value {
            Some(text) => {
                self.gone.remove(&key);
                self.rows.insert(key, (text.clone(), modified));
            }
            None => {
                self.rows.remove(&key);
                self.gone.insert(key, modified);
            }
        }
    }

    /// Whether what is known of a row is older than a commit.
    pub fn is_older(&self, change: &Change, modified: Revision) -> bool {
        let key = (change.table, change.key.clone());
        match (self.rows.get(&key), self.gone.get(&key)) {
            (Some((_, at)), _) | (None, Some(at)) => *at < modified,
            (None, None) => change.value.is_some(),
        }
    }

    /// Everything up to a commit has been told.
    pub fn forget(&mut self, told: Revision) {
        self.gone.retain(|_, at| *at > told);
    }

    /// What has to change to be as another list.
    pub fn differences(&self, other: &Rows) -> Vec<Change> {
        let news = other.rows.iter().filter(|(key, (text, _))| self.rows.get(*key).is_none_or(|(have, _)| have != text));
        let put = news.map(|((table, key), (text, _))| Change { table: *table, key: key.clone(), value: Some(text.clone()) });
        let gone = self.rows.keys().filter(|key| !other.rows.contains_key(*key));
        put.chain(gone.map(|(table, key)| Change { table: *table, key: key.clone(), value: None })).collect()
    }
}

/// Everything that Fleets share.
pub fn everything() -> Span {
    place::everything()
}

/// Where a row is.
pub fn key(change: &Change) -> String {
    format!("{}/{}", change.table.name(), change.key)
}

/// The row of a key, if it is one of a table that is shared.
fn of_key(key: &str) -> Option<(Table, String)> {
    let (name, key) = key.split_once('/')?;
    Some((*SETTINGS.iter().find(|table| table.name() == name)?, key.to_string()))
}

/// What an event says of a row.
pub fn change(event: Event) -> Option<Change> {
    let (table, key) = of_key(event.key())?;
    let value = match event {
        Event::Put(row) => Some(String::from_utf8_lossy(&row.value).into_owned()),
        Event::Deleted { .. } => None,
    };
    Some(Change { table, key, value })
}

/// All rows of one revision.
///
/// # Errors
/// `store_unfinished`, and those of the store.
pub async fn list(store: &Rc<dyn Store>) -> Result<(Rows, Revision), Reason> {
    let (listed, revision) = all(store, &everything(), ROWS_MAX).await?;
    let mut rows = Rows::default();
    for Row { key, value, modified, .. } in listed {
        if key == UNFINISHED {
            return Err(unfinished());
        }
        if key == HEAD {
            rows.head = modified;
        }
        if let Some(place) = of_key(&key) {
            rows.rows.insert(place, (String::from_utf8_lossy(&value).into_owned(), modified));
        }
    }
    Ok((rows, revision))
}

#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct CopyOf {
    store: String,
}

/// A store that this Fleet has come to.
pub struct Joined {
    /// It.
    pub store: Rc<dyn Store>,
    /// What it has; while it is away, what this Fleet had last.
    pub rows: Rows,
    /// Of which revision; `None` = it has to be listed.
    pub revision: Option<Revision>,
    /// What has to change in the registry and in the file.
    pub news: Vec<Change>,
    /// Why it could not be listed.
    pub away: Option<Reason>,
}

/// Comes to the store that was named; `None` = this Fleet keeps everything itself.
///
/// # Errors
/// One sentence with the remedy; nothing was changed.
pub async fn come(file: &File, own: &Path, named: Option<&str>, join: bool) -> Result<Option<Joined>, String> {
    let (copy_of, had) = read(file)?;
    let Some(named) = named else {
        return match copy_of {
            None => Ok(None),
            Some(_) => {
                Err("this Fleet shares its settings with others: start it with the same --store, or with --store fleet, and it goes \
                            on alone with the copy that it has"
                    .into())
            }
        };
    };
    let place = Place::parse(named, own).map_err(|e| format!("--store: {e}"))?;
    let Some(store) = place.open(true)? else {
        if copy_of.is_some() {
            file.queue_here(vec![Change { table: Table::Meta, key: COPY_OF.into(), value: None }]);
            file.written().await?;
            log::warn!("this Fleet leaves the shared store and goes on with its copy of {} rows", had.rows.len());
        }
        return Ok(None);
    };
    let (listed, revision) = match list(&store).await {
        Ok(listed) => listed,
        // Directors need their Fleet also while etcd is away; who was never there cannot know what counts.
        Err(reason) if copy_of.is_some() && matches!(reason.code.as_ref(), "store_unreachable" | "store_no_quorum") => {
            return Ok(Some(Joined { store, rows: had, revision: None, news: Vec::new(), away: Some(reason) }));
        }
        Err(reason) => return Err(format!("--store {named}: {reason}")),
    };
    let id = named_as(&store, copy_of.is_none()).await.map_err(|reason| format!("--store {named}: {reason}"))?;
    let news = had.differences(&listed);
    match &copy_of {
        Some(before) if *before == id => {}
        // Nobody means to take over nothing: an empty store is a wrong prefix, or was lost.
        _ if news.is_empty() || had.rows.is_empty() || (join && !listed.rows.is_empty()) => {}
        Some(before) if listed.rows.is_empty() => {
            return Err(format!(
                "--store {named}: it is empty, and this Fleet was last with the store {before}, of which it has {} rows of settings: another \
                 prefix, or emptied; restore it from a backup (`vmetric-fleet store restore`), or bring this Fleet's copy there with \
                 `vmetric-fleet store migrate --from fleet --to {named}`",
                had.rows.len()
            ));
        }
        Some(before) => {
            let id = if id.is_empty() { "one without a name".into() } else { id };
            return Err(format!(
                "--store {named}: this Fleet was last with the store {before}, and this one is {id}: another prefix, or emptied; restore it \
                 from a backup (`vmetric-fleet store restore`), or add --join once to take over what is in it"
            ));
        }
        None if listed.rows.is_empty() => {
            return Err(format!(
                "--store {named}: it is empty, and this Fleet has {} rows of settings: bring them there first with `vmetric-fleet store \
                 migrate --from fleet --to {named}`",
                had.rows.len()
            ));
        }
        None => {
            return Err(format!(
                "--store {named}: its settings differ from this Fleet's own in {} rows; add --join once to take over those of the store \
                 (make a backup first: `vmetric-fleet store backup FILE`)",
                news.len()
            ));
        }
    }
    let id = if id.is_empty() { named_as(&store, true).await.map_err(|reason| format!("--store {named}: {reason}"))? } else { id };
    let marker = Change { table: Table::Meta, key: COPY_OF.into(), value: Some(json::to_string(&CopyOf { store: id })) };
    file.queue_here(news.iter().cloned().chain([marker]).collect());
    file.written().await?;
    Ok(Some(Joined { store, rows: listed, revision: Some(revision), news, away: None }))
}

/// What the file says: of which store it is a copy, and its rows.
fn read(file: &File) -> Result<(Option<String>, Rows), String> {
    let (mut copy_of, mut rows) = (None, Rows::default());
    file.each(Table::Meta, |key, text| {
        if key == COPY_OF {
            copy_of = json::from_str::<CopyOf>(text).ok().map(|row| row.store);
        }
        key != COPY_OF || copy_of.is_some()
    })?;
    for table in SETTINGS {
        file.each(table, |key, text| {
            rows.rows.insert((table, key.to_string()), (text.to_string(), 0));
            true
        })?;
    }
    Ok((copy_of, rows))
}

/// The store's name; made when it has none and one is wanted.
async fn named_as(store: &Rc<dyn Store>, make: bool) -> Result<String, Reason> {
    loop {
        if let Some(row) = store.get(ID).await? {
            return Ok(String::from_utf8_lossy(&row.value).into_owned());
        }
        if !make {
            return Ok(String::new());
        }
        let id = random_hex(16);
        if let Outcome::Done(_) = store.commit(Commit::default().when(ID, 0).with(Step::put(ID, id.as_bytes()))).await? {
            return Ok(id);
        }
    }
}
