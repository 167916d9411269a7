//! What a command is: which act it takes, and how the audit log calls it. One place for every door; what is not listed here
//! takes an owner and is noted under its own name.

use miniserde::json::{self, Number, Object, Value};

use super::audit::Entry;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;

/// Longest value of one field in a description.
const VALUE_MAX: usize = 80;
/// Fields that are not told: they hold secrets, or say what the action says already.
const UNTOLD: [&str; 7] = ["command", "act", "password", "agents", "list", "user", "format"];

/// Fields that name what a command is about, the nearest first.
const OBJECTS: [&str; 9] = ["user", "revoke", "hash", "cluster", "template", "webhook", "name", "scope", "director"];

fn act(wire: &AdminWire) -> &str {
    wire.act.as_deref().unwrap_or_default()
}

/// Whether a list or a view is wanted of a command that can make things, too.
fn lists(wire: &AdminWire) -> bool {
    wire.list == Some(true) && wire.revoke.is_none()
}

/// The act that a command is. `owners`: it is about an owner.
pub fn act_of(wire: &AdminWire, owners: bool) -> Act {
    match wire.command.as_str() {
        "status" | "agents" | "rollouts" | "activity" | "explain" | "rejections" | "releases" => Act::Look,
        "site-agents" | "told" | "health" | "explain-agent" => Act::Look,
        "policy" if matches!(act(wire), "" | "show" | "history") => Act::Look,
        "policy" => Act::EditPolicy,
        "cluster" if matches!(act(wire), "" | "list" | "show") => Act::Look,
        // What it costs may be the cluster's service.
        "cluster" if act(wire) == "override" => Act::Remove,
        "cluster" if matches!(act(wire), "pause" | "resume" | "abort") => Act::Cancel,
        "cluster" => Act::EditPolicy,
        "template" if matches!(act(wire), "" | "list" | "show") => Act::Look,
        "template" => Act::Enroll,
        "webhook" if matches!(act(wire), "" | "list" | "show") => Act::Look,
        "webhook" => Act::Notify,
        "token" if lists(wire) => Act::Look,
        "token" | "approve" | "deny" | "install-command" => Act::Enroll,
        "assign" | "retry" => Act::Assign,
        "cancel" => Act::Cancel,
        "reject" | "allow" => Act::Reject,
        "authorize-agents" if matches!(act(wire), "list" | "show") => Act::Look,
        "authorize" | "authorize-agents" => Act::Authorize,
        // A path of this machine is only a word of whoever is on it.
        "mirror" if wire.file.is_some() => Act::ManageOwners,
        "mirror" => Act::Refresh,
        "ca" if matches!(act(wire), "" | "status") => Act::Look,
        "ca" => Act::Certificates,
        "remove-agent" | "replace-agent" => Act::Remove,
        "api-token" => Act::ManageTokens,
        "user" | "session" if owners => Act::ManageOwners,
        "user" | "session" => Act::ManageUsers,
        "audit" => Act::ReadAudit,
        _ => Act::ManageOwners,
    }
}

/// Whether a command changes nothing, so that the log has no row of it. Reading the log is one, exporting it is not.
pub fn only_looks(wire: &AdminWire) -> bool {
    match wire.command.as_str() {
        "api-token" | "user" | "session" => lists(wire) || matches!(act(wire), "list"),
        "audit" => wire.format.is_none(),
        "policy" if act(wire) == "check" => true,
        _ => act_of(wire, false) == Act::Look,
    }
}

/// The action and the kind of object of a command.
fn named(wire: &AdminWire) -> (String, &'static str) {
    let revokes = wire.revoke.is_some();
    let (action, kind) = match (wire.command.as_str(), act(wire)) {
        ("policy", "unset") => ("ResetPolicy", "Policy"),
        ("policy", _) => ("UpdatePolicy", "Policy"),
        ("token", _) if revokes => ("RevokeKey", "Key"),
        ("token", _) => ("CreateKey", "Key"),
        ("api-token", _) if revokes => ("RevokeToken", "Token"),
        ("api-token", _) => ("CreateToken", "Token"),
        ("install-command", _) => ("CreateInstallCommand", "Key"),
        ("approve", _) => ("ApproveDirector", "Director"),
        ("deny", _) => ("DenyDirector", "Director"),
        ("assign", _) => ("AssignVersion", "Rollout"),
        ("retry", _) => ("RetryUpdate", "Rollout"),
        ("cancel", _) => ("CancelUpdate", "Rollout"),
        ("reject", _) => ("RejectFile", "Release"),
        ("allow", _) => ("AllowFile", "Release"),
        ("authorize", "revoke") => ("RevokeAuthorization", "Director"),
        ("authorize", _) => ("AuthorizeUpdate", "Director"),
        ("authorize-agents", "revoke") => ("RevokeAgentAuthorization", "Agent"),
        ("authorize-agents", _) => ("AuthorizeAgents", "Agent"),
        ("mirror", _) if wire.file.is_some() => ("ImportMirror", "Mirror"),
        ("mirror", _) => ("RefreshMirror", "Mirror"),
        ("ca", "rotate") => ("RotateCa", "Ca"),
        ("ca", "retire") => ("RetireCa", "Ca"),
        ("remove-agent", _) => ("RemoveDirector", "Director"),
        ("replace-agent", _) => ("ReplaceDirector", "Director"),
        ("user", "add") => ("CreateUser", "User"),
        ("user", "role") => ("ChangeUserRole", "User"),
        ("user", "password") => ("ChangeUserPassword", "User"),
        ("user", "link") => ("CreateUserLink", "User"),
        ("user", "disable") => ("DisableUser", "User"),
        ("user", "enable") => ("EnableUser", "User"),
        ("user", "remove") => ("RemoveUser", "User"),
        ("session", _) => ("RevokeSession", "Session"),
        ("audit", _) => ("ExportAudit", "Audit"),
        ("cluster", other) => return (camel(&format!("{other}-cluster")), "Cluster"),
        ("template", other) => return (camel(&format!("{other}-template")), "Template"),
        ("webhook", other) => return (camel(&format!("{other}-webhook")), "Webhook"),
        (command, other) => return (camel(&format!("{command}-{other}")), "Fleet"),
    };
    (action.to_string(), kind)
}

fn camel(text: &str) -> String {
    let part = |part: &str| part.get(..1).map_or(String::new(), |first| first.to_uppercase() + &part[1..]);
    text.split('-').map(part).collect()
}

/// How far a command is when its row is written.
#[derive(Clone, Copy, Debug)]
pub enum How<'a> {
    /// What it changes is not in the store: the row comes first, and another one at the end.
    Begun,
    /// It was done.
    Done,
    /// Nothing was changed.
    Refused(&'a Reason),
    /// Something was changed, or may have been.
    Failed(&'a Reason),
}

/// Whether a command changes what no transaction of the store can hold: files, what another server was sent.
pub fn beyond_the_store(wire: &AdminWire) -> bool {
    matches!((wire.command.as_str(), act(wire)), ("ca" | "mirror", _) | ("webhook", "test"))
}

/// The row of a command.
pub fn entry(wire: &AdminWire, by: &str, ip: &str, how: How) -> Entry {
    let (action, object_type) = named(wire);
    let told = told(wire);
    let description = match how {
        How::Begun => format!("BEGUN; {told}"),
        How::Done => told,
        How::Refused(reason) => format!("REFUSED ({}): {}; {told}", reason.code, reason.detail),
        How::Failed(reason) => format!("FAILED ({}): {}; {told}", reason.code, reason.detail),
    };
    let object_type = object_type.to_string();
    Entry { user: by.into(), ip: ip.into(), object_type, object: object(wire), action, description }
}

fn object(wire: &AdminWire) -> String {
    let agents = wire.agents.as_ref().map(|agents| match agents.len() {
        0..=3 => agents.join(" "),
        n => format!("{} and {} more", agents[..3].join(" "), n - 3),
    });
    let rollout = wire.rollout.map(|id| id.to_string());
    let all = wire.all.filter(|all| *all).map(|_| "all".to_string());
    let fields = fields(wire);
    let text = OBJECTS.iter().find_map(|name| match fields.get(*name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    });
    let default = || if wire.command == "policy" { "default".into() } else { String::new() };
    agents.or(rollout).or(text).or(all).unwrap_or_else(default)
}

fn fields(wire: &AdminWire) -> Object {
    match json::from_str::<Value>(&json::to_string(wire)) {
        Ok(Value::Object(fields)) => fields,
        _ => Object::new(),
    }
}

/// Every field that was given, but no secret.
fn told(wire: &AdminWire) -> String {
    let fields = fields(wire);
    let secret = |name: &str| ["secret", "password", "code"].iter().any(|part| name.contains(part));
    let given = fields.iter().filter(|(name, _)| !UNTOLD.contains(&name.as_str()) && !secret(name));
    let texts = given.filter_map(|(name, value)| match (name.as_str(), value) {
        // What follows the host is often the secret of a webhook.
        ("url", Value::String(url)) => Some(format!("url={}", url.split('/').take(3).collect::<Vec<_>>().join("/"))),
        _ => Some(format!("{name}={}", short(value)?)),
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn short(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Bool(true) => "yes".into(),
        Value::Number(Number::U64(n)) => n.to_string(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let inner = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", short(value)?)));
            format!("{{{}}}", inner.collect::<Vec<_>>().join(" "))
        }
        other => json::to_string(other),
    };
    let end = text.char_indices().nth(VALUE_MAX).map_or(text.len(), |(at, _)| at);
    Some(if matches!(value, Value::Object(_)) { text } else { text[..end].to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(command: &str, act: &str) -> AdminWire {
        AdminWire { command: command.into(), act: Some(act.into()).filter(|a: &String| !a.is_empty()), ..Default::default() }
    }

    #[test]
    fn what_is_not_listed_takes_an_owner_and_has_its_row() {
        let new = wire("fly", "to-the-moon");
        assert_eq!(act_of(&new, false), Act::ManageOwners);
        assert!(!only_looks(&new));
        assert_eq!(entry(&new, "uid 0", "", How::Done).action, "FlyToTheMoon");
    }

    #[test]
    fn looks_have_no_row_and_everything_else_has() {
        for (command, act) in
            [("status", ""), ("policy", "show"), ("policy", "history"), ("cluster", "list"), ("ca", "status"), ("audit", "verify")]
        {
            assert!(only_looks(&wire(command, act)), "{command} {act}");
        }
        for (command, act) in [("policy", "set"), ("ca", "rotate"), ("assign", ""), ("user", "add"), ("api-token", ""), ("token", "")] {
            assert!(!only_looks(&wire(command, act)), "{command} {act}");
        }
        let export = AdminWire { format: Some("csv".into()), ..wire("audit", "") };
        assert_eq!((only_looks(&export), entry(&export, "user a", "::1", How::Done).action.as_str()), (false, "ExportAudit"));
        assert!(only_looks(&AdminWire { list: Some(true), ..wire("token", "") }));
    }

    #[test]
    fn a_row_tells_what_was_given_and_no_secret() {
        let assign = AdminWire { version: Some("2.0.0".into()), all: Some(true), max_in_flight: Some("10%".into()), ..wire("assign", "") };
        let row = entry(&assign, "user anna", "192.0.2.1", How::Done);
        assert_eq!((row.action.as_str(), row.object.as_str()), ("AssignVersion", "all"));
        assert!(row.description.contains("version=2.0.0") && row.description.contains("max_in_flight=10%"), "{}", row.description);
        let add = AdminWire {
            user: Some("ben".into()),
            password: Some("correct horse".into()),
            role: Some("viewer".into()),
            ..wire("user", "add")
        };
        let refused = Reason::new("user_exists", "there is one");
        let row = entry(&add, "uid 0", "", How::Refused(&refused));
        assert_eq!((row.action.as_str(), row.object.as_str(), row.object_type.as_str()), ("CreateUser", "ben", "User"));
        assert!(row.description.starts_with("REFUSED (user_exists)") && !row.description.contains("horse"), "{}", row.description);
        let many = AdminWire { agents: Some((0..9).map(|n| format!("d{n}")).collect()), ..wire("remove-agent", "") };
        assert_eq!(entry(&many, "", "", How::Done).object, "d0 d1 d2 and 6 more");
    }
}
