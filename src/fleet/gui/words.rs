//! Words, colours and times for people.

use serde_json::{Value, json};

use crate::core::time;

/// A state as a chip: never by colour alone. Tones: `good`, `bad`, `warn`, `busy`, `quiet`.
pub fn chip(tone: &str, icon: &str, word: &str) -> Value {
    json!({"tone": tone, "icon": icon, "word": word, "title": ""})
}

/// The same with more in its title.
pub fn chip_with(tone: &str, icon: &str, word: &str, title: &str) -> Value {
    json!({"tone": tone, "icon": icon, "word": word, "title": title})
}

/// `rolled_back` as people write it.
pub fn human(word: &str) -> String {
    let text = word.replace('_', " ");
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A sentence with a capital letter, unless it begins with a name.
pub fn sentence(text: &str) -> String {
    let mut all = text.split_whitespace();
    let first = all.next().unwrap_or_default().trim_end_matches([',', ';', ':']);
    // What is told of more closely in brackets is a name.
    let named = all.next().is_some_and(|second| second.starts_with('('));
    let plain = first == "roll-out" || first.bytes().all(|b| b.is_ascii_lowercase());
    if named || first.is_empty() || !plain {
        return text.to_string();
    }
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Who did it: `user anna` and `uid 0` as people write them.
pub fn by(who: &str) -> String {
    match who.split_once(' ') {
        Some(("user", name)) => name.into(),
        Some(("uid", _)) => format!("Command line ({who})"),
        _ => who.into(),
    }
}

/// What a refused change says of the others' changes: `...; meanwhile: TIME user anna: mode auto -> manual; ...`.
pub fn meanwhile(text: &str) -> String {
    let Some((_, others)) = text.split_once("; meanwhile: ") else { return readable(text) };
    let one = |change: &str| {
        let (head, what) = change.split_once(": ")?;
        let (at, who) = head.split_once(' ')?;
        Some(format!("{}, {}: {}", times(at), by(who), readable(what)))
    };
    let all: Vec<String> = others.split("; ").map(|change| one(change).unwrap_or_else(|| readable(change))).collect();
    format!("Since then: {}.", all.join("; "))
}

/// An identity's name for people: a host name without the twelve digits that make it unique. The whole one stands in the title.
pub fn short(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((name, digits)) if !name.is_empty() && digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => id,
    }
}

/// A program's sentence for people: `25165824 bytes` in the unit that fits, a verdict in words.
pub fn readable(text: &str) -> String {
    let text = text
        .replace(" -> ", " → ")
        .replace(" [bad]", "; this version is bad")
        .replace(" [could_not_tell]", "; that may be no fault of the version");
    let mut out: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let (bare, end) = word.strip_prefix("bytes").map_or((word, ""), |end| ("bytes", end));
        match out.last().and_then(|n| n.parse::<u64>().ok()).filter(|n| *n >= 10_240 && bare == "bytes") {
            Some(n) => {
                out.pop();
                out.push(bytes(n) + end);
            }
            None => out.push(word.into()),
        }
    }
    times(&out.join(" "))
}

/// A browser's long word for itself, short: name and system, as far as they are known.
pub fn browser(agent: &str) -> String {
    // Each says that it is its elders, too: the youngest first.
    let names =
        [("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"), ("curl/", "curl")];
    let systems =
        [("Android", "Android"), ("iPhone", "iOS"), ("iPad", "iOS"), ("Windows", "Windows"), ("Mac OS X", "macOS"), ("Linux", "Linux")];
    let of = |all: &[(&str, &'static str)]| all.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, word)| *word);
    match (of(&names), of(&systems)) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.into(),
        _ => agent.into(),
    }
}

/// The same of what is said about an order of Fleet's: whom the shared engine calls an agent is a Director here.
pub fn directors(text: &str) -> String {
    let word = |word: &str| match word {
        "agent" => "Director".to_string(),
        "agents" => "Directors".to_string(),
        "agent's" => "Director's".to_string(),
        "agent(s)" => "Director(s)".to_string(),
        other => match other.strip_prefix("agent").filter(|rest| rest.len() == 1 && !rest.starts_with(char::is_alphanumeric)) {
            Some(rest) => format!("Director{rest}"),
            None => other.to_string(),
        },
    };
    sentence(&text.split(' ').map(word).collect::<Vec<_>>().join(" "))
}

/// Whose move it is. `agent` is whoever was ordered, `director` who ordered.
pub fn owner(word: Option<&str>, node: &str) -> Value {
    let (who, urgent) = match (word, node) {
        (None, _) => return Value::Null,
        (Some("operator"), _) => ("Yours".to_string(), true),
        (Some("agent"), _) => (format!("The {node}'s"), false),
        (Some("director"), "Director") => ("Fleet's".to_string(), false),
        (Some("director"), _) => ("Its Director's".to_string(), false),
        (Some(other), _) => (human(other), false),
    };
    json!({"who": who, "urgent": urgent})
}

/// What a Director or agent does or how its last order ended.
pub fn state(word: &str) -> Value {
    let (tone, icon) = match word {
        "idle" | "updated" | "already" | "reported" | "enrolled" | "done" | "confirmed" => ("good", "ok"),
        "rolled_back" | "refused" | "flapping" | "failed" | "no_artifact" | "expired" => ("bad", "no"),
        "silent" | "halted" | "waiting" | "approval" | "pending" => ("warn", "alert"),
        "cancelled" | "waiting_turn" | "ordered" => ("quiet", "pause"),
        "" => return chip("quiet", "dot", "Unknown"),
        _ => ("busy", "update"),
    };
    chip(tone, icon, &human(word))
}

/// How a member of a cluster stands (`core::cluster::member::State`).
pub fn member(word: &str) -> Value {
    let (tone, icon) = match word {
        "healthy" => ("good", "ok"),
        "draining" | "updating" | "rejoining" => ("busy", "update"),
        "silent" => ("warn", "alert"),
        "failed" | "partitioned" | "lease_expired" => ("bad", "no"),
        _ => return chip("quiet", "dot", "Unknown"),
    };
    chip(tone, icon, &human(word))
}

/// Heard of lately, or not.
pub fn presence(online: bool) -> Value {
    if online { chip("good", "ok", "Connected") } else { chip("warn", "alert", "Silent") }
}

/// A time: the script shows it in the viewer's zone, with UTC on hover. 0 = never.
pub fn at(unix: u64) -> Value {
    json!({"iso": time::format(unix), "text": utc(unix), "never": unix == 0, "relative": false})
}

/// The same as a distance from now, kept current by the script.
pub fn ago(unix: u64) -> Value {
    json!({"iso": time::format(unix), "text": utc(unix), "never": unix == 0, "relative": true})
}

/// `2026-11-22 13:05 UTC`.
pub fn utc(unix: u64) -> String {
    let text = time::format(unix);
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default())
}

/// Times in a program's sentence, `2026-11-22T13:05:09Z`, as [`utc`] writes them.
pub fn times(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', ';', '.', ':']);
        let shaped = bare.len() == 20 && bare.is_ascii() && bare.as_bytes()[10] == b'T' && bare.ends_with('Z');
        if shaped { format!("{} {} UTC{}", &bare[..10], &bare[11..16], &word[bare.len()..]) } else { word.to_string() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// `linux` as people write it.
pub fn os(word: &str) -> &str {
    match word {
        "linux" => "Linux",
        "windows" => "Windows",
        "darwin" => "macOS",
        other => other,
    }
}

/// `1234567` as `1,234,567`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds in the unit that fits: `90 s`, `15 min`, `24 h`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        s if s >= 7_200 && s.is_multiple_of(3_600) => format!("{} h", s / 3_600),
        s if s >= 120 && s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{} s", number(s)),
    }
}

/// Bytes in the unit that fits.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{} B", number(n)),
        10_240..10_485_760 => format!("{} KiB", number(n >> 10)),
        10_485_760..10_737_418_240 => format!("{} MiB", number(n >> 20)),
        _ => format!("{} GiB", number(n >> 30)),
    }
}

/// A policy's mode and method in the words of the GUI.
pub fn policy(mode: &str, method: &str) -> String {
    match (mode, method) {
        ("auto", "user_action") => "Auto · User Action".into(),
        ("auto", "immediate") => "Auto · Immediate".into(),
        ("auto", "schedule") => "Auto · Scheduled".into(),
        ("auto", other) => format!("Auto · {}", human(other)),
        ("manual", _) => "Manual".into(),
        (other, _) => human(other),
    }
}

/// The tier that set a value.
pub fn tier(word: &str) -> String {
    match word {
        "organization" => "Organization".into(),
        "default" => "Default".into(),
        "node" | "custom" => "Custom Policy".into(),
        other => human(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_for_people() {
        assert_eq!((number(7), number(1_234), number(1_234_567)), ("7".into(), "1,234".into(), "1,234,567".into()));
        assert_eq!(
            (duration(90), duration(900), duration(86_400), duration(0)),
            ("90 s".into(), "15 min".into(), "24 h".into(), "0 s".into())
        );
        assert_eq!((human("rolled_back"), bytes(20 << 20)), ("Rolled back".into(), "20 MiB".into()));
        assert_eq!((sentence("it waits"), sentence("site-1: x"), sentence("")), ("It waits".into(), "site-1: x".into(), String::new()));
        assert_eq!(directors("the first agent, vmetric-agent; agents"), "The first Director, vmetric-agent; Directors");
        assert_eq!(sentence("harbour (linux-amd64, 3.0.0)"), "harbour (linux-amd64, 3.0.0)");
        assert_eq!((by("user anna"), by("uid 0"), by("policy")), ("anna".into(), "Command line (uid 0)".into(), "policy".into()));
        let told = "agents is at revision 12, not 11: look at it again; meanwhile: 2026-11-23T13:21:46Z user anna: mode auto -> manual";
        assert_eq!(meanwhile(told), "Since then: 2026-11-23 13:21 UTC, anna: mode auto → manual.");
        assert_eq!((meanwhile("a -> b"), meanwhile("x; meanwhile: y")), ("a → b".into(), "Since then: y.".into()));
        assert_eq!((short("web-1-4da35b2b5536"), short("web-1"), short("-4da35b2b5536")), ("web-1", "web-1", "-4da35b2b5536"));
        assert_eq!(readable("1.0.0 -> 1.1.0, 25165824 bytes, 3 s [bad]"), "1.0.0 → 1.1.0, 24 MiB, 3 s; this version is bad");
        assert_eq!((readable("7 bytes"), readable("")), ("7 bytes".into(), String::new()));
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
        assert_eq!((browser(chrome), browser("curl/8"), browser("<b>")), ("Chrome on Linux".into(), "curl".into(), "<b>".into()));
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(times("is up since 2026-11-23T09:36:47Z, until x"), "is up since 2026-11-23 09:36 UTC, until x");
        assert_eq!((times("a 2026-11-23T09:36:47+"), times("")), ("a 2026-11-23T09:36:47+".into(), String::new()));
        let word = |word: &str| member(word)["tone"].as_str().map(str::to_string);
        for state in crate::core::cluster::member::State::ALL {
            assert_ne!(word(state.word()).as_deref(), Some("quiet"), "{state:?}");
        }
    }
}
