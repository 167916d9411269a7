//! Clusters as records: a name, members, one policy in the place of the members' own.
//!
//! Whoever orders, a member gets its order only when it is its turn ([`Registry::cluster_turn`]), and stops for it only under
//! the cluster's lease ([`super::leases`]).

use miniserde::{Deserialize, Serialize};

use super::leases::{DRAIN_MAX_S, DRAIN_S};
use super::rows::{PolicyRow, Scope};
use crate::core::cluster;
use crate::core::cluster::lease::{SOAK_MAX_S, SOAK_S};
use crate::core::cluster::member::State;
use crate::core::cluster::plan::View;
use crate::core::reason::Reason;
use crate::director::records::{NAME_MAX, Order, clean};
use crate::director::registry::Registry;
use crate::director::store::Table;

/// Most clusters: as many as a thousand Directors can make.
pub const CLUSTERS_MAX: usize = 333;
/// Waits of a member for its turn.
const WAITS_FOR_TURN: [&str; 5] = ["cluster_turn", "first_agent", "in_flight_limit", "lease_held", "waiting"];
/// What is told wherever a cluster is shown.
pub const NOTE: &str = "Members are updated one at a time, the one with the fewest agents first, each under a lease that is given only while \
                        all others are healthy. `cluster show` says who is next, or why nobody is.";

/// A cluster.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClusterRow {
    /// Made by the server.
    pub id: String,
    /// For people; its own.
    pub name: String,
    /// Directors by id, sorted.
    pub members: Vec<String>,
    /// Rises with every change in this store, together with those of settings.
    pub revision: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed it last.
    pub by: String,
    /// How long a member's `/readyz` fails before it stops, seconds; absent = the default.
    pub drain_s: Option<u64>,
    /// How long a member is watched before the next one goes, seconds; absent = the default.
    pub soak_s: Option<u64>,
}

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterChange {
    /// Another name.
    pub name: Option<String>,
    /// Other members.
    pub members: Option<Vec<String>>,
    /// The revision that the change was made from.
    pub expected: Option<u64>,
    /// Another time of draining.
    pub drain_s: Option<u64>,
    /// Another watch.
    pub soak_s: Option<u64>,
}

/// A member as it is shown.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct MemberView {
    /// Its id.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Running version.
    pub version: String,
    /// Heard of within the last minutes.
    pub online: bool,
    /// An order of its is under way.
    pub updating: bool,
    /// A word of [`crate::core::cluster::member::State`].
    pub state: String,
    /// Why it is not healthy.
    pub detail: Option<String>,
    /// Since when it stands so, seconds since 1970, as far as that is known.
    pub since: Option<u64>,
    /// When that ends at the latest: its lease's end, where it has one.
    pub until: Option<u64>,
    /// The members that reached it lately.
    pub reached_by: Vec<String>,
    /// Those that tried in vain.
    pub not_reached_by: Vec<String>,
    /// Its place in the order of updates, from 1: the fewest agents first.
    pub turn: u64,
    /// Agents that are online there.
    pub load: u64,
}

impl MemberView {
    /// Whoever Fleet does not hear is down, however long it may be connected still.
    pub fn is_up(&self) -> bool {
        self.online && [State::Silent, State::Expired].iter().all(|gone| gone.word() != self.state)
    }
}

/// A cluster as it is shown.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClusterView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `2 up 1 down`.
    pub status: String,
    /// More than half of the members are up.
    pub quorum: bool,
    /// Its members.
    pub members: Vec<MemberView>,
    /// Its Custom Policy is on.
    pub custom: bool,
    /// For changes.
    pub revision: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed it last.
    pub by: String,
    /// Why nobody goes now, or `ready`; stable code.
    pub code: String,
    /// The same for people.
    pub detail: String,
    /// `paused`, `aborted`, `halted`; absent = it goes on.
    pub stopped: Option<String>,
    /// Since when.
    pub stopped_at: Option<u64>,
    /// Which person stopped it.
    pub stopped_by: Option<String>,
    /// The member that has the update lease.
    pub holder: Option<String>,
    /// Number of the newest lease.
    pub epoch: u64,
    /// Until when it is good, seconds since 1970.
    pub expires: Option<u64>,
    /// Since when its holder has it, seconds since 1970.
    pub granted_at: Option<u64>,
    /// Its holder may be away: the stop was allowed.
    pub stops: bool,
    /// Its holder is back and well: when it was watched for long enough.
    pub soaks_until: Option<u64>,
    /// How long a member's `/readyz` fails before it stops, seconds.
    pub drain_s: u64,
    /// How long a member is watched before the next one goes, seconds.
    pub soak_s: u64,
}

/// All of them, or one.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClustersView {
    /// By name.
    pub clusters: Vec<ClusterView>,
    /// What happens to members.
    pub note: String,
    /// Server's time.
    pub time: u64,
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_clusters(&mut self, rows: Vec<ClusterRow>) {
        self.policing.clusters = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.index_clusters();
    }

    pub(super) fn index_clusters(&mut self) {
        let of = |row: &ClusterRow| row.members.iter().map(|m| (m.clone(), row.id.clone())).collect::<Vec<_>>();
        self.policing.cluster_of = self.policing.clusters.values().flat_map(of).collect();
    }

    /// The cluster that a node is in.
    pub fn cluster_of(&self, node: &str) -> Option<&ClusterRow> {
        self.policing.clusters.get(self.policing.cluster_of.get(node)?)
    }

    /// A cluster by its id or name.
    ///
    /// # Errors
    /// `cluster_unknown`.
    pub fn named_cluster(&self, word: &str) -> Result<&ClusterRow, Reason> {
        let all = &self.policing.clusters;
        let found = all.get(word).or_else(|| all.values().find(|row| row.name.eq_ignore_ascii_case(word)));
        found.ok_or_else(|| {
            Reason::new("cluster_unknown", format!("there is no cluster '{}'; `cluster list` shows them", clean(word, NAME_MAX)))
        })
    }

    /// Makes a cluster.
    ///
    /// # Errors
    /// `name_invalid`, `name_taken`, `clusters_full`, and those of [`cluster::members`].
    pub fn create_cluster(&mut self, id: &str, name: &str, members: &[String], now: u64) -> Result<ClusterRow, Reason> {
        if self.policing.clusters.len() >= CLUSTERS_MAX {
            return Err(Reason::new("clusters_full", format!("there are {CLUSTERS_MAX} clusters; remove some")));
        }
        let name = self.free_name(name, None)?;
        let members = self.fit_members(members, None)?;
        let row = ClusterRow { id: id.into(), name, members, created_at: now, ..Default::default() };
        let what = format!("cluster '{}' made of {}", row.name, row.members.join(", "));
        Ok(self.keep_cluster(row, "cluster_created", what, now))
    }

    /// Changes a cluster's name or members.
    ///
    /// # Errors
    /// `cluster_unknown`, `revision_conflict`, `cluster_elsewhere`, and those of [`Registry::create_cluster`].
    pub fn change_cluster(&mut self, word: &str, change: &ClusterChange, now: u64) -> Result<ClusterRow, Reason> {
        let before = self.named_cluster(word)?.clone();
        self.is_at(&before, change.expected)?;
        let name = match &change.name {
            Some(name) => self.free_name(name, Some(&before.id))?,
            None => before.name.clone(),
        };
        let members = match &change.members {
            Some(members) => self.fit_members(members, Some(&before.id))?,
            None => before.members.clone(),
        };
        let (drain_s, soak_s) = (change.drain_s.or(before.drain_s), change.soak_s.or(before.soak_s));
        if drain_s.is_some_and(|s| s > DRAIN_MAX_S) || soak_s.is_some_and(|s| s > SOAK_MAX_S) {
            let detail = format!("drain: at most {DRAIN_MAX_S} s; soak: at most {SOAK_MAX_S} s");
            return Err(Reason::new("cluster_times_invalid", detail));
        }
        if name == before.name && members == before.members && drain_s == before.drain_s && soak_s == before.soak_s {
            return Ok(before);
        }
        if members != before.members {
            self.may_lead_cluster(&before.id)?;
        }
        if members != before.members && self.book_of(&before.id).lease.is_some() {
            let detail = "members: one of them has the update lease; wait until it gave it back, or `cluster resume` if it ran out";
            return Err(Reason::new("lease_held", detail));
        }
        let named = if name == before.name { String::new() } else { format!("name '{}' -> '{name}' ", before.name) };
        let gone = before.members.iter().filter(|m| !members.contains(m)).map(|m| format!("-{m}"));
        let came = members.iter().filter(|m| !before.members.contains(m)).map(|m| format!("+{m}"));
        let moved: Vec<String> = came.chain(gone).collect();
        let moved = if moved.is_empty() { String::new() } else { format!("members {}", moved.join(" ")) };
        self.mark_members(&before.id);
        let times = match (drain_s, soak_s) == (before.drain_s, before.soak_s) {
            true => String::new(),
            false => format!(" drain {} s, soak {} s", drain_s.unwrap_or(DRAIN_S), soak_s.unwrap_or(SOAK_S)),
        };
        let what = format!("{named}{moved}{times}").trim().to_string();
        Ok(self.keep_cluster(ClusterRow { name, members, drain_s, soak_s, ..before }, "cluster_changed", what, now))
    }

    /// Dissolves a cluster; its members' own settings count again. Its leases stay until that is certain: what is undone goes on
    /// with them ([`Registry::forget_leases`]).
    ///
    /// # Errors
    /// `cluster_unknown`, `revision_conflict`.
    pub fn remove_cluster(&mut self, word: &str, expected: Option<u64>, now: u64) -> Result<ClusterRow, Reason> {
        let row = self.named_cluster(word)?.clone();
        self.is_at(&row, expected)?;
        self.mark_members(&row.id);
        self.policing.clusters.remove(&row.id);
        for scope in [Scope::Cluster(row.id.clone()), Scope::AgentsOfCluster(row.id.clone())] {
            self.policing.layers.remove(&scope.key());
            self.policing.rows.remove(&scope.key());
            self.delete(Table::Policies, scope.key());
        }
        self.hand_out = true;
        self.delete(Table::Clusters, row.id.clone());
        self.index_clusters();
        let by = self.by.clone().unwrap_or_default();
        let gone = ClusterRow { revision: self.policy_revision() + 1, changed_at: now, by, ..row };
        self.note_cluster(&gone, "cluster_removed", format!("cluster '{}' dissolved", gone.name), now);
        Ok(gone)
    }

    fn is_at(&self, row: &ClusterRow, expected: Option<u64>) -> Result<(), Reason> {
        match expected.filter(|expected| *expected != row.revision) {
            Some(expected) => Err(self.conflict(&Scope::Cluster(row.id.clone()).key(), row.revision, expected)),
            None => Ok(()),
        }
    }

    fn free_name(&self, text: &str, of: Option<&str>) -> Result<String, Reason> {
        let name = cluster::name(text)?;
        let taken = |row: &&ClusterRow| Some(row.id.as_str()) != of && (row.name.eq_ignore_ascii_case(&name) || row.id == name);
        match self.policing.clusters.values().find(taken) {
            Some(_) => Err(Reason::new("name_taken", format!("name: there is a cluster '{name}' already"))),
            None => Ok(name),
        }
    }

    fn fit_members(&self, words: &[String], of: Option<&str>) -> Result<Vec<String>, Reason> {
        let named = |word: &String| self.named_agent(word).unwrap_or_else(|_| clean(word, NAME_MAX));
        let mut members: Vec<String> = words.iter().take(cluster::MEMBERS_MAX + 1).map(named).collect();
        let other = |id: &str| self.cluster_of(id).filter(|row| Some(row.id.as_str()) != of).map(|row| row.name.clone());
        cluster::members(&members, &|id| self.known(id).is_ok().then(|| other(id)))?;
        members.sort();
        Ok(members)
    }

    fn keep_cluster(&mut self, row: ClusterRow, code: &str, what: String, now: u64) -> ClusterRow {
        let row = ClusterRow { changed_at: now, by: self.by.clone().unwrap_or_default(), revision: self.policy_revision() + 1, ..row };
        self.put(Table::Clusters, row.id.clone(), &row);
        self.policing.clusters.insert(row.id.clone(), row.clone());
        self.index_clusters();
        self.mark_members(&row.id);
        // What counts for the members' agents may be another word now.
        self.hand_out = true;
        self.note_cluster(&row, code, what, now);
        row
    }

    /// A change of members is a change of what counts for them: it is in the history of settings, too.
    fn note_cluster(&mut self, row: &ClusterRow, code: &str, what: String, now: u64) {
        self.event(now, "", code, what.clone(), None);
        let scope = Scope::Cluster(row.id.clone()).key();
        let settings = self.policing.rows.get(&scope).cloned().unwrap_or_default();
        let after = PolicyRow { scope, revision: row.revision, changed_at: now, by: row.by.clone(), ..settings };
        self.keep_change(&after.clone(), &after, what);
    }

    /// Its members' decisions may be others now.
    pub(super) fn mark_members(&mut self, cluster: &str) {
        let members = self.policing.clusters.get(cluster).map(|row| row.members.clone()).unwrap_or_default();
        members.iter().for_each(|member| self.policing.mark(member));
    }

    /// Whether a scope may have settings of its own.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `cluster_unknown`, `policy_of_cluster`.
    pub(super) fn may_have_policy(&self, scope: &Scope) -> Result<(), Reason> {
        match scope {
            Scope::Cluster(id) | Scope::AgentsOfCluster(id) => self.named_cluster(id).map(drop),
            Scope::Node(id) => self.known(id).map(drop),
            _ => Ok(()),
        }?;
        let Some((id, name, owner)) = self.owned_by_cluster(scope) else { return Ok(()) };
        let how = match owner {
            Scope::Cluster(_) => self.role.command(&format!("policy set --cluster {id}")),
            // Fleet's word, also where a Director is asked.
            _ => format!("vmetric-fleet policy set --agents --cluster {id}"),
        };
        let whose = match scope {
            Scope::Node(node) | Scope::AgentsOf(node) => node.clone(),
            _ => "this Director".into(),
        };
        let detail = format!("{whose} is a member of cluster '{name}': its policy belongs to the cluster; change it there: `{how}`");
        Err(Reason::new("policy_of_cluster", detail))
    }

    /// The cluster whose policy stands in the place of a scope's own, and where that one is: id, name, scope.
    pub(super) fn owned_by_cluster(&self, scope: &Scope) -> Option<(String, String, Scope)> {
        match scope {
            Scope::Node(node) => self.cluster_of(node).map(|row| (row.id.clone(), row.name.clone(), Scope::Cluster(row.id.clone()))),
            Scope::AgentsOf(node) => {
                self.cluster_of(node).map(|row| (row.id.clone(), row.name.clone(), Scope::AgentsOfCluster(row.id.clone())))
            }
            Scope::Default if self.default_scope() == Scope::ClusterDefault => {
                let (id, name) = self.policing.handed_cluster.clone().unwrap_or_default();
                Some((id, name, Scope::ClusterDefault))
            }
            _ => None,
        }
    }

    /// Whether a node may be removed or replaced by itself.
    ///
    /// # Errors
    /// `cluster_member`.
    pub fn may_leave(&self, node: &str) -> Result<(), Reason> {
        let Some(row) = self.cluster_of(node) else { return Ok(()) };
        let detail = format!("{node} is a member of cluster '{}'; take it out of the cluster first, or remove the cluster", row.name);
        Err(Reason::new("cluster_member", detail))
    }

    /// Why a member of a cluster is not ordered now: another one is under way or has the lease, one is not healthy, it is
    /// stopped, or another one goes first.
    pub fn cluster_turn(&self, node: &str, now: u64) -> Option<Reason> {
        let row = self.cluster_of(node)?;
        let others = || row.members.iter().filter(|member| *member != node && self.known(member).is_ok());
        if let Some(other) = others().find(|other| self.is_moving(other)) {
            let detail = format!("{other} of cluster '{}' is being updated; one member at a time", row.name);
            return Some(Reason::new("cluster_turn", detail));
        }
        let (seen, book) = (self.cluster_seen(row, now), self.book_of(&row.id));
        let wanting: Vec<String> = others().filter(|other| self.wants_its_turn(other, node)).cloned().collect();
        View { name: &row.name, members: &seen }.is_next(node, &book, &wanting, now).err().map(|wait| wait.reason)
    }

    /// Whether nothing but its turn keeps a member from being ordered. A file that is being fetched for both of them does not:
    /// whichever of them were looked at first after its arrival would go.
    fn wants_its_turn(&self, node: &str, beside: &str) -> bool {
        let platform = |id: &str| self.agents.get(id).map(|agent| (agent.os.clone(), agent.architecture.clone()));
        let fetched = |order: &Order| order.code == "file_not_here" && platform(node) == platform(beside);
        let running = self.rollouts.values().filter(|rollout| rollout.state == "running");
        let waits = |order: &Order| {
            let turn = order.code.is_empty()
                || WAITS_FOR_TURN.contains(&order.code.as_str())
                || order.code.starts_with("cluster_member_")
                || fetched(order);
            order.step().is_none() && order.end().is_none() && turn
        };
        running.filter_map(|rollout| self.orders.get(&(rollout.id, node.to_string()))).any(waits)
    }

    pub(super) fn is_moving(&self, node: &str) -> bool {
        self.order_in_force(node).is_some_and(|(order, _)| order.step().is_some())
    }

    /// Clusters for people and programs; `word` = only this one.
    ///
    /// # Errors
    /// `cluster_unknown`.
    pub fn clusters_view(&self, word: Option<&str>, now: u64) -> Result<ClustersView, Reason> {
        let rows: Vec<&ClusterRow> = match word {
            Some(word) => vec![self.named_cluster(word)?],
            None => self.policing.clusters.values().collect(),
        };
        let mut clusters: Vec<ClusterView> = rows.into_iter().map(|row| self.cluster_view(row, now)).collect();
        clusters.sort_by(|a, b| (a.name.to_lowercase(), &a.id).cmp(&(b.name.to_lowercase(), &b.id)));
        Ok(ClustersView { clusters, note: NOTE.into(), time: now })
    }
}
