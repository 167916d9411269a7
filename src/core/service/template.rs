//! The filler of the templates, and how each language quotes a word.

/// Fills `{{name}}` in a template. A value of several lines repeats its line; a value without a line drops it. So what is
/// optional, and what is a list, needs no language of its own.
pub fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::new();
    template.lines().for_each(|line| fill_line(line, values, &mut out));
    out
}

fn fill_line(line: &str, values: &[(&str, String)], out: &mut String) {
    let found = values.iter().find_map(|(name, value)| {
        let place = format!("{{{{{name}}}}}");
        line.find(&place).map(|at| (&line[..at], value, &line[at + place.len()..]))
    });
    match found {
        // What was filled in is not looked at again: a value may say {{name}}.
        Some((before, value, after)) => {
            for part in value.lines() {
                let mut rest = String::new();
                fill_line(after, values, &mut rest);
                let mut first = String::new();
                fill_line(before, values, &mut first);
                let (first, rest) = (first.trim_end_matches('\n'), rest.trim_end_matches('\n'));
                out.push_str(&format!("{first}{part}{rest}\n"));
            }
        }
        None => {
            out.push_str(line);
            out.push('\n');
        }
    }
}

/// A word for a POSIX shell.
pub fn sh(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,@+%".contains(&b);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A word of a systemd command line: `$` stands for itself.
pub fn systemd_exec(word: &str) -> String {
    systemd(word).replace('$', "$$")
}

/// A path in a list of systemd: `%` stands for itself.
pub fn systemd(word: &str) -> String {
    let word = word.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != ';';
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("\"{word}\""),
    }
}

/// Text in XML.
pub fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A word of a Windows command line, as `CommandLineToArgvW` takes it apart.
pub fn windows(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.into();
    }
    let mut out = String::from("\"");
    let mut slashes = 0;
    for c in word.chars() {
        if c == '"' {
            out.push_str(&"\\".repeat(slashes + 1));
        }
        slashes = if c == '\\' { slashes + 1 } else { 0 };
        out.push(c);
    }
    out.push_str(&"\\".repeat(slashes));
    out.push('"');
    out
}

/// The words of a Windows command line that [`windows`] has quoted.
pub fn windows_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut open, mut begun, mut slashes) = (Vec::new(), String::new(), false, false, 0_usize);
    for c in line.chars() {
        if c == '"' {
            // Backslashes count in pairs before a quote, and only there.
            word.truncate(word.len() - slashes.div_ceil(2));
            if slashes % 2 == 1 {
                word.push('"')
            } else {
                open = !open
            }
            begun = true;
        } else if matches!(c, ' ' | '\t') && !open {
            if begun {
                words.push(std::mem::take(&mut word));
            }
            begun = false;
        } else {
            word.push(c);
            begun = true;
        }
        slashes = if c == '\\' { slashes + 1 } else { 0 };
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_repeated_and_dropped() {
        let values = [("a", "1".to_string()), ("list", "x\n{{a}}".into()), ("none", String::new())];
        assert_eq!(fill("# {{list}}.\nk={{a}} {{a}}\nno={{none}}\n\nend", &values), "# x.\n# {{a}}.\nk=1 1\n\nend\n");
    }

    #[test]
    fn words_are_quoted_as_each_language_reads_them() {
        assert_eq!((sh("a-b/c=1"), sh("it's"), sh("")), ("a-b/c=1".into(), r"'it'\''s'".into(), "''".into()));
        assert_eq!(systemd("/a b"), "\"/a b\"");
        assert_eq!(systemd("a$b"), "a$b");
        assert_eq!(systemd_exec(r#"a%b$c\d"e"#), r#"a%%b$$c\\d\"e"#);
        assert_eq!(xml("a<b&c>"), "a&lt;b&amp;c&gt;");
        assert_eq!(windows(r"C:\Program Files\x\"), r#""C:\Program Files\x\\""#);
        assert_eq!(windows(r#"a"b"#), r#""a\"b""#);
        let words = [r"C:\Program Files\x\", r#"a"b"#, "", r"C:\plain", r#"\\" \"#, "a b"];
        assert_eq!(windows_words(&words.map(windows).join(" ")), words);
    }
}
