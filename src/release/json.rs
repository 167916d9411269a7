//! JSON as the release tool reads and writes it.
//!
//! Written: the canonical form that TUF signs (sorted keys, no spaces, integers only), so that the bytes of a file are
//! the bytes that were signed and the same content always gives the same file. Read: by [`Node`], which knows where it
//! is, so that an error names file and field.

use miniserde::json::{self, Array, Number, Object, Value};

use super::failure::{Failure, Result};

/// A string value.
pub fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

/// An integer value.
pub fn number(value: u64) -> Value {
    Value::Number(Number::U64(value))
}

/// An array.
pub fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(items.into_iter().collect::<Array>())
}

/// An object; the order of the fields does not matter.
pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(k, v)| (k.into(), v)).collect::<Object>())
}

/// The canonical bytes of a value. Every string that this tool writes is printable ASCII (names, numbers, hex, dates), for
/// which canonical JSON and JSON agree.
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Number(Number::U64(n)) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Number(Number::I64(n)) => out.extend_from_slice(n.to_string().as_bytes()),
        // No field of ours is a fraction, and canonical JSON has none.
        Value::Number(Number::F64(n)) => out.extend_from_slice((*n as i64).to_string().as_bytes()),
        Value::String(s) => write_string(s, out),
        Value::Array(items) => write_items(out, *b"[]", items, |item, out| write(item, out)),
        Value::Object(fields) => write_items(out, *b"{}", fields.iter(), |(name, field), out| {
            write_string(name, out);
            out.push(b':');
            write(field, out);
        }),
    }
}

fn write_items<T>(out: &mut Vec<u8>, ends: [u8; 2], items: impl IntoIterator<Item = T>, mut each: impl FnMut(T, &mut Vec<u8>)) {
    out.push(ends[0]);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        each(item, out);
    }
    out.push(ends[1]);
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for b in text.bytes() {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(b'"');
}

/// A value and where it stands: `keys/root-1.key: kdf.salt`.
#[derive(Clone)]
pub struct Node<'a> {
    value: &'a Value,
    file: &'a str,
    path: String,
}

/// Parses a whole file; `file` is for the messages.
pub fn parse(bytes: &[u8], file: &str) -> Result<Value> {
    let broken = || Failure::new("broken_file", format!("{file}: no complete JSON; restore the file from a backup"));
    json::from_str(std::str::from_utf8(bytes).map_err(|_| broken())?).map_err(|_| broken())
}

impl<'a> Node<'a> {
    /// The top of a parsed file.
    pub fn top(value: &'a Value, file: &'a str) -> Node<'a> {
        Node { value, file, path: String::new() }
    }

    /// A failure that names this place.
    pub fn expected(&self, what: &str) -> Failure {
        let at = if self.path.is_empty() { "the whole file" } else { &self.path };
        Failure::new("broken_file", format!("{}: {at}: expected {what}; restore the file from a backup", self.file))
    }

    fn child(&self, name: &str, value: &'a Value) -> Node<'a> {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Node { value, file: self.file, path }
    }

    /// The field of that name, if it is there.
    pub fn find(&self, name: &str) -> Option<Node<'a>> {
        match self.value {
            Value::Object(fields) => fields.get(name).map(|v| self.child(name, v)),
            _ => None,
        }
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Result<Node<'a>> {
        self.find(name).ok_or_else(|| self.expected(&format!("an object with the field '{name}'")))
    }

    /// The value itself.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// A string.
    pub fn text(&self) -> Result<&'a str> {
        match self.value {
            Value::String(s) => Ok(s),
            _ => Err(self.expected("a string")),
        }
    }

    /// An integer that is not negative.
    pub fn number(&self) -> Result<u64> {
        match self.value {
            Value::Number(Number::U64(n)) => Ok(*n),
            Value::Number(Number::I64(n)) => u64::try_from(*n).map_err(|_| self.expected("a number from 0 up")),
            _ => Err(self.expected("a number")),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool> {
        match self.value {
            Value::Bool(b) => Ok(*b),
            _ => Err(self.expected("true or false")),
        }
    }

    /// `N` bytes in lower-case hex.
    pub fn hex<const N: usize>(&self) -> Result<[u8; N]> {
        crate::core::hex::decode(self.text()?).ok_or_else(|| self.expected(&format!("{} lower-case hex digits", 2 * N)))
    }

    /// The items of an array.
    pub fn items(&self) -> Result<Vec<Node<'a>>> {
        match self.value {
            Value::Array(items) => Ok(items.iter().enumerate().map(|(i, v)| self.child(&i.to_string(), v)).collect()),
            _ => Err(self.expected("an array")),
        }
    }

    /// The fields of an object.
    pub fn fields(&self) -> Result<Vec<(&'a str, Node<'a>)>> {
        match self.value {
            Value::Object(fields) => Ok(fields.iter().map(|(name, v)| (name.as_str(), self.child(name, v))).collect()),
            _ => Err(self.expected("an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_is_sorted_and_compact() {
        let value = object([("b", list([number(1), text("x\"\\")])), ("a", object([("c", Value::Bool(true))]))]);
        assert_eq!(canonical(&value), br#"{"a":{"c":true},"b":[1,"x\"\\"]}"#);
    }

    #[test]
    fn errors_name_file_and_field() {
        let value = parse(br#"{"a":{"b":"x"}}"#, "f.json").unwrap();
        let error = Node::top(&value, "f.json").field("a").unwrap().field("b").unwrap().number().unwrap_err();
        assert!(error.text.starts_with("f.json: a.b: expected a number"), "{error}");
        assert!(parse(br#"{"a":"#, "f.json").unwrap_err().text.starts_with("f.json:"));
    }
}
