//! The walk along delegations: "5.6.7 Perform a pre-order depth-first search for metadata about the desired target".
//!
//! ```text
//!  targets --a--> A --c--> C        visited: A C B; C once per search, although two roles delegate to it
//!          --b--> B --c--> C        each arrow is verified under the keys of the role it starts at
//! ```

use super::keys::RoleKeys;
use super::meta::Meta;
use super::targets::{DELEGATED, TARGETS, Targets};
use super::{Now, ROLES_MAX, Refusal, Trusted};
use crate::core::hex;

/// One arrow: `role` as `delegator` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub delegator: String,
    pub role: String,
}

/// Which arrow comes next. It knows nothing of files; whoever walks loads the role and calls [`Walk::descend`].
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The path looked for and its hash; none = every arrow is of interest.
    looking_for: Option<(String, String)>,
    todo: Vec<Link>,
    /// Roles seen, in order.
    roles: Vec<String>,
    /// Arrows seen, when all are of interest.
    links: Vec<Link>,
}

impl Walk {
    /// Searches one path.
    pub fn to(path: &str) -> Walk {
        let hash = hex::encode(&hex::sha256(path.as_bytes()));
        Walk { looking_for: Some((path.to_string(), hash)), todo: Vec::new(), roles: Vec::new(), links: Vec::new() }
    }

    /// Visits every role.
    pub fn everywhere() -> Walk {
        Walk { looking_for: None, todo: Vec::new(), roles: Vec::new(), links: Vec::new() }
    }

    pub fn path(&self) -> Option<&str> {
        self.looking_for.as_ref().map(|(path, _)| path.as_str())
    }

    /// "5.6.7.1 If this role has been visited before, then skip this role" (so cycles end). A search sees each role once;
    /// a visit of everything sees each arrow once, because each is verified by itself.
    pub fn next_link(&mut self) -> Result<Option<Link>, Refusal> {
        while let Some(link) = self.todo.pop() {
            let role_seen = self.roles.contains(&link.role);
            if self.links.contains(&link) || (role_seen && self.looking_for.is_some()) {
                continue;
            }
            if !role_seen {
                if self.roles.len() == ROLES_MAX {
                    return Err(Refusal::new("delegation_roles", &link.role, format!("more than {ROLES_MAX} roles on the way")));
                }
                self.roles.push(link.role.clone());
            }
            if self.looking_for.is_none() {
                self.links.push(link.clone());
            }
            return Ok(Some(link));
        }
        Ok(None)
    }

    /// "5.6.7.2 recursively search the list of delegations in order of appearance"; after a terminating delegation that
    /// covers the path nothing else is searched, on this level or above (CVE-2025-2886, CVE-2024-47534).
    pub fn descend(&mut self, role: &Targets) {
        let mut children = Vec::new();
        for delegation in &role.delegations {
            if let Some((path, hash)) = &self.looking_for {
                if !delegation.covers(path, hash) {
                    continue;
                }
                if delegation.terminating {
                    self.todo.clear();
                }
            }
            children.push(Link { delegator: role.name.clone(), role: delegation.name.clone() });
            if delegation.terminating && self.looking_for.is_some() {
                break;
            }
        }
        self.todo.extend(children.into_iter().rev());
    }
}

impl Trusted {
    /// "5.6 Update the targets role", the top-level one.
    pub(super) fn accept_targets(&mut self, bytes: &[u8], now: &Now) -> Result<(), Refusal> {
        let new = Targets::open("targets", &TARGETS, self.listed("targets")?, &self.root.targets, bytes)?;
        new.check_expiry(&TARGETS, now.at(self.issued()))?;
        self.targets = Some(new);
        Ok(())
    }

    /// Is the targets role that we hold the one that the snapshot lists, under the keys of today? If so it must be current.
    pub(super) fn targets_are_listed(&self, now: &Now) -> Result<bool, Refusal> {
        let listed = self.listed("targets")?;
        let Some(held) = &self.targets else { return Ok(false) };
        let same = Targets::open("targets", &TARGETS, listed, &self.root.targets, &held.doc.bytes).is_ok();
        if same {
            held.check_expiry(&TARGETS, now.at(self.issued()))?;
        }
        Ok(same)
    }

    /// The same for a delegated role, under the keys of `link`'s delegator.
    pub(super) fn accept_delegated(&mut self, link: &Link, bytes: &[u8], now: &Now) -> Result<(), Refusal> {
        let new = self.open_link(link, bytes)?;
        new.check_expiry(&DELEGATED, now.at(self.issued()))?;
        self.delegated.insert(link.role.clone(), new);
        Ok(())
    }

    /// The checks of a delegated role but its expiry.
    pub(super) fn open_link(&self, link: &Link, bytes: &[u8]) -> Result<Targets, Refusal> {
        Targets::open(&link.role, &DELEGATED, self.listed(&link.role)?, self.link_keys(link)?, bytes)
    }

    /// The role that we hold, if it passes as `link` sees it. Having passed under another delegator says nothing.
    pub(super) fn link_holds(&self, link: &Link) -> Result<&Targets, Refusal> {
        let held = self.current(&link.role)?;
        self.open_link(link, &held.doc.bytes)?;
        Ok(held)
    }

    /// The role that we hold, if it has the version that the snapshot lists: after a refresh that ended early it may not.
    pub(super) fn current(&self, role: &str) -> Result<&Targets, Refusal> {
        let missing = |detail: String| Refusal::new("target_not_loaded", role, detail);
        let held = self.role(role).ok_or_else(|| missing("this role has not been fetched".into()))?;
        let (ours, listed) = (held.head.version, self.listed(role)?.version);
        if ours != listed {
            return Err(missing(format!("version {ours} is here, version {listed} has not been fetched")));
        }
        Ok(held)
    }

    fn link_keys(&self, link: &Link) -> Result<&RoleKeys, Refusal> {
        let missing = || Refusal::new("target_not_loaded", &link.delegator, format!("does not delegate to '{}'", link.role));
        let delegation = self.role(&link.delegator).and_then(|d| d.delegation(&link.role));
        delegation.map(|d| &d.keys).ok_or_else(missing)
    }

    /// The top-level targets or a delegated role, if we hold it.
    pub(super) fn role(&self, name: &str) -> Option<&Targets> {
        if name == "targets" { self.targets.as_ref() } else { self.delegated.get(name) }
    }

    /// What the trusted snapshot says about a role.
    pub(super) fn listed(&self, role: &str) -> Result<&Meta, Refusal> {
        let missing = || Refusal::new("snapshot_missing", "snapshot", "no snapshot is trusted yet");
        self.snapshot.as_ref().ok_or_else(missing)?.role(role)
    }
}
