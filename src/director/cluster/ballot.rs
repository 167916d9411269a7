//! This member's lease from its peers: the questions to all of them, itself included, and what is kept of the answers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};

use super::{told, vote};
use crate::core::cluster::lease::{LEASE_S, Phase};
use crate::core::cluster::peers::{Answer, Joint, may_be_away, returned, tally};
use crate::core::cluster::plan::Wait;
use crate::core::hex;
use crate::core::proof::{DeviceKey, SEPARATOR};
use crate::core::reason::Reason;
use crate::director::own::shared::Shared;
use crate::director::site::Site;
use crate::io::http::{Http, HttpConfig};
use crate::io::state::State;
use crate::io::tls::parse_pin;
use crate::io::{clock, device_key, random};
use crate::wire::agent_api::ResultWire;
use crate::wire::fleet_api::{ClusterMemberWire, ClusterWire};
use crate::wire::fleet_lock::{ClientWire, HEADER, LOCK_MAX, LockErrorWire, LockWire, LockedWire, PRE_REBOOT, STEADY_STATE};

/// Where it is.
const FILE: &str = "storage/cluster-ballot.json";
/// From a command's question to its order, seconds: it looks at the medium between.
const ORDER_S: u64 = 60;
/// Time for a peer's answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A lease from peers, or the wish for one.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Ballot {
    /// Of which cluster.
    pub group: String,
    /// Of the wish.
    pub nonce: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// Of the lease; absent = not known to be given.
    pub epoch: Option<u64>,
    /// This Director may have been away under it.
    pub away: bool,
    /// A person takes on what is not healthy, and who does not answer.
    pub forced: bool,
    /// The members' promises.
    pub promises: Vec<PromiseWire>,
}

/// One of them.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PromiseWire {
    /// Whose.
    pub id: String,
    /// Of its book.
    pub epoch: u64,
}

/// Who asks whom, and how it proves who it is.
pub struct Ground<'a> {
    shared: &'a Shared,
    state: &'a State,
    me: String,
    cluster: ClusterWire,
    key: DeviceKey,
    tick: fn(),
}

impl Ground<'_> {
    /// For this member.
    ///
    /// # Errors
    /// `not_enrolled`, `cluster_unknown`, those of its key.
    pub fn new<'a>(shared: &'a Shared, state: &'a State, tick: fn()) -> Result<Ground<'a>, Reason> {
        let config = state.config()?.ok_or_else(|| Reason::new("not_enrolled", "this Director is known to no Fleet"))?.0;
        let public =
            config.device_key.ok_or_else(|| Reason::new("device_key_missing", "this Director enrolled without a key: enroll again"))?;
        let key = device_key::of(state, &public)?;
        let unknown = || Reason::new("cluster_unknown", "Fleet has not told this Director of its cluster yet: nobody knows whom to ask");
        let cluster = told::read(state)?.ok_or_else(unknown)?;
        Ok(Ground { shared, state, me: config.agent_id, cluster, key, tick })
    }

    /// Asks all members at once.
    fn ask_all(&self, path: &'static str, wire: impl Fn(&ClusterMemberWire) -> LockWire) -> Vec<(String, Answered)> {
        std::thread::scope(|scope| {
            let others = self.cluster.members.iter().filter(|member| member.id != self.me).map(|member| (member, wire(member)));
            let asked: Vec<_> = others.map(|(member, wire)| (member, scope.spawn(move || self.call(member, path, &wire)))).collect();
            let own = self.cluster.members.iter().find(|member| member.id == self.me).map(|member| {
                let done = vote::decide(self.shared, self.state, &self.me, path == PRE_REBOOT, &wire(member));
                (member.id.clone(), done.map(|done| done.wire).map_err(Answer::Refused))
            });
            let gone = || Err(Answer::Silent(Reason::new("peer_lost", "its question ended without an answer")));
            let mut all: Vec<(String, Answered)> = own.into_iter().collect();
            all.extend(asked.into_iter().map(|(member, task)| (member.id.clone(), task.join().unwrap_or_else(|_| gone()))));
            (self.tick)();
            all
        })
    }

    fn call(&self, member: &ClusterMemberWire, path: &str, wire: &LockWire) -> Answered {
        let silent = |code: &'static str, detail: String| Answer::Silent(Reason::new(code, detail));
        let (Some(url), Some(pin)) = (&member.url, &member.pin) else {
            return Err(silent("address_unknown", format!("{} has not told Fleet where it is reached", member.id)));
        };
        let pin = parse_pin(pin).map_err(Answer::Silent)?;
        let config = HttpConfig { pins: vec![pin], proxy: None, user_agent: crate::agent::build::USER_AGENT, wake_fd: None, tick: || {} };
        let http = Http::new(config).map_err(|e| Answer::Silent(e.reason()))?;
        http.say_header(HEADER);
        let body = json::to_string(wire);
        let proof = self.key.prove(path, &device_key::instance(self.state), clock::monotonic().as_micros() as u64, body.as_bytes());
        let bearer = format!("{}{SEPARATOR}{proof}", self.me);
        let address = format!("{}{path}", url.trim_end_matches('/'));
        let reply = http.post_json(&address, Some(&bearer), &body, LOCK_MAX, ANSWER).map_err(|e| Answer::Silent(e.reason()))?;
        let text = String::from_utf8_lossy(&reply.body);
        if reply.status == 200 {
            return json::from_str(&text).map_err(|_| silent("bad_answer", format!("{address}: not of this protocol")));
        }
        match json::from_str::<LockErrorWire>(&text) {
            Ok(said) if reply.status == 409 => {
                let (who, since, until) = (said.who, said.since, said.until);
                Err(Answer::Refused(Wait { reason: Reason::received(said.code, said.detail), who, since, until }))
            }
            Ok(said) => Err(Answer::Silent(Reason::received(said.code, format!("{address}: {} {}", reply.status, said.detail)))),
            Err(_) => Err(silent("not_answered", format!("{address}: {}; a version that promises nothing?", reply.status))),
        }
    }
}

type Answered = Result<LockedWire, Answer>;

impl Ballot {
    /// A new wish.
    pub fn wish(group: &str, forced: bool) -> Ballot {
        let nonce = hex::encode(&random::bytes::<8>());
        Ballot { group: group.into(), nonce, since: clock::unix(), forced, ..Default::default() }
    }

    /// What is on the disk. One that does not parse is none: the promises run out, and the members say so.
    pub fn read(state: &State) -> Option<Ballot> {
        state.read(FILE).ok().flatten()
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// That of the file.
    pub fn write(&self, state: &State) -> Result<(), Reason> {
        state.write(FILE, self)
    }

    /// There is none any more.
    ///
    /// # Errors
    /// That of the file.
    pub fn remove(state: &State) -> Result<(), Reason> {
        state.remove(FILE)
    }

    fn question(&self, ground: &Ground, of: &str, phase: &str, needs_s: u64) -> LockWire {
        LockWire {
            client_params: ClientWire { id: ground.me.clone(), group: self.group.clone() },
            nonce: Some(self.nonce.clone()),
            epoch: self.promises.iter().find(|promise| promise.id == of).map(|promise| promise.epoch),
            needs_s: Some(needs_s),
            phase: Some(phase.into()),
            known: self.epoch,
            force: self.forced.then_some(true),
            failed: None,
        }
    }

    /// Asks for the lease, or renews it. The wish, and every promise, is on the disk before anything follows from it.
    ///
    /// # Errors
    /// Why it is none; what was promised stays until it is given back.
    pub fn ask(&mut self, ground: &Ground, phase: Phase, needs_s: u64) -> Result<(Joint, Option<u64>), Wait> {
        let plain = |reason| Wait { reason, who: None, since: None, until: None };
        self.write(ground.state).map_err(plain)?;
        let word = if phase == Phase::Stop { "stop" } else { "before" };
        let said = ground.ask_all(PRE_REBOOT, |member| self.question(ground, &member.id, word, needs_s));
        let drain_s = said.iter().find_map(|(_, answer)| answer.as_ref().ok()?.drain_s);
        for (id, answer) in &said {
            let Ok(LockedWire { epoch: Some(epoch), .. }) = answer else { continue };
            self.promises.retain(|promise| promise.id != *id);
            self.promises.push(PromiseWire { id: id.clone(), epoch: *epoch });
        }
        let answer = |(id, said): (String, Answered)| match said {
            Ok(LockedWire { epoch, ttl_s, .. }) => (id, Answer::Promised { epoch: epoch.unwrap_or(0), ttl_s: ttl_s.unwrap_or(0) }),
            Err(answer) => (id, answer),
        };
        let answers: Vec<(String, Answer)> = said.into_iter().map(answer).collect();
        let joint = tally(&ground.cluster.name, &answers, self.forced);
        self.epoch = joint.as_ref().ok().map(|joint| joint.epoch).max(self.epoch);
        self.write(ground.state).map_err(plain)?;
        joint.map(|joint| (joint, drain_s))
    }

    /// Gives it back to every member that answers; what was told is told again until all have heard it.
    ///
    /// # Errors
    /// Who keeps its promise, or did not answer, and why.
    fn give_back(&self, ground: &Ground) -> Result<(), Wait> {
        let failed = self.away.then(|| failure(ground.state, self.since)).flatten();
        let phase = if self.away { "after" } else { "before" };
        let said = ground.ask_all(STEADY_STATE, |m| LockWire { failed: failed.clone(), ..self.question(ground, &m.id, phase, 0) });
        let answer = |(id, said): (String, Answered)| match said {
            Ok(_) => (id, Answer::Promised { epoch: 0, ttl_s: 0 }),
            Err(answer) => (id, answer),
        };
        returned(&said.into_iter().map(answer).collect::<Vec<_>>())
    }

    /// Gives it back, and notes on the disk what came of it: it is gone, or this Director may have been away under it.
    ///
    /// # Errors
    /// Those of the answers, or of the file; it stays.
    pub fn put_back(&mut self, ground: &Ground) -> Result<(), Wait> {
        let plain = |reason| Wait { reason, who: None, since: None, until: None };
        let said = self.give_back(ground);
        // Another wish may have taken its place meanwhile.
        let is_kept = Ballot::read(ground.state).is_some_and(|kept| kept.nonce == self.nonce);
        match &said {
            Ok(()) if is_kept => Ballot::remove(ground.state).map_err(plain)?,
            Err(wait) if may_be_away(wait) && is_kept => {
                self.away = true;
                self.write(ground.state).map_err(plain)?;
            }
            _ => {}
        }
        said
    }
}

/// Before a new wish: one under which this Director may have been away is given back first, and keeps its place until then.
/// Nobody else of them keeps a promise where a person takes on that one is silent.
///
/// # Errors
/// Why it stays.
pub fn clear(shared: &Shared, state: &State, group: &str, forced: bool, tick: fn()) -> Result<(), Wait> {
    let Some(mut ballot) = Ballot::read(state).filter(|ballot| ballot.away && ballot.group == group) else { return Ok(()) };
    let plain = |reason| Wait { reason, who: None, since: None, until: None };
    let ground = Ground::new(shared, state, tick).map_err(plain)?;
    let Err(wait) = ballot.put_back(&ground) else { return Ok(()) };
    let silent = wait.reason.code == "peer_silent";
    if silent && forced {
        return Ok(());
    }
    let end = if silent { "; bring it back, or --force takes this on" } else { "" };
    let detail = format!("the lease before is not given back yet: {}{end}", wait.reason.detail);
    Err(Wait { reason: Reason::received(wait.reason.code.to_string(), detail), ..wait })
}

/// Why the update under this lease failed, if it did.
fn failure(state: &State, since: u64) -> Option<String> {
    let result = state.read::<ResultWire>("last-result.json").ok().flatten()?;
    (result.at >= since && result.outcome == "rolled_back")
        .then(|| format!("{} rolled back: {} ({})", result.version, result.detail, result.code))
}

/// A person says at this member that it goes on: every member is told. Who was not.
///
/// # Errors
/// `not_enrolled`, `cluster_unknown`.
pub fn resume(shared: &Shared, state: &State) -> Result<Vec<String>, Reason> {
    let ground = Ground::new(shared, state, || {})?;
    let plain = Ballot { group: ground.cluster.id.clone(), ..Default::default() };
    let said = ground.ask_all(STEADY_STATE, |member| plain.question(&ground, &member.id, "resume", 0));
    let missed = |(id, answer): &(String, Answered)| match answer {
        Ok(_) => None,
        Err(Answer::Silent(why)) => Some(format!("{id} ({})", why.code)),
        Err(Answer::Refused(wait)) => Some(format!("{id} ({})", wait.reason.code)),
        Err(Answer::Promised { .. }) => None,
    };
    Ok(said.iter().filter_map(missed).collect())
}

/// Gives back what is not needed any more, and says so once.
pub async fn keep(site: &Rc<Site>, shared: &Arc<Shared>, state: &State, told: &mut String) {
    let Some(mut ballot) = Ballot::read(state) else { return };
    // What a command asked for waits for the engine, which fetches and checks first.
    let age = clock::unix().saturating_sub(ballot.since);
    let wanted = site.own.borrow().as_ref().is_some_and(|own| own.scheduled_version().is_some());
    if !ballot.away && age < LEASE_S && (wanted || age < ORDER_S) {
        return;
    }
    let (shared, state, for_book) = (shared.clone(), state.clone(), state.clone());
    let said = smol::unblock(move || {
        let plain = |reason| Wait { reason, who: None, since: None, until: None };
        let ground = Ground::new(&shared, &state, || {}).map_err(plain)?;
        ballot.put_back(&ground)
    })
    .await;
    let code = said.as_ref().map_or_else(|wait| wait.reason.code.to_string(), |()| "lease_returned".into());
    if code != *told {
        match &said {
            Ok(()) => site.note("lease_returned", "every member of the cluster has its promise back: the next one may go"),
            Err(wait) => log::info!("the peers' lease stays: {}", wait.reason),
        }
        *told = code;
    }
    // This member's own promise to itself is over, too.
    if said.is_ok() {
        let book = vote::book(&for_book).unwrap_or_default();
        *site.cluster.promised.borrow_mut() = book.lease.map(|lease| lease.holder);
        site.uplink.hurry();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::copies::KeyFile;
    use crate::core::product::DIRECTOR;
    use crate::director::cluster::command::lease_now;
    use crate::director::own::permit::Permit;
    use crate::wire::agent_api::AnswerWire;
    use crate::wire::config::ConfigWire;

    fn cluster(soak_s: u64) -> ClusterWire {
        let members = vec![ClusterMemberWire { id: "d0".into(), ..Default::default() }];
        ClusterWire { id: "c".into(), name: "north".into(), members, soak_s: Some(soak_s), drain_s: Some(0), ..Default::default() }
    }

    /// The only member of its cluster, by exception, whose Fleet does not answer, after its last word before a stop.
    fn after_the_last_word() -> (tempfile::TempDir, State, Shared, Ballot) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_of(&DIRECTOR, &dir.path().join("s")).unwrap();
        let key = device_key::read_or_make(&state, KeyFile::Key).unwrap();
        let config = ConfigWire {
            format: 1,
            director: "https://127.0.0.1:1".into(),
            pins: vec![format!("sha256:{}", "01".repeat(32))],
            agent_id: "d0".into(),
            credential: "c".into(),
            device_key: Some(key.public()),
            ..Default::default()
        };
        state.write_config(&config).unwrap();
        told::keep(&state, None, Some(&cluster(3_600)));
        let shared = Shared::new(&state);
        shared.heard(&AnswerWire { lease_group: Some("c".into()), ..Default::default() });
        let mut ballot = Ballot::wish("c", true);
        let ground = Ground::new(&shared, &state, || {}).unwrap();
        ballot.ask(&ground, Phase::Before, 0).unwrap();
        ballot.ask(&ground, Phase::Stop, 300).unwrap();
        drop(ground);
        (dir, state, shared, ballot)
    }

    #[test]
    fn a_wish_that_a_member_takes_for_away_is_noted_as_such() {
        let (_dir, state, shared, mut ballot) = after_the_last_word();
        let ground = Ground::new(&shared, &state, || {}).unwrap();
        assert!(!ballot.away, "it died before it noted that");
        assert_eq!(ballot.put_back(&ground).unwrap_err().reason.code, "lease_in_use");
        assert!(Ballot::read(&state).unwrap().away);
        assert_eq!(ballot.put_back(&ground).unwrap_err().reason.code, "soaking");
        // What is on the disk now is not this one's.
        let other = Ballot::wish("c", false);
        other.write(&state).unwrap();
        told::keep(&state, None, Some(&cluster(0)));
        ballot.put_back(&ground).unwrap();
        assert_eq!(Ballot::read(&state), Some(other));
    }

    #[test]
    fn no_other_wish_takes_the_place_of_one_under_which_it_may_be_away() {
        let (_dir, state, shared, ballot) = after_the_last_word();
        let ballot = Ballot { away: true, ..ballot };
        ballot.write(&state).unwrap();
        let (why, _) = Permit::default().drained(&shared, &state, true).unwrap_err();
        assert_eq!((why.code.as_ref(), Ballot::read(&state)), ("soaking", Some(ballot.clone())), "{why}");
        for forced in [false, true] {
            let why = lease_now(&shared, &state, "d0", "c", forced).unwrap_err();
            assert_eq!((why.code.as_ref(), Ballot::read(&state)), ("soaking", Some(ballot.clone())), "{why}");
        }
        told::keep(&state, None, Some(&cluster(0)));
        lease_now(&shared, &state, "d0", "c", true).unwrap();
        let next = Ballot::read(&state).unwrap();
        assert!(next.nonce != ballot.nonce && next.epoch > ballot.epoch && !next.away, "{next:?}");
    }
}
