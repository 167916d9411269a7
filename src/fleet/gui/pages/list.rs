//! Lists in pages: what all tables have in common.

use serde_json::{Value, json};

use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::words::number;

/// Rows of a page, and what else can be chosen: the vendor's 10, 20, 30, and more for large screens.
pub const SIZES: [(&str, &str); 4] = [("10", "10 rows"), ("20", "20 rows"), ("30", "30 rows"), ("50", "50 rows")];
/// Rows without a choice: with them every page stays below 100 KB.
pub const SIZE: usize = 50;

/// Which part of a list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Rows before it.
    pub from: usize,
    /// Rows of it.
    pub size: usize,
}

impl Part {
    /// The part that is asked for.
    pub fn of(ask: &Ask) -> Part {
        let size = ask.query.get("size").parse().ok().filter(|n| SIZES.iter().any(|(s, _)| s.parse() == Ok(*n))).unwrap_or(SIZE);
        let page: usize = ask.query.get("page").parse().unwrap_or(1).clamp(1, 1_000_000);
        Part { from: (page - 1) * size, size }
    }

    /// The links below a table of so many rows.
    pub fn pager(self, ask: &Ask, total: usize) -> Value {
        let page = self.from / self.size + 1;
        let link = |page: usize| ask.path.clone() + &ask.query.with(&[("page", &if page > 1 { page.to_string() } else { String::new() })]);
        json!({
            "from": number((self.from + 1).min(total) as u64),
            "to": number((self.from + self.size).min(total) as u64),
            "total": number(total as u64),
            "has_back": page > 1,
            "has_next": self.from + self.size < total,
            "back": link(page.saturating_sub(1).max(1)),
            "next": link(page + 1),
        })
    }
}

/// The box for words to look for; `what` is found by them.
pub fn search(ask: &Ask, label: &str, what: &str) -> Value {
    Input::text("q", label).kind("search").hint(what).value(ask.query.get("q")).json()
}

/// A choice that filters.
pub fn choice(ask: &Ask, name: &str, label: &str, options: &[(&str, &str)]) -> Value {
    Input::select(name, label, options).value(ask.query.get(name)).json()
}

/// How many rows.
pub fn sizes(ask: &Ask) -> Value {
    let chosen = Some(ask.query.get("size")).filter(|s| !s.is_empty()).unwrap_or("50");
    Input::select("size", "Rows", &SIZES).value(chosen).json()
}

/// What is said instead of an empty table.
pub fn empty(icon: &str, what: &str, next: &str) -> Value {
    json!({"icon": icon, "what": what, "next": next, "path": "", "act": "", "command": ""})
}

/// The same with somewhere to go.
pub fn empty_to(icon: &str, what: &str, next: &str, path: &str, act: &str) -> Value {
    json!({"icon": icon, "what": what, "next": next, "path": path, "act": act, "command": ""})
}

/// Whether a word is in one of these texts, in whatever case.
pub fn found(word: &str, texts: &[&str]) -> bool {
    let word = word.to_lowercase();
    word.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&word))
}
