//! What Fleet told of the cluster, on this member's disk: without Fleet the members know each other by it.

use crate::core::cluster::lease::{LEASE_S, SOAK_MAX_S, SOAK_S, Terms};
use crate::core::reason::Reason;
use crate::io::state::State;
use crate::wire::fleet_api::{ClusterMemberWire, ClusterWire};

/// Where it is.
const FILE: &str = "storage/cluster-told.json";

/// What was told last; `None` = it is in no cluster.
///
/// # Errors
/// That of the file.
pub fn read(state: &State) -> Result<Option<ClusterWire>, Reason> {
    state.read(FILE)
}

/// Makes it durable when what lasts of it is news: who the members are, where, by which keys, and whether somebody stopped it.
pub fn keep(state: &State, before: Option<&ClusterWire>, told: Option<&ClusterWire>) {
    if before.map(lasting) == told.map(lasting) {
        return;
    }
    let kept = match told {
        Some(told) => state.write(FILE, &lasting(told)),
        None => state.remove(FILE),
    };
    if let Err(reason) = kept {
        log::error!("{reason}");
    }
}

fn lasting(told: &ClusterWire) -> ClusterWire {
    let member = |m: &ClusterMemberWire| ClusterMemberWire { state: String::new(), detail: None, load: 0, ..m.clone() };
    let mut members: Vec<ClusterMemberWire> = told.members.iter().map(member).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    ClusterWire { members, code: None, detail: None, holder: None, expires: None, ..told.clone() }
}

/// What the cluster's operator chose.
pub fn terms(told: &ClusterWire) -> Terms {
    Terms { lease_s: LEASE_S, soak_s: told.soak_s.unwrap_or(SOAK_S).min(SOAK_MAX_S) }
}
