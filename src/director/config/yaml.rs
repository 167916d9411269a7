//! YAML text to a small tree that knows its lines, and nothing else of YAML.
//!
//! Refused before anything is built: what can grow (anchors, aliases, merge keys), what is read in two ways (tags, doubled
//! names, tabs, other encodings, a second document), and what is deeper, longer or has more parts than a configuration has.
//! A scalar stays the text that was written: `2.50` is no number here and `no` is no boolean.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::problem::{Problem, shown};

/// Longest file, as the vendor's users know it; ours have some hundred bytes.
pub const FILE_MAX: u64 = 1 << 20;
/// Deepest nesting; the settings need three.
const DEPTH_MAX: usize = 8;
/// Most names, values and lists: a thousand times what there is to say.
const NODES_MAX: usize = 10_000;

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Line, from 1.
    pub line: usize,
    /// What is there.
    pub kind: Kind,
}

/// What a value can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `name:` and nothing, `~`, `null`.
    Nothing,
    /// Text as it was written, without its quotes.
    Text(String),
    /// `- a`, `[a]`.
    List(Vec<Node>),
    /// `name: value`, in the order of the file.
    Section(Vec<(Name, Node)>),
}

/// The left side of a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Line, from 1.
    pub line: usize,
    /// The word.
    pub text: String,
}

impl Node {
    /// What this is, for an error.
    pub fn found(&self) -> String {
        match &self.kind {
            Kind::Nothing => "nothing".into(),
            Kind::Text(text) => shown(text),
            Kind::List(_) => "a list".into(),
            Kind::Section(_) => "a section of further fields".into(),
        }
    }
}

/// Reads one document.
///
/// # Errors
/// What is refused, all doubled names at once; anything that is no YAML is one problem, since nothing after it can be told.
pub fn read(bytes: &[u8]) -> Result<Node, Vec<Problem>> {
    let text = decode(bytes).map_err(|p| vec![p])?;
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0, doubled: Vec::new() };
    let root = reader.document().map_err(|p| vec![p])?;
    if reader.doubled.is_empty() { Ok(root) } else { Err(reader.doubled) }
}

/// UTF-8 without what a configuration has no use for.
fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    let at = |line, found: &str, allowed: &str| Err(Problem::new(line, "", found, allowed));
    if bytes.len() as u64 > FILE_MAX {
        return at(1, &format!("more than {FILE_MAX} bytes"), "a configuration is far shorter");
    }
    let utf8 = "save the file as UTF-8";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return at(1, "UTF-16 or UTF-32", utf8);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_of = |end: usize| bytes[..end].iter().filter(|b| **b == b'\n').count() + 1;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => return at(line_of(e.valid_up_to()), "bytes that are no UTF-8", utf8),
    };
    let odd = |c: char| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}');
    if let Some((end, odd)) = text.char_indices().find(|(_, c)| odd(*c)) {
        return at(line_of(end), &format!("the invisible character U+{:04X}", u32::from(odd)), "remove it");
    }
    for (line, content) in text.lines().enumerate() {
        let start = content.trim_start_matches([' ', '\t']);
        if content[..content.len() - start.len()].contains('\t') && !start.is_empty() && !start.starts_with('#') {
            return at(line + 1, "a tab before the first word", "YAML is indented with spaces");
        }
    }
    if text.trim().is_empty() {
        return at(1, "an empty file", "settings, or a comment if there is none to make: an empty file may be a half written one");
    }
    Ok(text)
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
    doubled: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            // Its words are about YAML, ours are about what to do; both help.
            Some(Err(e)) => {
                let remedy = match e.info().contains("anchor") || e.info().contains("alias") {
                    true => "a value that begins with `*` or `&` is quoted: cron: \"*/5 * * * *\"",
                    false => "is this line indented and quoted right?",
                };
                Err(Problem::new(e.marker().line(), "", e.info(), remedy))
            }
            None => Err(Problem::new(1, "", "no end of the document", "YAML")),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => {
                    return Ok(root.unwrap_or(Node { line: 1, kind: Kind::Nothing }));
                }
                Event::DocumentStart(_) if root.is_none() => {
                    let first = self.next()?;
                    root = Some(self.node(first, DEPTH_MAX)?);
                }
                _ => return Err(Problem::new(span.start.line(), "", "a second document (`---`)", "one document in the file")),
            }
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        let refuse = |found: &str, allowed: &str| Err(Problem::new(line, "", found, allowed));
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return refuse(&format!("more than {NODES_MAX} values"), "a configuration has some dozen");
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(_) => return refuse("an alias (`*name`)", "write the value out"),
            _ => (0, false),
        };
        if anchor != 0 {
            return refuse("an anchor (`&name`)", "write the value out each time");
        }
        if tag {
            return refuse("a tag (`!name`)", "values have no tags here; text with a `!` in front is quoted");
        }
        if depth == 0 {
            return refuse(&format!("more than {DEPTH_MAX} levels"), "no setting is that deep");
        }
        let kind = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => Kind::List(self.list(depth)?),
            Event::MappingStart(..) => Kind::Section(self.section(depth)?),
            _ => return refuse("no value", "a value"),
        };
        Ok(Node { line, kind })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut out = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(out),
                event => out.push(self.node(event, depth - 1)?),
            }
        }
    }

    fn section(&mut self, depth: usize) -> Result<Vec<(Name, Node)>, Problem> {
        let mut out: Vec<(Name, Node)> = Vec::new();
        loop {
            let event = match self.next()? {
                (Event::MappingEnd, _) => return Ok(out),
                event => event,
            };
            let key = self.node(event, depth - 1)?;
            let Kind::Text(text) = key.kind else {
                return Err(Problem::new(key.line, "", &format!("{} before a colon", key.found()), "a field's name"));
            };
            if text == "<<" {
                return Err(Problem::new(key.line, "", "a merge key (`<<`)", "write the fields out"));
            }
            let name = Name { line: key.line, text };
            let event = self.next()?;
            let value = self.node(event, depth - 1)?;
            match out.iter().find(|(other, _)| other.text == name.text) {
                Some((first, _)) => {
                    let found = format!("the second {}", shown(&name.text));
                    self.doubled.push(Problem::new(name.line, &name.text, &found, &format!("once; the first is in line {}", first.line)));
                }
                None => out.push((name, value)),
            }
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Kind {
    match (style, text.as_str()) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Kind::Nothing,
        // The end of a block is no part of what somebody meant to say.
        (ScalarStyle::Literal | ScalarStyle::Folded, _) => Kind::Text(text.trim_end().to_string()),
        _ => Kind::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        let problems = read(text).unwrap_err();
        problems.iter().map(|p| format!("{}: {}: {}; ", p.line, p.found, p.allowed)).collect()
    }

    #[test]
    fn values_keep_their_text_and_line() {
        let tree = read(b"# c\nupdate:\r\n  version: 2.50\n  cron: \"0 2 * * 0\" # weekly\nlisten: [a, ~]\nempty:\n").unwrap();
        let Kind::Section(fields) = tree.kind else { panic!() };
        assert_eq!(fields.iter().map(|(n, _)| (n.text.as_str(), n.line)).collect::<Vec<_>>(), [("update", 2), ("listen", 5), ("empty", 6)]);
        let Kind::Section(update) = &fields[0].1.kind else { panic!() };
        assert_eq!(update[0].1, Node { line: 3, kind: Kind::Text("2.50".into()) });
        assert_eq!(update[1].1, Node { line: 4, kind: Kind::Text("0 2 * * 0".into()) });
        assert!(matches!(&fields[1].1.kind, Kind::List(items) if items[1].kind == Kind::Nothing));
        assert_eq!(fields[2].1.kind, Kind::Nothing);
        assert_eq!(read(b"# nothing set\n").unwrap().kind, Kind::Nothing);
        assert_eq!(read("\u{feff}a: b".as_bytes()).unwrap(), read(b"a: b").unwrap());
    }

    #[test]
    fn what_grows_or_is_read_in_two_ways_is_refused_with_its_line() {
        let bomb = format!("a: &a [x,x]\n{}", (0..9).map(|n| format!("b{n}: [*a,*a]\n")).collect::<String>());
        let deep = format!("a: {}", "[".repeat(200_000));
        let deep_block = "- ".repeat(200_000);
        let many = "a: [".to_string() + &"x,".repeat(NODES_MAX + 1) + "]";
        let keys = (0..NODES_MAX).map(|n| format!("k{n}: 1\n")).collect::<String>();
        let long = "#".repeat(FILE_MAX as usize + 1);
        for (text, line, word) in [
            (bomb.as_bytes(), 1, "anchor"),
            (b"a: 1\nb: *a\n", 2, "anchor"),
            (b"x: 1\nbase: {a: 1}\n<<: {b: 2}\n", 3, "merge key"),
            (b"a: !!binary x", 1, "tag"),
            (b"a: 1\na: 2\nb: 1\nb: 2\n", 2, "first is in line 1"),
            (b"a: 1\n---\nb: 2\n", 2, "document"),
            (b"a:\n\tb: 1\n", 2, "tab"),
            (b"\n\nk: \xff\n", 3, "UTF-8"),
            (b"\xff\xfea\0", 1, "UTF-16"),
            (b"a: 1\nb: \x00\n", 2, "U+0000"),
            (b"a: \"\xe2\x80\xa8\"\n", 1, "U+2028"),
            (b"? [a]\n: b\n", 1, "before a colon"),
            (b"a: b: c\n", 1, ""),
            (b"a: [1\nb: 2", 1, ""),
            (b" \n\n", 1, "empty"),
            (b"", 1, "empty"),
            (deep.as_bytes(), 1, ""),
            (deep_block.as_bytes(), 1, "levels"),
            (many.as_bytes(), 1, "values"),
            (keys.as_bytes(), 5000, "values"),
            (long.as_bytes(), 1, "bytes"),
        ] {
            let said = refused(text);
            let start = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
            assert!(said.contains(word) && (word.is_empty() || said.starts_with(&format!("{line}:"))), "{start}: {said}");
        }
        assert_eq!(refused(b"a: 1\na: 2\nb: 1\nb: 2\n").matches("second").count(), 2, "all at once");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_yaml_panics(text in "[-a:#&*!|>'\"%@`{}\\[\\], \n?~<0\\\\]{0,120}") {
            let _ = read(text.as_bytes());
        }
    }
}
