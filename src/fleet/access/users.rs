//! Users: a name, a role, a password, or the one-time link with which somebody chooses it.

use miniserde::{Deserialize, Serialize};

use super::Access;
use super::password::Hashed;
use crate::core::access::{self, Role};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::director::api_tokens::same;
use crate::director::site::{Site, random_hex};
use crate::director::store::Table;

/// Most users: people of one organization; programs have tokens.
pub const USERS_MAX: usize = 1_000;
/// How long a one-time link is good, seconds.
pub const LINK_S: u64 = 3_600;

/// A user's row; its key is the name.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct User {
    /// In lower case.
    pub name: String,
    /// `viewer`, `contributor`, `admin`, `owner`.
    pub role: String,
    /// None yet: the link has not been used.
    pub password: Option<Hashed>,
    /// With which a password is chosen.
    pub link: Option<Link>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Who made this user.
    pub by: String,
    /// Seconds since 1970; may not log in since then.
    pub disabled_at: Option<u64>,
    /// Seconds since 1970.
    pub password_at: Option<u64>,
    /// Last login, seconds since 1970.
    pub login_at: Option<u64>,
}

impl User {
    /// The role; what a later version may have written is the lowest one here.
    pub fn role(&self) -> Role {
        Role::parse(&self.role).unwrap_or(Role::Viewer)
    }

    /// `active`, `invited`, `disabled`.
    pub fn state(&self, now: u64) -> &'static str {
        match self {
            user if user.disabled_at.is_some() => "disabled",
            user if user.password.is_some() => "active",
            user if user.link.as_ref().is_some_and(|link| link.expires_at > now) => "invited",
            _ => "no_password",
        }
    }
}

/// A one-time link, as it is kept.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// SHA-256 of its code.
    pub hash: String,
    /// Seconds since 1970.
    pub expires_at: u64,
}

impl Link {
    /// A new one, and its code, which is kept nowhere.
    pub fn new(now: u64) -> (Link, String) {
        let code = random_hex(32);
        (Link { hash: digest(&code), expires_at: now + LINK_S }, code)
    }

    fn fits(&self, code: &str, now: u64) -> bool {
        same(&self.hash, &digest(code)) && now < self.expires_at
    }
}

/// Whom a one-time link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invited {
    /// Nobody is there yet: the first owner, who chooses a name, too.
    FirstOwner,
    /// This user.
    User(String),
}

fn digest(code: &str) -> String {
    hex::encode(&hex::sha256(code.as_bytes()))
}

fn unknown(name: &str) -> Reason {
    let name = access::user_name(name).unwrap_or_else(|_| "?".into());
    Reason::new("user_unknown", format!("there is no user '{name}'; `user list` shows all"))
}

impl Access {
    /// A user by name, in any spelling.
    ///
    /// # Errors
    /// `user_unknown`.
    pub fn user(&self, name: &str) -> Result<User, Reason> {
        let found = access::user_name(name).ok().and_then(|name| self.users.borrow().get(&name).cloned());
        found.ok_or_else(|| unknown(name))
    }

    /// All of them, by name.
    pub fn users(&self) -> Vec<User> {
        self.users.borrow().values().cloned().collect()
    }

    /// Whether some owner can log in.
    pub fn has_owner(&self) -> bool {
        self.users.borrow().values().any(|user| user.role() == Role::Owner && user.password.is_some() && user.disabled_at.is_none())
    }

    /// Adds one without a password.
    ///
    /// # Errors
    /// `name_invalid`, `user_exists`, `users_full`.
    pub fn add_user(&self, site: &Site, name: &str, role: Role, by: &str, now: u64) -> Result<User, Reason> {
        let name = access::user_name(name)?;
        if self.users.borrow().contains_key(&name) {
            return Err(Reason::new("user_exists", format!("there is a user '{name}' already")));
        }
        if self.users.borrow().len() >= USERS_MAX {
            return Err(Reason::new("users_full", format!("there are {USERS_MAX} users already; remove some first")));
        }
        let user = User { name, role: role.word().into(), created_at: now, by: by.into(), ..Default::default() };
        self.keep_user(site, user.clone());
        Ok(user)
    }

    /// Changes one; whatever changes ends his sessions.
    fn change(&self, site: &Site, name: &str, change: impl FnOnce(&mut User)) -> Result<User, Reason> {
        let user = self.changed(site, name, change)?;
        self.end_sessions_of(site, &user.name);
        Ok(user)
    }

    fn changed(&self, site: &Site, name: &str, change: impl FnOnce(&mut User)) -> Result<User, Reason> {
        let before = self.user(name)?;
        let mut user = before.clone();
        change(&mut user);
        let owns = |user: &User| user.role() == Role::Owner && user.password.is_some() && user.disabled_at.is_none();
        if owns(&before) && !owns(&user) {
            self.other_owner(&user.name)?;
        }
        self.keep_user(site, user.clone());
        Ok(user)
    }

    /// Somebody has to be left who can let others in.
    fn other_owner(&self, name: &str) -> Result<(), Reason> {
        let users = self.users.borrow();
        let mut others = users.values().filter(|u| u.name != name);
        if others.any(|u| u.role() == Role::Owner && u.password.is_some() && u.disabled_at.is_none()) {
            return Ok(());
        }
        Err(Reason::new("last_owner", format!("'{name}' is the last owner who can log in; make another one first")))
    }

    /// Gives another role.
    ///
    /// # Errors
    /// `user_unknown`, `last_owner`.
    pub fn set_role(&self, site: &Site, name: &str, role: Role) -> Result<User, Reason> {
        self.change(site, name, |user| user.role = role.word().into())
    }

    /// Sets the password; a link that was made before is worth nothing any more.
    ///
    /// # Errors
    /// `user_unknown`.
    pub fn set_password(&self, site: &Site, name: &str, password: Hashed, now: u64) -> Result<User, Reason> {
        self.change(site, name, |user| {
            (user.password, user.link, user.password_at) = (Some(password), None, Some(now));
        })
    }

    /// The same for somebody who sits at a session of his own: the others end, and how many.
    ///
    /// # Errors
    /// `user_unknown`.
    pub(super) fn set_own_password(&self, site: &Site, name: &str, session: &str, password: Hashed, now: u64) -> Result<usize, Reason> {
        let user = self.changed(site, name, |user| {
            (user.password, user.link, user.password_at) = (Some(password), None, Some(now));
        })?;
        Ok(self.end_other_sessions(site, &user.name, session))
    }

    /// Lets somebody in no more, or again.
    ///
    /// # Errors
    /// `user_unknown`, `last_owner`.
    pub fn set_disabled(&self, site: &Site, name: &str, disabled_at: Option<u64>) -> Result<User, Reason> {
        self.change(site, name, |user| {
            user.disabled_at = disabled_at;
            user.link = None;
        })
    }

    /// Forgets a user; the audit log keeps the name.
    ///
    /// # Errors
    /// `user_unknown`, `last_owner`.
    pub fn remove_user(&self, site: &Site, name: &str) -> Result<User, Reason> {
        let user = self.user(name)?;
        if user.role() == Role::Owner && user.password.is_some() && user.disabled_at.is_none() {
            self.other_owner(&user.name)?;
        }
        self.users.borrow_mut().remove(&user.name);
        self.put(site, Table::Users, user.name.clone(), None::<&User>);
        self.end_sessions_of(site, &user.name);
        Ok(user)
    }

    /// Makes a one-time link for a user: its code. The password so far stays good until it is used.
    ///
    /// # Errors
    /// `user_unknown`, `user_disabled`.
    pub fn invite(&self, site: &Site, name: &str, now: u64) -> Result<(String, u64), Reason> {
        let mut user = self.user(name)?;
        if user.disabled_at.is_some() {
            return Err(Reason::new("user_disabled", format!("'{}' is disabled; enable that user first", user.name)));
        }
        let (link, code) = Link::new(now);
        let expires_at = link.expires_at;
        user.link = Some(link);
        self.keep_user(site, user);
        Ok((code, expires_at))
    }

    /// Makes the link of the first owner, if nobody can log in as owner yet: its code.
    pub fn first_link(&self, now: u64) -> Option<String> {
        if self.has_owner() {
            return None;
        }
        let (link, code) = Link::new(now);
        *self.first.borrow_mut() = Some(link);
        Some(code)
    }

    /// Whom a link's code is for.
    ///
    /// # Errors
    /// `link_invalid`.
    pub fn invited(&self, code: &str, now: u64) -> Result<Invited, Reason> {
        if self.first.borrow().as_ref().is_some_and(|link| link.fits(code, now)) && !self.has_owner() {
            return Ok(Invited::FirstOwner);
        }
        let users = self.users.borrow();
        let mut found = None;
        // All of them, so that the time does not tell which one.
        for user in users.values() {
            if user.disabled_at.is_none() && user.link.as_ref().is_some_and(|link| link.fits(code, now)) {
                found = Some(user.name.clone());
            }
        }
        let hours = LINK_S / 3_600;
        let detail = format!(
            "this link is not good any more: it is used once, within {hours} h. `vmetric-fleet user password NAME --link` makes another one"
        );
        found.map(Invited::User).ok_or_else(|| Reason::new("link_invalid", detail))
    }

    pub(super) fn keep_user(&self, site: &Site, user: User) {
        self.put(site, Table::Users, user.name.clone(), Some(&user));
        self.users.borrow_mut().insert(user.name.clone(), user);
    }
}
