//! What the architecture promises about the source, enforced: layers, limits, names, and the agent's list of crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// Each layer with those that it may use. `bin` may use all.
const LAYERS: [(&str, &[&str]); 7] = [
    ("core", &["core"]),
    ("wire", &["core", "wire"]),
    ("io", &["core", "wire", "io"]),
    ("agent", &["core", "wire", "io", "agent"]),
    ("director", &["core", "wire", "io", "agent", "director"]),
    ("fleet", &["core", "wire", "io", "agent", "director", "fleet"]),
    ("release", &["core", "wire", "io", "release"]),
];

/// What a pure layer never names: files, network, processes, threads, clocks, the environment, randomness, logging.
const IMPURE: [&str; 20] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "std::env",
    "std::io::Read",
    "std::io::Write",
    "std::io::stdin",
    "std::io::stdout",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "log::",
    "rand::",
    "getrandom",
    "libc::",
    "println!",
    "eprintln!",
    "File::",
];

/// Lines of code in a file at most, without blank lines, comments and tests: what a reader can hold in the head.
const FILE_MAX: usize = 450;
/// Lines in a function at most, signature and braces included.
const FUNCTION_MAX: usize = 80;
/// Crates in the agent's tree at most: each is code that a device trusts, and somebody has to read.
const AGENT_CRATES_MAX: usize = 40;

/// A source file without comments and without its trailing tests.
pub struct Source {
    pub path: String,
    text: String,
    pub code: Vec<String>,
}

fn walk(folder: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path.strip_prefix(TOP).unwrap().to_str().unwrap().replace('\\', "/"));
        }
    }
}

/// Files under a folder of the project that end in `.rs`.
pub fn sources(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    walk(&Path::new(TOP).join(folder), &mut files);
    files.retain(|f| f.ends_with(".rs"));
    files.sort();
    assert!(!files.is_empty(), "{folder} has no source");
    files.into_iter().map(read).collect()
}

fn read(path: String) -> Source {
    let text = fs::read_to_string(Path::new(TOP).join(&path)).unwrap();
    let body = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let body = if path.ends_with("/tests.rs") { "" } else { body };
    let code = body.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end().to_string()).collect();
    Source { path, text, code }
}

/// True when `word` is in `line` as a word of its own, not as a part of a longer one.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let open_ended = !word.ends_with(part);
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(part) && (open_ended || !line[at + word.len()..].starts_with(part)))
}

fn report(what: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{what}:\n{}", offenders.join("\n"));
}

/// Every line of code, tests included and comments not, with its place.
fn lines(sources: &[Source]) -> impl Iterator<Item = (String, &str)> {
    sources.iter().flat_map(|source| {
        let numbered = source.text.lines().enumerate();
        numbered.map(|(n, line)| (format!("{}:{}", source.path, n + 1), line.split("//").next().unwrap_or_default()))
    })
}

#[test]
fn each_layer_uses_only_those_above_it() {
    let mut offenders = Vec::new();
    for (layer, allowed) in LAYERS {
        if !Path::new(TOP).join("src").join(layer).is_dir() {
            continue;
        }
        for (place, line) in lines(&sources(&format!("src/{layer}"))) {
            for (other, _) in LAYERS.iter().filter(|(other, _)| !allowed.contains(other)) {
                for way in ["crate::", "vmetric::", "super::super::super::"] {
                    if names(line, &format!("{way}{other}::")) {
                        offenders.push(format!("{place}: {layer} uses {other}: {line}"));
                    }
                }
            }
            assert!(!line.contains("crate::{"), "{place}: one layer per `use`, so that this test can read it");
        }
    }
    report("layers", &offenders);
}

#[test]
fn core_and_wire_are_pure() {
    let mut offenders = Vec::new();
    for layer in ["src/core", "src/wire"] {
        for (place, line) in lines(&sources(layer)) {
            // What the compiler knows about its target is no environment.
            let line = line.replace("std::env::consts", "");
            offenders.extend(IMPURE.iter().filter(|word| names(&line, word)).map(|word| format!("{place}: {word}")));
        }
    }
    report("impure", &offenders);
}

#[test]
fn unsafe_code_is_in_io_only_and_each_with_its_reason() {
    let mut offenders = Vec::new();
    for (place, line) in lines(&sources("src")) {
        let unsafe_here = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe_code"].iter().any(|w| names(line, w));
        if unsafe_here && !place.starts_with("src/io/") {
            offenders.push(place.clone());
        }
        if line.contains("(unsafe_code") && !line.contains("reason = ") {
            offenders.push(format!("{place}: without a reason"));
        }
    }
    report("unsafe", &offenders);
}

#[test]
fn files_and_functions_are_short() {
    let mut offenders = Vec::new();
    for source in sources("src") {
        let length = source.code.iter().filter(|line| !line.trim().is_empty()).count();
        if length > FILE_MAX {
            offenders.push(format!("{}: {length} lines", source.path));
        }
        for (name, length) in functions(&source.code) {
            if length > FUNCTION_MAX {
                offenders.push(format!("{}: fn {name} has {length} lines", source.path));
            }
        }
    }
    report(&format!("more than {FILE_MAX} lines of code or {FUNCTION_MAX} in a function"), &offenders);
}

/// Functions with their lengths. The source is formatted, so a function ends at its own indentation.
fn functions(code: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let Some((_, after)) = line.split_once("fn ").filter(|(before, _)| before.is_empty() || before.ends_with(' ')) else { continue };
        let indent = line.len() - line.trim_start().len();
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = code[start..].iter().position(|l| *l == end).map_or(0, |at| at + 1);
        found.push((after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect(), length));
    }
    found
}

#[test]
fn functions_are_measured() {
    let code: Vec<String> = ["    pub fn a() {", "        1", "    }", "fn b() -> u8 {", "}"].map(String::from).to_vec();
    assert_eq!(functions(&code), [("a".to_string(), 3), ("b".to_string(), 2)]);
}

/// Everything that is committed; without git, everything in the folders of the source.
fn tracked() -> Vec<String> {
    let git = Command::new("git").args(["ls-files"]).current_dir(TOP).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect(),
        _ => {
            let mut files = Vec::new();
            ["src", "tests", "cross"].iter().for_each(|folder| walk(&Path::new(TOP).join(folder), &mut files));
            files
        }
    }
}

#[test]
fn nothing_is_left_to_do_and_no_machine_is_named() {
    // In halves, so that this file does not find itself.
    let unfinished = [("FIX", "ME"), ("TO", "DO"), ("XX", "X"), ("unimpl", "emented!"), ("to", "do!("), ("db", "g!(")];
    let machine = [("/ro", "ot/"), ("/tmp/", "wt"), ("/wo", "rk/"), ("/ho", "me/")];
    let mut offenders = Vec::new();
    for file in tracked().iter().filter(|f| *f != "Cargo.lock") {
        // Binary fixtures and files removed but not yet committed have no text.
        let Ok(text) = fs::read_to_string(Path::new(TOP).join(file)) else { continue };
        for (n, line) in text.lines().enumerate() {
            for (a, b) in unfinished.iter().chain(&machine) {
                if names(line, &format!("{a}{b}")) {
                    offenders.push(format!("{file}:{}: {a}{b}", n + 1));
                }
            }
        }
    }
    report("unfinished work, or a path of somebody's machine", &offenders);
}

#[test]
fn every_reason_has_a_code_for_programs() {
    let mut offenders = Vec::new();
    let mut codes = BTreeSet::new();
    for source in sources("src") {
        for kind in ["Reason::new(", "Refusal::new(", "Failure::new("] {
            for (at, _) in source.text.match_indices(kind) {
                let Some(rest) = source.text[at + kind.len()..].trim_start().strip_prefix('"') else { continue };
                let code = rest.split('"').next().unwrap_or_default();
                let starts = code.starts_with(|c: char| c.is_ascii_lowercase());
                if !starts || !code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') || code.len() > 40 {
                    offenders.push(format!("{}: '{code}'", source.path));
                }
                codes.insert(code.to_string());
            }
        }
    }
    report("codes are snake_case and at most 40 bytes, as the marks keep them", &offenders);
    assert!(codes.len() > 100, "{} codes are too few to be all", codes.len());
}

/// The server's code is a Director's and Fleet's, the engine's is an agent's and a Director's: a sentence of theirs takes its
/// names from the role or the product. What only one of them has is not looked at.
#[test]
fn what_two_programs_say_names_neither() {
    let own = ["args", "install.rs", "role.rs", "own/", "config/", "backup/", "resources.rs"].map(|name| format!("src/director/{name}"));
    let engine = ["command", "device", "engine", "link", "lookup", "mend", "pins", "source", "talk", "trial"];
    let engine = engine.map(|name| format!("src/agent/{name}.rs"));
    let words: [(Vec<Source>, &[&str]); 2] = [
        (sources("src/director"), &["vmetric-agent", "vmetric-director", "this agent ", "-agent` ", "-agent {"]),
        (
            sources("src/agent"),
            &["vmetric-agent", "the agent does", "the agent has", "the agent's", "the Director ", "the Director's", "config/agent.json"],
        ),
    ];
    let mut offenders = Vec::new();
    for (sources, words) in words {
        let shared = |s: &&Source| match s.path.starts_with("src/director") {
            true => !own.iter().any(|own| s.path.starts_with(own.as_str())),
            false => engine.contains(&s.path),
        };
        for source in sources.iter().filter(shared) {
            for (n, line) in source.code.iter().enumerate() {
                // Faults are of test builds.
                let literal = line.contains('"') || line.trim_start().starts_with(|c: char| c.is_lowercase());
                if literal && words.iter().any(|word| line.contains(word)) && !line.contains("this build") {
                    offenders.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
                }
            }
        }
    }
    report("says the name of one of the two programs that say it", &offenders);
}

#[test]
fn every_file_says_what_it_is() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let offenders: Vec<String> = all.filter(|s| !s.path.ends_with("/tests.rs") && !s.text.starts_with("//! ")).map(|s| s.path).collect();
    report("no module documentation in the first line", &offenders);
}

/// `[features]` of the manifest: each with what it switches on.
fn features() -> BTreeMap<String, Vec<String>> {
    let manifest = fs::read_to_string(Path::new(TOP).join("Cargo.toml")).unwrap();
    let table = manifest.split("\n[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let entries = table.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(" = "));
    let list = |text: &str| text.split('"').skip(1).step_by(2).map(String::from).collect();
    entries.map(|(name, text)| (name.to_string(), list(text))).collect()
}

fn closure(features: &BTreeMap<String, Vec<String>>, name: &str, out: &mut BTreeSet<String>) {
    if out.insert(name.to_string()) {
        features.get(name).into_iter().flatten().for_each(|next| closure(features, next, out));
    }
}

#[test]
fn injected_faults_are_in_no_product() {
    let features = features();
    assert!(features.contains_key("fault") && features.contains_key("agent"), "{features:?}");
    for name in features.keys().filter(|name| *name != "fault") {
        let mut on = BTreeSet::new();
        closure(&features, name, &mut on);
        assert!(!on.contains("fault"), "the feature {name} switches fault on");
    }
    let mut agent = BTreeSet::new();
    closure(&features, "agent", &mut agent);
    assert!(["director", "fleet", "release", "demo"].iter().all(|f| !agent.contains(*f)), "{agent:?}");
}

#[test]
fn the_agent_brings_no_crate_that_was_not_agreed() {
    let tree = ["tree", "--offline", "--locked", "--no-default-features", "--features", "agent", "-e", "normal", "--prefix", "none"];
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(TOP).args(tree).args(["--target", "x86_64-unknown-linux-gnu"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let found: BTreeSet<&str> = text.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "vmetric").collect();
    let agreed = include_str!("../fixtures/agent-crates.txt");
    let agreed: BTreeSet<&str> = agreed.lines().filter(|l| !l.starts_with('#')).collect();
    let (new, gone): (Vec<_>, Vec<_>) = (found.difference(&agreed).collect(), agreed.difference(&found).collect());
    assert!(new.is_empty() && gone.is_empty(), "not agreed: {new:?}; agreed but gone: {gone:?}: tests/fixtures/agent-crates.txt");
    assert!(found.len() <= AGENT_CRATES_MAX, "{} crates", found.len());
}
