//! What the engine's thread and the main loop say to each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use miniserde::{Deserialize, Serialize};
use smol::channel::{Receiver, Sender, unbounded};

use super::journal::{Journal, StepWire};
use crate::agent::duties::StopGate;
use crate::core::reason::Reason;
use crate::core::update::Order;
use crate::director::cluster::Look;
use crate::director::cluster::vote::Sight;
use crate::director::config::Fleet;
use crate::io::state::State;
use crate::io::{clock, process};
use crate::wire::agent_api::{AnswerWire, ReportWire};

/// The engine's thread waits so long for the main loop's answer before it goes on reporting.
const ANSWER: Duration = Duration::from_millis(500);
/// And so long for a turn of it when it has to know whether there is one: a busy machine's loop takes one within this time.
const TURN: Duration = Duration::from_secs(5);
/// Who does not ask again within this time does not want to stop any more: the order was withdrawn.
const QUIET_LIFE: Duration = Duration::from_secs(30);

/// The cluster that this Director is in, as Fleet said last.
const GROUP: &str = "storage/cluster.json";

#[derive(Serialize, Deserialize)]
struct GroupWire {
    group: String,
}

/// The cluster whose lease this Director needs.
pub fn group(state: &State) -> Option<String> {
    state.read::<GroupWire>(GROUP).ok().flatten().map(|kept| kept.group)
}

/// To the main loop.
#[derive(Debug)]
pub enum Word {
    /// There are new steps.
    Steps,
    /// May this Director stop now?
    Quiet,
    /// The trial began or is over.
    Trial,
    /// What the engine tells Fleet of this Director.
    Report(Box<ReportWire>),
    /// Fleet has settings of this revision.
    Settings(u64),
    /// For the activity.
    Tell(Reason),
    /// The launcher is to take over.
    Relaunch(Reason),
}

/// What the main loop says to a wish to stop.
#[derive(Clone, Debug)]
pub enum Quiet {
    /// Nothing yet.
    Unanswered,
    /// No agent is on trial, and no new one will be.
    Drained {
        /// Parked polls.
        parked: usize,
    },
    /// So many are.
    Agents {
        /// How many.
        count: usize,
        /// Their last deadline, seconds since 1970.
        until: u64,
    },
    /// It must not stop now.
    Refused(Reason),
}

/// Why an order is not wanted at this site; `None` = it may be.
pub type Veto = Box<dyn Fn(&Order) -> Option<Reason> + Send + Sync>;

struct Wish {
    asked: Option<Duration>,
    answer: Quiet,
}

/// Both threads hold it.
pub struct Shared {
    /// The marks and what a stop writes.
    pub gate: StopGate,
    journal: Mutex<Journal>,
    on_trial: AtomicBool,
    wish: Mutex<Wish>,
    answered: Condvar,
    turns: Mutex<u64>,
    turned: Condvar,
    turn_asked: (Sender<()>, Receiver<()>),
    veto: Mutex<Option<Veto>>,
    fleet: Mutex<Option<Fleet>>,
    /// The cluster whose lease it needs, and the file that remembers it.
    group: Mutex<Option<String>>,
    state: State,
    lease_used: Mutex<Option<Duration>>,
    /// Held while this member decides about a promise, or wishes a lease itself.
    promises: Mutex<()>,
    sight: Mutex<Sight>,
    words: (Sender<Word>, Receiver<Word>),
}

/// A lock whose holder panicked is as good as any: nothing here is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Shared {
    /// For this state folder.
    pub fn new(state: &State) -> Shared {
        Shared {
            gate: StopGate::default(),
            journal: Mutex::new(Journal::open(state)),
            on_trial: AtomicBool::new(false),
            wish: Mutex::new(Wish { asked: None, answer: Quiet::Unanswered }),
            answered: Condvar::new(),
            turns: Mutex::new(0),
            turned: Condvar::new(),
            turn_asked: unbounded(),
            veto: Mutex::new(None),
            fleet: Mutex::new(None),
            group: Mutex::new(group(state)),
            state: state.clone(),
            lease_used: Mutex::new(None),
            promises: Mutex::new(()),
            sight: Mutex::default(),
            words: unbounded(),
        }
    }

    /// The steps of this Director's updates.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// The step that is under way.
    pub fn current_step(&self) -> Option<StepWire> {
        self.journal().current()
    }

    /// To the main loop; it hears in time.
    pub fn tell(&self, word: Word) {
        // The other end is in this very struct.
        let _ = self.words.0.try_send(word);
    }

    /// The main loop waits for the next word.
    pub async fn hear(&self) -> Option<Word> {
        self.words.1.recv().await.ok()
    }

    /// What forbids orders from now on, whoever gives them: the operator's file at this site.
    pub fn forbid(&self, veto: Veto) {
        *lock(&self.veto) = Some(veto);
        process::wake_self();
    }

    /// `fleet:` of the operator's file, from now on.
    pub fn fleet_is(&self, fleet: Option<Fleet>) {
        *lock(&self.fleet) = fleet;
        process::wake_self();
    }

    /// That section.
    pub fn fleet(&self) -> Option<Fleet> {
        lock(&self.fleet).clone()
    }

    /// Why this order is not wanted here.
    pub fn veto(&self, order: &Order) -> Option<Reason> {
        lock(&self.veto).as_ref().and_then(|veto| veto(order))
    }

    /// Whether this Director is on trial.
    pub fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::SeqCst)
    }

    /// The engine's thread knows.
    pub fn set_on_trial(&self, yes: bool) {
        if self.on_trial.swap(yes, Ordering::SeqCst) != yes {
            self.tell(Word::Trial);
        }
    }

    /// The main loop has taken a turn.
    pub fn main_beats(&self) {
        *lock(&self.turns) += 1;
        self.turned.notify_all();
    }

    /// The main loop waits for somebody who wants to see a turn.
    pub async fn turn_asked(&self) {
        let _ = self.turn_asked.1.recv().await;
    }

    /// Asks the main loop for a turn, and waits for it: that it took one some time ago says nothing of one that stands still now.
    pub fn main_answers(&self) -> bool {
        let turns = lock(&self.turns);
        let before = *turns;
        let _ = self.turn_asked.0.try_send(());
        let waited = self.turned.wait_timeout_while(turns, TURN, |turns| *turns == before);
        !waited.unwrap_or_else(|e| e.into_inner()).1.timed_out()
    }

    /// Fleet answered.
    pub fn heard(&self, answer: &AnswerWire) {
        if let Some(revision) = answer.settings_revision {
            self.tell(Word::Settings(revision));
        }
        self.group_is(answer.lease_group.as_ref());
    }

    /// Fleet's word on the cluster that this Director is in. Kept on the disk: an order that may switch without contact must
    /// not forget it at a restart.
    fn group_is(&self, said: Option<&String>) {
        let mut group = lock(&self.group);
        if group.as_ref() == said {
            return;
        }
        let kept = match said {
            Some(said) => self.state.write(GROUP, &GroupWire { group: said.clone() }),
            None => self.state.remove(GROUP),
        };
        if let Err(reason) = kept {
            return log::error!("{reason}");
        }
        *group = said.cloned();
    }

    /// The cluster whose lease is needed before a stop.
    pub fn lease_group(&self) -> Option<String> {
        lock(&self.group).clone()
    }

    /// The engine works under a lease, or asks for one.
    pub fn use_lease(&self) {
        *lock(&self.lease_used) = Some(clock::monotonic());
    }

    /// Whether it did lately.
    pub fn lease_in_use(&self) -> bool {
        lock(&self.lease_used).is_some_and(|at| clock::monotonic().saturating_sub(at) < QUIET_LIFE)
    }

    /// One decision about promises at a time.
    pub fn promises(&self) -> MutexGuard<'_, ()> {
        lock(&self.promises)
    }

    /// What the main loop sees of the cluster's members, and whether this one serves.
    pub fn see(&self, looks: BTreeMap<String, Look>, draining: bool) {
        *lock(&self.sight) = Sight { looks, draining };
    }

    /// That.
    pub fn sight(&self) -> Sight {
        let sight = lock(&self.sight).clone();
        Sight { draining: sight.draining || self.is_on_trial() || self.wants_quiet(), ..sight }
    }

    /// It does not want to stop any more: the main loop serves on.
    pub fn end_quiet(&self) {
        let mut wish = lock(&self.wish);
        (wish.asked, wish.answer) = (None, Quiet::Unanswered);
        drop(wish);
        self.tell(Word::Quiet);
    }

    /// Asks the main loop for quiet, and waits a moment for its answer.
    pub fn ask_for_quiet(&self) -> Quiet {
        let mut wish = lock(&self.wish);
        wish.asked = Some(clock::monotonic());
        if !matches!(wish.answer, Quiet::Drained { .. }) {
            wish.answer = Quiet::Unanswered;
            self.tell(Word::Quiet);
            let waited = self.answered.wait_timeout_while(wish, ANSWER, |w| matches!(w.answer, Quiet::Unanswered));
            wish = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
        wish.answer.clone()
    }

    /// Whether the engine wants this Director quiet now.
    pub fn wants_quiet(&self) -> bool {
        let mut wish = lock(&self.wish);
        let wanted = wish.asked.is_some_and(|at| clock::monotonic().saturating_sub(at) < QUIET_LIFE);
        if !wanted && wish.asked.take().is_some() {
            wish.answer = Quiet::Unanswered;
        }
        wanted
    }

    /// The main loop's answer; news wake the engine.
    pub fn answer(&self, answer: Quiet) {
        let mut wish = lock(&self.wish);
        let news = std::mem::discriminant(&wish.answer) != std::mem::discriminant(&answer);
        wish.answer = answer;
        self.answered.notify_all();
        drop(wish);
        if news {
            process::wake_self();
        }
    }
}
