//! `template`: many devices with one command; and `install-command`, one command for a new Director.

use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::intake::Intake;
use crate::core::hex;
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::core::version::Version;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::Words;
use crate::director::commands::store_error;
use crate::director::install::{self, Install};
use crate::director::policing::ask::settings_of;
use crate::director::policing::templates::{TemplateChange, TemplateRow};
use crate::director::releases::Releases;
use crate::director::site::{Site, random_hex};
use crate::director::table::{Table, utc};
use crate::io::tls::parse_pin;
use crate::wire::fleet_api::InstallWire;
use crate::wire::settings::SettingsWire;

/// As it travels to the running Fleet.
pub const COMMAND: &str = "template";

/// A template as it is shown.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct TemplateView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its devices enroll.
    pub director: String,
    /// Devices that did.
    pub enrolled: u64,
    /// Devices that may; absent = without a limit.
    pub uses: Option<u64>,
    /// Devices that wait for a person.
    pub pending: u64,
    /// Not valid after, seconds since 1970; absent = indefinite.
    pub expires_at: Option<u64>,
    /// `enabled`, `disabled`, `expired`, `limit_reached`, `waiting` (its Director does not have it yet).
    pub status: String,
    /// A person approves each device.
    pub approval: bool,
    /// Devices get `settings` as their own.
    pub custom: bool,
    /// The policy.
    pub settings: SettingsWire,
    /// For the revision check of a change.
    pub revision: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed it last.
    pub by: String,
}

/// A command for one platform.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct CommandView {
    /// `linux`, `windows`.
    pub os: String,
    /// `amd64`, ...
    pub arch: String,
    /// Version that it installs.
    pub version: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// Its text, which holds the token: shown once.
    pub command: String,
}

/// Templates; and commands, when a token was made.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct TemplatesView {
    /// By name.
    pub templates: Vec<TemplateView>,
    /// Install commands of the template that was made or renewed; each is shown this once.
    pub commands: Option<Vec<CommandView>>,
    /// Enrolls an agent that is installed already, on any system; with the same token, so shown once, too.
    pub enroll: Option<String>,
    /// Pin of the Director's CA, beside the commands.
    pub pin: Option<String>,
    /// Fleet's time.
    pub time: u64,
}

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    let act = words.act(COMMAND, &["create", "list", "show", "change", "renew", "remove"])?;
    if matches!(act.as_str(), "create" | "change") {
        settings_of(words, request)?;
        (request.uses, request.ttl_s) = (words.number("--uses")?, words.life("--ttl")?);
        request.approval = words.flag("--approval").then_some(true);
    }
    match act.as_str() {
        "create" => {
            request.director = Some(words.option("--director")?.ok_or("template create needs --director ID: where its devices enroll")?);
            request.name = Some(words.word()?.ok_or("template create needs a NAME")?);
        }
        "list" => {}
        act => {
            if act == "change" {
                request.name = words.option("--name")?;
                request.expected = words.number("--revision")?;
                request.enabled = words.switch("--enabled")?;
            }
            request.template = Some(words.named(COMMAND, act)?);
        }
    }
    request.act = Some(act);
    Ok(())
}

/// Answers it.
///
/// # Errors
/// The reason.
pub async fn run(
    intake: Rc<Intake>,
    site: &Rc<Site>,
    request: &AdminWire,
    who: &str,
    now: u64,
    out: &mut UnixStream,
) -> Result<(), Reason> {
    let word = request.template.clone().unwrap_or_default();
    let wish = TemplateChange {
        name: request.name.clone(),
        uses: request.uses,
        ttl_s: request.ttl_s,
        approval: request.approval,
        enabled: request.enabled,
        settings: request.settings.clone().filter(|s| !s.is_empty() || request.replace == Some(true)),
        custom: request.custom,
        expected: request.expected,
    };
    let (mut commands, mut enroll, mut pin) = (None, None, None);
    let row = match request.act.as_deref() {
        Some("create") => {
            let director = site.registry.borrow().named_agent(request.director.as_deref().unwrap_or_default())?;
            let (install, token) = (told(&intake, &director)?, token(&intake, &director)?);
            let (id, key) = (format!("t-{}", random_hex(4)), hex::encode(&hex::sha256(token.as_bytes())));
            let row = site.acting(who, |registry| registry.create_template(&id, &director, &key, &wish, now))?;
            commands = Some(texts(site, &install, &token));
            (enroll, pin) = (Some(enrolls(&install, &token)), Some(install.pin));
            Some(row)
        }
        Some("renew") => {
            let director = site.registry.borrow().named_template(&word)?.director.clone();
            let (install, token) = (told(&intake, &director)?, token(&intake, &director)?);
            let key = hex::encode(&hex::sha256(token.as_bytes()));
            let row = site.acting(who, |registry| registry.change_template(&word, &TemplateChange::default(), Some(&key), now))?;
            commands = Some(texts(site, &install, &token));
            (enroll, pin) = (Some(enrolls(&install, &token)), Some(install.pin));
            Some(row)
        }
        Some("change") => Some(site.acting(who, |registry| registry.change_template(&word, &wish, None, now))?),
        Some("remove") => {
            site.acting(who, |registry| registry.remove_template(&word, now))?;
            None
        }
        Some("show") => Some(site.registry.borrow().named_template(&word)?.clone()),
        _ => None,
    };
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    let rows = row.map_or_else(|| site.registry.borrow().templates(), |row| vec![row]);
    let mut templates: Vec<TemplateView> = rows.iter().map(|row| view(&intake, row, now)).collect();
    templates.sort_by(|a, b| (a.name.to_lowercase(), &a.id).cmp(&(b.name.to_lowercase(), &b.id)));
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    status(out, "ok", "").await.map_err(gone)?;
    line(out, &TemplatesView { templates, commands, enroll, pin, time: now }).await.map_err(gone)
}

fn view(intake: &Intake, row: &TemplateRow, now: u64) -> TemplateView {
    let states = intake.health_of(&row.director).and_then(|(health, _)| health.templates).unwrap_or_default();
    let told = states.iter().find(|state| state.id == row.wire.id);
    let wire = row.wire.clone();
    TemplateView {
        status: row.state(told, now).into(),
        enrolled: told.map_or(0, |t| t.used),
        pending: told.map_or(0, |t| t.pending),
        id: wire.id,
        name: wire.name,
        director: row.director.clone(),
        uses: wire.uses,
        expires_at: wire.expires_at,
        approval: wire.approval,
        custom: wire.custom,
        settings: wire.settings,
        revision: wire.revision,
        changed_at: row.changed_at,
        by: row.by.clone(),
    }
}

/// What a Director said of itself for install commands.
fn told(intake: &Intake, director: &str) -> Result<InstallWire, Reason> {
    let install = intake.health_of(director).and_then(|(health, _)| health.install);
    let install = install.ok_or_else(|| {
        let detail = format!("Director {director} has not told its address and pin yet; look at `health`, and try again when it was heard");
        Reason::new("director_untold", detail)
    })?;
    if is_sound(&install) {
        return Ok(install);
    }
    Err(Reason::new(
        "director_untrusted",
        format!("what Director {director} says of its address and pin fits into no command; look at `health`"),
    ))
}

/// A Director's words go into a text that people run as root: nothing but an address, a pin and digits.
fn is_sound(install: &InstallWire) -> bool {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let host = install.url.strip_prefix("https://").filter(|host| !host.is_empty() && host.bytes().all(plain));
    host.is_some() && parse_pin(&install.pin).is_ok() && hex(&install.certificates_sha256) && hex(&install.root_sha256)
}

/// As the Director's own tokens: their first digits name the site.
fn token(intake: &Intake, director: &str) -> Result<String, Reason> {
    let pin = told(intake, director)?.pin;
    let site: String = pin.trim_start_matches("sha256:").chars().take(8).collect();
    Ok(format!("vmt_{site}_{}", random_hex(32)))
}

/// The command of an agent that is there already; what it is made of was looked at by [`is_sound`].
fn enrolls(install: &InstallWire, token: &str) -> String {
    format!("VMETRIC_TOKEN='{token}' vmetric-agent enroll --director {} --pin {}", install.url, install.pin)
}

/// One command for each platform that Fleet's mirror has an agent for.
fn texts(site: &Site, install: &InstallWire, token: &str) -> Vec<CommandView> {
    let tree = site.tree.borrow().clone();
    let mut out: Vec<CommandView> = Vec::new();
    for (os, arch, version, sha256) in newest(&tree.releases) {
        let values = Install {
            product: install::AGENT,
            os: os.clone(),
            arch: arch.clone(),
            url: install.url.clone(),
            pin: install.pin.clone(),
            certificates_sha256: install.certificates_sha256.clone(),
            root_version: install.root_version,
            root_sha256: install.root_sha256.clone(),
            version: version.clone(),
            agent_sha256: sha256.clone(),
            token: token.into(),
        };
        out.extend(install::command(&values).map(|command| CommandView { os, arch, version, sha256, command }));
    }
    out
}

/// The newest agent for each platform that is no pre-release: os, architecture, version, SHA-256.
fn newest(releases: &Releases) -> Vec<(String, String, String, String)> {
    let mut found: std::collections::BTreeMap<(String, String), (Version, String)> = Default::default();
    for artifact in &releases.artifacts {
        let path = &artifact.path;
        if path.product != AGENT.name || path.file != path.platform.program(AGENT.name) || path.version.is_pre_release() {
            continue;
        }
        let key = (path.platform.os.clone(), path.platform.arch.clone());
        if found.get(&key).is_none_or(|(version, _)| *version < path.version) {
            found.insert(key, (path.version.clone(), hex::encode(&artifact.sha256)));
        }
    }
    found.into_iter().map(|((os, arch), (version, sha256))| (os, arch, version.to_string(), sha256)).collect()
}

/// The answer for people.
pub fn shown(view: &TemplatesView) -> String {
    let mut out = String::new();
    if view.templates.is_empty() {
        out += "there is no template; `template create NAME --director ID` makes one\n";
    } else {
        let mut table = Table::new(&["ID", "TEMPLATE NAME", "DIRECTOR", "ENROLLED", "PENDING APPROVAL", "TIME LIMIT", "STATUS", "POLICY"]);
        for t in &view.templates {
            let limit = t.uses.map_or("Unlimited".into(), |uses| uses.to_string());
            let end = t.expires_at.map_or("Indefinite".into(), utc);
            let policy = if t.custom { "custom" } else { "inherited" }.to_string();
            let enrolled = format!("{}/{limit}", t.enrolled);
            table.row(vec![
                t.id.clone(),
                t.name.clone(),
                t.director.clone(),
                enrolled,
                t.pending.to_string(),
                end,
                t.status.clone(),
                policy,
            ]);
        }
        out += &table.text();
    }
    for c in view.commands.iter().flatten() {
        out += &format!("\n# {}-{}, version {}; shown this once\n{}", c.os, c.arch, c.version, c.command);
    }
    if let Some(enroll) = &view.enroll {
        out += &format!("\n# an agent that is installed already; shown this once\n{enroll}\n");
    }
    if view.commands.as_ref().is_some_and(Vec::is_empty) {
        out += "\nFleet's mirror has no agent yet: publish one, then `template renew` prints the command\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_an_address_a_pin_and_digits_gets_into_a_command() {
        let good = InstallWire {
            url: "https://d.example.org:8443".into(),
            pin: format!("sha256:{}", "ab".repeat(32)),
            certificates_sha256: "cd".repeat(32),
            root_version: 3,
            root_sha256: "ef".repeat(32),
        };
        assert!(is_sound(&good) && is_sound(&InstallWire { url: "https://[::1]:8443".into(), ..good.clone() }));
        for bad in ["http://d", "https://", "https://d;id", "https://d/$(id)", "https://d\n", "https://a@d", ""] {
            assert!(!is_sound(&InstallWire { url: bad.into(), ..good.clone() }), "{bad}");
        }
        for bad in ["", "id", &format!("{};", "a".repeat(63))] {
            assert!(!is_sound(&InstallWire { certificates_sha256: bad.into(), ..good.clone() }));
            assert!(!is_sound(&InstallWire { root_sha256: bad.into(), ..good.clone() }));
            assert!(!is_sound(&InstallWire { pin: bad.into(), ..good.clone() }));
        }
    }
}
