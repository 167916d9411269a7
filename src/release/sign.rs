//! `sign`: adds the signatures of the keys at hand.
//!
//! ```text
//! root, targets, delegated roles   signed as they are; several people on several machines add to the same drafts
//!          | all complete
//! snapshot                         made from their bytes, then signed
//!          | complete
//! timestamp                        made from its bytes, then signed
//! ```
//!
//! Each arrow waits for every role of its level, so a snapshot never lists a role that a client would refuse.

use std::collections::BTreeMap;

use super::envelope::{Authority, Envelope};
use super::failure::{Failure, Result};
use super::json::Node;
use super::metadata::{FileMeta, Listing, ROOT, Root, SNAPSHOT, TIMESTAMP, read_header};
use super::repo::Repo;
use super::ring::Ring;
use super::state::{RoleState, kind};

/// Which roles to sign.
pub struct Wish {
    /// Empty: all.
    pub roles: Vec<String>,
    /// Give published drafts a new version with a fresh expiry first.
    pub renew: bool,
}

impl Wish {
    fn has(&self, role: &str) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|r| r == role)
    }
}

/// Signs, and answers the state of every role afterwards.
pub fn sign(repo: &Repo, ring: &mut Ring, wish: &Wish, now: u64) -> Result<Vec<RoleState>> {
    let roles = repo.roles()?;
    if let Some(unknown) = wish.roles.iter().find(|r| !roles.contains(r)) {
        return Err(Failure::new("unknown_role", format!("--role {unknown}: there is no such role; the roles are {}", roles.join(", "))));
    }
    if wish.renew && wish.roles.is_empty() {
        return Err(Failure::usage("--renew needs --role ROLE: say which role gets a new version and expiry"));
    }
    for role in roles.iter().filter(|r| wish.has(r) && ![SNAPSHOT, TIMESTAMP].contains(&r.as_str())) {
        if wish.renew {
            renew(repo, role, now)?;
        }
        add_signatures(repo, ring, role)?;
    }
    for (role, make) in [(SNAPSHOT, make_snapshot as fn(&Repo, bool, u64) -> Result<bool>), (TIMESTAMP, make_timestamp)] {
        if !wish.has(role) {
            continue;
        }
        if make(repo, wish.renew, now)? {
            add_signatures(repo, ring, role)?;
        } else if wish.renew {
            let text = format!("--renew --role {role}: a role before it still lacks signatures; 'status' says which");
            return Err(Failure::new("threshold", text));
        }
    }
    RoleState::all(repo)
}

/// Adds the signatures of the keys at hand to one draft. A published draft stays as it is: its bytes are final.
pub fn add_signatures(repo: &Repo, ring: &mut Ring, role: &str) -> Result<()> {
    let state = RoleState::look(repo, role)?;
    let Some(mut draft) = repo.draft(role)? else { return Ok(()) };
    if state.is_published {
        return Ok(());
    }
    for pair in ring.pairs(role, &wanted(repo, role)?)? {
        draft.sign(&pair);
    }
    repo.save_draft(role, &draft)
}

/// Keys whose signature is of use: those of every authority, and those that the root's draft gives the role.
pub fn wanted(repo: &Repo, role: &str) -> Result<BTreeMap<String, super::envelope::Public>> {
    let (_, draft): (_, Root) = repo.root()?;
    let of = |a: Authority| a.keys;
    let mut out: BTreeMap<_, _> = repo.authorities(role)?.into_iter().flat_map(of).collect();
    out.extend(draft.authority(role).into_iter().flat_map(of));
    Ok(out)
}

/// A new version with the same content and a fresh expiry; a draft that is not published only gets the expiry.
pub fn renew(repo: &Repo, role: &str, now: u64) -> Result<()> {
    let expires = repo.settings.expires(role, now);
    let version = repo.next_version(role)?;
    let value = match role {
        ROOT => {
            let (_, mut root) = repo.root()?;
            (root.version, root.expires) = (version, expires);
            root.to_value()
        }
        _ => {
            let (_, mut targets) = repo.targets(role)?;
            (targets.version, targets.expires) = (version, expires);
            targets.to_value()
        }
    };
    repo.save_draft(role, &Envelope::unsigned(value))
}

/// Brings the snapshot's draft up to date; false while a role it lists is incomplete.
fn make_snapshot(repo: &Repo, renew: bool, now: u64) -> Result<bool> {
    let mut meta = BTreeMap::new();
    for role in repo.roles()?.iter().filter(|r| ![ROOT, SNAPSHOT, TIMESTAMP].contains(&r.as_str())) {
        if !RoleState::look(repo, role)?.is_complete() {
            return Ok(false);
        }
        meta.insert(format!("{role}.json"), describe(repo, role)?);
    }
    make_listing(repo, SNAPSHOT, meta, renew, now)?;
    Ok(true)
}

/// Brings the timestamp's draft up to date. While the next snapshot is incomplete it names the published one, so that the
/// daily renewal goes on while people still sign; false when there is none.
fn make_timestamp(repo: &Repo, renew: bool, now: u64) -> Result<bool> {
    let published = repo.published(SNAPSHOT)?.last().copied();
    let described = match published {
        _ if RoleState::look(repo, SNAPSHOT)?.is_complete() => describe(repo, SNAPSHOT)?,
        Some(version) => FileMeta::of(version, &repo.published_bytes(SNAPSHOT, version)?.unwrap_or_default()),
        None => return Ok(false),
    };
    make_listing(repo, TIMESTAMP, BTreeMap::from([(format!("{SNAPSHOT}.json"), described)]), renew, now)?;
    Ok(true)
}

fn describe(repo: &Repo, role: &str) -> Result<FileMeta> {
    let draft = repo.draft(role)?.ok_or_else(|| Failure::new("missing_file", format!("the draft of {role} has gone; restore it")))?;
    let (version, _) = read_header(&Node::top(&draft.signed, role), kind(role))?;
    Ok(FileMeta::of(version, &draft.bytes()))
}

fn make_listing(repo: &Repo, role: &str, meta: BTreeMap<String, FileMeta>, renew: bool, now: u64) -> Result<()> {
    let is_same = repo.listing(role)?.is_some_and(|(_, old)| old.meta == meta);
    if is_same && !renew {
        return Ok(());
    }
    let issued = (role == TIMESTAMP).then_some(now);
    let listing = Listing { version: repo.next_version(role)?, expires: repo.settings.expires(role, now), meta, issued };
    repo.save_draft(role, &Envelope::unsigned(listing.to_value(role)))
}
