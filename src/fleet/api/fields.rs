//! From a request's path, query and body to the command that it asks for; nothing that the document does not name passes.

use miniserde::json::{self, Number, Value};

use super::routes::Route;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::io::serve::Request;

/// Longest text without a limit of its own: a reason in a person's words.
pub const TEXT_MAX: usize = 512;
/// Most Directors named in one request: with ids of full length they fit into [`super::BODY_MAX`].
pub const NAMES_MAX: usize = 500;
/// Longest id of a Director.
pub const ID_MAX: usize = 64;

/// What a value has to be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text of 1 to so many bytes.
    Text(usize),
    /// One of these.
    Word(&'static [&'static str]),
    /// A whole number from one to another.
    Number(u64, u64),
    /// True or false.
    Flag,
    /// A list of texts.
    Texts,
}

/// A value that fits its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Of [`Kind::Text`] and [`Kind::Word`].
    Text(String),
    /// Of [`Kind::Number`].
    Number(u64),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Texts`].
    Texts(Vec<String>),
}

impl Given {
    /// The text, if it is one.
    pub fn text(self) -> Option<String> {
        if let Given::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    pub fn number(self) -> Option<u64> {
        if let Given::Number(number) = self { Some(number) } else { None }
    }

    /// The flag, if it is one.
    pub fn flag(self) -> Option<bool> {
        if let Given::Flag(flag) = self { Some(flag) } else { None }
    }

    /// The list; one text is a list of one.
    pub fn texts(self) -> Option<Vec<String>> {
        match self {
            Given::Texts(list) => Some(list),
            Given::Text(text) => Some(vec![text]),
            _ => None,
        }
    }
}

/// A parameter or a field of a body.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means, for the document.
    pub about: &'static str,
    /// What it has to be.
    pub kind: Kind,
    /// It must be there.
    pub required: bool,
    /// Where it goes.
    pub set: fn(&mut Parsed, Given),
}

impl Field {
    /// One that may be left out.
    pub const fn of(name: &'static str, about: &'static str, kind: Kind, set: fn(&mut Parsed, Given)) -> Field {
        Field { name, about, kind, required: false, set }
    }

    /// One that must be there.
    pub const fn needed(name: &'static str, about: &'static str, kind: Kind, set: fn(&mut Parsed, Given)) -> Field {
        Field { name, about, kind, required: true, set }
    }
}

/// What a request asks for.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The command.
    pub wire: AdminWire,
    /// Only rows in this state.
    pub state: Option<String>,
    /// Rows after this one.
    pub after: Option<String>,
    /// Events after this one.
    pub after_seq: Option<u64>,
    /// The same, of one update.
    pub update: Option<String>,
    /// Of one Director.
    pub director: Option<String>,
    /// Of one agent.
    pub agent: Option<String>,
}

fn bad(detail: String) -> Reason {
    Reason::new("bad_request", detail)
}

/// Reads everything that a route takes.
///
/// # Errors
/// `bad_request`: which value, and what is expected.
pub fn parse(route: &Route, place: Option<String>, request: &Request) -> Result<Parsed, Reason> {
    let mut parsed = Parsed::default();
    (route.base)(&mut parsed);
    if let (Some(field), Some(text)) = (&route.place, place) {
        (field.set)(&mut parsed, from_text(field, &text)?);
    }
    query(route, request.query.as_deref().unwrap_or_default(), &mut parsed)?;
    if let Some(fields) = route.body {
        body(fields, &request.body, &mut parsed)?;
    }
    (route.then)(&mut parsed)?;
    Ok(parsed)
}

fn query(route: &Route, query: &str, parsed: &mut Parsed) -> Result<(), Reason> {
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).ok_or_else(|| bad("a parameter's name is no UTF-8".into()))?;
        let Some(field) = route.query.iter().find(|f| f.name == name) else {
            let known: Vec<&str> = route.query.iter().map(|f| f.name).collect();
            let list = if known.is_empty() { "there are none here".to_string() } else { format!("there are: {}", known.join(", ")) };
            return Err(bad(format!("unknown parameter '{}'; {list}", shown(&name))));
        };
        if seen.contains(&field.name) {
            return Err(bad(format!("parameter {} is given twice", field.name)));
        }
        seen.push(field.name);
        let value = decoded(value).ok_or_else(|| bad(format!("{}: no UTF-8", field.name)))?;
        (field.set)(parsed, from_text(field, &value)?);
    }
    missing(route.query, &seen)
}

fn body(fields: &[Field], bytes: &[u8], parsed: &mut Parsed) -> Result<(), Reason> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("the body is no UTF-8".into()))?;
    let text = if text.trim().is_empty() { "{}" } else { text };
    let value: Value = json::from_str(text).map_err(|_| bad("the body is no JSON".into()))?;
    let Value::Object(object) = value else { return Err(bad("the body has to be a JSON object".into())) };
    let mut seen = Vec::new();
    for (name, value) in &object {
        let Some(field) = fields.iter().find(|f| f.name == name) else {
            let known: Vec<&str> = fields.iter().map(|f| f.name).collect();
            return Err(bad(format!("unknown field '{}'; there are: {}", shown(name), known.join(", "))));
        };
        seen.push(field.name);
        (field.set)(parsed, from_json(field, value)?);
    }
    missing(fields, &seen)
}

fn missing(fields: &[Field], seen: &[&str]) -> Result<(), Reason> {
    match fields.iter().find(|f| f.required && !seen.contains(&f.name)) {
        Some(field) => Err(bad(format!("{} is missing: {}", field.name, field.about))),
        None => Ok(()),
    }
}

/// A stranger's name in a sentence: not longer than useful.
fn shown(name: &str) -> String {
    crate::director::records::clean(name, 40)
}

fn expected(field: &Field) -> Reason {
    let what = match field.kind {
        Kind::Text(max) => format!("a text of 1 to {max} bytes without control characters"),
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::Number(low, high) => format!("a whole number from {low} to {high}"),
        Kind::Flag => "true or false".into(),
        Kind::Texts => format!("a list of 1 to {NAMES_MAX} ids of at most {ID_MAX} bytes"),
    };
    bad(format!("{}: expected {what}", field.name))
}

fn fits(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

/// A value of path or query.
fn from_text(field: &Field, text: &str) -> Result<Given, Reason> {
    let given = match field.kind {
        Kind::Text(max) => fits(text, max).then(|| Given::Text(text.to_string())),
        Kind::Word(words) => words.contains(&text).then(|| Given::Text(text.to_string())),
        // Digits only: `+1` and `01` are other spellings that nobody needs.
        Kind::Number(low, high) => {
            let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
            text.parse().ok().filter(|n| plain && (low..=high).contains(n)).map(Given::Number)
        }
        Kind::Flag => text.parse().ok().map(Given::Flag),
        Kind::Texts => None,
    };
    given.ok_or_else(|| expected(field))
}

/// A value of a body.
fn from_json(field: &Field, value: &Value) -> Result<Given, Reason> {
    let given = match (field.kind, value) {
        (Kind::Text(max), Value::String(text)) => fits(text, max).then(|| Given::Text(text.clone())),
        (Kind::Word(words), Value::String(text)) => words.contains(&text.as_str()).then(|| Given::Text(text.clone())),
        (Kind::Number(low, high), Value::Number(number)) => whole(number).filter(|n| (low..=high).contains(n)).map(Given::Number),
        (Kind::Flag, Value::Bool(flag)) => Some(Given::Flag(*flag)),
        (Kind::Texts, Value::Array(list)) if (1..=NAMES_MAX).contains(&list.len()) => {
            let text = |value: &Value| match value {
                Value::String(text) if fits(text, ID_MAX) => Some(text.clone()),
                _ => None,
            };
            list.iter().map(text).collect::<Option<Vec<String>>>().map(Given::Texts)
        }
        _ => None,
    };
    given.ok_or_else(|| expected(field))
}

/// JSON has one kind of number: `3.0` is three.
fn whole(number: &Number) -> Option<u64> {
    match *number {
        Number::U64(n) => Some(n),
        Number::I64(n) => u64::try_from(n).ok(),
        Number::F64(n) => (n >= 0.0 && n.fract() == 0.0 && n < 9e15).then_some(n as u64),
    }
}

/// `%41` and `+` as they were meant; `None`: no UTF-8.
pub fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field { name: "version", about: "which", kind: Kind::Text(8), required: true, set: |p, g| p.wire.version = g.text() },
        Field { name: "life_s", about: "how long", kind: Kind::Number(1, 9), required: false, set: |p, g| p.wire.life_s = g.number() },
        Field { name: "retry", about: "again", kind: Kind::Flag, required: false, set: |p, g| p.wire.retry = g.flag() },
        Field { name: "directors", about: "whom", kind: Kind::Texts, required: false, set: |p, g| p.wire.agents = g.texts() },
    ];

    fn read(text: &str) -> Result<AdminWire, String> {
        let mut parsed = Parsed::default();
        body(FIELDS, text.as_bytes(), &mut parsed).map(|()| parsed.wire).map_err(|r| r.detail.clone())
    }

    #[test]
    fn a_body_is_what_the_document_says_and_nothing_else() {
        let wire = read(r#"{"version": "1.0.0", "life_s": 3.0, "retry": true, "directors": ["a"]}"#).unwrap();
        assert_eq!((wire.version.as_deref(), wire.life_s, wire.retry), (Some("1.0.0"), Some(3), Some(true)));
        for (text, word) in [
            ("", "version is missing"),
            ("[]", "object"),
            ("{\"version\": \"1\", \"x\\n\": 1}", "unknown field 'x '"),
            ("{\"version\": 1}", "1 to 8 bytes"),
            ("{\"version\": \"123456789\"}", "1 to 8 bytes"),
            ("{\"version\": \"\"}", "1 to 8 bytes"),
            ("{\"version\": \"a\\u0000\"}", "control"),
            ("{\"version\": \"1\", \"life_s\": 10}", "from 1 to 9"),
            ("{\"version\": \"1\", \"life_s\": 1.5}", "from 1 to 9"),
            ("{\"version\": \"1\", \"life_s\": -1}", "from 1 to 9"),
            ("{\"version\": \"1\", \"life_s\": null}", "from 1 to 9"),
            ("{\"version\": \"1\", \"directors\": []}", "list"),
            ("{\"version\": \"1\", \"directors\": [1]}", "list"),
            ("{\"version\": \"1\", \"retry\": \"true\"}", "true or false"),
            ("{", "no JSON"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_deep_document_costs_no_stack() {
        for open in ["[", "{\"a\":", "{\"version\":["] {
            let deep = open.repeat(super::super::BODY_MAX / open.len());
            assert!(read(&deep).unwrap_err().contains("no JSON"));
            let closed = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
            assert!(read(&closed).unwrap_err().contains("object"));
        }
    }

    #[test]
    fn percent_signs() {
        assert_eq!(decoded("a%2Fb+c%C3%A9"), Some("a/b c\u{e9}".into()));
        for text in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
