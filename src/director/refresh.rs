//! The one task that renews the mirror: at the start, every minute, on demand, and from a bundle that a person brought.
//!
//! One at a time, because they write the same folder. A Director without a source makes no outbound call; what it serves
//! comes by [`Import`] alone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::allowance::{self, Allowance};
use super::mirror::{EVERY, Mirror, Renewed, Source};
use super::service::retry_after;
use super::site::Site;
use super::tree::Tree;
use crate::core::keep::{self, Facts};
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::io::clock;
use crate::io::serve::Response;

/// The longest that a request for a file by name waits for it: below the time that a mirror waits for an answer
/// (30 s). Whoever comes again finds the fetch where it is then.
const BRING: Duration = Duration::from_secs(25);
/// Advised pause when it is not here by then, seconds; up to twice that is added by chance.
const NOT_HERE_S: u64 = 10;

/// A medium to take releases from, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Bundle or tree, as the Director's process sees it.
    pub file: PathBuf,
    /// Also if timestamp or snapshot have expired on the way.
    pub accept_expired: bool,
}

/// How the last refresh ended.
#[derive(Clone, Debug, Default)]
pub struct Last {
    /// Counts the refreshes of this process.
    pub number: u64,
    /// What was turned down.
    pub error: Option<String>,
    /// What the last import brought; stays until the next one.
    pub note: Option<String>,
}

/// Asks for an import, to be made by the next refresh.
///
/// # Errors
/// `import_pending`: one at a time.
pub fn ask_import(site: &Site, import: Import) -> Result<(), Reason> {
    match &mut *site.import.borrow_mut() {
        Some(other) => Err(Reason::new("import_pending", format!("{} is still to be imported; wait for it", other.file.display()))),
        free => {
            *free = Some(import);
            Ok(())
        }
    }
}

/// Waits for the next refresh to end. One that runs already may have read the old tree, so only one that starts now counts.
///
/// # Errors
/// `mirror_refused` with what was refused, `no_source`.
pub async fn next(site: &Site, asked: bool) -> Result<(), Reason> {
    if !asked && site.about.borrow().mirror.is_empty() {
        let (title, how) = (site.role.title, site.role.command("mirror --file FILE"));
        let detail = format!("this {title} was started without --mirror; bring a bundle with `{how}`");
        return Err(Reason::new("no_source", detail));
    }
    let goal = site.refreshes_begun.get() + 1;
    site.refresh.ring();
    while site.last_refresh.borrow().number < goal {
        site.refreshed.wait().await;
    }
    let failure = site.last_refresh.borrow().error.clone();
    failure.map_or(Ok(()), |error| Err(Reason::new("mirror_refused", error)))
}

/// Longest wait of a person's command for the files on the disk: after that it says what is known.
const KNOWN_MAX: Duration = Duration::from_secs(5);
/// What those who come before that are told, seconds.
pub const CHECKING_RETRY_S: u64 = 2;

/// Verifies what is on the disk. Until then nothing of it is served, ordered or shown.
async fn check(site: &Site, mirror: Arc<Mirror>) {
    if !site.tree.borrow().checking {
        return;
    }
    let tree = match smol::unblock(move || mirror.from_disk()).await {
        Ok(found) => found.tree,
        // Its metadata held a moment ago. The refresh brings what can be had.
        Err(reason) => {
            log::error!("the mirror on the disk is not used: {reason}");
            Tree::default()
        }
    };
    *site.tree.borrow_mut() = Arc::new(tree);
    site.refreshed.ring();
    site.planner.ring();
}

/// Waits until it is known what the mirror holds.
///
/// # Errors
/// `mirror_checking`: that takes long.
pub async fn known(site: &Site) -> Result<(), Reason> {
    let found = async {
        while site.tree.borrow().checking {
            site.refreshed.wait().await;
        }
        Ok(())
    };
    let late = async {
        smol::Timer::after(KNOWN_MAX).await;
        Err(checking())
    };
    smol::future::or(found, late).await
}

/// Why nothing is said of releases yet.
pub fn checking() -> Reason {
    Reason::new("mirror_checking", "the mirror's files are still being verified after the start; try again in a moment")
}

/// Waits until a file that is listed is here, because somebody asks for it by name.
///
/// # Errors
/// What is said instead; with `Retry-After`.
pub async fn bring(site: &Site, artifact: &Artifact) -> Result<(), Response> {
    let path = artifact.path.to_string();
    site.registry.borrow_mut().ask_for(artifact, clock::unix());
    let goal = site.refreshes_begun.get() + 1;
    site.flush();
    let looked = ended(site, goal, BRING).await;
    let (tree, failure) = (site.tree.borrow().clone(), site.last_refresh.borrow().error.clone());
    match tree.releases.away.get(&path) {
        Some(_) if !looked => Err(not_here(&path, "it is on its way")),
        Some(why) => Err(not_here(&path, &failure.unwrap_or_else(|| why.to_string()))),
        None if tree.entries.contains_key(&format!("targets/{path}")) => Ok(()),
        None => Err(Response::error(404, "not_found", format!("{path} is listed no more"))),
    }
}

/// Waits for the end of this refresh, but not longer; true: it has ended.
pub async fn ended(site: &Site, number: u64, longest: Duration) -> bool {
    let over = async {
        smol::Timer::after(longest).await;
        false
    };
    let ended = async {
        while site.last_refresh.borrow().number < number {
            site.refreshed.wait().await;
        }
        true
    };
    smol::future::or(ended, over).await
}

/// The answer to who asks for a file that is listed and not here.
pub fn not_here(path: &str, why: &str) -> Response {
    Response::error(503, "file_not_here", format!("{path}: {why}; try again later")).with("retry-after", retry_after(NOT_HERE_S))
}

/// Refreshes the mirror at the start, on demand and every minute.
pub async fn forever(site: Rc<Site>, mirror: Arc<Mirror>) {
    if matches!(mirror.source, Source::Nowhere) {
        log::info!("no mirror: releases come with `{}`", site.role.command("mirror --file"));
    }
    check(&site, mirror.clone()).await;
    let (allowance, counting) = allowance::of(&site);
    // The counting never ends before the mirror does.
    smol::future::or(counting, renew_forever(&site, mirror, allowance)).await;
}

async fn renew_forever(site: &Rc<Site>, mut mirror: Arc<Mirror>, allowance: Allowance) {
    loop {
        let number = site.refreshes_begun.get() + 1;
        site.refreshes_begun.set(number);
        let import = site.import.borrow_mut().take();
        if let Some(source) = site.source.borrow_mut().take() {
            mirror = Arc::new(Mirror { source, ..Mirror::clone(&mirror) });
        }
        let allowance = Some(allowance.clone()).filter(|_| matches!(mirror.source, Source::Url(..)));
        let facts = site.registry.borrow().mirror_facts(site.mirror_limit.get(), &site.tree.borrow().releases, clock::unix());
        mirror = Arc::new(Mirror { facts: Facts { fetched: Some(BTreeSet::new()), ..facts }, allowance, ..Mirror::clone(&mirror) });
        let (now, known) = (clock::unix(), site.tree.borrow().clone());
        let renewed = pass(&mirror, import.clone(), known, now).await;
        let renewed = fetch_needed(site, &mut mirror, renewed, now).await;
        let before = site.last_refresh.borrow().clone();
        let (error, note) = match renewed {
            Ok(None) => (None, None),
            Ok(Some(renewed)) => take(site, renewed, import.as_ref(), number, now),
            Err(reason) => (Some(reason.to_string()), None),
        };
        // Once per cause: a source that is away for a weekend is one line. What a person asked for is always told.
        if let Some(error) = error.clone().filter(|e| import.is_some() || Some(e) != before.error.as_ref()) {
            let code = if import.is_some() { "import_refused" } else { "mirror_refused" };
            site.registry.borrow_mut().event(now, "", code, error, None);
        }
        site.flush();
        *site.last_refresh.borrow_mut() = Last { number, error, note: note.or(before.note) };
        site.refreshed.ring();
        let pause = async {
            smol::Timer::after(EVERY).await;
        };
        smol::future::or(site.refresh.wait(), pause).await;
    }
}

/// One look, on a helper thread.
async fn pass(mirror: &Arc<Mirror>, import: Option<Import>, known: Arc<Tree>, now: u64) -> Result<Option<Renewed>, Reason> {
    let mirror = mirror.clone();
    smol::unblock(move || work(&mirror, import.as_ref(), &known, now)).await
}

/// What may be fetched is known once it is listed: the first look fetches no file, a second one what somebody may take.
async fn fetch_needed(
    site: &Site,
    mirror: &mut Arc<Mirror>,
    looked: Result<Option<Renewed>, Reason>,
    now: u64,
) -> Result<Option<Renewed>, Reason> {
    let Ok(Some(found)) = looked else { return looked };
    let facts = site.registry.borrow().mirror_facts(site.mirror_limit.get(), &found.tree.releases, now);
    let comes = |a: &Artifact| found.tree.releases.away.contains_key(&a.path.to_string()) && facts.may_fetch(&keep::used(a));
    if !found.tree.releases.artifacts.iter().any(comes) {
        return Ok(Some(found));
    }
    *mirror = Arc::new(Mirror { facts, ..Mirror::clone(mirror) });
    let Renewed { tree, changed, left_out, absent, expired } = found;
    let known = Arc::new(tree);
    match pass(mirror, None, known.clone(), now).await {
        Ok(Some(renewed)) => Ok(Some(Renewed { changed: changed || renewed.changed, ..renewed })),
        // What the first look found is good, whatever the second one met.
        Ok(None) | Err(_) => {
            let tree = Arc::into_inner(known).unwrap_or_default();
            Ok(Some(Renewed { tree, changed, left_out, absent, expired }))
        }
    }
}

/// Blocks; `None` = there is nothing to look at.
fn work(mirror: &Mirror, import: Option<&Import>, known: &Tree, now: u64) -> Result<Option<Renewed>, Reason> {
    match (import, &mirror.source) {
        (Some(import), _) => {
            let renewed = mirror.import(&import.file, import.accept_expired, known, now);
            renewed.map(Some).map_err(|reason| explain(reason, import))
        }
        (None, Source::Nowhere) => Ok(None),
        (None, _) => mirror.refresh(known, now).map(Some),
    }
}

/// What a person can do about it.
fn explain(reason: Reason, import: &Import) -> Reason {
    let reason = reason.of(import.file.display());
    match reason.code.as_ref() {
        "timestamp_expired" | "snapshot_expired" if !import.accept_expired => Reason::received(
            reason.code.to_string(),
            format!("{}; bring a newer bundle, or take this one with --accept-expired", reason.detail),
        ),
        _ => reason,
    }
}

/// Serves what was found from now on; what was left out, and what an import brought.
fn take(site: &Site, renewed: Renewed, import: Option<&Import>, number: u64, now: u64) -> (Option<String>, Option<String>) {
    let (tree, left_out) = (renewed.tree, renewed.left_out);
    let versions = tree.versions;
    let mut detail = format!(
        "timestamp {}, snapshot {}, targets {}, root {}; {} artifacts",
        tree.timestamp_version,
        versions[1],
        versions[2],
        versions[0],
        tree.releases.artifacts.len()
    );
    *site.tree.borrow_mut() = Arc::new(tree);
    let mut note = None;
    if let Some(import) = import {
        detail = format!("{}: {detail}", import.file.display());
        if !renewed.absent.is_empty() {
            detail = format!("{detail}; not in this bundle: {} artifacts", renewed.absent.len());
        }
        if !renewed.expired.is_empty() {
            detail = format!("{detail}; accepted although expired: {}", renewed.expired.join(", "));
        }
        site.registry.borrow_mut().event(now, "", "mirror_imported", detail.clone(), None);
        site.planner.ring();
        note = Some(detail);
    } else if renewed.changed {
        site.registry.borrow_mut().event(now, "", "mirror_refreshed", detail, None);
        site.planner.ring();
    } else if number == 1 {
        log::info!("the mirror is fresh: {detail}");
    }
    ((!left_out.is_empty()).then(|| list(&left_out)), note)
}

fn list(reasons: &[Reason]) -> String {
    let texts: Vec<String> = reasons.iter().map(|r| r.to_string()).collect();
    format!("left out: {}", texts.join("; "))
}
