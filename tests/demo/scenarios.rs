//! The list of scenarios, the stage they play on, and the checks they share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::io::clock;
use vmetric::wire::agent_api::ResultWire;

use crate::build::{self, Builds, FACTORY};
use crate::device::{Device, Mode, Place, SlotStatus};
use crate::release::{self, Release};
use crate::show::{Row, Show};
use crate::site::Site;
use crate::{
    scenarios_bad as bad, scenarios_clock as clocks, scenarios_fleet as chain, scenarios_good as good, scenarios_hostile as hostile,
    scenarios_kill as kill, scenarios_operator as operator, scenarios_villain as villain,
};

/// Times of the agents here. The release builds' own are in brackets, and nothing can lower those.
pub const TIMES: [(&str, u64, &str); 5] = [
    ("liveness", 5, "no turn of the main loop: the kernel kills it (180 s)"),
    ("contact", 8, "a trial without its Director goes back (300 s)"),
    ("cooldown", 3, "a version of which nothing can be told is tried again (600 s)"),
    ("fresh", 60, "age of the last contact at a switch (60 s)"),
    ("recheck", 2, "a cause outside is looked at again (600 s)"),
];

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    letter: &'static str,
    what: &'static str,
    mode: Mode,
    play: fn(&Cast) -> Result<Row, String>,
}

const fn exec(letter: &'static str, what: &'static str, play: fn(&Cast) -> Result<Row, String>) -> Scenario {
    Scenario { letter, what, mode: Mode::Exec, play }
}

const fn supervise(letter: &'static str, what: &'static str, play: fn(&Cast) -> Result<Row, String>) -> Scenario {
    Scenario { letter, what, mode: Mode::Supervise, play }
}

/// The scenario that needs builds of the Director.
const FLEET: &str = "v";
const PUSHED: &str = "a good version is pushed";

/// All of them, in the order of the table.
const ALL: [Scenario; 40] = [
    exec("a", PUSHED, good::pushed),
    supervise("a", PUSHED, good::pushed),
    exec("a", "roll-out to 5 devices, one first", good::rolled_out),
    supervise(FLEET, "Fleet updates a Director over its agents", chain::whole),
    exec("b", "the new version crashes", bad::crashes),
    supervise("b", "the new version crashes", bad::crashes),
    exec("c", "the new version hangs", bad::hangs),
    supervise("c", "the new version hangs", bad::hangs),
    exec("d", "the new version loses its Director", bad::mute),
    exec("e", "a mirrored file was tampered with", hostile::tampered),
    exec("f", "orders of a stolen Director", hostile::stolen),
    exec("g", "an order below the security floor", hostile::below_floor),
    exec("h", "killed twice while it downloads 24 MB", kill::download),
    supervise("h", "killed twice while it downloads 24 MB", kill::download),
    exec("h", "killed 20 times around the switch", kill::switch_exec),
    supervise("h", "killed 6 times around the switch", kill::switch_supervised),
    exec("h", "20 power cuts around the switch", kill::power_cuts),
    exec("i", "both slots rot on the disk", kill::both_slots),
    exec("j", "a confirmed version crashes days later", bad::crashes_later),
    supervise("j", "a confirmed version crashes days later", bad::crashes_later),
    exec("k", "update --file, no Director there", good::by_hand),
    exec("z", "air gap: bundle, import, update --file", good::air_gapped),
    exec("l", "stopped three times while on trial", kill::stopped_on_trial),
    exec("m", "cancelled before its time to switch", good::cancelled),
    exec("n", "the Director is killed during the trial", kill::director_killed),
    exec("o", "roll-out of a bad version, 4 devices", bad::halted),
    exec("p", "the new file fails its self-test", bad::unfit),
    exec("q", "the new version fails its self-check", bad::unwell),
    supervise("q", "the new version fails its self-check", bad::unwell),
    exec("t", "clocks in 1970 and 2099, and steps", clocks::years),
    exec("t", "clock steps and suspend on trial", clocks::on_trial),
    exec("t", "reboots with another clock", clocks::reboots),
    exec("u", "a Director that answers anything", villain::answers),
    exec("u", "a Director that orders anything", villain::orders),
    exec("u", "proxies and names that fail", villain::proxies),
    exec("r", "the operator's own check says no, then retry", operator::check_says_no),
    exec("s", "sent back on trial by cancel --roll-back", operator::sent_back),
    exec("w", "the Director stops, but not during a trial", operator::drained),
    exec("x", "roll-out while the mirror's source is away", operator::upstream_away),
    exec("y", "a file rejected by hash, then allowed", operator::rejected),
];

/// Prints the list.
pub fn list() {
    for s in &ALL {
        println!("{}  {:<44} {}", s.letter, s.what, s.mode.word());
    }
}

/// What all scenarios share.
pub struct Stage {
    work: PathBuf,
    /// The timeline.
    pub show: Arc<Show>,
    /// The programs.
    pub builds: Builds,
    /// The published tree.
    pub release: Release,
    site: Arc<Site>,
}

/// One scenario's view of the stage.
pub struct Cast<'a> {
    /// What is shared.
    pub stage: &'a Stage,
    /// The Director of scenarios that need none of their own.
    pub site: Arc<Site>,
    /// Who starts agents again here.
    pub mode: Mode,
    letter: &'static str,
    number: usize,
}

/// Builds, publishes and plays; says how many passed and failed.
pub fn run(work: &Path, show: &Arc<Show>, only: &[String]) -> Result<(usize, usize), String> {
    let wanted: Vec<Scenario> = ALL.into_iter().filter(|s| only.is_empty() || only.iter().any(|o| o == s.letter)).collect();
    if wanted.is_empty() {
        return Err("no scenario has such a letter; --list shows them".into());
    }
    show.plain("Everything here is real: processes, TLS on loopback, signatures, builds of the agent. Only these times are");
    show.plain("lowered, in builds with the feature `fault`, which no release build has (in brackets what is shipped):");
    TIMES.iter().for_each(|(name, s, what)| show.plain(&format!("  {name:<9} {s:>3} s  {what}")));
    show.plain("");
    let chain = |s: &Scenario| s.letter == FLEET;
    let directors: &[build::Variant] = if wanted.iter().any(chain) { &build::DIRECTORS } else { &[] };
    let mut agents = build::VARIANTS.to_vec();
    // Alone, it needs no more than these.
    agents.retain(|v| !wanted.iter().all(chain) || [FACTORY, build::GOOD].contains(&v.version));
    let builds = build::build(work, show, &agents, directors, None)?;
    let release = release::publish(work, &builds, show)?;
    let built = show.seconds();
    let site = Arc::new(Site::start(&work.join("site"), &builds, &release, show)?);
    show.say("", "director", "runs, has mirrored and verified the releases");
    let stage = Stage { work: work.to_path_buf(), show: show.clone(), builds, release, site };
    // The plain cases first and alone, for the sake of their numbers; then everything at once.
    let alone: Vec<_> = wanted.iter().enumerate().take_while(|(_, s)| s.what == PUSHED).map(|(n, s)| play(&stage, s, n)).collect();
    let ends: Vec<Result<Row, String>> = thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .iter()
            .enumerate()
            .skip(alone.len())
            .map(|(number, s)| {
                scope.spawn({
                    let stage = &stage;
                    move || play(stage, s, number)
                })
            })
            .collect();
        let others = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("the scenario panicked".into())));
        alone.into_iter().chain(others).collect()
    });
    let played = show.seconds() - built;
    show.table_head();
    wanted.iter().zip(&ends).for_each(|(s, end)| show.table_row(s.letter, s.what, s.mode.word(), end));
    show.plain("");
    show.plain("bytes: fetched for the update.  gap: milliseconds from the old version's end to the new one's first answered report;");
    show.plain("the first two scenarios ran alone, all others at the same time.");
    show.plain(&format!("builds and release {built:.1} s, scenarios {played:.1} s, side by side"));
    let failed: Vec<_> = wanted
        .iter()
        .zip(&ends)
        .filter_map(|(s, end)| Some((s.letter, format!("{} ({}): {}", s.what, s.mode.word(), end.as_ref().err()?))))
        .collect();
    if !failed.is_empty() {
        show.failures(&failed);
    }
    Ok((ends.len() - failed.len(), failed.len()))
}

fn play(stage: &Stage, scenario: &Scenario, number: usize) -> Result<Row, String> {
    let cast = Cast { stage, site: stage.site.clone(), mode: scenario.mode, letter: scenario.letter, number };
    let end = (scenario.play)(&cast);
    match &end {
        Ok(row) => {
            stage.show.say(scenario.letter, "", &format!("PASS: {} ({}): {} {}", scenario.what, cast.mode.word(), row.result, row.code))
        }
        Err(why) => stage.show.say(scenario.letter, "", &format!("FAIL: {} ({}): {why}", scenario.what, cast.mode.word())),
    }
    end
}

impl Cast<'_> {
    /// A running device at the shared Director.
    pub fn device(&self, name: &str) -> Result<Device, String> {
        self.device_at(&self.site, name)
    }

    /// A running device at this Director.
    pub fn device_at(&self, site: &Arc<Site>, name: &str) -> Result<Device, String> {
        self.device_with(site, name, "", None)
    }

    /// The same with further lowered times, and with clocks that are off from the beginning.
    pub fn device_with(&self, site: &Arc<Site>, name: &str, more: &str, clock: Option<(i64, i64)>) -> Result<Device, String> {
        let name = if self.mode == Mode::Supervise { format!("{name}s") } else { name.to_string() };
        let folder = self.stage.work.join(format!("device-{:02}-{name}", self.number));
        let mut times: Vec<String> = TIMES.iter().map(|(name, s, _)| format!("{name}={s}")).collect();
        times.push(more.to_string());
        let place = Place { site: site.clone(), show: self.stage.show.clone(), letter: self.letter.into(), name, mode: self.mode, clock };
        let device = Device::new(&folder, &self.stage.builds.agent(FACTORY), &self.stage.release.root, &times.join(","), place)?;
        device.start()?;
        Ok(device)
    }

    /// A Director of this scenario's own, to be stopped, killed or stolen.
    pub fn own_site(&self) -> Result<Arc<Site>, String> {
        let folder = self.stage.work.join(format!("site-{:02}", self.number));
        Site::start(&folder, &self.stage.builds, &self.stage.release, &self.stage.show).map(Arc::new)
    }

    /// The same without a link to anywhere.
    pub fn own_site_without_link(&self) -> Result<Arc<Site>, String> {
        let folder = self.stage.work.join(format!("site-{:02}", self.number));
        Site::start_without_link(&folder, &self.stage.builds, &self.stage.release, &self.stage.show).map(Arc::new)
    }

    /// A folder of this scenario's own.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.stage.work.join(format!("{name}-{:02}", self.number))
    }

    /// Starts the clock of a row.
    pub fn clock(&self) -> Clock {
        Clock(clock::monotonic())
    }

    /// The signed hash of a version's file.
    pub fn sha256(&self, version: &str) -> Result<String, String> {
        hash_file(&self.stage.builds.agent(version)).map(|h| hex::encode(&h)).map_err(|e| e.to_string())
    }

    /// The device runs this version, confirmed, and everybody says so: marks, status, the process's own file, the Director.
    pub fn confirmed(&self, device: &Device, version: &str) -> Result<(), String> {
        let wanted = self.sha256(version)?;
        // A process that has just been started is the launcher for a moment.
        device.until("this version's file runs", 20, || running_file(device).ok().filter(|hash| *hash == wanted))?;
        let status = device.status()?;
        let slot = status.slots.iter().find(|s| s.slot == status.running);
        let slot = slot.ok_or_else(|| format!("{} runs instead of a slot", status.running))?;
        same("the slot's condition", &slot.condition, "confirmed")?;
        same("the slot's sha256", &slot.sha256, &wanted)?;
        same("the version in status --json", &status.version, version)?;
        let seen = || device.view().ok().filter(|v| v.version == version && v.running_sha256 == wanted && v.running_as == "confirmed");
        device.until("the Director shows the confirmed version", 10, seen).map(drop)
    }
}

/// When something began.
#[derive(Clone, Copy)]
pub struct Clock(Duration);

impl Clock {
    /// Seconds since then.
    pub fn seconds(self) -> f64 {
        clock::monotonic().saturating_sub(self.0).as_secs_f64()
    }

    /// A row for the table from the device's result.
    pub fn row(self, result: &ResultWire) -> Row {
        let code = if result.verdict.is_empty() { result.code.clone() } else { format!("{}/{}", result.verdict, result.code) };
        let word = result.outcome.replace('_', " ");
        Row { result: word, code, bytes: result.bytes, seconds: self.seconds(), gap_ms: result.gap_ms }
    }
}

/// What must not change when an order is turned down.
#[derive(Debug, PartialEq)]
pub struct Untouched {
    pid: Option<u32>,
    running_file: String,
    slots: Vec<SlotStatus>,
}

impl Untouched {
    /// As it is now.
    pub fn look(device: &Device) -> Result<Untouched, String> {
        Ok(Untouched { pid: device.pid(), running_file: running_file(device)?, slots: device.status()?.slots })
    }

    /// Is it still so?
    pub fn still(&self, device: &Device) -> Result<(), String> {
        let now = Untouched::look(device)?;
        if now == *self { Ok(()) } else { Err(format!("something was touched: before {self:?}, after {now:?}")) }
    }
}

/// Hash of the file that the running process was started from.
pub fn running_file(device: &Device) -> Result<String, String> {
    let pid = device.pid().ok_or("no agent runs")?;
    hash_file(Path::new(&format!("/proc/{pid}/exe"))).map(|h| hex::encode(&h)).map_err(|e| e.to_string())
}

/// Both must be equal.
pub fn same(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: expected {wanted}, found {found}")) }
}

/// The result must be this one.
pub fn ended(result: &ResultWire, outcome: &str, verdict: &str, code: &str) -> Result<(), String> {
    let found = format!("{} {} {}: {}", result.outcome, result.verdict, result.code, result.detail);
    match (result.outcome.as_str(), result.verdict.as_str(), result.code.as_str()) == (outcome, verdict, code) {
        true => Ok(()),
        false => Err(format!("expected {outcome} {verdict} {code}, found {found}")),
    }
}
