//! The file again, twice a second: what is new takes effect, what is invalid is told once and changes nothing.
//!
//! A text counts when two looks in a row find the same one, so that a half written file is rarely judged and one that an editor
//! writes in two goes is judged once. A file that is gone for two looks is told, too; an editor that renames puts it back
//! within milliseconds. Polling finds what no notification tells: network folders, a mount over the file, a link that turns.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::Config;
use super::find;
use super::problem::{Problem, reason};
use super::start::{changed, keep, merged, overruled, source};
use super::update::Update;
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::schedule::Zone;
use crate::director::args::Run;
use crate::director::ca::CALLED_AT_ONCE;
use crate::director::site::Site;
use crate::io::clock;
use crate::io::fs::read_limited;

/// Time between two looks: a change is in force after two of them, within the promised 2 seconds.
const EVERY: Duration = Duration::from_millis(500);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// There is no such file, or it cannot be read.
    Nothing(String),
    /// This text.
    Text(Vec<u8>),
}

/// What was seen and judged so far.
#[derive(Debug, Default)]
struct Looks {
    /// What the last look found, and whether it was judged.
    last: Option<(Seen, bool)>,
}

impl Looks {
    /// What is to be judged now: seen twice in a row, and not judged before.
    fn judge(&mut self, seen: Seen) -> Option<Seen> {
        match &mut self.last {
            Some((last, judged)) if *last == seen => {
                let first = !*judged;
                *judged = true;
                first.then_some(seen)
            }
            _ => {
                self.last = Some((seen, false));
                None
            }
        }
    }
}

/// Watches the file of a running Director. `given` is its command line.
pub async fn forever(site: Rc<Site>, given: Run) {
    let mut looks = Looks::default();
    let begun = site.settings.borrow().config.clone();
    tell_start(&site);
    loop {
        smol::Timer::after(EVERY).await;
        // The first file that appears counts from then on, and no other.
        let known = site.settings.borrow().file.clone();
        let state = given.state.clone();
        let looked = smol::unblock(move || {
            let file = known.or_else(|| find::found(&state))?;
            Some((look(&file), file))
        });
        let Some((seen, file)) = looked.await else { continue };
        if let Some(seen) = looks.judge(seen) {
            judge(&site, &given, &begun, file, seen).await;
        }
    }
}

fn look(file: &std::path::Path) -> Seen {
    match read_limited(file, super::FILE_MAX) {
        Ok(Some(bytes)) => Seen::Text(bytes),
        Ok(None) => Seen::Nothing("no such file".into()),
        Err(e) => Seen::Nothing(e.to_string()),
    }
}

async fn judge(site: &Site, given: &Run, begun: &Config, file: PathBuf, seen: Seen) {
    let bytes = match seen {
        Seen::Text(bytes) => bytes,
        Seen::Nothing(why) => {
            let problem = Problem::new(1, "", &why, "the file that is in force; put it back");
            return refuse(site, reason(&file, &[problem]));
        }
    };
    let hash = hex::sha256(&bytes);
    match Config::parse(&bytes) {
        Err(problems) => refuse(site, reason(&file, &problems)),
        Ok(config) => {
            let (state, path) = (given.state.clone(), file.clone());
            smol::unblock(move || keep(&state, &path, &bytes)).await;
            take(site, given, begun, (file, config, hash));
        }
    }
}

/// What was in force stays.
fn refuse(site: &Site, reason: Reason) {
    let before = site.settings.borrow_mut().problem.replace(reason.clone());
    if before.as_ref() != Some(&reason) {
        site.registry.borrow_mut().event(
            clock::unix(),
            "",
            "config_invalid",
            format!("{}; the settings before stay in force", reason.detail),
            None,
        );
        site.flush();
    }
}

fn tell_start(site: &Site) {
    let problem = site.settings.borrow().problem.clone();
    if let Some(problem) = problem {
        let detail = format!("{}; started with the settings that were valid last", problem.detail);
        site.registry.borrow_mut().event(clock::unix(), "", "config_invalid", detail, None);
        site.flush();
    }
}

/// Puts a valid file in force.
fn take(site: &Site, given: &Run, begun: &Config, (file, config, hash): (PathBuf, Config, Sha256)) {
    let (differs, was_invalid, same) = {
        let settings = site.settings.borrow();
        (changed(&settings.config, &config), settings.problem.is_some(), settings.hash == Some(hash))
    };
    if same && !was_invalid {
        return;
    }
    // Against what this process began with: a change that was taken back needs no restart.
    let waits: Vec<&str> = changed(begun, &config).into_iter().filter(|(_, restart)| *restart).map(|(name, _)| name).collect();
    let mut notes = overruled(given, &config);
    notes.extend(waits.iter().map(|name| format!("{name}: takes effect at the next start")));
    let names: Vec<&str> = differs.iter().map(|(name, _)| *name).collect();
    let mut detail = match names.is_empty() {
        true => format!("{}: valid; nothing is different", file.display()),
        false => format!("{}: {}", file.display(), names.join(", ")),
    };
    if !waits.is_empty() {
        detail = format!("{detail}; takes effect at the next start: {}", waits.join(", "));
    }
    let mirror = names.contains(&"mirror") && given.mirror.is_none();
    let cluster = names.contains(&"cluster");
    {
        let mut settings = site.settings.borrow_mut();
        (settings.file, settings.hash, settings.problem, settings.notes) = (Some(file), Some(hash), None, notes);
        settings.config = config;
    }
    if was_invalid || !names.is_empty() {
        site.registry.borrow_mut().event(clock::unix(), "", "config_changed", detail, None);
        site.flush();
    }
    apply(site);
    if mirror {
        turn_mirror(site, &merged(given, &site.settings.borrow().config));
    }
    if cluster {
        // They ask again and hear who the members are.
        site.wake_some(CALLED_AT_ONCE);
    }
    site.settings_changed.ring();
    site.planner.ring();
}

/// Tells those who keep a copy of a setting.
pub fn apply(site: &Site) {
    let settings = site.settings.borrow();
    let retention = &settings.config.retention;
    let mut registry = site.registry.borrow_mut();
    registry.keep_activity = crate::director::activity::Keep::of(
        retention.activity.as_ref().map(|a| a.value),
        retention.activity_bytes.as_ref().map(|a| a.value),
    );
    registry.prune_activity(clock::unix());
    // Both were checked when the file was read.
    let zone = settings.config.time_zone.as_ref().and_then(|z| Zone::parse(&z.value, &crate::io::zone::local()).ok());
    registry.set_zone(zone.unwrap_or_else(crate::io::zone::local));
    let agents = settings.config.agents_update.as_ref().map(Update::wire);
    if let Err(reason) = registry.set_file_default(agents.as_ref(), clock::unix()) {
        log::warn!("agents.update of vmetric.yml does not count: {reason}");
    }
    registry.metering.configure(&settings.config, &crate::io::zone::local());
    let limit = settings.config.limits.mirror_bytes.as_ref().map(|b| b.value);
    if site.mirror_limit.replace(limit) != limit {
        site.refresh.ring();
    }
    if let Some(own) = &*site.own.borrow() {
        own.obey_file(&settings);
    }
}

fn turn_mirror(site: &Site, run: &Run) {
    *site.source.borrow_mut() = Some(source(run));
    site.about.borrow_mut().mirror = run.mirror.clone().unwrap_or_default();
    site.refresh.ring();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_once_when_it_stays() {
        let text = |t: &str| Seen::Text(t.into());
        let gone = || Seen::Nothing("no such file".into());
        let mut looks = Looks::default();
        let mut judged = |seen: Seen| looks.judge(seen).is_some();
        assert!(!judged(text("a")) && judged(text("a")) && !judged(text("a")));
        // Half written, gone for a moment, back again: nothing was there twice.
        assert!(!judged(text("")) && !judged(gone()) && !judged(text("ab")) && judged(text("ab")));
        assert!(!judged(gone()) && judged(gone()) && !judged(gone()));
        assert!(!judged(text("ab")) && judged(text("ab")), "it came back");
    }
}
