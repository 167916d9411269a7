//! What belongs to every page: the switch between light and dark.

use crate::core::access::Act;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Reply, see};
use crate::fleet::gui::routes::{Paged, Route};

/// How long a choice is kept, seconds: a year.
const THEME_S: u64 = 365 * 86_400;

/// Its routes.
pub static ROUTES: &[Route] =
    &[Route { method: "POST", path: "/theme", id: "theme", need: Act::Look, page: |ask| Box::pin(theme(ask)) as Paged }];

async fn theme(ask: Ask) -> Result<Reply, crate::core::reason::Reason> {
    let theme = if ask.form.get("theme") == "dark" { "dark" } else { "light" };
    let cookie = format!("__Host-theme={theme}; Path=/; Max-Age={THEME_S}; Secure; HttpOnly; SameSite=Lax");
    Ok(Reply::Raw(see(ask.form.get("back")).with("set-cookie", cookie)))
}
