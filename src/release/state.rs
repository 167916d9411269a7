//! How far each role is: what `status` shows, and what `sign` and `publish` wait for.

use super::envelope::Envelope;
use super::failure::Result;
use super::json::Node;
use super::metadata::{ROOT, SNAPSHOT, TARGETS, TIMESTAMP, read_header};
use super::repo::Repo;

/// How much of a key id people are shown: enough to find it in the list that 'keys' prints.
const KEYID_SHOWN: usize = 12;

/// One authority's signatures on one draft.
pub struct Need {
    /// Whose keys.
    pub authority: String,
    /// How many are needed.
    pub threshold: u64,
    /// Key ids that have signed.
    pub signed: Vec<String>,
    /// Key ids that could still sign.
    pub open: Vec<String>,
}

impl Need {
    /// Signatures that are still missing.
    pub fn missing(&self) -> u64 {
        self.threshold.saturating_sub(self.signed.len() as u64)
    }
}

/// One role's draft.
pub struct RoleState {
    /// Its name.
    pub role: String,
    /// 0: there is no draft yet (`sign` makes snapshot and timestamp).
    pub version: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// This version was published.
    pub is_published: bool,
    /// Who has to sign.
    pub needs: Vec<Need>,
}

impl RoleState {
    /// Looks at one role.
    pub fn look(repo: &Repo, role: &str) -> Result<RoleState> {
        let Some(draft) = repo.draft(role)? else {
            return Ok(RoleState { role: role.into(), version: 0, expires: 0, is_published: false, needs: Vec::new() });
        };
        let (version, expires) = read_header(&Node::top(&draft.signed, role), kind(role))?;
        let needs = needs(repo, role, &draft)?;
        let is_published = repo.published(role)?.contains(&version);
        Ok(RoleState { role: role.into(), version, expires, is_published, needs })
    }

    /// Looks at every role.
    pub fn all(repo: &Repo) -> Result<Vec<RoleState>> {
        repo.roles()?.iter().map(|role| RoleState::look(repo, role)).collect()
    }

    /// Enough signatures of everybody.
    pub fn is_complete(&self) -> bool {
        self.version > 0 && self.needs.iter().all(|n| n.threshold > 0 && n.missing() == 0)
    }

    /// What is missing, for people; `None` when nothing is.
    pub fn waiting_on(&self) -> Option<String> {
        if self.is_complete() {
            return None;
        }
        if self.version == 0 {
            return Some(format!("{}: not made yet; 'sign' makes it once all other roles are signed", self.role));
        }
        let wait = |n: &Need| {
            let open: Vec<&str> = n.open.iter().map(|id| id.get(..KEYID_SHOWN).unwrap_or(id)).collect();
            format!("{} of {} signatures of {}, open: {}", n.signed.len(), n.threshold, n.authority, open.join(" "))
        };
        let open: Vec<String> = self.needs.iter().filter(|n| n.missing() > 0).map(wait).collect();
        let remedy = if self.is_published { format!(" (published already: 'sign --renew --role {}')", self.role) } else { String::new() };
        Some(format!("{} version {}: {}{remedy}", self.role, self.version, open.join("; and ")))
    }
}

/// The `_type` of a role's documents.
pub fn kind(role: &str) -> &str {
    if [ROOT, SNAPSHOT, TIMESTAMP].contains(&role) { role } else { TARGETS }
}

fn needs(repo: &Repo, role: &str, draft: &Envelope) -> Result<Vec<Need>> {
    let need = |authority: super::envelope::Authority| {
        let signed = draft.signers(&authority);
        let open = authority.keys.keys().filter(|id| !signed.contains(*id)).cloned().collect();
        Need { authority: authority.name, threshold: authority.threshold, signed: signed.into_iter().collect(), open }
    };
    Ok(repo.authorities(role)?.into_iter().map(need).collect())
}
