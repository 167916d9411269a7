//! What a person can do about a Director: forms that ask before they act, and say what became of it.

use serde_json::{Value, json};

use super::directors;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::explain::ExplainView;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};

/// Longest reason in a person's words.
const REASON_MAX: usize = 512;

/// Routes.
pub static ROUTES: &[Route] = &[
    of("/fleet-management/directors/{director}/assign", "directorAssign", Act::Assign, |ask| Box::pin(assign(ask)) as Paged),
    of("/fleet-management/directors/{director}/cancel", "directorCancel", Act::Cancel, |ask| Box::pin(cancel(ask)) as Paged),
    of("/fleet-management/directors/{director}/retry", "directorRetry", Act::Assign, |ask| Box::pin(retry(ask)) as Paged),
    of("/fleet-management/directors/{director}/reject", "directorReject", Act::Reject, |ask| Box::pin(reject(ask)) as Paged),
    of("/fleet-management/directors/{director}/decide", "directorDecide", Act::Enroll, |ask| Box::pin(decide(ask)) as Paged),
    of("/fleet-management/directors/{director}/remove", "directorRemove", Act::Remove, |ask| Box::pin(remove(ask)) as Paged),
    of("/fleet-management/directors/{director}/replace", "directorReplace", Act::Remove, |ask| Box::pin(replace(ask)) as Paged),
];

const fn of(path: &'static str, id: &'static str, need: Act, page: fn(Ask) -> Paged) -> Route {
    Route { method: "POST", path, id, need, page }
}

/// One act: button, what it means, where it is sent, its fields.
pub struct Offer<'a> {
    /// On the button; what it opens asks first.
    pub word: &'a str,
    /// What it means.
    pub about: String,
    /// Where it is sent, below the page's own path.
    pub path: &'a str,
    /// On the button that does it.
    pub confirm: &'a str,
    /// It takes something away.
    pub danger: bool,
    /// What is asked for.
    pub fields: Vec<Value>,
    /// What is sent along.
    pub hidden: Vec<(&'a str, String)>,
}

impl Offer<'_> {
    /// For `templates/act.html`; `page` is the page's own path.
    pub fn json(self, ask: &Ask, page: &str) -> Value {
        let hidden: Vec<Value> = self.hidden.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({
            "word": self.word, "about": self.about, "path": format!("{page}/{}", self.path), "confirm": self.confirm,
            "danger": self.danger, "fields": self.fields, "hidden": hidden, "csrf": ask.who.csrf,
        })
    }
}

/// The field for a person's words; `act` tells several on one page apart.
pub fn why(act: &str) -> Value {
    let mut field = Input::text("reason", "Reason (noted in the activity)").json();
    // Several such forms are on one page.
    field["id"] = format!("f-reason-{act}").into();
    field
}

/// What this person may do about this Director as it is now.
pub fn of_director(ask: &Ask, view: &ExplainView, pending: bool) -> Vec<Value> {
    let mut out = Vec::new();
    if pending && ask.may(Act::Enroll) {
        out.extend(decisions(view));
    }
    if !pending {
        out.extend(updates(ask, view));
        out.extend(refusals(ask, view));
    }
    let page = directors::path(&view.agent.id);
    out.into_iter().map(|o| o.json(ask, &page)).collect()
}

/// About one that waits for approval.
fn decisions(view: &ExplainView) -> [Offer<'static>; 2] {
    let fingerprint = view.agent.fingerprint.clone().unwrap_or_default();
    let compare = format!("Compare the fingerprint with what `vmetric-director status` shows there first: {fingerprint}");
    let told = "It is told so, and asks again at most every 15 minutes.".to_string();
    let (yes, no) = (vec![("act", "approve".to_string())], vec![("act", "deny".to_string())]);
    [
        Offer { word: "Approve", about: compare, path: "decide", confirm: "Approve", danger: false, fields: vec![], hidden: yes },
        Offer { word: "Deny", about: told, path: "decide", confirm: "Deny", danger: true, fields: vec![why("deny")], hidden: no },
    ]
}

/// Cancel or roll back what is under way; else order again, or another version.
fn updates(ask: &Ask, view: &ExplainView) -> Vec<Offer<'static>> {
    let (a, mut out) = (&view.agent, Vec::new());
    let moving = a.scheduled_version.is_some();
    let open = moving || (a.rollout.is_some() && a.owner.is_some());
    if open && ask.may(Act::Cancel) {
        let switched = matches!(a.state.as_str(), "trial" | "switching");
        let (word, about) = match switched {
            true => ("Roll back", "The new version is refused: the Director goes back to the one before."),
            false => ("Cancel update", "What has not switched ends; the Director keeps running the version it has."),
        };
        let hidden = vec![("roll_back", if switched { "on".to_string() } else { String::new() })];
        out.push(Offer { word, about: about.into(), path: "cancel", confirm: word, danger: true, fields: vec![why("cancel")], hidden });
    }
    if moving || !ask.may(Act::Assign) {
        return out;
    }
    if directors::failed(&a.state) || view.quarantined.is_some() {
        let version = view.desired_version.clone().unwrap_or_default();
        let about = format!("Version {version} is ordered again, whatever the Director has rejected.");
        let (path, confirm, fields) = ("retry", "Order again", vec![why("retry")]);
        out.push(Offer { word: "Retry", about, path, confirm, danger: false, fields, hidden: vec![] });
    }
    let versions: Vec<String> = ask.site.tree.borrow().releases.versions("vmetric-director").iter().map(ToString::to_string).collect();
    if !versions.is_empty() {
        let options: Vec<(&str, &str)> = versions.iter().map(|v| (v.as_str(), v.as_str())).collect();
        let mut version = Input::select("version", "Version", &options).json();
        version["id"] = "f-version-assign".into();
        let back = a.fallback_version.as_ref().map_or(String::new(), |v| format!(" To roll back, choose {v}."));
        let about = format!("This Director is ordered to run the version, now, whatever its policy says.{back}");
        let (path, confirm, fields) = ("assign", "Order this version", vec![version]);
        out.push(Offer { word: "Update or roll back", about, path, confirm, danger: false, fields, hidden: vec![] });
    }
    out
}

/// What takes something away.
fn refusals(ask: &Ask, view: &ExplainView) -> Vec<Offer<'static>> {
    let (a, mut out) = (&view.agent, Vec::new());
    let mut offer = |word, about: String, path, confirm, fields, hidden| {
        out.push(Offer { word, about, path, confirm, danger: true, fields, hidden });
    };
    if !a.running_sha256.is_empty() && ask.may(Act::Reject) {
        let about = format!("The file of version {} is ordered to this Director no more, and a trial of it goes back.", a.version);
        offer("Reject version", about, "reject", "Reject", vec![why("reject")], vec![("hash", a.running_sha256.clone())]);
    }
    if ask.may(Act::Remove) && a.second_device.is_some() {
        let about = "Two machines use this identity. The one that is refused now is served from then on; the other one is refused.";
        offer("Serve the other machine", about.into(), "replace", "Serve it", vec![], vec![]);
    }
    if ask.may(Act::Remove) {
        let about = "Its credential is refused from now on. Its agents keep running, and it can enroll again with a new key.";
        offer("Remove", about.into(), "remove", "Remove this Director", vec![], vec![]);
    }
    out
}

/// Runs the command, goes back, and says what became of it.
pub async fn done(ask: &Ask, wire: AdminWire, back: String, said: String) -> Result<Reply, Reason> {
    let toast = match ask.command(wire).await {
        Ok(_) => Toast::good(said),
        Err(reason) => Toast::bad(&reason),
    };
    Ok(Reply::See(back, toast))
}

/// The reason as typed, not longer than one may be.
pub fn reason(ask: &Ask) -> Option<String> {
    ask.form.some("reason").map(|text| text.chars().take(REASON_MAX).collect())
}

fn wire(ask: &Ask, command: &str) -> AdminWire {
    AdminWire { command: command.into(), agents: Some(vec![ask.place(0).to_string()]), reason: reason(ask), ..Default::default() }
}

fn back(ask: &Ask) -> String {
    directors::path(ask.place(0))
}

async fn assign(ask: Ask) -> Result<Reply, Reason> {
    let version = ask.form.get("version").to_string();
    let wire = AdminWire { version: Some(version.clone()), reason: None, ..wire(&ask, "assign") };
    done(&ask, wire, back(&ask), format!("Version {version} is ordered")).await
}

async fn cancel(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { roll_back: Some(ask.form.get("roll_back") == "on"), ..wire(&ask, "cancel") };
    done(&ask, wire, back(&ask), "The update is cancelled".into()).await
}

async fn retry(ask: Ask) -> Result<Reply, Reason> {
    done(&ask, wire(&ask, "retry"), back(&ask), "It is ordered again".into()).await
}

async fn reject(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { hash: ask.form.some("hash"), ..wire(&ask, "reject") };
    done(&ask, wire, back(&ask), "The file is rejected for this Director".into()).await
}

async fn decide(ask: Ask) -> Result<Reply, Reason> {
    let (command, said) = match ask.form.get("act") {
        "approve" => ("approve", "The Director is approved and enrolls now"),
        _ => ("deny", "The Director is denied"),
    };
    done(&ask, wire(&ask, command), directors::PATH.into(), said.into()).await
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    done(&ask, wire(&ask, "remove-agent"), directors::PATH.into(), "The Director is removed".into()).await
}

async fn replace(ask: Ask) -> Result<Reply, Reason> {
    done(&ask, wire(&ask, "replace-agent"), back(&ask), "The other machine is served now".into()).await
}
