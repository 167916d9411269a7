//! What a browser sends with a form: `application/x-www-form-urlencoded`, with limits.

use crate::core::reason::Reason;
use crate::fleet::api::fields::decoded;
use crate::io::serve::Request;

/// Longest body of a form: a few lists of ids and a text in a person's words.
pub const FORM_MAX: usize = 64 << 10;
/// Most fields: a table of 500 rows that are ticked, and what stands around it.
pub const FIELDS_MAX: usize = 600;
/// Longest value of a field that nobody gives a limit of its own.
pub const VALUE_MAX: usize = 8 << 10;
/// What it calls itself.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The fields of a form, or of a path's query, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// The form in a request's body.
    ///
    /// # Errors
    /// `form_invalid`: another content type, no UTF-8, too many or too long fields.
    pub fn of(request: &Request) -> Result<Form, Reason> {
        let kind = request.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(CONTENT_TYPE) {
            return Err(invalid(&format!("forms are sent as {CONTENT_TYPE}")));
        }
        let text = std::str::from_utf8(&request.body).map_err(|_| invalid("it is no UTF-8"))?;
        Form::parse(text)
    }

    /// What stands behind the `?` of a request's path.
    ///
    /// # Errors
    /// `form_invalid`.
    pub fn query(request: &Request) -> Result<Form, Reason> {
        Form::parse(request.query.as_deref().unwrap_or_default())
    }

    /// Reads `a=1&b=2`.
    ///
    /// # Errors
    /// `form_invalid`.
    pub fn parse(text: &str) -> Result<Form, Reason> {
        if text.len() > FORM_MAX {
            return Err(invalid(&format!("it is longer than {FORM_MAX} bytes")));
        }
        let mut fields = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if fields.len() == FIELDS_MAX {
                return Err(invalid(&format!("it has more than {FIELDS_MAX} fields")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let both = decoded(name).zip(decoded(value));
            let (name, value) = both.ok_or_else(|| invalid("a field is wrongly encoded, or no UTF-8"))?;
            if value.len() > VALUE_MAX {
                return Err(invalid(&format!("a field is longer than {VALUE_MAX} bytes")));
            }
            fields.push((name, value));
        }
        Ok(Form(fields))
    }

    /// The value of a field; of several with that name the first one. As it was typed.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value without spaces around it; `None`: absent or empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Every value of a name: what was ticked.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// All of them.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

fn invalid(why: &str) -> Reason {
    Reason::new("form_invalid", format!("the form is not understood: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_their_limits() {
        let form = Form::parse("a=1&b=x+%3Cy%3E&a=2&empty=&flag&").unwrap();
        assert_eq!((form.get("a"), form.get("b"), form.get("c")), (Some("1"), Some("x <y>"), None));
        assert_eq!((form.all("a"), form.filled("empty"), form.get("flag")), (vec!["1", "2"], None, Some("")));
        let many = "a=1&".repeat(FIELDS_MAX + 1);
        let long = format!("a={}", "x".repeat(VALUE_MAX + 1));
        let huge = "x".repeat(FORM_MAX + 1);
        for bad in ["a=%", "a=%zz", "a=%ff", "%c3=1", &many, &long, &huge] {
            assert_eq!(Form::parse(bad).unwrap_err().code, "form_invalid");
        }
    }
}
