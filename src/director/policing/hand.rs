//! What Fleet says about a Director's agents: handed down as rows, each with Fleet's revision.
//!
//! A row of Fleet takes the place of this Director's row of the same scope when it is new at Fleet, and only then: what is
//! changed here afterwards stays until Fleet's row is changed again. So the newest word counts, whoever spoke it.

use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use super::rows::{PolicyChange, PolicyRow, Scope};
use crate::core::release::is_name;
use crate::director::records::{NAME_MAX, clean};
use crate::director::registry::Registry;
use crate::director::site::Site;
use crate::director::store::Table;
use crate::io::clock;
use crate::wire::agent_api::AnswerWire;
use crate::wire::fleet_api::TemplateWire;
use crate::wire::site_policy::ConfirmationWire;

/// Who is noted in the activity for what Fleet handed down.
pub const BY_FLEET: &str = "fleet";

/// The settings document of a Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HandedWire {
    /// The organization's default for all agents.
    pub organization: Option<PolicyRow>,
    /// For the agents of this Director.
    pub director: Option<PolicyRow>,
    /// For single agents of it; the scope is `node/ID`.
    pub nodes: Option<Vec<PolicyRow>>,
    /// The cluster that it is in, whose word for its members' agents stands in the place of `director`; absent = none.
    pub cluster: Option<HandedClusterWire>,
    /// Enrollment templates of it.
    pub templates: Option<Vec<TemplateWire>>,
    /// Confirmations for agents of it, those that ended lately with them.
    pub confirmations: Option<Vec<ConfirmationWire>>,
}

/// A Director's cluster.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HandedClusterWire {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For the agents of its members; nothing typed when nobody has said anything.
    pub agents: PolicyRow,
}

impl Registry {
    /// At Fleet: what is said about a Director's agents, and the revision of the newest of it; 0 = nothing was ever said.
    pub fn handed_to(&self, director: &str, now: u64) -> (u64, HandedWire) {
        let row = |scope: &Scope| self.policing.rows.get(&scope.key()).cloned();
        let prefix = format!("{}/", Scope::AgentsOf(director.to_string()).key());
        let below = self.policing.rows.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let nodes: Vec<PolicyRow> =
            below.map(|(key, row)| PolicyRow { scope: format!("node/{}", &key[prefix.len()..]), ..row.clone() }).collect();
        let templates = Some(self.templates_of(director)).filter(|list| !list.is_empty());
        let of_director = row(&Scope::AgentsOf(director.to_string()));
        let confirmations = Some(self.confirmations_of(director, now)).filter(|list| !list.is_empty());
        let cluster = self.cluster_of(director).map(|of| {
            let agents = row(&Scope::AgentsOfCluster(of.id.clone())).unwrap_or_default();
            HandedClusterWire { id: of.id.clone(), name: of.name.clone(), agents }
        });
        let organization = row(&Scope::Agents);
        let wire = HandedWire { organization, director: of_director, nodes: Some(nodes), cluster, templates, confirmations };
        (self.handed_revision(director), wire)
    }

    /// At Fleet: the revision alone.
    pub fn handed_revision(&self, director: &str) -> u64 {
        let below = Scope::AgentsOf(director.to_string()).key();
        let rows = self.policing.rows.range(format!("{below}/")..).take_while(|(key, _)| key.starts_with(&format!("{below}/")));
        let cluster = self.cluster_of(director);
        let of_cluster = cluster.map(|row| Scope::AgentsOfCluster(row.id.clone()).key());
        let shared = [Some(Scope::Agents.key()), Some(below.clone()), of_cluster];
        let shared = shared.iter().flatten().filter_map(|key| self.policing.rows.get(key));
        let templates = self.policing.templates.values().filter(|row| row.director == director).map(|row| row.wire.revision);
        let all = rows.map(|(_, row)| row).chain(shared).map(|row| row.revision).chain(templates);
        all.chain(self.confirmed_revision(director)).chain(cluster.map(|row| row.revision)).max().unwrap_or(0)
    }

    /// At Fleet: adds to an answer that there are settings which this Director has not been told of. If this answer is lost,
    /// the next one to its health says so again.
    pub fn tell_handed(&mut self, director: &str, answer: &mut AnswerWire) {
        let revision = self.handed_revision(director);
        // It has left a cluster, and nothing else was ever said: that is a word, too.
        let spoken = revision > 0 || self.handed_told.contains_key(director);
        if spoken && self.handed_told.get(director) != Some(&revision) {
            self.handed_told.insert(director.to_string(), revision);
            answer.settings_revision = Some(revision);
        }
    }

    /// At a Director: an agent is new here; what Fleet said of it before counts at once.
    pub(in crate::director) fn take_handed_for(&mut self, id: &str, now: u64) {
        let scope = Scope::Node(id.to_string()).key();
        let Some(handed) = self.handed_down.clone() else { return };
        if handed.nodes.iter().flatten().any(|row| row.scope == scope) {
            self.take_handed(&handed, now);
        }
    }

    /// At a Director: puts what is new of it in force. What cannot be is told, and the rest counts.
    pub fn take_handed(&mut self, handed: &HandedWire, now: u64) {
        self.handed_down = Some(handed.clone());
        if let Some(templates) = &handed.templates {
            self.take_templates(templates, now);
        }
        // The next pass takes them, when the settings that came with them are in force.
        self.policing.handed_confirmations = handed.confirmations.clone().unwrap_or_default();
        let own = |row: &PolicyRow| row.scope.strip_prefix("node/").filter(|id| is_name(id)).map(|id| Scope::Node(id.to_string()));
        let organization = handed.organization.iter().map(|row| (Scope::Organization, row));
        self.take_cluster(handed.cluster.as_ref(), now);
        // Its own default rests while it is in a cluster.
        let director = handed.director.iter().filter(|_| handed.cluster.is_none()).map(|row| (Scope::Default, row));
        let cluster = handed.cluster.iter().map(|of| (Scope::ClusterDefault, &of.agents));
        let nodes = handed.nodes.iter().flatten().filter_map(|row| Some((own(row)?, row)));
        for (scope, row) in organization.chain(cluster).chain(director).chain(nodes) {
            // An agent that is not enrolled here yet gets it when it is.
            if matches!(&scope, Scope::Node(id) if self.known(id).is_err()) {
                continue;
            }
            let key = scope.key();
            if self.policing.rows.get(&key).is_some_and(|have| have.handed == Some(row.revision)) {
                continue;
            }
            let change = PolicyChange { set: row.settings.clone(), replace: true, custom: Some(row.custom), ..Default::default() };
            self.by = Some(BY_FLEET.into());
            let set = self.set_policy(&scope, &change, now);
            self.by = None;
            match set {
                Ok(set) => {
                    let kept = PolicyRow { handed: Some(row.revision), ..set };
                    self.put(Table::Policies, key.clone(), &kept);
                    self.policing.rows.insert(key, kept);
                }
                Err(reason) => self.event(now, "", "policy_refused", format!("Fleet's settings of {key}: {reason}"), None),
            }
        }
    }
}

impl Registry {
    /// Whether this Director is in a cluster: its row is there from the first word on, also when nothing is typed in it.
    fn take_cluster(&mut self, cluster: Option<&HandedClusterWire>, now: u64) {
        let key = Scope::ClusterDefault.key();
        self.policing.handed_cluster = cluster.map(|of| (clean(&of.id, NAME_MAX), clean(&of.name, NAME_MAX)));
        let there = self.policing.rows.contains_key(&key);
        match cluster {
            Some(of) if !there => {
                let name = clean(&of.name, NAME_MAX);
                let row = PolicyRow { scope: key.clone(), changed_at: now, by: BY_FLEET.into(), ..Default::default() };
                self.put(Table::Policies, key.clone(), &row);
                self.policing.rows.insert(key, row);
                self.event(
                    now,
                    "",
                    "cluster_joined",
                    format!("'{name}': its default for the agents counts in the place of this Director's own"),
                    None,
                );
            }
            None if there => {
                self.policing.rows.remove(&key);
                self.policing.layers.remove(&key);
                self.delete(Table::Policies, key);
                self.event(now, "", "cluster_left", "this Director's own default for its agents counts again", None);
            }
            _ => return,
        }
        self.policing.mark_all();
    }
}

/// Puts Fleet's settings in force whenever they are new.
pub async fn follow(site: Rc<Site>) {
    loop {
        let settings = site.uplink.settings.borrow().clone();
        let document = settings.and_then(|s| s.document.as_ref().map(json::to_string));
        if let Some(handed) = document.and_then(|text| json::from_str::<HandedWire>(&text).ok()) {
            site.registry.borrow_mut().take_handed(&handed, clock::unix());
            site.flush();
            site.planner.ring();
        }
        site.uplink.settled.wait().await;
    }
}
