//! A running Fleet over a store that others share.

use std::rc::Rc;

use smol::LocalExecutor;

use super::joined;
use super::shared::{Memory, Shared, Why, Written};
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::director::store::{Change, Table};
use crate::io::clock;

/// The registry and the copy in this Fleet's own file.
struct Here(Rc<Site>);

impl Memory for Here {
    fn take(&self, rows: &[Change], why: Why) {
        let (site, now) = (&self.0, clock::unix());
        {
            let mut registry = site.registry.borrow_mut();
            for row in rows {
                if !registry.take_shared(row) {
                    log::error!("the shared row {} does not parse; what was there stays in force", joined::key(row));
                } else if matches!(why, Why::Elsewhere) && row.table == Table::PolicyChanges {
                    registry.note_elsewhere(row, now);
                }
            }
            if let Why::Undone { reason, wished } = why {
                registry.forget_told_revisions();
                if wished {
                    registry.event(now, "", "policy_undone", reason.to_string(), None);
                }
            }
        }
        site.flush();
        site.planner.ring();
    }

    fn copy(&self, rows: Vec<Change>) {
        self.0.store.queue_here(rows);
    }

    fn written(&self) -> Written<'_> {
        Box::pin(self.0.store.written())
    }

    fn trouble(&self, reason: Option<&Reason>) {
        match reason {
            Some(reason) => {
                let detail = format!("{reason}; what was set last counts on, and nothing can be changed until it is back");
                self.0.note("shared_store_lost", &detail);
            }
            None => self.0.note("shared_store_reached", "settings are those of the shared store"),
        }
    }
}

/// Comes to the store and follows it from then on.
///
/// # Errors
/// One sentence with the remedy.
pub async fn begin(site: &Rc<Site>, named: Option<&str>, join: bool, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
    let own = site.store.path().to_path_buf();
    let Some(joined) = joined::come(&site.store, &own, named, join).await? else { return Ok(()) };
    let here = Rc::new(Here(site.clone()));
    here.take(&joined.news, Why::Listed);
    match &joined.away {
        Some(reason) => here.trouble(Some(reason)),
        None => site.note("shared_store_joined", &format!("{} rows of settings were taken over", joined.news.len())),
    }
    let away = joined.away.map(|reason| reason.code.to_string());
    let shared = Shared::new(joined.store, here, joined.rows, away);
    site.store.keep_elsewhere(shared.clone());
    executor.spawn(shared.clone().commit_forever()).detach();
    executor.spawn(shared.follow_forever(joined.revision)).detach();
    Ok(())
}
