//! From the command line to the commands and back to the terminal: the only place that prints.

use std::io::Write;
use std::path::{Path, PathBuf};

use miniserde::json::Value;

use super::add::{self, Facts, Input};
use super::args::{self, Parsed};
use super::bundle::{self, Selection};
use super::commands::COMMANDS;
use super::dist;
use super::failure::{Failure, Result};
use super::init::{self, Counts};
use super::inspect;
use super::json::{self, list, number, object, text};
use super::keyfile::Secret;
use super::merge;
use super::package;
use super::passphrase::{self, Source};
use super::publish;
use super::renew;
use super::repo::{Repo, Settings};
use super::ring::{Env, Ring};
use super::rotate::{self, Change};
use super::show;
use super::sign::{self, Wish};
use super::tuf;
use super::verify;
use super::withdraw::{self, Which};
use crate::core::notes;
use crate::core::release::{Platform, TargetPath, is_name};
use crate::core::time;

/// What a command answers, for people and for programs.
pub struct Answer {
    /// Lines for the terminal.
    pub text: String,
    /// The same for `--json`.
    pub json: Value,
    /// False: the command looked and found something wrong (exit 1).
    pub good: bool,
    /// All is done that could be done here, and somebody else has to act in time (exit 3).
    pub due: bool,
}

impl Answer {
    fn exit(&self) -> u8 {
        match (self.good, self.due) {
            (false, _) => 1,
            (true, true) => 3,
            (true, false) => 0,
        }
    }

    /// A good answer.
    pub fn new(text: impl Into<String>, json: Value) -> Answer {
        Answer { text: text.into(), json, good: true, due: false }
    }
}

/// Everything a command may know of the world.
pub struct World<'a> {
    /// Reads one variable of the environment.
    pub env: Env<'a>,
    /// Seconds since 1970.
    pub now: u64,
    /// What `--version` says.
    pub version: &'a str,
}

/// Runs one command line (without the program's name); the answer is the exit code.
pub fn run(args: &[String], world: &World, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let wants_json = args.iter().take_while(|a| *a != "--").any(|a| a == "--json");
    let code = match dispatch(args, world) {
        Ok(answer) if wants_json => writeln!(out, "{}", show::plain(&json::canonical(&answer.json))).map(|()| answer.exit()),
        Ok(answer) => writeln!(out, "{}", answer.text.trim_end()).map(|()| answer.exit()),
        Err(failure) if wants_json => {
            let error = object([("error", object([("code", text(failure.code)), ("detail", text(&failure.text))]))]);
            writeln!(out, "{}", show::plain(&json::canonical(&error))).map(|()| failure.exit())
        }
        Err(failure) => writeln!(err, "vmetric-release: {failure}").map(|()| failure.exit()),
    };
    // A closed pipe is nobody's fault, but the work may be unread: say so with the exit code only.
    code.unwrap_or(1)
}

fn dispatch(args: &[String], world: &World) -> Result<Answer> {
    let Some(word) = args.first() else { return Err(Failure::usage(overview(world))) };
    if matches!(word.as_str(), "help" | "--help" | "-h") {
        return Ok(Answer::new(overview(world), text("help")));
    }
    if matches!(word.as_str(), "-version" | "--version" | "version") {
        return Ok(Answer::new(format!("vmetric-release {}", world.version), object([("version", text(world.version))])));
    }
    let Some(command) = COMMANDS.iter().find(|c| c.name == word) else {
        return Err(Failure::usage(format!("'{word}' is no command; 'vmetric-release --help' lists them")));
    };
    if args[1..].iter().any(|a| a == "--help" || a == "-h") {
        return Ok(Answer::new(args::help(command), text("help")));
    }
    let parsed = match args::parse(command, &args[1..]) {
        Err(failure) if command.name == "tuf" => return Err(tuf::plain(failure)),
        other => other?,
    };
    let now = match parsed.find("now") {
        None => world.now,
        Some(t) => time::parse(t).ok_or_else(|| Failure::usage(format!("--now {t}: expected a UTC time such as 2026-11-22T00:00:00Z")))?,
    };
    if !matches!(command.name, "add" | "package" | "inspect" | "withdraw" | "tuf") {
        parsed.no_operands()?;
    }
    match command.name {
        "init" => run_init(&parsed, world, now),
        "delegate" => run_delegate(&parsed, world, now),
        "package" => run_package(&parsed),
        "add" => run_add(&parsed, world, now),
        "inspect" => run_inspect(&parsed),
        "withdraw" => run_withdraw(&parsed, now),
        "sign" => run_sign(&parsed, world, now),
        "renew" => run_renew(&parsed, world, now),
        "publish" => run_publish(&parsed, now),
        "verify" => run_verify(&parsed, now),
        "bundle" => run_bundle(&parsed, now),
        "rotate" => run_rotate(&parsed, world, now),
        "tuf" => tuf::run(&parsed, world, now),
        "status" => Ok(show::status(&open(&parsed)?, now)?),
        "list" => Ok(show::artifacts(&open(&parsed)?)?),
        "keys" => Ok(show::keys(&open(&parsed)?, &ring(&parsed, world)?)?),
        other => Err(Failure::usage(format!("'{other}' is not built in"))),
    }
}

fn overview(world: &World) -> String {
    let mut out = format!("vmetric-release {}: keys, signing, publishing\n\nCommands:\n", world.version);
    for command in &COMMANDS {
        out.push_str(&format!("  {:<10} {}\n", command.name, command.summary));
    }
    out.push_str("\n'vmetric-release COMMAND --help' explains one. Exit codes: 0 good, 1 failed, 2 wrong command line, 3 ('renew') somebody must sign.");
    out
}

fn open(parsed: &Parsed) -> Result<Repo> {
    Repo::open(Path::new(parsed.need("repo")?))
}

fn ring<'a>(parsed: &Parsed, world: &World<'a>) -> Result<Ring<'a>> {
    let variable = (world.env)(passphrase::VARIABLE).filter(|v| !v.is_empty()).map(|v| Secret(v.into_bytes()));
    let source = Source { file: parsed.find("passphrase-file").map(PathBuf::from), variable };
    let folder = parsed.find("keys").map(Path::new);
    if let Some(missing) = folder.filter(|f| !super::files::is_folder(f)) {
        let text = format!("--keys {}: there is no such folder; give the one that 'init' made", missing.display());
        return Err(Failure::new("missing_folder", text));
    }
    Ring::open(folder, world.env, source)
}

fn run_init(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let counts = Counts {
        root: (p.number("root-keys", 5)?, p.number("root-threshold", 3)?),
        targets: (p.number("targets-keys", 3)?, p.number("targets-threshold", 2)?),
        build: p.number("build-keys", 1)?,
    };
    let settings = Settings {
        root_days: p.number("root-days", 365)?,
        targets_days: p.number("targets-days", 365)?,
        delegated_days: p.number("delegated-days", 365)?,
        snapshot_days: p.number("snapshot-days", 180)?,
        timestamp_days: p.number("timestamp-days", 7)?,
        delegated_keys: p.number("delegated-keys", 1)?,
        delegated_threshold: p.number("delegated-threshold", 1)?,
    };
    let folder = p.need("repo")?;
    if let Some(keys) = p.find("keys") {
        super::files::make_folder(Path::new(keys), true)?;
    }
    let mut ring = ring(p, world)?;
    let repo = init::init(Path::new(folder), &mut ring, &counts, settings, now)?;
    let keys = show::keys(&repo, &ring)?;
    let note = format!(
        "{}\nrepository: {folder}\ntrusted root for builds: {folder}/root.json\nnext: move root and targets keys to offline places, then 'add'",
        keys.text
    );
    Ok(Answer::new(note, keys.json))
}

fn run_delegate(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let product = p.need("product")?;
    if !is_name(product) {
        return Err(Failure::usage(format!("--product {product}: expected lower-case letters, digits, '.', '_', '-'")));
    }
    let parse = |text: &String| text.parse::<Platform>().map_err(|e| Failure::usage(format!("--platform {e}")));
    let platforms = p.all("platform").iter().map(parse).collect::<Result<Vec<_>>>()?;
    if platforms.is_empty() {
        p.need("platform")?;
    }
    let roles = add::delegate(&open(p)?, &mut ring(p, world)?, product, &platforms, now)?;
    Ok(Answer::new(format!("roles: {}\nnext: 'sign'", roles.join(", ")), object([("roles", list(roles.iter().map(text)))])))
}

fn run_add(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let [place] = p.operands.as_slice() else { return Err(Failure::usage("'add' takes one FILE or DIR")) };
    let place = Path::new(place);
    let inputs = if super::files::is_folder(place) {
        for name in ["version", "os", "arch"] {
            if p.has(name) {
                return Err(Failure::usage(format!(
                    "--{name} belongs to a FILE; {} is a folder, whose subfolders say it",
                    place.display()
                )));
            }
        }
        dist::scan(place, p.find("product"))?
    } else {
        let file = place.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let path = format!("{}/{}/{}-{}/{file}", p.need("product")?, p.need("version")?, p.need("os")?, p.need("arch")?);
        let path = path.parse::<TargetPath>().map_err(|e| Failure::new("bad_name", e))?;
        vec![Input { file: place.into(), path, sha256: None }]
    };
    let why = p.find("unchecked");
    if why.is_some_and(|why| why.trim().is_empty()) {
        return Err(Failure::usage("--unchecked needs the reason, for whoever reads the log of this release"));
    }
    let facts = Facts {
        min_version: p.parsed("min-version")?,
        counter: p.parsed("counter")?,
        reinstate: p.has("reinstate"),
        allow_dynamic: p.has("allow-dynamic"),
        unchecked: why.is_some(),
        notes: p.find("notes").map(|file| read_notes(Path::new(file))).transpose()?,
    };
    let added = add::add(&open(p)?, &mut ring(p, world)?, &inputs, &facts, now)?;
    Ok(show::added(&added, why))
}

/// The text of a file with release notes.
fn read_notes(file: &Path) -> Result<Vec<String>> {
    // More than there may be, so that the reason names what is allowed.
    let bytes = super::files::read(file, 16 * notes::BYTES_MAX as u64)?;
    notes::lines(&bytes).map_err(|wrong| Failure::new("bad_notes", format!("{}: {wrong}", file.display())))
}

fn run_package(p: &Parsed) -> Result<Answer> {
    let [folder] = p.operands.as_slice() else { return Err(Failure::usage("'package' takes one DIR")) };
    package::package(Path::new(folder), Path::new(p.need("out")?))
}

fn run_inspect(p: &Parsed) -> Result<Answer> {
    let [file] = p.operands.as_slice() else { return Err(Failure::usage("'inspect' takes one FILE")) };
    inspect::inspect(Path::new(file))
}

fn run_withdraw(p: &Parsed, now: u64) -> Result<Answer> {
    if p.operands.is_empty() {
        return Err(Failure::usage("'withdraw' takes at least one VERSION or PATH"));
    }
    let find = |name: &str| p.find(name).map(String::from);
    let which = Which { words: p.operands.clone(), product: find("product"), os: find("os"), arch: find("arch") };
    let repo = open(p)?;
    let (word, (paths, roles)) = match (p.find("reason"), p.has("forget")) {
        (Some(reason), false) => ("withdrawn", withdraw::withdraw(&repo, &which, reason, now)?),
        (None, true) => ("forgotten", withdraw::forget(&repo, &which, now)?),
        _ => return Err(Failure::usage("'withdraw' needs either --reason TEXT or --forget")),
    };
    let lines: Vec<String> = paths.iter().map(|path| format!("{word}: {path}")).collect();
    let roles: Vec<String> = roles.into_iter().collect();
    let note = format!("{}\nroles to sign: {}; next: 'sign', 'publish'", lines.join("\n"), roles.join(", "));
    Ok(Answer::new(note, object([("paths", list(paths.iter().map(text))), ("roles", list(roles.iter().map(text)))])))
}

fn run_renew(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let wish = renew::Wish { dry_run: p.has("dry-run"), out: p.find("out").map(Path::new) };
    renew::renew(&open(p)?, &mut ring(p, world)?, &wish, now)
}

fn run_sign(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    if let Some(file) = p.find("file") {
        if p.has("repo") || p.has("renew") || p.has("import") {
            return Err(Failure::usage("--file signs one pending file without a repository; give --keys and perhaps --role"));
        }
        let role = match p.all("role") {
            [] => None,
            [one] => Some(one.as_str()),
            _ => return Err(Failure::usage("--file is of one --role")),
        };
        return merge::sign_file(Path::new(file), role, &mut ring(p, world)?);
    }
    if p.has("import") {
        let repo = open(p)?;
        let imported = merge::import(&repo, p.all("import"))?;
        let status = show::status(&repo, now)?;
        return Ok(Answer::new(format!("{}\n{}", imported.text, status.text), imported.json));
    }
    let wish = Wish { roles: p.all("role").to_vec(), renew: p.has("renew") };
    let repo = open(p)?;
    sign::sign(&repo, &mut ring(p, world)?, &wish, now)?;
    show::status(&repo, now)
}

fn run_rotate(p: &Parsed, world: &World, now: u64) -> Result<Answer> {
    let change = Change { add: p.number("add", 0)?, remove: p.all("remove").to_vec(), threshold: p.parsed("threshold")? };
    let role = p.need("role")?;
    let repo = open(p)?;
    rotate::rotate(&repo, &mut ring(p, world)?, role, &change, now)?;
    show::status(&repo, now)
}

fn run_verify(p: &Parsed, now: u64) -> Result<Answer> {
    match (p.find("tree"), p.find("bundle")) {
        (Some(tree), None) => verify::verify(Path::new(tree), Path::new(p.need("root")?), now),
        (None, Some(file)) => verify::verify_bundle(Path::new(file), Path::new(p.need("root")?), now),
        _ => Err(Failure::usage("'verify' needs either --tree DIR or --bundle FILE")),
    }
}

fn run_bundle(p: &Parsed, now: u64) -> Result<Answer> {
    let list_of = |name: &str| p.all(name).to_vec();
    let selection = Selection { products: list_of("product"), versions: list_of("version"), os: list_of("os"), arch: list_of("arch") };
    let out = p.need("out")?;
    let written = bundle::bundle(Path::new(p.need("tree")?), Path::new(out), &selection, now)?;
    let mut note = format!("{out}: {} bytes, {} metadata files", written.bytes, written.metadata);
    for path in &written.artifacts {
        note.push_str(&format!("\n{path}"));
    }
    if written.left_out > 0 {
        note.push_str(&format!("\nleft out by the selection: {} files", written.left_out));
    }
    let json = object([
        ("artifacts", list(written.artifacts.iter().map(text))),
        ("bytes", number(written.bytes)),
        ("left_out", number(written.left_out)),
        ("metadata", number(written.metadata)),
    ]);
    Ok(Answer::new(note, json))
}

fn run_publish(p: &Parsed, now: u64) -> Result<Answer> {
    let out = p.need("out")?;
    let repo = open(p)?;
    let plan = publish::plan(&repo, now)?;
    let outcome = publish::publish(&repo, &plan, Path::new(out), p.has("allow-gap"), now)?;
    let mut note =
        format!("{out}: timestamp version {}, {} files written, {} there already", plan.timestamp.version, outcome.written, outcome.kept);
    for held in &plan.held_back {
        note.push_str(&format!("\nnot yet published: {held}"));
    }
    let json = object([
        ("held_back", list(plan.held_back.iter().map(text))),
        ("kept", number(outcome.kept)),
        ("timestamp", number(plan.timestamp.version)),
        ("written", number(outcome.written)),
    ]);
    Ok(Answer::new(note, json))
}
