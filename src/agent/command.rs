//! The operator's commands on a running device: `rollback`, `update --file`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build;
use super::device::Device;
use super::host::factory_root;
use super::world::World;
use crate::core::hex;
use crate::core::product::Product;
use crate::core::reason::Reason;
use crate::core::release::{Platform, TargetPath};
use crate::core::slots::{Condition, Image};
use crate::core::trust::{Fetched, Goal, Now, Refresh, Trusted, Want};
use crate::core::update::{Authority, LOCAL_ISSUER, ends};
use crate::io::lock::{Lock, Taken};
use crate::io::medium::Medium;
use crate::io::state::State;
use crate::io::trust_store::TrustStore;
use crate::io::{clock, process, random};
use crate::wire::agent_api::{OrderWire, ResultWire};
use crate::wire::records::{RequestWire, StatusWire};

/// Time without any change of a local update's progress after which the command gives up waiting: above the contact
/// deadline, which ends the trial itself.
const SILENCE: Duration = Duration::from_secs(600);

/// The process id of the running agent.
pub fn running_agent(state: &State) -> Option<u32> {
    let path = state.path("run.lock");
    if !path.exists() {
        return None;
    }
    match Lock::peek(&path) {
        Err(Taken::By(pid)) => pid,
        _ => None,
    }
}

/// `rollback`: the running slot is given up for the other one. Works with and without a running agent.
pub fn rollback(state: &State) -> Result<String, Reason> {
    let marks = state.load_marks().marks;
    let Image::Slot(slot) = marks.active else {
        return Err(Reason::new("nothing_to_roll_back", "the factory image runs; there is nothing to go back from"));
    };
    let back_to = marks.fallback(Image::Slot(slot)).map_or("the factory image".to_string(), |s| {
        format!("{} in slot {}", state.slot_json(s).map(|w| w.version).unwrap_or_default(), s.name())
    });
    match running_agent(state) {
        Some(pid) => request(state, pid, &RequestWire { kind: "rollback".into(), ..Default::default() })?,
        None => {
            let path = state.path("run.lock");
            let _lock = Lock::take(&path)
                .map_err(|_| Reason::new("agent_starts", format!("{} has just been started; try again", state.product().name)))?;
            let loaded = state.load_marks();
            state.save_marks(loaded.marks.clone().roll_back(slot), loaded.from, loaded.marks.sequence)?;
        }
    }
    Ok(format!("rolling back from slot {} to {back_to}; that file is not tried again until an order says retry", slot.name()))
}

fn request(state: &State, pid: u32, wire: &RequestWire) -> Result<(), Reason> {
    if state.path("request.json").exists() {
        return Err(Reason::new(
            "request_pending",
            format!("{}: another command waits to be obeyed", state.path("request.json").display()),
        ));
    }
    state.write("request.json", wire)?;
    match process::wake(pid) {
        true => Ok(()),
        false => Err(Reason::new("agent_not_reached", format!("process {pid} cannot be signalled; run this command as its user or root"))),
    }
}

/// In the running agent: does what a command has asked for.
pub fn obey(device: &mut Device, wire: RequestWire) -> Result<(), Reason> {
    match wire.kind.as_str() {
        "rollback" => {
            let Image::Slot(slot) = device.running.image else { return Ok(()) };
            let marks = device.marks.clone().roll_back(slot);
            device.save_marks(marks)?;
            device.relaunch_for = Some(Reason::new("operator", "the operator asked for the rollback"));
            Ok(())
        }
        "update_file" => {
            let order = wire.order.clone().ok_or_else(|| Reason::new("bad_request", "update_file without an order"))?;
            let refused = take_local_order(device, &wire, order.clone()).err();
            // The command waits for a word about its order; what cannot even be written is tried again.
            refused.map_or(Ok(()), |reason| device.refuse_local(order, reason))
        }
        "acknowledge" => {
            device.hear_acknowledgement(Authority::Operator, &wire.nonce);
            Ok(())
        }
        other => Err(Reason::new("bad_request", format!("unknown kind '{other}'"))),
    }
}

fn take_local_order(device: &mut Device, wire: &RequestWire, order: OrderWire) -> Result<(), Reason> {
    if device.on_trial() {
        let name = device.state.product().name;
        let why = format!("another new version is on trial; run the command again when that has ended (`{name} status`)");
        return Err(Reason::new("on_trial", why));
    }
    device.state.write("tree.json", wire)?;
    device.tree = Some(PathBuf::from(&wire.tree));
    device.accept(order).map(drop)
}

/// What `update --file` was given.
pub struct UpdateArgs {
    /// What is updated.
    pub product: &'static Product,
    /// State folder.
    pub state: PathBuf,
    /// Folder of a published release tree, or a bundle of it.
    pub tree: PathBuf,
    /// Version; the newest in the tree when absent.
    pub version: Option<String>,
    /// The factory image, for its root metadata.
    pub image: PathBuf,
}

/// Installs from a medium, attached: this command is the authority, it acknowledges the trial once its self-check has
/// passed. If it is stopped before, the agent goes back by itself.
pub fn update_file(args: &UpdateArgs, say: &mut dyn FnMut(&str)) -> Result<String, Reason> {
    let state = State::look_of(args.product, &args.state);
    let pid = running_agent(&state).ok_or_else(|| {
        Reason::new("agent_not_running", format!("{} does not run; start the service, then try again", args.product.name))
    })?;
    let tree = std::fs::canonicalize(&args.tree).map_err(|e| Reason::new("tree_unreadable", format!("{}: {e}", args.tree.display())))?;
    seen_by(pid, &tree)?;
    let order = local_order(args, &state, &tree)?;
    say(&format!("{} sha256 {}: signed by the release plane", order.target, order.sha256));
    if let Some(issuer) = local_trial_of(&state, &order.sha256) {
        say("this very file is on trial already, by an earlier command: staying with that trial");
        return attend(&state, &issuer, &order.sha256, last_result_of(&state, &issuer), say);
    }
    let (issuer, sha256) = (order.issuer.clone(), order.sha256.clone());
    request(
        &state,
        pid,
        &RequestWire { kind: "update_file".into(), tree: tree.display().to_string(), order: Some(order), ..Default::default() },
    )?;
    attend(&state, &issuer, &sha256, None, say)
}

fn last_result_of(state: &State, issuer: &str) -> Option<ResultWire> {
    state.read::<ResultWire>("last-result.json").ok().flatten().filter(|r| r.issuer == issuer)
}

/// A hardened service sees less than a shell: a `/tmp` of its own, and no home folders. Where that can be looked at, it is
/// told now, and not as a file that is missing.
fn seen_by(pid: u32, tree: &Path) -> Result<(), Reason> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let (Ok(here), Ok(_)) = (std::fs::metadata(tree), std::fs::metadata(&root)) else { return Ok(()) };
    let there = std::fs::metadata(root.join(tree.strip_prefix("/").unwrap_or(tree))).ok();
    match there.is_some_and(|there| is_same(&here, &there)) {
        true => Ok(()),
        false => Err(Reason::new(
            "tree_unseen",
            format!("{}: the service does not see it (its own /tmp, no home folders); put it under /srv or /mnt", tree.display()),
        )),
    }
}

#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &std::fs::Metadata, _: &std::fs::Metadata) -> bool {
    true
}

/// Who ordered the trial that runs, when it is one of this file by a command like this one, which may have been killed.
fn local_trial_of(state: &State, sha256: &str) -> Option<String> {
    let marks = state.load_marks().marks;
    let Image::Slot(slot) = marks.active else { return None };
    let wire = state.slot_json(slot).ok()?;
    let ours = marks.slot(slot).condition == Condition::Trial && wire.sha256 == sha256 && wire.issuer.starts_with(LOCAL_ISSUER);
    ours.then_some(wire.issuer)
}

/// Finds the wanted version in the tree as a verifying client, without keeping anything.
fn local_order(args: &UpdateArgs, state: &State, tree: &Path) -> Result<OrderWire, Reason> {
    let root = factory_root(&args.image)?;
    let scratch = state.trust();
    let (_, trusted) = TrustStore::open(&scratch, &root)?;
    // As the agent itself will judge: a site without an outside link may have media that expired on their way.
    let offline_grace_s = state.config().ok().flatten().map_or(0, |(config, _)| config.offline_grace_s());
    let now = Now { unix: clock::unix(), floor: build::time(), offline_grace_s };
    let medium = Medium::open(tree)?;
    let mut refresh = Refresh::new(trusted, now, Goal::All);
    // Nothing is made durable here: the agent itself refreshes from the same medium.
    while let Want::Fetch(file) = refresh.want() {
        let bytes = medium.read(&format!("metadata/{}", file.name), file.limit)?;
        refresh.give(bytes.as_deref().map_or(Fetched::NotFound, Fetched::Bytes))?;
    }
    let (trusted, outcome) = refresh.finish();
    outcome.refused.map_or(Ok(()), Err)?;
    let path = choose(args, &trusted, &medium)?;
    let artifact = trusted.lookup(&path)?;
    Ok(OrderWire {
        issuer: format!("{LOCAL_ISSUER}{}", hex::encode(&random::bytes::<8>())),
        generation: 1,
        kind: "update".into(),
        target: path.to_string(),
        version: path.version.to_string(),
        sha256: hex::encode(&artifact.sha256),
        length: artifact.length,
        issued_at: clock::unix(),
        end_probation: true,
        retry: true,
        ..Default::default()
    })
}

/// True when this reason has not been told last.
fn is_news(told: &mut String, reason: &Reason) -> bool {
    let new = *told != reason.code;
    *told = reason.code.to_string();
    new
}

/// The wanted version, or the newest release that the medium holds: a bundle's metadata may name more than it has.
fn choose(args: &UpdateArgs, trusted: &Trusted, medium: &Medium) -> Result<TargetPath, Reason> {
    let product = args.product;
    let (here, place) = (Platform::here(), args.tree.display());
    let fits = |p: &TargetPath| {
        let version = args.version.as_ref().map_or(!p.version.is_pre_release(), |v| p.version.to_string() == *v);
        p.product == product.name && p.platform == here && p.file == here.program(product.name) && version
    };
    let (mut best, mut absent): (Option<TargetPath>, Option<TargetPath>) = (None, None);
    for artifact in trusted.artifacts().filter_map(|(_, found)| found.ok()).filter(|a| fits(&a.path)) {
        let there = medium.has(&super::source::name(&artifact))?;
        let slot = if there { &mut best } else { &mut absent };
        if slot.as_ref().is_none_or(|b| b.version < artifact.path.version) {
            *slot = Some(artifact.path);
        }
    }
    if let Some(path) = best {
        return Ok(path);
    }
    if let Some(gone) = trusted.withdrawn().into_iter().find(|w| args.version.is_some() && fits(&w.path)) {
        return Err(Reason::new("target_withdrawn", format!("{}: {} was withdrawn: {}", place, gone.path, gone.reason)));
    }
    Err(match absent {
        Some(path) => Reason::new("not_in_bundle", format!("{place}: names {path}, but does not hold it; make a bundle with it")),
        None => Reason::new("version_not_found", format!("{place}: no such {} for {here}", product.name)),
    })
}

/// What the marks say of the active slot, if it holds this file for this command.
fn condition_of(state: &State, issuer: &str, sha256: &str) -> Option<Condition> {
    let marks = state.load_marks().marks;
    let Image::Slot(slot) = marks.active else { return None };
    let ours = state.slot_json(slot).is_ok_and(|w| w.sha256 == sha256 && w.issuer == issuer);
    ours.then(|| marks.slot(slot).condition)
}

/// Stays with a local update: shows what happens, acknowledges the trial, and says how it ended. `old`: what had come of it
/// before.
fn attend(state: &State, issuer: &str, sha256: &str, old: Option<ResultWire>, say: &mut dyn FnMut(&str)) -> Result<String, Reason> {
    let (mut last, mut changed) = (String::new(), clock::monotonic());
    let (mut acknowledged, mut complained) = (String::new(), String::new());
    loop {
        // Read first: a trial that ends between the two looks is seen at the next turn.
        let result = last_result_of(state, issuer);
        let ours = condition_of(state, issuer, sha256);
        if let Some(result) = result.filter(|r| ends(ours, &r.outcome, old.as_ref().is_some_and(|o| o.id == r.id))) {
            let text = format!("{} {}: {} ({})", result.outcome, result.version, result.detail, result.code);
            return match result.outcome.as_str() {
                "updated" | "already" => Ok(text),
                _ => Err(Reason::received(result.code, format!("{} {}: {}", result.outcome, result.version, result.detail))),
            };
        }
        let status: StatusWire = state.status().unwrap_or_default();
        let now = format!("{}: {}", status.step, status.detail);
        if now != last {
            say(&now);
            (last, changed) = (now, clock::monotonic());
        }
        if let Some(nonce) = status.trial_nonce.filter(|n| ours.is_some() && *n != acknowledged)
            && let Some(pid) = running_agent(state)
        {
            // The trial waits for this word: what stands in its way for a moment is no reason to leave.
            match request(state, pid, &RequestWire { kind: "acknowledge".into(), nonce: nonce.clone(), ..Default::default() }) {
                Ok(()) => acknowledged = nonce,
                Err(reason) if is_news(&mut complained, &reason) => say(&reason.to_string()),
                Err(_) => {}
            }
        }
        if clock::monotonic().saturating_sub(changed) > SILENCE {
            let (s, name) = (SILENCE.as_secs(), state.product().name);
            return Err(Reason::new("no_progress", format!("nothing has changed for {s} s; see `{name} status`")));
        }
        process::sleep(Duration::from_millis(100));
    }
}
