//! (v) The whole chain: Fleet over a Director over its agents, all of them under policies; nobody is ordered by hand.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use miniserde::json::Value;
use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::director::commands::TokenView;
use vmetric::io::fs::{PUBLIC, write_volatile};
use vmetric::io::state::State;
use vmetric::wire::agent_api::ResultWire;

use crate::build::{DIRECTOR_BROKEN, DIRECTOR_GOOD, GOOD};
use crate::scenarios::{Cast, Untouched, same};
use crate::show::Row;
use crate::site::{FLEET, Site};
use crate::{place_program, wait};

/// The specification's shortest interval: an update of the Director is due within this time.
const INTERVAL: &str = "30s";
/// Until that, and the update itself beside forty other scenarios.
const DUE_S: u64 = 90;
/// The file of a package that says which one it is.
const RESOURCE: &str = "package/pipelines/site.yml";
/// What the operator wrote; no update touches it.
const CONFIG: &str = "# the demo's own\ntime_zone: UTC\n";

/// (v) Agents at once, the Director by schedule and with resources, then by a user action a release that does not start.
pub fn whole(cast: &Cast) -> Result<Row, String> {
    let fleet = Arc::new(fleet(cast)?);
    let one = Updated::new(cast, &fleet)?;
    let agents = [cast.device_at(&one.site, "agent-1")?, cast.device_at(&one.site, "agent-2")?];
    one.say(cast, &format!("agents: at once. policy set --default --mode auto --method immediate --version {GOOD}"));
    let _: Value = one.site.ask(&format!("policy set --default --mode auto --method immediate --version {GOOD}"))?;
    agents.iter().try_for_each(|agent| agent.until("the policy's version is confirmed", 60, || cast.confirmed(agent, GOOD).ok()))?;
    let before = agents.iter().map(Untouched::look).collect::<Result<Vec<_>, _>>()?;
    let untouched = || before.iter().zip(&agents).try_for_each(|(before, agent)| before.still(agent));

    let schedule = format!("policy set --default --mode auto --method schedule --interval {INTERVAL} --version {DIRECTOR_GOOD}");
    one.say(cast, &format!("Directors: {schedule}"));
    let _: Value = fleet.ask(&schedule)?;
    let good = one.ended(&fleet, "updated", DIRECTOR_GOOD)?;
    let slot = one.runs(cast, DIRECTOR_GOOD)?;
    untouched()?;

    let clock = cast.clock();
    let by_person = format!("policy set --director {} --method user_action --version {DIRECTOR_BROKEN}", one.id);
    let _: Value = fleet.ask(&by_person)?;
    let waits = || fleet.ask::<Value>(&format!("policy show {}", one.id)).ok();
    let asks = || waits().filter(|view| text(view, "effective.decision") == "needs_authorization");
    wait(20, asks).ok_or("Fleet does not ask for an authorization")?;
    one.say(cast, &format!("a person: authorize {} {DIRECTOR_BROKEN}, which will not start", one.id));
    let _: Value = fleet.ask(&format!("authorize {} {DIRECTOR_BROKEN}", one.id))?;
    let bad = one.ended(&fleet, "rolled_back", DIRECTOR_BROKEN)?;
    same("the verdict", &bad.verdict, "bad")?;
    same("the slot that runs", &one.runs(cast, DIRECTOR_GOOD)?, &slot)?;
    untouched()?;
    let row = clock.row(&bad);
    Ok(Row { result: "updated, rolled back".into(), bytes: good.bytes, gap_ms: good.gap_ms, ..row })
}

/// A Fleet of this scenario's own, over the same release.
fn fleet(cast: &Cast) -> Result<Site, String> {
    let shown = |path: &Path| path.display().to_string();
    let (tree, root) = (shown(&cast.stage.release.tree), shown(&cast.stage.release.root));
    let run = ["serve", "--mirror", &tree, "--root", &root, "--listen", "127.0.0.1:0", "--name", "127.0.0.1"];
    let builds = &cast.stage.builds;
    Site::open(&cast.folder("fleet"), &builds.fleet, run.map(String::from).to_vec(), true, &cast.stage.show, FLEET)
}

/// A Director that updates itself.
struct Updated {
    site: Arc<Site>,
    /// Its identity at Fleet.
    id: String,
}

impl Updated {
    /// Enrolled at this Fleet, with its own factory image, under its own supervisor.
    fn new(cast: &Cast, fleet: &Site) -> Result<Updated, String> {
        let folder = cast.folder("headquarters");
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let (image, state) = (folder.join("image"), folder.join("state"));
        fs::create_dir_all(&image).map_err(told)?;
        fs::create_dir_all(&state).map_err(told)?;
        let program = image.join("vmetric-director");
        place_program(&cast.stage.builds.director, &program)?;
        fs::copy(&cast.stage.release.root, image.join("root.json")).map_err(told)?;
        write_volatile(&state.join("vmetric.yml"), CONFIG.as_bytes(), PUBLIC).map_err(told)?;

        let key: TokenView = fleet.ask("key create")?;
        let mut enroll = Command::new(&program);
        enroll.args(["enroll", "--fleet", &key.url, "--pin", &key.pin, "--state"]).arg(&state).env("VMETRIC_FLEET_KEY", &key.token);
        let out = enroll.stdin(Stdio::null()).output().map_err(told)?;
        if !out.status.success() {
            return Err(format!("vmetric-director enroll: {}", String::from_utf8_lossy(&out.stderr)));
        }
        let all: Value = fleet.ask("directors")?;
        let id = text(&all, "agents.0.id");
        fleet.name(&id, "v", "director-1");
        // Its agents find it at the same address after an update.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(told)?.port();
        let (tree, root) = (cast.stage.release.tree.display().to_string(), image.join("root.json").display().to_string());
        let listen = format!("127.0.0.1:{port}");
        let run = ["run", "--supervise", "--mirror", &tree, "--root", &root, "--listen", &listen, "--name", "127.0.0.1"];
        let site = Site::open(&state, &program, run.map(String::from).to_vec(), true, &cast.stage.show, "director-1")?;
        Ok(Updated { site: Arc::new(site), id })
    }

    fn say(&self, cast: &Cast, what: &str) {
        cast.stage.show.say("v", "operator", what);
    }

    fn own(&self) -> Option<Value> {
        let Value::Object(mut status) = self.site.ask("status").ok()? else { return None };
        status.remove("own")
    }

    /// Waits for this result, and until Fleet shows the Director at rest.
    fn ended(&self, fleet: &Site, outcome: &str, version: &str) -> Result<ResultWire, String> {
        let last = || State::look(&self.site.state).read::<ResultWire>("last-result.json").ok().flatten();
        let result = wait(DUE_S, || last().filter(|r| r.outcome == outcome && r.version == version)).ok_or_else(|| {
            let told = self.own().map(|own| miniserde::json::to_string(&own)).unwrap_or_default();
            format!("{version} is not {outcome} within {DUE_S} s; the Director says: {told}")
        })?;
        let rests = || fleet.agent(&self.id).ok().filter(|view| view.state == outcome && view.scheduled_version.is_none());
        wait(30, rests).ok_or_else(|| format!("Fleet does not show that the Director {outcome} {version}"))?;
        Ok(result)
    }

    /// The Director, its resources and its configuration are those of this version; the slot.
    fn runs(&self, cast: &Cast, version: &str) -> Result<String, String> {
        let own = self.own().ok_or("the Director does not answer")?;
        let slot = text(&own, "running");
        same("the slot's condition", &text(&own, "running_as"), "confirmed")?;
        same("the version that runs", &text(&own, "version"), version)?;
        let folder: PathBuf = self.site.state.join("slots").join(&slot);
        let hash = |path: &Path| hash_file(path).map(|h| hex::encode(&h)).map_err(|e| format!("{}: {e}", path.display()));
        same("the program", &hash(&folder.join("vmetric-director"))?, &hash(&cast.stage.builds.director_of(version))?)?;
        let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
        same("the resources", &read(folder.join(RESOURCE))?, version)?;
        same("vmetric.yml", &read(self.site.state.join("vmetric.yml"))?, CONFIG)?;
        Ok(slot)
    }
}

/// A value of a document by its path, as text.
fn text(value: &Value, path: &str) -> String {
    let mut at = value;
    for name in path.split('.') {
        let next = match at {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|n| items.get(n)),
            _ => None,
        };
        let Some(found) = next else { return String::new() };
        at = found;
    }
    match at {
        Value::String(text) => text.clone(),
        other => miniserde::json::to_string(other),
    }
}
