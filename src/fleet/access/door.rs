//! The one way from a door (page, REST API) to a command: may this role, do it, note it, answer.

use std::rc::Rc;

use super::rules::How;
use super::{Access, Who, rules};
use crate::core::access::{Act, Role, may_give, permits};
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, captured};
use crate::director::commands::store_error;
use crate::director::site::Site;
use crate::director::store::Rider;
use crate::director::together::together;

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
    let may = allowed(&access, site, &wire, caller.role);
    if rules::only_looks(&wire) {
        may?;
        return captured(site, wire, &caller.by).await;
    }
    logged(&access, site, wire, &caller.by, &caller.ip, may).await
}

/// Runs an act and notes it. Where the act is a change of the store, its row is in the same transaction; where it is not (files,
/// other servers), a row says beforehand that it has begun. The answer waits for all of it.
///
/// # Errors
/// `may`, and the command's own.
pub async fn logged(
    access: &Rc<Access>,
    site: &Rc<Site>,
    wire: AdminWire,
    by: &str,
    ip: &str,
    may: Result<(), Reason>,
) -> Result<String, Reason> {
    let told = wire.clone();
    let note = |how: How| access.audit.note(site, rules::entry(&told, by, ip, how));
    let begun = may.is_ok() && rules::beyond_the_store(&wire);
    if begun {
        note(How::Begun);
        site.store.durable().await.map_err(store_error)?;
    }
    let (done, noted) = match may {
        Ok(()) if !begun => {
            let (access, on, entry) = (access.clone(), site.clone(), rules::entry(&wire, by, ip, How::Done));
            let rider: Rider = Box::new(move || access.audit.note(&on, entry));
            together(&site.store, rider, captured(site, wire, by)).await
        }
        Ok(()) => (captured(site, wire, by).await, false),
        Err(reason) => (Err(reason), false),
    };
    match &done {
        Ok(_) if noted => {}
        Ok(_) => note(How::Done),
        Err(reason) if noted || begun => note(How::Failed(reason)),
        Err(reason) => note(How::Refused(reason)),
    }
    site.store.durable().await.map_err(store_error)?;
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
