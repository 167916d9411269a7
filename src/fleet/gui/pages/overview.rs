//! The overview: to be left open on a wall.

use serde_json::json;

use super::Templates;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::core::rollout::OFFLINE_AFTER_S;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words::number;

/// Routes.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: "/", id: "overview", need: Act::Look, page: |ask| Box::pin(overview(ask)) as Paged }];

/// Templates.
pub static TEMPLATES: Templates = &[("overview", include_str!("../templates/overview.html"))];

async fn overview(ask: Ask) -> Result<Reply, Reason> {
    let registry = ask.site.registry.borrow();
    let directors: Vec<_> = registry.agents.values().filter(|a| a.removed_at.is_none()).collect();
    let silent = directors.iter().filter(|a| ask.now.saturating_sub(registry.last_contact(&a.id)) > OFFLINE_AFTER_S).count();
    let context = json!({
        "live": true,
        "directors": number(directors.len() as u64),
        "silent": number(silent as u64),
    });
    drop(directors);
    drop(registry);
    Page::new("Overview", "overview", context).reply()
}
