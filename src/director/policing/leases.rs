//! The leases of clusters as Fleet keeps them: rows, what members were heard to say, and the acts on them.
//!
//! Every change goes through [`Registry::swap_book`], which compares with what is there: two who decide at the same time are
//! one who decides and one who looks again. Nothing is answered before it is on the disk.

use std::sync::LazyLock;
use std::time::Duration;

use miniserde::{Deserialize, Serialize};

use super::clusters::ClusterRow;
use crate::core::cluster::dated::{Dated, Made, made_at};
use crate::core::cluster::lease::{Ask, Book, Forgiven, Kind, LEASE_S, Lease, Lost, SOAK_MAX_S, SOAK_S, Stop, Terms, Waiver};
use crate::core::cluster::member::{Failure, SILENT_S, Says, Seen, Word};
use crate::core::cluster::plan::{Cost, View, Wait};
use crate::core::reason::Reason;
use crate::director::cancel::Cancel;
use crate::director::registry::Registry;
use crate::director::store::Table;
use crate::io::{clock, random};
use crate::wire::fleet_api::{DatedWire, HealthAnswerWire, HealthWire, PeerWire};

/// How long `/readyz` fails before a member stops, when nobody says otherwise, seconds: three checks of a load balancer that
/// looks every three seconds.
pub const DRAIN_S: u64 = 10;
/// Longest such time.
pub const DRAIN_MAX_S: u64 = 600;

/// Tells this run from others: dates are of the monotonic clock, which begins anew with the machine.
static RUN: LazyLock<u64> = LazyLock::new(|| u64::from(u32::from_le_bytes(random::bytes::<4>())));

/// What a member of a cluster said last.
#[derive(Clone, Debug, Default)]
pub struct MemberWord {
    /// When it was made at the earliest, on the monotonic clock: how old a word is must not change with the time of day, nor
    /// with how long it lay somewhere.
    made: Made,
    says: Says,
    since: u64,
    peers: Option<Vec<PeerWire>>,
    load: u64,
    /// Whom it has promised a lease, Fleet being away.
    promised: Option<String>,
    /// Where it is reached, and under which pin.
    pub address: Option<(String, String)>,
}

/// Dates the answer to a health.
pub fn date(answer: &mut HealthAnswerWire) {
    (answer.run, answer.date_ms) = (Some(*RUN), Some(clock::monotonic().as_millis() as u64));
}

/// When a health was made, as far as it says.
fn dated(wire: &DatedWire, now: Duration) -> Option<Duration> {
    let ms = Duration::from_millis;
    made_at(*RUN, now, &Dated { run: wire.run?, date: ms(wire.date_ms?), held: ms(wire.held_ms?) })
}

/// A [`Book`] on the disk.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct BookRow {
    epoch: u64,
    lease: Option<LeaseRow>,
    stop: Option<StopRow>,
    forgiven: Vec<PairRow>,
    lost: Vec<UntilRow>,
    over: Vec<String>,
    waiver: Option<UntilRow>,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct LeaseRow {
    holder: String,
    nonce: String,
    epoch: u64,
    granted_at: u64,
    expires: u64,
    stops: bool,
    back_at: Option<u64>,
    healthy_since: Option<u64>,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct StopRow {
    kind: String,
    code: String,
    detail: String,
    member: Option<String>,
    since: u64,
    by: Option<String>,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct PairRow {
    member: String,
    failure: String,
}

#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct UntilRow {
    member: String,
    until: u64,
    by: Option<String>,
}

impl BookRow {
    /// Of a book.
    pub fn of(book: &Book) -> BookRow {
        let lease = book.lease.clone().map(|l| LeaseRow {
            holder: l.holder,
            nonce: l.nonce,
            epoch: l.epoch,
            granted_at: l.granted_at,
            expires: l.expires,
            stops: l.stops,
            back_at: l.back_at,
            healthy_since: l.healthy_since,
        });
        let stop = book.stop.as_ref().map(|s| StopRow {
            kind: word(s.kind).into(),
            code: s.reason.code.to_string(),
            detail: s.reason.detail.clone(),
            member: s.member.clone(),
            since: s.since,
            by: s.by.clone(),
        });
        let waiver = book.waiver.clone().map(|w| UntilRow { member: w.member, until: w.until, by: Some(w.by) });
        BookRow {
            epoch: book.epoch,
            lease,
            stop,
            forgiven: book.forgiven.iter().map(|f| PairRow { member: f.member.clone(), failure: f.failure.clone() }).collect(),
            lost: book.lost.iter().map(|l| UntilRow { member: l.member.clone(), until: l.until, by: None }).collect(),
            over: book.over.clone(),
            waiver,
        }
    }

    /// What it holds.
    pub fn book(self) -> Book {
        let lease = self.lease.map(|l| Lease {
            holder: l.holder,
            nonce: l.nonce,
            epoch: l.epoch,
            granted_at: l.granted_at,
            expires: l.expires,
            stops: l.stops,
            back_at: l.back_at,
            healthy_since: l.healthy_since,
        });
        let kind = |text: &str| match text {
            "paused" => Kind::Paused,
            "aborted" => Kind::Aborted,
            // A word of a later version stops, too.
            _ => Kind::Halted,
        };
        let stop = self.stop.map(|s| Stop {
            kind: kind(&s.kind),
            reason: Reason::received(s.code, s.detail),
            member: s.member,
            since: s.since,
            by: s.by,
        });
        Book {
            epoch: self.epoch,
            lease,
            stop,
            forgiven: self.forgiven.into_iter().map(|f| Forgiven { member: f.member, failure: f.failure }).collect(),
            lost: self.lost.into_iter().map(|l| Lost { member: l.member, until: l.until }).collect(),
            over: self.over,
            waiver: self.waiver.map(|w| Waiver { member: w.member, until: w.until, by: w.by.unwrap_or_default() }),
        }
    }
}

/// The word of a stop.
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Paused => "paused",
        Kind::Aborted => "aborted",
        Kind::Halted => "halted",
    }
}

impl ClusterRow {
    /// What its operator chose.
    pub fn terms(&self) -> Terms {
        Terms { lease_s: LEASE_S, soak_s: self.soak_s.unwrap_or(SOAK_S).min(SOAK_MAX_S) }
    }

    /// How long a member's `/readyz` fails before it stops.
    pub fn drain_s(&self) -> u64 {
        self.drain_s.unwrap_or(DRAIN_S).min(DRAIN_MAX_S)
    }
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_leases(&mut self, rows: Vec<(String, BookRow)>) {
        self.policing.books = rows.into_iter().map(|(cluster, row)| (cluster, row.book())).collect();
    }

    /// What a member says of itself and of its peers. One that says how old that is, is believed as of then: what lay in a
    /// buffer while this process was frozen is no news.
    pub fn hear_member(&mut self, id: &str, health: &HealthWire, now: u64) {
        if self.cluster_of(id).is_none() {
            self.policing.words.remove(id);
            return;
        }
        let step = health.step.as_deref().unwrap_or_default();
        let says = match (health.running_as.as_deref(), step, health.stopping) {
            (Some("trial"), _, _) | (_, "switching" | "trial", _) => Says::Moving,
            (_, _, Some(true)) => Says::Draining,
            _ => Says::Serves,
        };
        let before = self.policing.words.get(id);
        let monotonic = clock::monotonic();
        let made = match &health.dated {
            Some(wire) => Made { at: dated(wire, monotonic), turn: health.started_at.map(|run| (run, wire.made_ms)) },
            None => Made { at: Some(monotonic), turn: None },
        };
        if before.is_some_and(|before| before.made.overtook(&made)) {
            return;
        }
        let since = before.filter(|word| word.says == says).map_or(now, |word| word.since);
        let address = health.url.clone().zip(health.pin.clone());
        let (peers, load, promised) = (health.peers.clone(), health.agents_online.unwrap_or(0), health.promised.clone());
        self.policing.words.insert(id.to_string(), MemberWord { made, says, since, peers, load, promised, address });
    }

    /// All members of a cluster, as they are known now.
    pub fn cluster_seen(&self, row: &ClusterRow, now: u64) -> Vec<Seen> {
        let monotonic = clock::monotonic();
        let ago = |at: Duration| now.saturating_sub(monotonic.saturating_sub(at).as_secs());
        row.members.iter().map(|id| self.member_seen(row, id, &ago)).collect()
    }

    fn member_seen(&self, row: &ClusterRow, id: &str, ago: &dyn Fn(Duration) -> u64) -> Seen {
        let known = self.policing.words.get(id);
        let word = known.cloned().unwrap_or_default();
        let others = || row.members.iter().filter(|other| *other != id);
        let said = |other: &String| {
            let word = self.policing.words.get(other)?;
            let of = word.peers.as_ref()?.iter().find(|peer| peer.id == id)?;
            Some(Word { peer: other.clone(), reached: of.reached, at: ago(word.made.at?).saturating_sub(of.age_s) })
        };
        // Its peers gave it a lease while Fleet was away: it may leave at any moment.
        let promised = |member: &String| {
            let word = self.policing.words.get(member).filter(|word| word.promised.as_deref() == Some(id));
            word.is_some_and(|word| word.made.at.is_some_and(|at| ago(at).saturating_add(SILENT_S) > ago(clock::monotonic())))
        };
        let promised = row.members.iter().any(promised);
        let agent = self.agents.get(id).filter(|agent| agent.removed_at.is_none());
        let order = self.order_in_force(id).map(|(order, _)| order);
        let switched = order.and_then(|order| order.step()).is_some_and(|step| step.has_switched());
        let trial = agent.is_some_and(|agent| agent.running_as == "trial");
        let failure = order.filter(|order| order.end().is_some_and(|end| end.is_failure()) && order.since >= row.created_at);
        Seen {
            id: id.to_string(),
            // A member that says how it is is known by that, one of an older version by its polls.
            heard_at: agent.map_or(0, |_| known.map_or_else(|| self.last_contact(id), |word| word.made.at.map_or(0, ago))),
            says: match word.says {
                _ if switched || trial => Says::Moving,
                Says::Serves if promised => Says::Draining,
                says => says,
            },
            since: word.since,
            words: others().filter_map(said).collect(),
            // A version that looks at its peers says where it is reached itself.
            peers_speak: others().any(|other| self.policing.words.get(other).is_some_and(|word| word.address.is_some())),
            failed: failure.map(|order| Failure {
                id: format!("{}/{}", order.rollout, order.generation),
                at: order.since,
                reason: Reason::received(order.code.clone(), order.detail.clone()),
            }),
            load: word.load,
            version: agent.map(|agent| agent.version.clone()).unwrap_or_default(),
        }
    }

    /// The leases of a cluster.
    pub fn book_of(&self, cluster: &str) -> Book {
        self.policing.books.get(cluster).cloned().unwrap_or_default()
    }

    /// Replaces a cluster's leases if they still are what the decision was made from: the one place where they change.
    pub fn swap_book(&mut self, cluster: &str, before: &Book, after: Book) -> bool {
        if self.book_of(cluster) != *before {
            return false;
        }
        if after != *before {
            self.put(Table::Leases, cluster.to_string(), &BookRow::of(&after));
            self.policing.books.insert(cluster.to_string(), after);
            let members = self.policing.clusters.get(cluster).map(|row| row.members.clone()).unwrap_or_default();
            members.iter().for_each(|member| self.policing.mark(member));
        }
        true
    }

    /// Decides about a cluster's leases with what is known now.
    ///
    /// # Errors
    /// `cluster_unknown`, and what `decide` refuses.
    pub fn with_book<T>(
        &mut self,
        cluster: &str,
        now: u64,
        decide: impl FnOnce(&mut Book, &View, &Terms) -> Result<T, Wait>,
    ) -> Result<T, Wait> {
        let plain = |reason: Reason| Wait { reason, who: None, since: None, until: None };
        let row = self.named_cluster(cluster).map_err(plain)?.clone();
        let seen = self.cluster_seen(&row, now);
        let before = self.book_of(&row.id);
        let mut after = before.clone();
        let done = decide(&mut after, &View { name: &row.name, members: &seen }, &row.terms());
        // One thread decides here: it cannot have changed. A store that several write to says so.
        match self.swap_book(&row.id, &before, after) {
            true => done,
            false => Err(Wait::plain("lease_raced", "another decision came between; ask again")),
        }
    }

    /// A member asks for the lease, or renews it.
    ///
    /// # Errors
    /// Why not now.
    pub fn ask_lease(&mut self, cluster: &str, ask: &Ask, now: u64) -> Result<Lease, Wait> {
        let before = self.book_of(cluster);
        let lease = self.with_book(cluster, now, |book, view, terms| book.ask(view, ask, terms, now))?;
        if lease.epoch > before.epoch {
            let detail = format!("epoch {}, until {}", lease.epoch, crate::core::time::format(lease.expires));
            self.event(now, ask.member, "lease_granted", detail, None);
        }
        if lease.stops && before.lease.as_ref().is_some_and(|before| !before.stops) {
            self.event(now, ask.member, "lease_stops", format!("epoch {}: it stops now", lease.epoch), None);
        }
        Ok(lease)
    }

    /// A member gives its lease back.
    ///
    /// # Errors
    /// Why it stays.
    pub fn release_lease(&mut self, cluster: &str, ask: &Ask, now: u64) -> Result<(), Wait> {
        let held = self.book_of(cluster).lease;
        self.with_book(cluster, now, |book, view, terms| book.release(view, ask, terms, now))?;
        if let Some(lease) = held.filter(|_| self.book_of(cluster).lease.is_none()) {
            self.event(now, &lease.holder, "lease_returned", format!("epoch {}", lease.epoch), None);
        }
        Ok(())
    }

    /// Whether a cluster's lease is this Fleet's to give: its members are enrolled here. Another Fleet of the same store sees the
    /// cluster, and knows nothing of how its members are.
    fn leads_cluster(&self, row: &ClusterRow) -> bool {
        row.members.iter().any(|member| self.agents.contains_key(member))
    }

    /// Whether a person may stop a cluster here, let it go on, or dissolve it.
    ///
    /// # Errors
    /// `cluster_unknown`, `cluster_elsewhere`.
    pub fn may_lead_cluster(&self, word: &str) -> Result<(), Reason> {
        let row = self.named_cluster(word)?;
        if self.leads_cluster(row) {
            return Ok(());
        }
        let detail = format!(
            "the members of cluster '{}' are enrolled at another Fleet of this store, which has its lease; do it there (here only its name \
             and its settings can be changed)",
            row.name
        );
        Err(Reason::new("cluster_elsewhere", detail))
    }

    /// Looks at every cluster: what ran out or failed halts.
    pub fn watch_clusters(&mut self, now: u64) {
        let ours = |row: &&ClusterRow| self.leads_cluster(row);
        let ids: Vec<String> = self.policing.clusters.values().filter(ours).map(|row| row.id.clone()).collect();
        for id in ids {
            let halted = self.with_book(&id, now, |book, view, _| Ok(book.observe(view, now))).ok().flatten();
            if let Some(stop) = halted {
                let name = self.policing.clusters.get(&id).map(|row| row.name.clone()).unwrap_or_default();
                self.event(
                    now,
                    stop.member.as_deref().unwrap_or_default(),
                    "cluster_halted",
                    format!("cluster '{name}': {}", stop.reason),
                    None,
                );
            }
        }
    }

    /// A person stops a cluster's roll-out, for a while or for good.
    ///
    /// # Errors
    /// `cluster_unknown`.
    pub fn stop_cluster(&mut self, word: &str, kind: Kind, because: &str, now: u64) -> Result<(), Reason> {
        let by = self.by.clone().unwrap_or_default();
        let row = self.named_cluster(word)?.clone();
        self.with_book(&row.id, now, |book, _, _| {
            book.pause(kind, &by, because, now);
            Ok(())
        })
        .map_err(|wait| wait.reason)?;
        if kind == Kind::Aborted {
            let begun = |id: &String| self.order_in_force(id).filter(|(order, _)| order.step().is_some_and(|s| !s.has_switched()));
            let orders: Vec<(u64, String)> = row.members.iter().filter_map(|id| Some((begun(id)?.0.rollout, id.clone()))).collect();
            let cancel = Cancel::new("the cluster's roll-out was ended by a person");
            for (rollout, member) in orders {
                self.cancel_row(rollout, &member, &cancel, now);
            }
        }
        let code = if kind == Kind::Aborted { "cluster_aborted" } else { "cluster_paused" };
        let because = if because.is_empty() { String::new() } else { format!(": {because}") };
        self.event(now, "", code, format!("cluster '{}'{because}", row.name), None);
        Ok(())
    }

    /// A person says that it goes on.
    ///
    /// # Errors
    /// `cluster_unknown`.
    pub fn resume_cluster(&mut self, word: &str, now: u64) -> Result<(), Reason> {
        let row = self.named_cluster(word)?.clone();
        self.with_book(&row.id, now, |book, view, _| {
            book.resume(view, now);
            Ok(())
        })
        .map_err(|wait| wait.reason)?;
        self.event(now, "", "cluster_resumed", format!("cluster '{}'", row.name), None);
        Ok(())
    }

    /// A person lets one member go whatever the others do. `sure`: he has read what it costs.
    ///
    /// # Errors
    /// `quorum_cost` with the cost, `lease_held`, `not_a_member`, `cluster_unknown`.
    pub fn waive_member(&mut self, word: &str, member: &str, sure: bool, because: &str, now: u64) -> Result<Cost, Reason> {
        let row = self.named_cluster(word)?.clone();
        let by = self.by.clone().unwrap_or_default();
        let cost = self.with_book(&row.id, now, |book, view, _| {
            let cost = view.cost(member, book, now);
            if !sure {
                return Err(Wait::plain("quorum_cost", format!("{}; --force takes this on", cost.sentence)));
            }
            book.waive(view, member, &by, now).map(|()| cost)
        });
        let cost = cost.map_err(|wait| wait.reason)?;
        let because = if because.is_empty() { String::new() } else { format!(": {because}") };
        self.event(now, member, "cluster_override", format!("{}{because}", cost.sentence), None);
        Ok(cost)
    }

    /// Drops the leases of a cluster that was dissolved for good: nothing of them is worth keeping.
    pub fn forget_leases(&mut self, cluster: &str) {
        self.policing.books.remove(cluster);
        self.delete(Table::Leases, cluster.to_string());
    }
}

#[cfg(test)]
mod tests {
    use miniserde::json;

    use super::*;

    #[test]
    fn a_date_goes_there_and_back() {
        let mut answer = HealthAnswerWire { ..Default::default() };
        date(&mut answer);
        let wire = DatedWire { made_ms: 9, run: answer.run, date_ms: answer.date_ms, held_ms: Some(2_000) };
        let then = Duration::from_millis(answer.date_ms.unwrap());
        assert_eq!(dated(&wire, then + Duration::from_secs(300)), Some(then + Duration::from_secs(2)));
        assert_eq!(dated(&DatedWire { run: None, ..wire }, then), None);
    }

    #[test]
    fn a_book_survives_the_disk() {
        let mut book = Book { epoch: 9, over: vec!["a".into()], ..Book::default() };
        book.lease = Some(Lease {
            holder: "d1".into(),
            nonce: "n".into(),
            epoch: 9,
            granted_at: 5,
            expires: 905,
            stops: true,
            back_at: Some(7),
            healthy_since: None,
        });
        book.pause(Kind::Aborted, "anna", "x", 3);
        book.forgiven = vec![Forgiven { member: "d2".into(), failure: "4/2".into() }];
        book.lost = vec![Lost { member: "d3".into(), until: 77 }];
        book.waiver = Some(Waiver { member: "d1".into(), until: 99, by: "anna".into() });
        let text = json::to_string(&BookRow::of(&book));
        assert_eq!(json::from_str::<BookRow>(&text).unwrap().book(), book);
    }
}
