//! Templates: `templates/*.html`, compiled once. Everything is escaped but what a template marks as made here
//! (`| unescaped`: the layout's body, and charts, which escape what they are given).

use serde_json::Value;
use tinytemplate::{TinyTemplate, format_unescaped};

use super::pages;
use crate::core::reason::Reason;

/// Parts that pages share.
const SHARED: &[(&str, &str)] = &[
    ("layout", include_str!("templates/layout.html")),
    ("sprite", include_str!("templates/sprite.html")),
    ("problem", include_str!("templates/problem.html")),
    ("field", include_str!("templates/field.html")),
    ("chip", include_str!("templates/chip.html")),
    ("time", include_str!("templates/time.html")),
    ("pager", include_str!("templates/pager.html")),
    ("empty", include_str!("templates/empty.html")),
];

thread_local! {
    static ALL: Result<TinyTemplate<'static>, String> = compiled();
}

fn compiled() -> Result<TinyTemplate<'static>, String> {
    let mut all = TinyTemplate::new();
    all.add_formatter("unescaped", format_unescaped);
    for (name, text) in SHARED.iter().chain(pages::TEMPLATES.iter().flat_map(|part| part.iter())) {
        all.add_template(name, text.trim_end()).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(all)
}

/// Renders one.
///
/// # Errors
/// `template_broken`: the context lacks a field that the template names; a defect.
pub fn render(name: &str, context: &Value) -> Result<String, Reason> {
    ALL.with(|all| {
        let broken = |why: String| Reason::new("template_broken", format!("the page '{name}' cannot be made: {why}; please report it"));
        let all = all.as_ref().map_err(|e| broken(e.clone()))?;
        all.render(name, context).map_err(|e| broken(e.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_compiles() {
        compiled().map(|_| ()).unwrap();
    }

    #[test]
    fn what_comes_from_outside_is_text() {
        let chip = serde_json::json!({"tone": "\"><script>", "icon": "x' onload='", "word": "<b>&", "title": ""});
        let text = render("chip", &chip).unwrap();
        assert!(!text.contains("<script") && !text.contains("<b>") && text.contains("&lt;b&gt;&amp;"), "{text}");
        assert!(!text.contains("x' onload"), "{text}");
    }
}
