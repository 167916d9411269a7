//! Where the rows of a store can be: `fleet` (this Fleet's own file), `redb:FILE`, `etcd:FILE.yml`; read whole, made whole.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::dump::{self, Head, Item, Tally, Writer};
use super::embedded::Embedded;
use super::etcd::{ENDPOINTS_MAX, Etcd, Settings};
use super::{COMMIT_MAX, Commit, Health, PAGE_MAX, STEPS_MAX, Span, Step, Store, own};
use crate::core::reason::Reason;
use crate::director::config::fields::Section;
use crate::director::config::problem::{Problem, listed};
use crate::director::config::yaml::{FILE_MAX, Kind, read};
use crate::director::policing::shared::SETTINGS;
use crate::director::table::{Table, utc};
use crate::io::clock;
use crate::io::fs::read_limited;
use crate::io::outbound::Endpoint;

/// There while a restore is under way: what is in the store then is not all of it.
pub(super) const UNFINISHED: &str = "!restore";
/// Bytes of a commit of a restore: room for what surrounds keys and values.
const BATCH_BYTES: usize = COMMIT_MAX * 3 / 4;
/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `fleet.redb` of a state folder.
    Fleet(PathBuf),
    /// A file of [`Embedded`].
    Redb(PathBuf),
    /// An etcd cluster, by its configuration.
    Etcd(PathBuf),
}

impl Place {
    /// Reads `fleet`, `redb:FILE`, `etcd:FILE.yml`.
    ///
    /// # Errors
    /// Wrong usage.
    pub fn parse(text: &str, own: &Path) -> Result<Place, String> {
        match text.split_once(':') {
            None if text == "fleet" => Ok(Place::Fleet(own.to_path_buf())),
            Some(("redb", file)) if !file.is_empty() => Ok(Place::Redb(file.into())),
            Some(("etcd", file)) if !file.is_empty() => Ok(Place::Etcd(file.into())),
            _ => Err(format!("'{text}' is no store: expected fleet, redb:FILE or etcd:FILE.yml")),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Place::Fleet(_) => "fleet",
            Place::Redb(_) => "redb",
            Place::Etcd(_) => "etcd",
        }
    }

    /// The store behind the trait; `Fleet` has none. A file that is not there is made only for a restore.
    pub(super) fn open(&self, make: bool) -> Result<Option<Rc<dyn Store>>, String> {
        Ok(match self {
            Place::Fleet(_) => None,
            Place::Redb(file) if !make && !file.exists() => return Err(format!("{}: there is no such file", file.display())),
            Place::Redb(file) => Some(Embedded::open(file).map_err(|r| r.to_string())? as Rc<dyn Store>),
            Place::Etcd(file) => Some(Etcd::new(settings(file)?).map_err(|r| r.to_string())? as Rc<dyn Store>),
        })
    }

    /// Shows every row. Keys under a lease are left out: they belong to a process that lives now.
    fn rows(&self, mut take: impl FnMut(Item) -> Result<(), Reason>) -> Result<u64, String> {
        let done = match (self, self.open(false)?) {
            (Place::Fleet(file), _) => own::rows(file, take).map(|()| 0),
            (_, Some(store)) => smol::block_on(async {
                let mut listing = store.clone().list(everything());
                loop {
                    let page = listing.next(PAGE_MAX).await?;
                    for row in page.rows.into_iter().filter(|row| row.lease.is_none()) {
                        if row.key == UNFINISHED {
                            return Err(unfinished());
                        }
                        take(Item { key: row.key, value: row.value })?;
                    }
                    if !page.more {
                        return Ok(page.revision);
                    }
                }
            }),
            (_, None) => Ok(0),
        };
        done.map_err(|r| r.to_string())
    }

    /// Writes a backup.
    ///
    /// # Errors
    /// One sentence.
    pub fn backup(&self, file: &Path, shared_only: bool) -> Result<Tally, String> {
        let revision = match self.open(false)? {
            Some(store) => smol::block_on(store.health()).map_err(|r| r.to_string())?.revision,
            None => 0,
        };
        let head = Head { from: self.kind().into(), revision, at: clock::unix(), ..Head::default() };
        let mut writer = Writer::begin(file, &head).map_err(|r| r.to_string())?;
        // The other tables stay with each Fleet: a copy of them here would be an old one some day.
        let stays = |item: &Item| !item.key.split_once('/').is_some_and(|(table, _)| SETTINGS.iter().any(|moved| moved.name() == table));
        self.rows(|item| if shared_only && stays(&item) { Ok(()) } else { writer.add(&item) })?;
        writer.end().map_err(|r| r.to_string())
    }

    /// Makes the store from a backup. It has to be empty; an interrupted restore is begun anew. Read back and compared.
    ///
    /// # Errors
    /// One sentence.
    pub fn restore(&self, file: &Path) -> Result<(Head, Tally), String> {
        let whole = dump::read(file, |_| Ok(())).map_err(|r| r.to_string())?;
        match (self, self.open(true)?) {
            (Place::Fleet(path), _) => {
                let mut maker = own::Maker::begin(path).map_err(|r| r.to_string())?;
                dump::read(file, |item| maker.add(item)).and_then(|_| maker.end()).map_err(|r| r.to_string())?;
            }
            (_, Some(store)) => smol::block_on(fill(&store, file)).map_err(|r| r.to_string())?,
            (_, None) => {}
        }
        let mut there = Tally::default();
        self.rows(|item| {
            there.count(&item);
            Ok(())
        })?;
        match there == whole.1 {
            true => Ok(whole),
            false => Err(format!("{} rows were restored and {} are there; somebody else writes to it", whole.1.rows, there.rows)),
        }
    }

    /// How the store is, for people; whether it can be used.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<String, String> {
        let mut tally = Tally::default();
        let count = |item: Item| {
            tally.count(&item);
            Ok(())
        };
        let Some(store) = self.open(false)? else {
            self.rows(count)?;
            return Ok(format!("good: {} rows, every page read\n", tally.rows));
        };
        let health = smol::block_on(store.health()).map_err(|r| r.to_string())?;
        drop(store);
        let text = shown(&health);
        if health.members.iter().all(|m| m.problem.is_some()) {
            return Err(format!("the store cannot be used\n{text}"));
        }
        self.rows(count)?;
        let well = health.members.iter().all(|m| m.problem.is_none());
        Ok(format!("{}: revision {}, {} rows\n{text}", if well { "good" } else { "works, but" }, health.revision, tally.rows))
    }
}

fn shown(health: &Health) -> String {
    let mut table = Table::new(&["MEMBER", "VERSION", "LEADS", "BYTES", "PROBLEM"]);
    for member in &health.members {
        let problem = member.problem.as_ref().map_or("-".into(), |r| r.to_string());
        let leads = if member.leads { "yes" } else { "-" };
        table.row(vec![member.name.clone(), member.version.clone(), leads.into(), member.bytes.to_string(), problem]);
    }
    table.text()
}

/// What a backup is, for people.
///
/// # Errors
/// One sentence.
pub fn describe(file: &Path) -> Result<String, String> {
    let (head, tally) = dump::read(file, |_| Ok(())).map_err(|r| r.to_string())?;
    Ok(format!("good: {} rows of {} from {}\n", tally.rows, head.from, utc(head.at)))
}

pub(super) fn everything() -> Span {
    Span { from: vec![1], to: vec![0xff] }
}

pub(super) fn unfinished() -> Reason {
    Reason::new("store_unfinished", "a restore into this store was interrupted, and not all is there; run `store restore` again")
}

/// Fills a store: what an interrupted restore left goes first, then all rows in commits of bounded size.
async fn fill(store: &Rc<dyn Store>, file: &Path) -> Result<(), Reason> {
    let marked = store.get(UNFINISHED).await?.is_some();
    let mut listing = store.clone().list(everything());
    let first = listing.next(1).await?;
    if !marked && !first.rows.is_empty() {
        let detail = "the store is not empty; name another prefix or file, or remove what is there by its own tools";
        return Err(Reason::new("store_not_empty", detail));
    }
    // Others that begin at the same moment find the mark, or one of the two finds a conflict.
    if !marked {
        let begun = store.commit(Commit::default().when(UNFINISHED, 0).with(Step::put(UNFINISHED, ""))).await?;
        if !matches!(begun, super::Outcome::Done(_)) {
            return Err(Reason::new("store_not_empty", "somebody else restores into it at this moment"));
        }
    }
    let mut listing = store.clone().list(everything());
    let mut more = marked;
    while more {
        let page = listing.next(STEPS_MAX).await?;
        let steps: Vec<Step> = page.rows.iter().filter(|r| r.key != UNFINISHED).map(|r| Step::delete(&r.key)).collect();
        if !steps.is_empty() {
            store.commit(Commit { steps, ..Commit::default() }).await?;
        }
        more = page.more;
    }
    let (mut steps, mut bytes) = (Vec::new(), 0);
    let mut batches = Vec::new();
    dump::read(file, |item| {
        let size = item.key.len() + item.value.len();
        if steps.len() == STEPS_MAX || (bytes + size > BATCH_BYTES && !steps.is_empty()) {
            batches.push(std::mem::take(&mut steps));
            bytes = 0;
            // A backup may be larger than memory should hold: what is read is written before more is.
            smol::block_on(write(store, &mut batches))?;
        }
        bytes += size;
        steps.push(Step::put(item.key, item.value));
        Ok(())
    })?;
    if !steps.is_empty() {
        batches.push(steps);
        write(store, &mut batches).await?;
    }
    store.commit(Commit::default().with(Step::delete(UNFINISHED))).await.map(drop)
}

async fn write(store: &Rc<dyn Store>, batches: &mut Vec<Vec<Step>>) -> Result<(), Reason> {
    for steps in batches.drain(..) {
        store.commit(Commit { steps, ..Commit::default() }).await?;
    }
    Ok(())
}

/// Reads `store:` of a configuration file.
///
/// # Errors
/// Every problem with file, line and field.
pub fn settings(file: &Path) -> Result<Settings, String> {
    let bytes = read_limited(file, FILE_MAX).map_err(|e| format!("{}: {e}", file.display()))?;
    let bytes = bytes.ok_or_else(|| format!("{}: there is no such file", file.display()))?;
    parse(&bytes).map_err(|problems| listed(file, &problems))
}

fn parse(bytes: &[u8]) -> Result<Settings, Vec<Problem>> {
    let root = read(bytes)?;
    let mut problems = Vec::new();
    let nothing = |line: usize, field: &str| vec![Problem::new(line, field, "nothing", "`store:` with `etcd:` below it")];
    let Some(top) = Section::open("", &root, &["store"], &[], &mut problems) else { return Err(nothing(1, "store")) };
    let Some((_, node)) = top.node("store") else { return Err([problems, nothing(1, "store")].concat()) };
    let store = Section::open("store.", node, &["etcd"], &[], &mut problems);
    let Some(store) = store else { return Err(problems) };
    let Some((_, node)) = store.node("etcd") else { return Err([problems, nothing(store.line, "store.etcd")].concat()) };
    let names = ["endpoints", "ca", "cert", "key", "user", "password_file", "prefix"];
    let Some(etcd) = Section::open("store.etcd.", node, &names, &[], &mut problems) else { return Err(problems) };
    let mut settings = Settings { prefix: "/vmetric/fleet/".into(), ..Settings::default() };
    match etcd.node("endpoints") {
        Some((_, node)) => match &node.kind {
            Kind::List(list) if (1..=ENDPOINTS_MAX).contains(&list.len()) => {
                for node in list {
                    match &node.kind {
                        Kind::Text(text) => match Endpoint::parse(text) {
                            Ok(_) => settings.endpoints.push(text.clone()),
                            Err(reason) => problems.push(Problem::new(node.line, "store.etcd.endpoints", &node.found(), &reason.detail)),
                        },
                        _ => problems.push(Problem::new(node.line, "store.etcd.endpoints", &node.found(), "https://HOST:PORT")),
                    }
                }
            }
            _ => problems.push(Problem::new(node.line, "store.etcd.endpoints", &node.found(), "a list of 1 to 15 https://HOST:PORT")),
        },
        None => problems.push(Problem::new(etcd.line, "store.etcd.endpoints", "nothing", "a list of 1 to 15 https://HOST:PORT")),
    }
    let path = |name: &str, problems: &mut Vec<Problem>| etcd.file(name, problems).map(|at| at.value);
    settings.ca = path("ca", &mut problems);
    settings.cert = path("cert", &mut problems);
    settings.key = path("key", &mut problems);
    settings.password_file = path("password_file", &mut problems);
    settings.user = etcd.text("user", "a user's name in etcd", &mut problems).map(|at| at.value);
    if let Some(at) = etcd.text("prefix", "what all keys begin with, such as /vmetric/fleet/", &mut problems) {
        settings.prefix = at.value;
    }
    for (one, other) in [("cert", "key"), ("key", "cert"), ("user", "password_file"), ("password_file", "user")] {
        if let (Some((name, _)), None) = (etcd.node(one), etcd.node(other)) {
            problems.push(Problem::new(name.line, &etcd.path(one), &format!("no `{other}` beside it"), "both, or neither"));
        }
    }
    if etcd.node("ca").is_none() && settings.endpoints.iter().any(|e| e.starts_with("https")) {
        problems.push(Problem::new(etcd.line, "store.etcd.ca", "nothing", "the file with the CA of etcd's servers"));
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let own = Path::new("/s/fleet.redb");
        assert_eq!(Place::parse("fleet", own), Ok(Place::Fleet(own.into())));
        assert_eq!(Place::parse("redb:/x", own), Ok(Place::Redb("/x".into())));
        for bad in ["", "redb", "redb:", "etcd:", "zk:/x", "Fleet"] {
            assert!(Place::parse(bad, own).unwrap_err().contains("etcd:FILE.yml"), "{bad}");
        }
    }
}
