//! Roll-outs: progress, failures with their reasons, halt, quarantine; resume, cancel, allow.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::acts::{done, reason};
use super::list::{empty, empty_to};
use super::{Templates, directors};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::core::rollout::End;
use crate::director::admin::AdminWire;
use crate::director::records::{Order, Quarantine};
use crate::director::registry::Registry;
use crate::director::views::RolloutView;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::charts;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;

/// Roll-outs on a page; older ones are in the activity.
const SHOWN: usize = 50;
/// Members on a page: those with a problem come first.
const MEMBERS: usize = 100;
/// Rejected files on a page.
const REJECTED: usize = 50;

const PATH: &str = "/rollouts";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "rollouts", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "GET", path: "/rollouts/{rollout}", id: "rollout", need: Act::Look, page: |ask| Box::pin(detail(ask)) as Paged },
    Route {
        method: "POST",
        path: "/rollouts/{rollout}/resume",
        id: "rolloutResume",
        need: Act::Assign,
        page: |ask| Box::pin(resume(ask)) as Paged,
    },
    Route {
        method: "POST",
        path: "/rollouts/{rollout}/cancel",
        id: "rolloutCancel",
        need: Act::Cancel,
        page: |ask| Box::pin(cancel(ask)) as Paged,
    },
    Route { method: "POST", path: "/quarantine/allow", id: "allow", need: Act::Reject, page: |ask| Box::pin(allow(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[
    ("rollouts", include_str!("../templates/rollouts.html")),
    ("rollout", include_str!("../templates/rollout.html")),
    ("progress", include_str!("../templates/progress.html")),
];

fn path(id: u64) -> String {
    format!("{PATH}/{id}")
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let context = {
        let registry = ask.site.registry.borrow();
        let all = registry.rollouts_view(ask.now).rollouts;
        let rejections = registry.rejections_view(ask.now).rejections;
        let rows: Vec<Value> = all.iter().take(SHOWN).map(|r| row(r, "")).collect();
        let none = if all.is_empty() {
            empty_to(
                "rollout",
                "No roll-out yet",
                "Confirm an available update, or let the policy do it: every update of more than one Director is a roll-out.",
                "/updates",
                "Available updates",
            )
        } else {
            Value::Null
        };
        json!({
            "live": true,
            "rows": rows,
            "none": none,
            "more": all.len() > SHOWN,
            "quarantine": rejections.iter().take(REJECTED).map(|q| quarantined(&ask, &registry, q)).collect::<Vec<_>>(),
            "no_quarantine": rejections.is_empty(),
        })
    };
    Page::new("Roll-outs", "rollouts", context).below(&[("Fleet Management", "")]).reply()
}

/// A roll-out as a row; `mark` tells several lists of one page apart.
pub fn row(r: &RolloutView, mark: &str) -> Value {
    let chip = match r.state.as_str() {
        "running" => words::chip("busy", "update", "Running"),
        "done" if r.failed > 0 => words::chip("warn", "alert", "Done with failures"),
        "done" if r.left_out > 0 => words::chip("quiet", "pause", "Done, some left out"),
        other => words::state(other),
    };
    let parts = [("kgood", r.done), ("kbusy", r.moving), ("kbad", r.failed), ("kwarn", r.left_out), ("kwait", r.waiting)];
    json!({
        "id": r.id,
        "key": format!("r{mark}{}", r.id),
        "path": path(r.id),
        "version": r.version,
        "chip": chip,
        "detail": words::directors(&words::readable(&r.detail)),
        "group": format!("{} Director{}", words::number(r.group), if r.group == 1 { "" } else { "s" }),
        "done": words::number(r.done), "moving": words::number(r.moving), "failed": words::number(r.failed),
        "left_out": words::number(r.left_out), "waiting": words::number(r.waiting),
        "percent": (r.done * 100).checked_div(r.group).unwrap_or(0),
        "meter": charts::meter(&parts, r.group),
        "created": words::ago(r.created_at),
        "ended": r.ended_at.map(words::ago),
        "until": r.deadline.map(words::at),
        "owner": words::owner(r.owner.as_deref(), "Director"),
        "max_failures": r.max_failures,
        "max_in_flight": r.max_in_flight,
    })
}

fn quarantined(ask: &Ask, registry: &Registry, q: &Quarantine) -> Value {
    let whom = match (q.agent.as_str(), q.rollout) {
        ("", 0) => "Every Director".to_string(),
        ("", n) => format!("Directors of roll-out {n}"),
        (id, _) => registry.agents.get(id).map_or(id.to_string(), |d| d.hostname.clone()),
    };
    json!({
        "sha256": q.sha256, "short": q.sha256.get(..12), "version": q.version, "whom": whom, "agent": q.agent,
        "detail": words::directors(&words::readable(&q.detail)), "by": if q.by.is_empty() { "Fleet".into() } else { words::by(&q.by) }, "since": words::ago(q.since),
        "until": q.expires_at.map(words::at), "csrf": ask.who.csrf, "may": ask.may(Act::Reject) && !q.allowed, "allowed": q.allowed,
    })
}

async fn detail(ask: Ask) -> Result<Reply, Reason> {
    let unknown = || Reason::new("rollout_unknown", format!("there is no roll-out '{}'", ask.place(0)));
    let id: u64 = ask.place(0).parse().map_err(|_| unknown())?;
    let context = {
        let registry = ask.site.registry.borrow();
        let rollout = registry.rollouts.get(&id).ok_or_else(unknown)?;
        let view = registry.rollout_view(rollout);
        let mut orders: Vec<&Order> = registry.orders.range((id, String::new())..(id + 1, String::new())).map(|(_, o)| o).collect();
        let mut reasons: BTreeMap<(String, String), u64> = BTreeMap::new();
        for order in orders.iter().filter(|o| o.end().is_some_and(End::is_failure)) {
            *reasons.entry((order.code.clone(), order.detail.clone())).or_default() += 1;
        }
        // What a person has to look at first, then what moves.
        orders.sort_by_key(|o| (rank(o), o.since));
        let total = orders.len();
        let member = |o: &Order| {
            let name = registry.agents.get(&o.agent).map_or(o.agent.clone(), |d| d.hostname.clone());
            json!({"name": name, "path": directors::path(&o.agent), "chip": words::state(&o.state), "detail": words::directors(&words::readable(&o.detail)), "since": words::ago(o.since)})
        };
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let reasons: Vec<Value> = reasons
            .iter()
            .take(10)
            .map(|((code, detail), n)| json!({"code": code, "detail": words::directors(&words::readable(detail)), "count": n}))
            .collect();
        let open = matches!(view.state.as_str(), "running" | "halted");
        json!({
            "live": true,
            "r": row(&view, ""),
            "halted": view.state == "halted",
            "may_resume": ask.may(Act::Assign) && view.failed + view.left_out > 0 && view.state != "cancelled",
            "may_cancel": ask.may(Act::Cancel) && open,
            "members": orders.iter().take(MEMBERS).map(|o| member(o)).collect::<Vec<_>>(),
            "total": words::number(total as u64),
            "more": total > MEMBERS,
            "reasons": reasons,
            "by": if rollout.policy == Some(true) { "the policy" } else { "a person" },
        })
    };
    Page::new(&format!("Roll-out {id}"), "rollout", context).below(&[("Roll-outs", PATH)]).reply()
}

fn rank(order: &Order) -> u8 {
    match (order.step(), order.end()) {
        (_, Some(end)) if end.is_failure() => 0,
        (Some(_), _) => 1,
        (_, None) => 2,
        (_, Some(End::Updated | End::Already)) => 4,
        _ => 3,
    }
}

fn wire(ask: &Ask, command: &str) -> Result<AdminWire, Reason> {
    let unknown = |_| Reason::new("rollout_unknown", format!("there is no roll-out '{}'", ask.place(0)));
    let rollout = Some(ask.place(0).parse().map_err(unknown)?);
    Ok(AdminWire { command: command.into(), rollout, reason: reason(ask), ..Default::default() })
}

async fn resume(ask: Ask) -> Result<Reply, Reason> {
    let back = format!("{PATH}/{}", ask.place(0));
    done(&ask, wire(&ask, "retry")?, back, "It goes on: what did not work is ordered again".into()).await
}

async fn cancel(ask: Ask) -> Result<Reply, Reason> {
    let back = format!("{PATH}/{}", ask.place(0));
    done(&ask, wire(&ask, "cancel")?, back, "The roll-out is cancelled".into()).await
}

async fn allow(ask: Ask) -> Result<Reply, Reason> {
    let agents = ask.form.some("agent").map(|id| vec![id]);
    let wire = AdminWire { command: "allow".into(), hash: ask.form.some("hash"), agents, reason: reason(&ask), ..Default::default() };
    done(&ask, wire, PATH.into(), "The file may be ordered again".into()).await
}

/// Said where nothing runs.
pub fn none_running() -> Value {
    empty("rollout", "No roll-out is running", "The next one shows its progress here.")
}
