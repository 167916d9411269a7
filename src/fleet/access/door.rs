//! The one way from a door (page, REST API) to a command: may this role, do it, note it, answer.

use std::rc::Rc;

use super::{Access, Who, rules};
use crate::core::access::{Act, Role, may_give, permits};
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, captured};
use crate::director::commands::store_error;
use crate::director::site::Site;

/// Who stands at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// How the activity and the audit log call him.
    pub by: String,
    /// From where.
    pub ip: String,
    /// What he may.
    pub role: Role,
}

impl From<&Who> for Caller {
    fn from(who: &Who) -> Caller {
        Caller { by: who.by(), ip: who.ip.clone(), role: who.role }
    }
}

/// Runs what the administration socket would run, for somebody who is not on this machine.
///
/// # Errors
/// `role_too_low`, and the command's own.
pub async fn command(site: &Rc<Site>, wire: AdminWire, caller: &Caller) -> Result<String, Reason> {
    let access = super::of(site)?;
    let told = wire.clone();
    let done = match allowed(&access, site, &wire, caller.role) {
        Ok(()) => captured(site, wire, &caller.by).await,
        Err(reason) => Err(reason),
    };
    if let Some(entry) = rules::entry(&told, &caller.by, &caller.ip, done.as_ref().map(|_| ())) {
        access.audit.note(site, entry);
        site.store.durable().await.map_err(store_error)?;
    }
    done
}

/// Whether a role may run a command; about owners, and about roles that are given, more counts than the command's name.
///
/// # Errors
/// `role_too_low`.
pub fn allowed(access: &Access, site: &Site, wire: &AdminWire, role: Role) -> Result<(), Reason> {
    let owner = |name: &String| access.user(name).is_ok_and(|user| user.role() == Role::Owner);
    let session = || wire.revoke.as_ref().and_then(|id| access.user_of_session(id));
    let about = wire.user.clone().or_else(session);
    permits(role, rules::act_of(wire, about.as_ref().is_some_and(owner)))?;
    if let ("user" | "api-token", Some(given)) = (wire.command.as_str(), &wire.role) {
        may_give(role, Role::parse(given)?)?;
    }
    // A token of somebody above is not his to revoke.
    if let ("api-token", Some(id)) = (wire.command.as_str(), &wire.revoke)
        && let Some(of) = site.registry.borrow().api_token_role(id)
    {
        may_give(role, of)?;
    }
    Ok(())
}

/// Notes that somebody was kept from a page or a route, so that a look into the log finds who tries.
pub fn note_refused(site: &Rc<Site>, caller: &Caller, what: &str, act: Act) {
    if let Ok(access) = super::of(site) {
        access.note_denied(site, caller, what, act);
    }
}
