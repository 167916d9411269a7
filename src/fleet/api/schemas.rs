//! Schemas of the answers, made from the types that are sent: what a default value serializes to has every field. Types that
//! such a value does not tell (of what may be absent, and of lists) stand in the tables below; what stands nowhere may be
//! anything.

use miniserde::Serialize;
use miniserde::json::{self, Value};

use super::lists::{ActivityPage, AgentsPage, DirectorsPage, ToldPage};
use super::people::AuditPage;
use super::renamed;
use crate::director::acts::OrderedView;
use crate::director::api_tokens::{ApiTokenRow, ApiTokenView, ApiTokensView};
use crate::director::cancel::CancelView;
use crate::director::commands::TokenView;
use crate::director::enroll::{TokenRow, TokensView};
use crate::director::explain::{ExplainView, LastResult, Remedy};
use crate::director::policing::clusters::{ClusterView, ClustersView, MemberView};
use crate::director::policing::grants::AuthorizeView;
use crate::director::policing::history::{ChangeRow, HistoryView};
use crate::director::policing::rows::{GrantRow, PolicyRow};
use crate::director::policing::scopes::{CheckView, ProblemView, ScheduleView, ScopeView, WarningView};
use crate::director::policing::show::{NodePolicyView, PolicyView, ValueView};
use crate::director::quarantine::{AllowView, RejectView};
use crate::director::records::{Event, Quarantine};
use crate::director::releases::{NotesView, ReleaseRow, ReleasesView};
use crate::director::retry::{Again, LeftOut, RetryView};
use crate::director::views::{AgentView, RejectionsView, RolloutView, RolloutsView, StatusView};
use crate::fleet::access::command::{SessionsView, UserRow, UsersView, VerifiedView};
use crate::fleet::access::sessions::SessionRow;
use crate::fleet::confirm::{ConfirmationView, ConfirmationsView, ConfirmedView};
use crate::fleet::explain::AgentExplainView;
use crate::fleet::intake::{SiteAgent, Told};
use crate::fleet::templates::{CommandView, TemplateView, TemplatesView};
use crate::fleet::webhooks::{WebhookView, WebhooksView};
use crate::wire::agent_api::{ErrorWire, RejectWire};
use crate::wire::audit::{Head, Row};
use crate::wire::fleet_api::CountWire;
use crate::wire::settings::SettingsWire;
use crate::wire::site_policy::{AuthorizedWire, TierWire};

/// A schema's name, what it is, and a default value of it as JSON.
pub struct Schema {
    /// Its name in the document.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// A default value.
    pub sample: fn() -> String,
    /// Its keys are this server's words already.
    pub own: bool,
}

fn of<T: Serialize + Default>() -> String {
    json::to_string(&T::default())
}

macro_rules! schema {
    ($name:literal, $type:ty, $about:literal) => {
        Schema { name: $name, about: $about, sample: of::<$type>, own: false }
    };
}

/// Every schema but that of the document itself.
pub static SCHEMAS: &[Schema] = &[
    schema!("Error", ErrorWire, "Every answer that is not good: a stable code, and one sentence that says what to do."),
    schema!("Status", StatusView, "This Fleet."),
    schema!("Directors", DirectorsPage, "A page of Directors."),
    schema!("Director", AgentView, "One Director: version, pending version, state, whose move it is, until when, why."),
    schema!("Explanation", ExplainView, "All about one Director."),
    schema!("LastResult", LastResult, "How an earlier order ended."),
    schema!("OwnRejection", RejectWire, "A file that a Director rejects itself."),
    schema!("Remedy", Remedy, "A command, and what it does."),
    schema!("Ordered", OrderedView, "What was done, and to how many."),
    schema!("Rollouts", RolloutsView, "Roll-outs, newest first."),
    schema!("Rollout", RolloutView, "One roll-out."),
    schema!("Cancelled", CancelView, "What a cancellation did."),
    schema!("Retried", RetryView, "What a retry did."),
    schema!("Again", Again, "A roll-out made by a retry."),
    schema!("LeftOut", LeftOut, "A Director that is not tried again."),
    schema!("Releases", ReleasesView, "What the mirror holds."),
    schema!("ReleaseNotes", NotesView, "The notes of one release, plain lines."),
    schema!("Release", ReleaseRow, "One file of the mirror."),
    schema!("Rejections", RejectionsView, "Files that are not ordered."),
    schema!("Rejection", Quarantine, "One file that is not ordered, to whom, and why."),
    schema!("Rejected", RejectView, "What a rejection did."),
    schema!("Allowed", AllowView, "What lifting a rejection did."),
    schema!("Keys", TokensView, "API keys."),
    schema!("KeyRow", TokenRow, "One API key, without its text."),
    schema!("Key", TokenView, "A new API key, with its text."),
    schema!("Policy", PolicyView, "Update settings."),
    schema!("PolicyRow", PolicyRow, "Settings as they were typed."),
    schema!("NodePolicy", NodePolicyView, "What counts, what follows, and when."),
    schema!("Scope", ScopeView, "Settings of one scope as a form needs them: typed, inherited, effective, what will not work."),
    schema!("Settings", SettingsWire, "The specification's settings; null = inherited."),
    schema!("Value", ValueView, "One setting that counts, and the tier that set it."),
    schema!("Warning", WarningView, "A setting that will not do what it reads like."),
    schema!("Problem", ProblemView, "A value that is not taken."),
    schema!("Schedule", ScheduleView, "A schedule in words, and its next times."),
    schema!("PolicyCheck", CheckView, "What a change would come to."),
    schema!("PolicyHistory", HistoryView, "Changes of settings, newest first."),
    schema!("PolicyChange", ChangeRow, "One change: who, when, before, after."),
    schema!("Clusters", ClustersView, "Clusters, and what happens to members."),
    schema!("Cluster", ClusterView, "One cluster."),
    schema!("Templates", TemplatesView, "Enrollment templates, and the commands of one that was made or renewed."),
    schema!("Template", TemplateView, "One enrollment template."),
    schema!("Command", CommandView, "An install command for one platform; it holds a token."),
    schema!("Webhooks", WebhooksView, "Where notices go, and the secret of one that was made now."),
    schema!("Webhook", WebhookView, "One webhook, without its secret."),
    schema!("Member", MemberView, "A member of a cluster."),
    schema!("Authorization", GrantRow, "What one Director may take, and until when."),
    schema!("Authorized", AuthorizeView, "What was authorized, or taken back."),
    schema!("Users", UsersView, "Who may log in."),
    schema!("User", UserRow, "One user."),
    schema!("Sessions", SessionsView, "Sessions of the pages."),
    schema!("Session", SessionRow, "One session: whose, from where, until when."),
    schema!("Tokens", ApiTokensView, "Tokens of this API."),
    schema!("TokenRow", ApiTokenRow, "One token, without its text."),
    schema!("Token", ApiTokenView, "A new token, with its text."),
    schema!("Audit", AuditPage, "Rows of the audit log."),
    schema!("AuditRow", Row, "One act: who, from where, what, on what, how it ended; with the hash of the row before."),
    schema!("AuditHead", Head, "Where the chain of the audit log stands."),
    schema!("AuditVerified", VerifiedView, "How much of the audit log was followed, and its head."),
    schema!("Activity", ActivityPage, "A page of Fleet's activity."),
    schema!("Event", Event, "What happened: a stable code and a sentence."),
    Schema { own: true, ..schema!("Agents", AgentsPage, "A page of the Directors' agents.") },
    Schema { own: true, ..schema!("Agent", SiteAgent, "An agent of a Director, as that one told of it.") },
    Schema { own: true, ..schema!("AgentAuthorization", AuthorizedWire, "A person's word for one agent, and what became of it.") },
    Schema { own: true, ..schema!("Tier", TierWire, "Settings of one tier as they are in force at a Director.") },
    Schema { own: true, ..schema!("AgentExplanation", AgentExplainView, "What counts for an agent, and which tier set it.") },
    Schema { own: true, ..schema!("Confirmations", ConfirmationsView, "What was confirmed for agents.") },
    Schema { own: true, ..schema!("Confirmation", ConfirmationView, "One confirmation, and what its Director made of it.") },
    Schema { own: true, ..schema!("Confirmed", ConfirmedView, "One agent of a confirmation.") },
    Schema { own: true, ..schema!("Count", CountWire, "So many in one state.") },
    Schema { own: true, ..schema!("Told", ToldPage, "What Directors told.") },
    Schema { own: true, ..schema!("ToldEvent", Told, "An event of a Director.") },
];

/// What lists, and objects that may be absent, hold: a schema's name, or a plain type.
pub const HOLDS: &[(&str, &str)] = &[
    ("Directors.directors", "Director"),
    ("Explanation.director", "Director"),
    ("Explanation.last_result", "LastResult"),
    ("Explanation.rejects", "OwnRejection"),
    ("Explanation.remedies", "Remedy"),
    ("Rollouts.rollouts", "Rollout"),
    ("Retried.rollouts", "Again"),
    ("Retried.left_out", "LeftOut"),
    ("Releases.releases", "Release"),
    ("Releases.notes", "[ReleaseNotes]"),
    ("ReleaseNotes.lines", "string"),
    ("Rejections.rejections", "Rejection"),
    ("Keys.tokens", "KeyRow"),
    ("Policy.rows", "PolicyRow"),
    ("Policy.authorizations", "Authorization"),
    ("Policy.effective", "NodePolicy"),
    ("Policy.scope", "Scope"),
    ("PolicyRow.settings", "Settings"),
    ("NodePolicy.values", "Value"),
    ("NodePolicy.authorization", "Authorization"),
    ("Scope.typed", "Settings"),
    ("Scope.inherited", "Value"),
    ("Scope.effective", "Value"),
    ("Scope.schedule", "Schedule"),
    ("Scope.warnings", "Warning"),
    ("Schedule.next", "integer"),
    ("Schedule.next_local", "string"),
    ("PolicyCheck.problems", "Problem"),
    ("PolicyCheck.warnings", "Warning"),
    ("PolicyCheck.effective", "Value"),
    ("PolicyCheck.schedule", "Schedule"),
    ("PolicyHistory.changes", "PolicyChange"),
    ("PolicyChange.before", "Settings"),
    ("PolicyChange.after", "Settings"),
    ("Clusters.clusters", "Cluster"),
    ("Cluster.members", "Member"),
    ("Cluster.stopped", "string"),
    ("Cluster.stopped_at", "integer"),
    ("Cluster.stopped_by", "string"),
    ("Cluster.holder", "string"),
    ("Cluster.expires", "integer"),
    ("Cluster.granted_at", "integer"),
    ("Cluster.soaks_until", "integer"),
    ("Member.detail", "string"),
    ("Member.until", "integer"),
    ("Member.reached_by", "string"),
    ("Member.not_reached_by", "string"),
    ("Webhooks.webhooks", "Webhook"),
    ("Webhooks.secret", "string"),
    ("Webhooks.answered", "integer"),
    ("Webhook.events", "string"),
    ("Webhook.last_at", "integer"),
    ("Webhook.last_error", "string"),
    ("Templates.templates", "Template"),
    ("Templates.commands", "[Command]"),
    ("Template.settings", "Settings"),
    ("Authorized.authorized", "Authorization"),
    ("Authorized.left_out", "LeftOut"),
    ("Authorized.revoked", "string"),
    ("Users.users", "User"),
    ("Sessions.sessions", "Session"),
    ("Tokens.tokens", "TokenRow"),
    ("Audit.rows", "AuditRow"),
    ("Audit.head", "AuditHead"),
    ("Activity.events", "Event"),
    ("Agents.agents", "Agent"),
    ("Told.events", "ToldEvent"),
    ("Agent.authorization", "AgentAuthorization"),
    ("Agent.policy", "Tier"),
    ("Agent.needs", "string"),
    ("Tier.settings", "Settings"),
    ("Tier.handed", "integer"),
    ("AgentAuthorization.id", "string"),
    ("AgentAuthorization.code", "string"),
    ("AgentAuthorization.detail", "string"),
    ("AgentExplanation.agent", "Agent"),
    ("AgentExplanation.values", "Value"),
    ("AgentExplanation.tiers", "Tier"),
    ("AgentExplanation.told_at", "integer"),
    ("AgentExplanation.local", "string"),
    ("Confirmations.confirmations", "Confirmation"),
    ("Confirmations.agents", "[Confirmed]"),
    ("Confirmation.agents", "[string]"),
    ("Confirmation.counts", "Count"),
    ("Confirmation.code", "string"),
    ("Confirmation.detail", "string"),
    ("Confirmation.taken_at", "integer"),
    ("Authorization.confirmation", "string"),
    ("Confirmed.authorization", "AgentAuthorization"),
    ("Cancelled.rollouts", "integer"),
    ("Cancelled.on_trial", "string"),
    ("Cancelled.going_back", "string"),
    ("Rejected.going_back", "string"),
    ("Rejected.running", "string"),
    ("Allowed.own", "string"),
    ("Status.listen", "string"),
    ("Status.releases", "string"),
    ("Status.certificate_names", "[string]"),
    ("KeyRow.serials_left", "[string]"),
    ("KeyRow.approval", "boolean"),
];

/// Fields that may be absent and are numbers; the other known ones are texts.
const NUMBERS: &[&str] = &[
    "since",
    "deadline",
    "percent",
    "rollout",
    "retry_at",
    "ended_at",
    "expires_at",
    "certificate_until",
    "company_until",
    "timestamp_version",
    "last_contact",
    "seq",
    "login_at",
    "link_until",
    "uses",
];

/// Fields that may be absent and are texts.
const TEXTS: &[&str] = &[
    "scheduled_version",
    "label",
    "fallback_version",
    "owner",
    "serial",
    "second_device",
    "withdrawn",
    "fingerprint",
    "desired_version",
    "desired_sha256",
    "rollout_state",
    "rollout_detail",
    "then",
    "quarantined",
    "latest_version",
    "certificate_error",
    "company_error",
    "browser_ca",
    "mirror_error",
    "mirror_note",
    "min_version",
    "next",
    "by",
    "update",
    "mode",
    "method",
    "version",
    "cron",
    "interval",
    "zone",
    "cluster",
    "cluster_name",
    "note",
    "link",
];

/// A schema as JSON.
pub fn text(schema: &Schema) -> String {
    let mut value: Value = json::from_str(&(schema.sample)()).unwrap_or(Value::Null);
    if !schema.own {
        value = renamed(value);
    }
    let Value::Object(object) = value else { return "{}".into() };
    let names: Vec<String> = object.keys().map(|name| quoted(name)).collect();
    let fields: Vec<String> = object.iter().map(|(name, value)| format!("{}:{}", quoted(name), field(schema.name, name, value))).collect();
    format!(
        "{{\"type\":\"object\",\"description\":{},\"required\":[{}],\"properties\":{{{}}}}}",
        quoted(schema.about),
        names.join(","),
        fields.join(",")
    )
}

fn field(schema: &str, name: &str, value: &Value) -> String {
    let place = format!("{schema}.{name}");
    let holds = HOLDS.iter().find(|(at, _)| *at == place).map(|(_, what)| *what);
    match (value, holds) {
        (Value::Bool(_), _) => plain("boolean"),
        (Value::Number(_), _) => plain("integer"),
        (Value::String(_), _) => plain("string"),
        (Value::Array(_), Some(what)) => format!("{{\"type\":\"array\",\"items\":{}}}", reference(what)),
        (Value::Array(_), None) => plain("array"),
        (Value::Object(_), Some(what)) => reference(what),
        (Value::Object(_), None) => plain("object"),
        (Value::Null, Some(what)) => match what.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(item) => format!("{{\"type\":[\"array\",\"null\"],\"items\":{}}}", reference(item)),
            None if what.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{{\"type\":[{},\"null\"]}}", quoted(what)),
            None => format!("{{\"anyOf\":[{},{{\"type\":\"null\"}}]}}", reference(what)),
        },
        (Value::Null, None) if NUMBERS.contains(&name) => "{\"type\":[\"integer\",\"null\"]}".into(),
        (Value::Null, None) if TEXTS.contains(&name) => "{\"type\":[\"string\",\"null\"]}".into(),
        (Value::Null, None) => "{}".into(),
    }
}

fn plain(name: &str) -> String {
    format!("{{\"type\":{}}}", quoted(name))
}

fn reference(what: &str) -> String {
    if what.starts_with(|c: char| c.is_ascii_lowercase()) {
        return plain(what);
    }
    format!("{{\"$ref\":\"#/components/schemas/{what}\"}}")
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    json::to_string(text)
}
