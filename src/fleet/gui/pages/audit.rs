//! Organization > Audit: who did what, when, from where; exported as CSV and JSON.

use serde_json::{Value, json};

use super::Templates;
use super::activity::{PERIODS, periods};
use super::list::{empty, empty_to, search};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::commands::store_error;
use crate::director::table::utc;
use crate::fleet::access;
use crate::fleet::access::audit::{Entry, Wanted};
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, sealed};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;
use crate::io::serve::Response;
use crate::wire::audit::{Row, csv, csv_head};

/// Rows of a page.
const ROWS: usize = 50;
/// Rows of a file: with them it is a few megabytes; `vmetric-fleet audit` writes all.
const EXPORTED: usize = 20_000;

const PATH: &str = "/organization/audit";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "audit", need: Act::ReadAudit, page: |ask| Box::pin(list(ask)) as Paged },
    Route {
        method: "GET",
        path: "/organization/audit.csv",
        id: "auditCsv",
        need: Act::ExportAudit,
        page: |ask| Box::pin(export(ask, true)) as Paged,
    },
    Route {
        method: "GET",
        path: "/organization/audit.json",
        id: "auditJson",
        need: Act::ExportAudit,
        page: |ask| Box::pin(export(ask, false)) as Paged,
    },
];

/// Templates.
pub static TEMPLATES: Templates = &[("audit", include_str!("../templates/audit.html"))];

fn wanted(ask: &Ask, limit: usize) -> Wanted {
    let seconds = PERIODS.iter().find(|(word, ..)| *word == ask.query.get("period")).map_or(7 * 86_400, |(.., s)| *s);
    Wanted {
        since: Some(ask.now.saturating_sub(seconds)),
        user: ask.query.some("user"),
        action: ask.query.some("action"),
        object: ask.query.some("q"),
        before: ask.query.get("before").parse().ok(),
        after: None,
        limit,
    }
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let log = access::of(&ask.site)?;
    let mut rows = log.audit.rows(&ask.site, &wanted(&ask, ROWS + 1)).await?;
    rows.reverse();
    let more = rows.len() > ROWS;
    rows.truncate(ROWS);
    let filtered = ["q", "user", "action", "period", "before"].iter().any(|f| !ask.query.get(f).is_empty());
    let none = match (rows.is_empty(), filtered) {
        (false, _) => Value::Null,
        (true, true) => {
            empty_to("search", "Nothing fits", "Choose a longer period, or other words.", "/organization/audit?period=all", "Show all")
        }
        (true, false) => empty("list", "Nothing has been noted in this period", "Every login and every act appears here."),
    };
    let link = |before: String| ask.path.clone() + &ask.query.with(&[("before", &before)]);
    let export = |kind: &str| format!("{PATH}.{kind}{}", ask.query.with(&[("before", "")]));
    let head = log.audit.head();
    let text = |name: &str, label: &str| Input::text(name, label).value(ask.query.get(name)).json();
    let context = json!({
        "live": ask.query.get("before").is_empty(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "none": none,
        "filters": [search(&ask, "Object", ""), text("user", "User"), text("action", "Action"), periods(&ask)],
        "next": rows.last().filter(|_| more).map(|r| link(r.n.to_string())),
        "has_first": !ask.query.get("before").is_empty(),
        "first": link(String::new()),
        "may_export": ask.may(Act::ExportAudit),
        "csv": export("csv"),
        "json": export("json"),
        "last": words::number(head.last),
        "head": head.head,
    });
    Page::new("Audit", "audit", context).below(&[("Organization", "")]).reply()
}

fn row(r: &Row) -> Value {
    json!({
        "user": words::by(&r.user), "ip": r.ip, "object_type": r.object_type, "object": r.object, "action": r.action,
        "description": r.description, "at": words::at(r.time), "n": r.n,
    })
}

/// The rows as a file, in the form that `vmetric-fleet audit verify --file` reads.
async fn export(ask: Ask, as_csv: bool) -> Result<Reply, Reason> {
    let log = access::of(&ask.site)?;
    let mut wanted = wanted(&ask, EXPORTED);
    if ask.query.get("period").is_empty() {
        wanted.since = None;
    }
    let rows = log.audit.rows(&ask.site, &wanted).await?;
    let head = crate::wire::audit::Head { filtered: wanted.filters(), ..log.audit.head() };
    let (kind, name, text) = if as_csv {
        let lines: String = rows.iter().map(|row| csv(row, &utc(row.time))).collect();
        ("text/csv; charset=utf-8", "audit.csv", csv_head() + &lines)
    } else {
        let lines: Vec<String> = rows.iter().map(miniserde::json::to_string).collect();
        ("application/x-ndjson", "audit.json", format!("{}\n{}\n", miniserde::json::to_string(&head), lines.join("\n")))
    };
    // Taking it away is an act, too.
    let (user, ip, object) = (ask.who.by(), ask.who.ip.clone(), name.to_string());
    let description = format!("{} rows", rows.len());
    log.audit.note(&ask.site, Entry { user, ip, object_type: "Audit".into(), object, action: "ExportAudit".into(), description });
    ask.site.store.durable().await.map_err(store_error)?;
    let response = sealed(Response::of(200, kind, text.into_bytes()));
    let response = response.with("content-disposition", format!("attachment; filename=\"{name}\"")).with("cache-control", "no-store");
    Ok(Reply::Raw(response))
}
