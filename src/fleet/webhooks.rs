//! `webhook`: where notices go. Who may set one may make Fleet send to it, so it is an administrator's act; what is refused
//! is [`crate::io::webhook`]'s. The secret is shown once, the address only up to its host: Slack's are secrets themselves.

use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};
use smol::net::unix::UnixStream;

use super::notices::deliver::send;
use super::notices::{Notice, Notices, notice, tell};
use crate::core::cluster::name;
use crate::core::notice::{Kind, kinds, target};
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::Words;
use crate::director::commands::store_error;
use crate::director::records::{NAME_MAX, clean};
use crate::director::site::{Site, random_hex};
use crate::director::store::{Change, Table as Rows};
use crate::director::table::{Table, utc};

/// As it travels to the running Fleet.
pub const COMMAND: &str = "webhook";
/// Most webhooks: they are sent to one after the other.
pub const HOOKS_MAX: usize = 20;

/// What is kept of one; the store is readable by Fleet's own user only.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HookRow {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Where it points.
    pub url: String,
    /// Key of the signatures.
    pub secret: String,
    /// Words of [`Kind`]; none = all.
    pub events: Vec<String>,
    /// It may be on this machine.
    pub local: bool,
    /// It is sent to.
    pub enabled: bool,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Who made it.
    pub by: String,
    /// Tries in a row that failed.
    pub failures: u64,
    /// When the last try was.
    pub last_at: Option<u64>,
    /// Why it failed.
    pub last_error: Option<String>,
}

impl HookRow {
    pub(super) fn change(&self) -> Change {
        Change { table: Rows::Webhooks, key: self.id.clone(), value: Some(json::to_string(self)) }
    }
}

/// One as it is shown.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct WebhookView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address up to the host.
    pub host: String,
    /// What it is told; none = everything.
    pub events: Vec<String>,
    /// It is sent to.
    pub enabled: bool,
    /// Notices that wait.
    pub pending: u64,
    /// Tries in a row that failed.
    pub failures: u64,
    /// When the last try was.
    pub last_at: Option<u64>,
    /// Why it failed.
    pub last_error: Option<String>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Who made it.
    pub by: String,
}

/// Webhooks.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct WebhooksView {
    /// By name.
    pub webhooks: Vec<WebhookView>,
    /// The key of the signatures, of one that was made now; shown this once.
    pub secret: Option<String>,
    /// The status that a test was answered with.
    pub answered: Option<u64>,
    /// Fleet's time.
    pub time: u64,
}

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    let act = words.act(COMMAND, &["create", "list", "change", "test", "remove"])?;
    if matches!(act.as_str(), "create" | "change") {
        (request.url, request.events) = (words.option("--url")?, words.list("--event")?);
        request.local = words.flag("--local").then_some(true);
    }
    match act.as_str() {
        "create" => {
            request.name = Some(words.word()?.ok_or("webhook create needs a NAME and --url https://...")?);
            if request.url.is_none() {
                return Err("webhook create needs --url https://...".into());
            }
        }
        "list" => {}
        act => {
            if act == "change" {
                request.enabled = words.switch("--enabled")?;
            }
            request.webhook = Some(words.named(COMMAND, act)?);
        }
    }
    request.act = Some(act);
    Ok(())
}

/// Answers it.
///
/// # Errors
/// The reason.
pub async fn run(
    notices: Rc<Notices>,
    site: &Rc<Site>,
    request: &AdminWire,
    who: &str,
    now: u64,
    out: &mut UnixStream,
) -> Result<(), Reason> {
    let mut view = WebhooksView { time: now, ..Default::default() };
    match request.act.as_deref() {
        Some("create") => {
            let row = notices.create(request, who, now)?;
            view.secret = Some(row.secret.clone());
            keep(site, who, now, "webhook_created", &row, vec![row.change()]);
        }
        Some("change") => {
            let row = notices.change(request, who)?;
            keep(site, who, now, "webhook_changed", &row, vec![row.change()]);
        }
        Some("remove") => {
            let row = notices.named(request)?;
            notices.hooks.borrow_mut().remove(&row.id);
            let mut changes = notices.forget(&row.id);
            changes.push(Change { value: None, ..row.change() });
            keep(site, who, now, "webhook_removed", &row, changes);
        }
        Some("test") => {
            let row = notices.named(request)?;
            let made = notice(Kind::Test, now, format!("a test by {who}: notices of this fleet arrive here"));
            let body = json::to_string(&Notice { fleet: site.about.borrow().url.clone(), ..made });
            let sent = send(&row, 0, &body, now).await.map(Some);
            site.store.queue(notices.note(&row.id, &sent, now));
            // It is there again: what waits need not wait longer.
            notices.bell.ring();
            view.answered = sent?.map(u64::from);
        }
        _ => {}
    }
    site.store.durable().await.map_err(store_error)?;
    view.webhooks = notices.views();
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    status(out, "ok", "").await.map_err(gone)?;
    line(out, &view).await.map_err(gone)
}

fn keep(site: &Site, who: &str, now: u64, code: &str, row: &HookRow, changes: Vec<Change>) {
    site.store.queue(changes);
    site.registry.borrow_mut().by = Some(who.to_string());
    tell(site, now, code, format!("webhook '{}' ({}) to {}", row.name, row.id, host(&row.url)));
    site.registry.borrow_mut().by = None;
}

fn host(url: &str) -> String {
    target(url).map_or_else(|_| "?".into(), |target| format!("https://{}", target.authority()))
}

/// Only who sits at this machine may point back at it.
fn may_be_local(request: &AdminWire, who: &str) -> Result<bool, Reason> {
    match request.local {
        Some(true) if !who.starts_with("uid ") => {
            Err(Reason::new("local_refused", "local: only the command line on this machine may point a webhook back at it"))
        }
        local => Ok(local == Some(true)),
    }
}

impl Notices {
    fn named(&self, request: &AdminWire) -> Result<HookRow, Reason> {
        let word = request.webhook.as_deref().unwrap_or_default();
        let hooks = self.hooks.borrow();
        let found = hooks.get(word).or_else(|| hooks.values().find(|hook| hook.name.eq_ignore_ascii_case(word)));
        let shown = clean(word, NAME_MAX);
        found.cloned().ok_or_else(|| Reason::new("webhook_unknown", format!("there is no webhook '{shown}'; `webhook list` shows them")))
    }

    fn create(&self, request: &AdminWire, who: &str, now: u64) -> Result<HookRow, Reason> {
        let mut hooks = self.hooks.borrow_mut();
        if hooks.len() >= HOOKS_MAX {
            return Err(Reason::new("webhooks_full", format!("there are {HOOKS_MAX} webhooks; remove some")));
        }
        let name = name(request.name.as_deref().unwrap_or_default())?;
        if hooks.values().any(|hook| hook.name.eq_ignore_ascii_case(&name)) {
            return Err(Reason::new("name_taken", format!("name: there is a webhook '{name}' already")));
        }
        let url = request.url.clone().unwrap_or_default();
        target(&url)?;
        let row = HookRow {
            id: format!("w-{}", random_hex(4)),
            name,
            url,
            secret: format!("vms_{}", random_hex(32)),
            events: kinds(request.events.as_deref().unwrap_or_default())?,
            local: may_be_local(request, who)?,
            enabled: true,
            created_at: now,
            by: who.into(),
            ..Default::default()
        };
        hooks.insert(row.id.clone(), row.clone());
        Ok(row)
    }

    fn change(&self, request: &AdminWire, who: &str) -> Result<HookRow, Reason> {
        let mut row = self.named(request)?;
        if let Some(url) = &request.url {
            target(url)?;
            // Another place is another question.
            (row.url, row.local) = (url.clone(), may_be_local(request, who)?);
            (row.failures, row.last_error) = (0, None);
        }
        if let Some(events) = &request.events {
            row.events = kinds(events)?;
        }
        row.enabled = request.enabled.unwrap_or(row.enabled);
        self.hooks.borrow_mut().insert(row.id.clone(), row.clone());
        self.bell.ring();
        Ok(row)
    }

    fn views(&self) -> Vec<WebhookView> {
        let view = |hook: &HookRow| WebhookView {
            id: hook.id.clone(),
            name: hook.name.clone(),
            host: host(&hook.url),
            events: hook.events.clone(),
            enabled: hook.enabled,
            pending: self.pending(&hook.id),
            failures: hook.failures,
            last_at: hook.last_at,
            last_error: hook.last_error.clone(),
            created_at: hook.created_at,
            by: hook.by.clone(),
        };
        let mut views: Vec<WebhookView> = self.hooks.borrow().values().map(view).collect();
        views.sort_by(|a, b| (a.name.to_lowercase(), &a.id).cmp(&(b.name.to_lowercase(), &b.id)));
        views
    }
}

/// The answer for people.
pub fn shown(view: &WebhooksView) -> String {
    let mut out = String::new();
    if let Some(secret) = &view.secret {
        out += &format!("secret of its signatures, shown this once: {secret}\n");
    }
    if let Some(answered) = view.answered {
        out += &format!("the receiver answered {answered}\n");
    }
    if view.webhooks.is_empty() {
        return out + "there is no webhook; `webhook create NAME --url https://...` makes one\n";
    }
    let mut table = Table::new(&["ID", "NAME", "TO", "EVENTS", "STATE", "WAITING", "LAST TRY", "LAST ERROR"]);
    for hook in &view.webhooks {
        let events = if hook.events.is_empty() { "all".into() } else { hook.events.join(" ") };
        let state = if hook.enabled { "on" } else { "off" }.to_string();
        let last = hook.last_at.map_or("-".into(), utc);
        let error = hook.last_error.clone().unwrap_or("-".into());
        table.row(vec![hook.id.clone(), hook.name.clone(), hook.host.clone(), events, state, hook.pending.to_string(), last, error]);
    }
    out + &table.text()
}
