//! Who may do what: roles, acts, and the one matrix between them, for the pages, the REST API and the commands alike.
//!
//! | act | viewer | contributor | admin | owner |
//! |---|---|---|---|---|
//! | look | yes | yes | yes | yes |
//! | edit policy, authorize, assign, cancel, reject, refresh the mirror | | yes | yes | yes |
//! | enroll, remove, tokens, certificates, users, the audit log | | | yes | yes |
//! | owners: make one, change one, remove one | | | | yes |

use std::fmt;

use super::reason::Reason;

/// What somebody is. Each may do everything that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and decides about updates.
    Contributor,
    /// Everything but owners.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    /// All of them, lowest first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Contributor, Role::Admin, Role::Owner];
    /// Their words.
    pub const WORDS: [&'static str; 4] = ["viewer", "contributor", "admin", "owner"];

    /// Its word.
    pub fn word(self) -> &'static str {
        Role::WORDS[self as usize]
    }

    /// The role of a word.
    ///
    /// # Errors
    /// `role_invalid`.
    pub fn parse(word: &str) -> Result<Role, Reason> {
        let found = Role::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| Reason::new("role_invalid", format!("a role is one of {}", Role::WORDS.join(", "))))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a page, a route or a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Reads what everybody here may read.
    Look,
    /// Changes update settings, clusters, templates.
    EditPolicy,
    /// Lets somebody take a version: User Action.
    Authorize,
    /// Orders a version, or orders it again.
    Assign,
    /// Ends what has not switched, or takes a trial back.
    Cancel,
    /// Forbids a file, or allows it again.
    Reject,
    /// Looks for new releases.
    Refresh,
    /// Makes what lets a Director or an agent in, and decides about those who wait.
    Enroll,
    /// Removes a Director, or decides between two with one identity.
    Remove,
    /// Makes and revokes tokens of the REST API.
    ManageTokens,
    /// The site's CA.
    Certificates,
    /// Where notifications are sent.
    Notify,
    /// Users below owner, and their sessions.
    ManageUsers,
    /// Owners.
    ManageOwners,
    /// Reads the audit log.
    ReadAudit,
    /// Takes it away as a file.
    ExportAudit,
}

impl Act {
    /// All of them.
    pub const ALL: [Act; 16] = [
        Act::Look,
        Act::EditPolicy,
        Act::Authorize,
        Act::Assign,
        Act::Cancel,
        Act::Reject,
        Act::Refresh,
        Act::Enroll,
        Act::Remove,
        Act::ManageTokens,
        Act::Certificates,
        Act::Notify,
        Act::ManageUsers,
        Act::ManageOwners,
        Act::ReadAudit,
        Act::ExportAudit,
    ];

    /// The lowest role that may: the matrix.
    pub fn lowest(self) -> Role {
        match self {
            Act::Look => Role::Viewer,
            Act::EditPolicy | Act::Authorize | Act::Assign | Act::Cancel | Act::Reject | Act::Refresh => Role::Contributor,
            Act::Enroll | Act::Remove | Act::ManageTokens | Act::Certificates | Act::Notify => Role::Admin,
            Act::ManageUsers | Act::ReadAudit | Act::ExportAudit => Role::Admin,
            Act::ManageOwners => Role::Owner,
        }
    }

    /// What it is called in a refusal.
    pub fn words(self) -> &'static str {
        match self {
            Act::Look => "to look",
            Act::EditPolicy => "to change update settings",
            Act::Authorize => "to authorize updates",
            Act::Assign => "to order updates",
            Act::Cancel => "to cancel updates",
            Act::Reject => "to reject or allow files",
            Act::Refresh => "to refresh the mirror",
            Act::Enroll => "to let Directors and devices in",
            Act::Remove => "to remove or replace Directors",
            Act::ManageTokens => "to manage API tokens",
            Act::Certificates => "to manage the CA",
            Act::Notify => "to manage notifications",
            Act::ManageUsers => "to manage users",
            Act::ManageOwners => "to manage owners",
            Act::ReadAudit => "to read the audit log",
            Act::ExportAudit => "to export the audit log",
        }
    }
}

/// Whether a role may.
///
/// # Errors
/// `role_too_low`: which role it takes.
pub fn permits(role: Role, act: Act) -> Result<(), Reason> {
    if role >= act.lowest() {
        return Ok(());
    }
    let detail = format!("a {role} is not allowed {}; it takes the role {}", act.words(), act.lowest());
    Err(Reason::new("role_too_low", detail))
}

/// Whether somebody may give a role to a user or a token: never a higher one than his own.
///
/// # Errors
/// `role_too_low`.
pub fn may_give(own: Role, given: Role) -> Result<(), Reason> {
    if own >= given {
        return Ok(());
    }
    Err(Reason::new("role_too_low", format!("a {own} cannot give the role {given}; it takes the role {given}")))
}

/// Longest path that is returned to after a login.
const NEXT_MAX: usize = 1_024;

/// Where to go after a login: the path that was asked for, if it is one of this server, else `/`. What a browser would take
/// for another server's address (`//host`, `/\host`, a scheme, control characters that it drops) is none.
pub fn local_path(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let local = next.starts_with('/') && !next.starts_with("//");
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let again = matches!(path, "/login" | "/logout" | "/first");
    if plain && local && !again && next.len() <= NEXT_MAX { next } else { "/" }
}

/// Longest name of a user: a mail address of the usual length fits.
pub const NAME_MAX: usize = 64;
/// Shortest and longest password. 12 characters and argon2id are out of reach of guessing; nobody types more than 256.
pub const PASSWORD: (usize, usize) = (12, 256);

/// A user's name in its one spelling: lower case, so that nobody has a double.
///
/// # Errors
/// `name_invalid`: what it has to be.
pub fn user_name(text: &str) -> Result<String, Reason> {
    let name = text.trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'@');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= NAME_MAX && name.bytes().all(plain) {
        return Ok(name);
    }
    let detail = format!("a name has 1 to {NAME_MAX} characters: letters, digits and . _ - + @, the first a letter or digit");
    Err(Reason::new("name_invalid", detail))
}

/// Whether a new password will do. Length is what counts; no rules about kinds of characters.
///
/// # Errors
/// `password_weak`.
pub fn password(text: &str, name: &str) -> Result<(), Reason> {
    let weak = |why: String| Err(Reason::new("password_weak", why));
    let (shortest, longest) = PASSWORD;
    if text.chars().count() < shortest {
        return weak(format!("the password needs at least {shortest} characters; several words are easy to remember"));
    }
    if text.len() > longest {
        return weak(format!("the password has more than {longest} bytes"));
    }
    if text.contains(char::is_control) {
        return weak("the password holds a control character".into());
    }
    let mut kinds: Vec<char> = text.chars().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let lower = text.to_lowercase();
    let rest = if name.len() > 3 { lower.replace(name, "") } else { lower };
    if kinds.len() < 5 || rest.chars().count() < shortest / 2 {
        return weak("the password is too easy to guess: it repeats itself, or is the name".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix() {
        let may = |role: Role| Act::ALL.into_iter().filter(|act| permits(role, *act).is_ok()).count();
        assert_eq!(Role::ALL.map(may), [1, 7, 15, 16]);
        for act in Act::ALL {
            assert!(permits(Role::Owner, act).is_ok() && !act.words().is_empty());
            for (low, high) in [(0, 1), (1, 2), (2, 3)] {
                assert!(permits(Role::ALL[low], act).is_err() || permits(Role::ALL[high], act).is_ok(), "{act:?}");
            }
        }
        let refused = permits(Role::Viewer, Act::Assign).unwrap_err();
        assert_eq!((refused.code.as_ref(), refused.detail.contains("contributor")), ("role_too_low", true));
        assert!(may_give(Role::Admin, Role::Owner).is_err() && may_give(Role::Admin, Role::Admin).is_ok());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.word()).unwrap(), role);
        }
        assert_eq!(Role::parse("Owner").unwrap_err().code, "role_invalid");
    }

    #[test]
    fn only_paths_of_this_server_are_returned_to() {
        for good in ["/", "/devices/linux?page=2&q=a%20b", "/fleet-management/directors/d-1#top", "/a//b"] {
            assert_eq!(local_path(good), good);
        }
        let long = format!("/{}", "a".repeat(NEXT_MAX));
        for bad in [
            "",
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/a\r\nset-cookie: x",
            " /a",
            "javascript:alert(1)",
            "evil.example",
            "/login?next=/login",
            "/logout",
            "/first?code=1",
            "/\u{e9}",
            &long,
        ] {
            assert_eq!(local_path(bad), "/", "{bad}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(user_name(" Anna.B@Example.org ").unwrap(), "anna.b@example.org");
        for bad in ["", "-a", "a b", "<script>", "a\0", "\u{e9}", "../x", &"a".repeat(65)] {
            assert_eq!(user_name(bad).unwrap_err().code, "name_invalid", "{bad}");
        }
    }

    #[test]
    fn passwords_are_long() {
        assert!(password("four plain words", "anna").is_ok() && password("\u{e4}\u{f6}\u{fc}\u{df} longer \u{e9}", "anna").is_ok());
        let long = "ab1 c".repeat(60);
        for bad in ["", "elevenchars", "aaaaaaaaaaaaaaaa", "annaannaannaanna", "twelve\u{7}chars", &long] {
            assert_eq!(password(bad, "anna").unwrap_err().code, "password_weak", "{bad}");
        }
    }
}
