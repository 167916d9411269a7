//! The main loop's side: the alarm, the activity, the drain.

use std::rc::Rc;
use std::time::Duration;

use super::Own;
use super::journal::StepWire;
use super::shared::{Quiet, Shared, Word};
use crate::agent::fault::{self, Fault};
use crate::agent::{build, duties};
use crate::core::product::DIRECTOR;
use crate::core::reason::Reason;
use crate::core::relay::update_id;
use crate::director::backup::note;
use crate::director::site::Site;
use crate::director::uplink;
use crate::io::state::State;
use crate::io::{clock, notify, process};

/// How often the trials are looked at while the engine waits for them.
const LOOK: Duration = Duration::from_millis(200);
/// The longest that the main loop says nothing to the service manager.
const ALIVE: Duration = Duration::from_secs(10);

/// From the task that everything else shares: where nothing gets on any more, nothing is said, and the alarm that the
/// launcher armed ends this process. It ends it, too, when the engine's thread hangs: a trial would have no end.
pub async fn heart(own: Rc<Own>) {
    let liveness_s = fault::times().liveness_s;
    let pause = ALIVE.min(Duration::from_secs(u64::from(liveness_s)) / 3);
    loop {
        hang_if_told(&own);
        own.shared.main_beats();
        if duties::silent_s() < u64::from(liveness_s) {
            process::alarm(liveness_s);
        }
        notify::alive();
        let next = async {
            smol::Timer::after(pause).await;
        };
        smol::future::or(own.shared.turn_asked(), next).await;
    }
}

/// A fault of test builds: this thread never takes another turn, as after a deadlock.
fn hang_if_told(own: &Own) {
    let named = || own.started.state.read::<String>("storage/hang-main").ok().flatten();
    if fault::built_in() == Fault::HangMain && named().is_some_and(|version| version == build::VERSION) {
        loop {
            std::thread::park();
        }
    }
}

/// Until the process ends.
pub async fn attend(own: Rc<Own>, site: Rc<Site>) {
    let shared = own.shared.clone();
    let state = State::look_of(&DIRECTOR, &own.started.state.path(""));
    take_steps(&own, &site).await;
    note::tell(&state, &site).await;
    loop {
        let waiting = shared.wants_quiet();
        set_draining(&shared, &site, waiting);
        if waiting {
            shared.answer(look(&site).await);
        }
        let pause = async {
            smol::Timer::after(if waiting { LOOK } else { ALIVE }).await;
            None
        };
        match smol::future::or(shared.hear(), pause).await {
            Some(Word::Steps) => {
                take_steps(&own, &site).await;
                note::tell(&state, &site).await;
            }
            Some(Word::Tell(reason)) => {
                site.registry.borrow_mut().event(clock::unix(), "", &reason.code, reason.detail.clone(), None);
                site.flush();
            }
            Some(Word::Relaunch(reason)) => own.ask_to_leave(reason),
            Some(Word::Report(report)) => drop(site.uplink.sender().try_send(uplink::Own::Report(report))),
            // A full inbox holds fresher words; Fleet says it again with its next answer to the health.
            Some(Word::Settings(revision)) => drop(site.uplink.sender().try_send(uplink::Own::Settings(revision))),
            Some(Word::Quiet | Word::Trial) | None => {}
        }
    }
}

/// A Director that may be gone in a moment, or that may not stay, begins nothing with its agents.
fn set_draining(shared: &Shared, site: &Site, waiting: bool) {
    let draining = waiting || shared.is_on_trial() || site.cluster.drained.get();
    let before = site.draining.replace(draining);
    shared.see(site.cluster.looks(), draining);
    if before && !draining {
        site.planner.ring();
    }
    if before != draining {
        // A cluster counts on each of its members' words.
        site.uplink.hurry();
        if draining && site.cluster.told.borrow().is_some() {
            // Agents that know another member move on; the others come back at once.
            site.wake_some(usize::MAX);
        }
    }
}

async fn look(site: &Site) -> Quiet {
    let (count, until) = site.registry.borrow().trials(clock::unix());
    if count > 0 {
        return Quiet::Agents { count, until };
    }
    site.flush();
    match site.store.durable().await {
        Ok(()) => Quiet::Drained { parked: site.parked() },
        Err(e) => Quiet::Refused(Reason::new("store_not_written", format!("nothing stops before the store is written: {e}"))),
    }
}

/// The activity takes the steps that are over; only then the journal forgets them.
async fn take_steps(own: &Own, site: &Site) {
    let shared = &own.shared;
    let steps = shared.journal().ended();
    if steps.is_empty() {
        return;
    }
    let node = own.node();
    steps.iter().for_each(|step| tell(site, step, &node));
    site.flush();
    // The committer says what fails; the journal keeps the steps, and the next start brings them again.
    if site.store.durable().await.is_ok() {
        let (shared, seqs) = (shared.clone(), steps.iter().map(|s| s.seq).collect::<Vec<_>>());
        smol::unblock(move || shared.journal().forget(&seqs)).await;
    }
}

fn tell(site: &Site, step: &StepWire, node: &str) {
    let mut registry = site.registry.borrow_mut();
    let same = |e: &&crate::director::records::Event| {
        e.code == step.code && e.began == Some(step.began) && e.generation == step.generation && e.version == step.version
    };
    // The process died between the commit and the journal.
    if registry.recent.iter().any(|e| same(&e)) {
        return;
    }
    // Fleet's part of the story and this one are one list there.
    let update = step.update.rsplit_once('/').map(|(issuer, _)| update_id(node, step.generation, issuer));
    registry.own_step(step, update);
}
