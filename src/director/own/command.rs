//! The operator's commands about this Director itself: `enroll`, `rollback`, and what `-version` and `status` add.

use std::io::Write;
use std::path::{Path, PathBuf};

use miniserde::json::{self, Value};

use crate::agent::command::UpdateArgs;
use crate::agent::enroll::{self, EnrollArgs};
use crate::agent::{build, command, status};
use crate::core::product::DIRECTOR;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::args::Words;
use crate::director::cluster::command::DrainView;
use crate::director::cluster::join::{self, Join};
use crate::director::console;
use crate::director::own::shared;
use crate::io::state::State;
use crate::io::user::become_owner_of;

/// What was asked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Asked {
    /// State folder.
    pub state: PathBuf,
    /// `--fleet`; empty = `rollback`, or `update` when there is a tree.
    pub fleet: String,
    /// `update --file`: a published tree or a bundle of it.
    pub tree: Option<PathBuf>,
    /// `update --version`; the newest in the tree when absent.
    pub version: Option<String>,
    /// `update --file` of a cluster's member: although others are not healthy or do not answer.
    pub force: bool,
    /// `cluster join`.
    pub join: Option<Join>,
    /// `cluster update`: only as a member of a cluster.
    pub cluster: bool,
    /// `--key`.
    pub key: Option<String>,
    /// `--pin`.
    pub pins: Vec<String>,
    /// `--proxy`.
    pub proxy: Option<String>,
    /// `--offline-site`.
    pub offline_site_days: Option<u64>,
    /// `--replace`.
    pub replace: bool,
}

impl Asked {
    /// `enroll`, `rollback` or `update`, with what follows.
    ///
    /// # Errors
    /// What is wrong and what is expected.
    pub fn parse(word: &str, words: &mut Words, state: PathBuf) -> Result<Asked, String> {
        let mut asked = Asked { state, ..Default::default() };
        if word == "rollback" {
            return Ok(asked);
        }
        if word == "join" {
            let address = words
                .word()?
                .filter(|word| word.starts_with("https://"))
                .ok_or("cluster join needs https://HOST:PORT of the member that invited")?;
            let pin = words.option("--pin")?.ok_or("cluster join needs --pin sha256:HEX, as `cluster invite` prints it")?;
            let token = words.option("--token")?.ok_or("cluster join needs --token FILE: the invitation, never as an argument")?.into();
            asked.join = Some(Join { address, pin, token });
            return Ok(asked);
        }
        if word == "update" {
            let missing = "update needs --file TREE|BUNDLE: a published tree, or what `vmetric-release bundle` made of one";
            (asked.tree, asked.version) = (Some(words.option("--file")?.ok_or(missing)?.into()), words.option("--version")?);
            asked.force = words.flag("--force");
            return Ok(asked);
        }
        asked.fleet = words.option("--fleet")?.ok_or("enroll needs --fleet https://HOST:PORT")?;
        asked.key = words.option("--key")?;
        asked.pins = words.options("--pin")?;
        asked.proxy = words.option("--proxy")?;
        asked.offline_site_days = words.number("--offline-site")?;
        asked.replace = words.flag("--replace");
        match asked.pins.is_empty() || asked.fleet.is_empty() {
            true => Err("enroll needs --pin sha256:HEX, as Fleet prints it".into()),
            false => Ok(asked),
        }
    }
}

/// Does it. `key`: the environment's, where other users do not see it.
///
/// # Errors
/// One line.
pub fn obey(asked: Asked, key: Option<String>, out: &mut impl Write) -> Result<(), String> {
    become_owner_of(&asked.state).map_err(|e| format!("{}: its owner cannot be become: {e}", asked.state.display()))?;
    let said = match (&asked.tree, asked.fleet.is_empty()) {
        _ if asked.join.is_some() => join::run(&asked.state, &asked.join.unwrap_or_default()),
        (Some(tree), _) => {
            lease(&asked, out)?;
            let image = std::env::current_exe().unwrap_or_default();
            let (state, version) = (asked.state.clone(), asked.version.clone());
            let update = UpdateArgs { product: &DIRECTOR, state, tree: tree.clone(), version, image };
            command::update_file(&update, &mut |line| drop(writeln!(out, "{line}")))
        }
        (None, true) => command::rollback(&State::look_of(&DIRECTOR, &asked.state)),
        (None, false) => enroll(asked, key),
    };
    let said = said.map_err(|reason| reason.to_string())?;
    writeln!(out, "{said}").map_err(|e| e.to_string())
}

/// A member of a cluster has the lease before anything begins; a refusal costs nothing. A Director that does not run says so
/// itself, one of a version without this asks when it stops.
fn lease(asked: &Asked, out: &mut impl Write) -> Result<(), String> {
    let group = shared::group(&State::look_of(&DIRECTOR, &asked.state));
    let Some(_) = group else {
        let none = "this Director is in no cluster, as far as Fleet told; `update --file` updates it by itself".to_string();
        return if asked.cluster { Err(none) } else { Ok(()) };
    };
    let request = AdminWire { command: "cluster".into(), act: Some("lease".into()), force: Some(asked.force), ..Default::default() };
    let Some(line) = console::ask_one(&asked.state, &request)? else { return Ok(()) };
    match json::from_str::<DrainView>(&line) {
        Ok(view) => writeln!(out, "{}", view.detail).map_err(|e| e.to_string()),
        Err(_) => Ok(()),
    }
}

fn enroll(asked: Asked, key: Option<String>) -> Result<String, Reason> {
    let missing = || Reason::new("no_key", "enroll needs --key, or VMETRIC_FLEET_KEY: `vmetric-fleet key create` makes one");
    enroll::enroll(&EnrollArgs {
        product: &DIRECTOR,
        state: asked.state,
        director: asked.fleet,
        token: asked.key.or(key).ok_or_else(missing)?,
        pins: asked.pins,
        proxy: asked.proxy,
        offline_site_days: asked.offline_site_days,
        replace: asked.replace,
        ..Default::default()
    })
}

/// `running: 2.5.0 (slot b, confirmed)`.
pub fn running_line(folder: &Path) -> String {
    let state = State::look_of(&DIRECTOR, folder);
    status::look(&state, command::running_agent(&state), build::VERSION).running_line()
}

/// What `status --json` has under `own`: slots, trial, order, reason, until; the same fields as the agent's.
pub fn view(own: &super::Own) -> Option<Value> {
    json::from_str(&own.status().json()).ok()
}

/// The same for people.
pub fn text(own: &Value) -> String {
    let Value::Object(fields) = own else { return String::new() };
    let word = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<14} {value}\n"));
    let place = |running: &str| if running == "factory" { "factory image".into() } else { format!("slot {running}") };
    line("runs from", format!("{}, {}", place(&word("running")), word("running_as")));
    match fields.get("enrolled") {
        // How it stands with Fleet is the uplink's to say.
        Some(Value::Bool(true)) => {}
        _ => line("fleet", "none; `vmetric-director enroll` makes this Director known to one".into()),
    }
    if !word("token_left").is_empty() {
        line("key", word("token_left"));
    }
    if !word("contact_code").is_empty() {
        line("no contact", format!("{} ({})", word("contact_detail"), word("contact_code")));
    }
    if !word("scheduled_version").is_empty() {
        line("scheduled", word("scheduled_version"));
    }
    if !word("step").is_empty() {
        let until = if word("until").is_empty() { String::new() } else { format!(", until {}", word("until")) };
        line("doing", format!("{}: {} ({}){until}", word("step"), word("detail"), word("code")));
    }
    for slot in list(fields.get("slots")) {
        line(
            &format!("slot {}", field(slot, "slot")),
            format!("{} {}", field(slot, "condition"), field(slot, "version")).trim_end().into(),
        );
    }
    if let Some(trial) = fields.get("trial").filter(|t| matches!(t, Value::Object(_))) {
        line("trial", format!("{} in slot {}, reached {}", field(trial, "version"), field(trial, "slot"), field(trial, "reached")));
    }
    if let Some(last) = fields.get("last_result").filter(|t| matches!(t, Value::Object(_))) {
        let what = format!("{} {} at {}", field(last, "outcome"), field(last, "version"), field(last, "at"));
        line("last result", format!("{what}: {} ({})", field(last, "detail"), field(last, "code")));
    }
    for rejected in list(fields.get("rejected")) {
        let what = format!("{} {} since {}", field(rejected, "version"), field(rejected, "verdict"), field(rejected, "since"));
        line("rejected", format!("{what}: {} ({})", field(rejected, "detail"), field(rejected, "code")));
    }
    out
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let items = match value {
        Some(Value::Array(items)) => Some(items.iter()),
        _ => None,
    };
    items.into_iter().flatten()
}

fn field(value: &Value, name: &str) -> String {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => json::to_string(other),
            None => String::new(),
        },
        _ => String::new(),
    }
}
