//! What everybody may do with the own account: another password.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use super::audit::Entry;
use super::{Access, Who};
use crate::core::access;
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::io::clock;

/// The form's field that a refusal is about; `None`: the whole form.
pub fn field_of(reason: &Reason) -> Option<&'static str> {
    match reason.code.as_ref() {
        "login_wrong" | "login_throttled" => Some("current"),
        "password_weak" => Some("password"),
        "password_differs" => Some("again"),
        _ => None,
    }
}

impl Access {
    /// Sets another password for whoever knows the one so far; ends the user's other sessions, and says how many.
    ///
    /// # Errors
    /// `login_wrong`, `login_throttled`, `login_busy`, `password_weak`, `password_differs`, `user_unknown`.
    pub async fn change_own_password(&self, site: &Rc<Site>, who: &Who, current: &str, new: (&str, &str)) -> Result<usize, Reason> {
        let address = who.ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        // A stolen session tries no more passwords than a stranger at the login.
        if let Err(wait) = self.tries.borrow_mut().begin(&who.name, address, clock::monotonic()) {
            let until = crate::director::table::utc(clock::unix() + wait.as_secs() + 1);
            return Err(Reason::new("login_throttled", format!("too many wrong tries; the next one is possible at {until}")));
        }
        let kept = self.user(&who.name)?.password.unwrap_or_else(super::password::Hashed::nobody);
        if !self.fits(kept, current.to_string()).await? {
            self.note_own(site, who, "the present password was wrong: nothing is changed");
            return Err(Reason::new("login_wrong", "this is not your present password"));
        }
        self.tries.borrow_mut().right(&who.name, address);
        access::password(new.0, &who.name)?;
        if new.0 != new.1 {
            return Err(Reason::new("password_differs", "this is not the same password again"));
        }
        let hashed = self.hashed(new.0, &who.name).await?;
        let ended = self.set_own_password(site, &who.name, &who.session, hashed, clock::unix())?;
        self.note_own(site, who, &format!("chose another password; {ended} other session(s) ended"));
        Ok(ended)
    }

    fn note_own(&self, site: &Site, who: &Who, description: &str) {
        let (user, ip, object) = (who.by(), who.ip.clone(), who.name.clone());
        let (action, description) = ("ChangePassword".into(), description.into());
        self.audit.note(site, Entry { user, ip, object_type: "User".into(), object, action, description });
    }
}
