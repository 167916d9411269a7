//! Forms and queries as pages ask for them, and what is said beside a field.

use std::collections::BTreeMap;

use crate::core::reason::Reason;
use crate::fleet::access::encoded;
use crate::fleet::form;

/// Names and values in the order in which they were sent: [`form::Form`] as pages ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(form::Form);

impl Form {
    /// Takes one.
    pub fn of(form: form::Form) -> Form {
        Form(form)
    }

    /// Reads a query.
    ///
    /// # Errors
    /// `form_invalid`.
    pub fn parse(text: &str) -> Result<Form, Reason> {
        form::Form::parse(text).map(Form)
    }

    /// As it came.
    pub fn raw(&self) -> &form::Form {
        &self.0
    }

    /// The first value of a field, without spaces around it; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.filled(name).unwrap_or_default()
    }

    /// The value, if there is one.
    pub fn some(&self, name: &str) -> Option<String> {
        self.0.filled(name).map(str::to_string)
    }

    /// Whether the field is there at all: a box that is ticked.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// Every value of a field that is not empty.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.all(name).into_iter().map(str::trim).filter(|v| !v.is_empty()).map(str::to_string).collect()
    }

    /// The same with other values for some names; empty ones are left out. For links.
    pub fn with(&self, changes: &[(&str, &str)]) -> String {
        let kept = self.0.pairs().iter().filter(|(n, v)| !v.is_empty() && !changes.iter().any(|(c, _)| c == n));
        let kept = kept.map(|(n, v)| (n.as_str(), v.as_str()));
        let new = changes.iter().copied().filter(|(_, v)| !v.is_empty());
        let pairs: Vec<String> = kept.chain(new).map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

/// What is wrong with what was typed, by field; `""` is the whole form's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<String, String>);

impl Errors {
    /// Says it beside a field; the first one stays.
    pub fn add(&mut self, field: &str, says: impl Into<String>) {
        self.0.entry(field.to_string()).or_insert_with(|| says.into());
    }

    /// A command's reason, beside the field that it names (`cron: ...`), else above the form.
    pub fn reason(&mut self, reason: &Reason, fields: &[&str]) {
        let named = reason.detail.split_once(':').map(|(name, _)| name.trim());
        let field = fields.iter().find(|f| Some(**f) == named || reason.code.split('_').next() == Some(**f));
        self.add(field.copied().unwrap_or_default(), &*reason.detail);
    }

    /// What is said beside a field.
    pub fn of(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    /// All is well.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_browsers_send_them() {
        let form = Form::parse("name=a+b%C3%A9&x=&id=1&id=2&note=%3Cscript%3E").unwrap();
        assert_eq!((form.get("name"), form.get("x"), form.get("none"), form.has("x")), ("a bé", "", "", true));
        assert_eq!((form.all("id"), form.get("note")), (vec!["1".into(), "2".into()], "<script>"));
        assert_eq!(form.with(&[("id", "3 4"), ("x", "")]), "?name=a%20b%C3%A9&note=%3Cscript%3E&id=3%204");
    }

    #[test]
    fn a_reason_stands_beside_its_field() {
        let mut errors = Errors::default();
        errors.reason(&Reason::new("cron_invalid", "no such minute"), &["cron", "zone"]);
        errors.reason(&Reason::new("bad_request", "zone: there is no such zone"), &["cron", "zone"]);
        errors.reason(&Reason::new("revision_conflict", "it was changed meanwhile"), &["cron", "zone"]);
        assert_eq!((errors.of("cron"), errors.of("zone")), ("no such minute", "zone: there is no such zone"));
        assert_eq!(errors.of(""), "it was changed meanwhile");
    }
}
