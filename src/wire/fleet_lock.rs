//! The lease of a cluster on the wire: the FleetLock protocol, and beside its fields ours. Additive only.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/pre-reboot` | [`LockWire`] | 200 [`LockedWire`]: the lease is given, or renewed; 409 [`LockErrorWire`]: not now, and why |
//! | `POST /v1/steady-state` | [`LockWire`] | 200 [`LockedWire`]: no lease is held; 409 [`LockErrorWire`]: it stays, and why |
//!
//! Both carry the header `fleet-lock-protocol: true` and the Director's own credential: `id` is that Director, `group` its
//! cluster. A client that knows nothing of our fields is served: its lock is recursive, as the protocol says, and expires.
//! Times are relative, so that no two clocks need to agree.
//!
//! Members of a cluster speak it to each other, too, when Fleet is away ([`crate::core::cluster::peers`]): `Bearer ID~PROOF`, where
//! the proof is by the key of that member that Fleet told.

use miniserde::{Deserialize, Serialize};

/// The header of the protocol, and its value.
pub const HEADER: (&str, &str) = ("fleet-lock-protocol", "true");
/// Where a lease is asked for.
pub const PRE_REBOOT: &str = "/v1/pre-reboot";
/// Where it is given back.
pub const STEADY_STATE: &str = "/v1/steady-state";
/// Longest body and answer, bytes: a few names and numbers.
pub const LOCK_MAX: usize = 4 * 1024;

/// What a member asks.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LockWire {
    /// Who, and of which cluster.
    pub client_params: ClientWire,
    /// The same for all repetitions of one wish, random.
    pub nonce: Option<String>,
    /// The lease that is held; absent = none is known of.
    pub epoch: Option<u64>,
    /// How long it is needed from now on, seconds.
    pub needs_s: Option<u64>,
    /// `before` (it serves, or drains), `stop` (it stops as soon as it has the answer), `after` (it was away). Between members at
    /// `steady-state` also `resume`: a person says that it goes on.
    pub phase: Option<String>,
    /// Between members: the highest epoch that the asking one knows.
    pub known: Option<u64>,
    /// Between members: a person takes on what is not healthy.
    pub force: Option<bool>,
    /// Between members: it is back, and its update failed; why.
    pub failed: Option<String>,
}

/// FleetLock's own part.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClientWire {
    /// The Director's identity.
    pub id: String,
    /// Its cluster, by id or name.
    pub group: String,
}

/// It is granted.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LockedWire {
    /// Above all earlier leases of this cluster; absent = no lease is held any more.
    pub epoch: Option<u64>,
    /// Good for so long from the moment of the question on, seconds.
    pub ttl_s: Option<u64>,
    /// Fails `/readyz` so long before the stop, seconds.
    pub drain_s: Option<u64>,
}

/// It is not. `kind` and `value` are FleetLock's; `code` and `detail` are what every other error here has.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LockErrorWire {
    /// Stable code.
    pub kind: String,
    /// One sentence.
    pub value: String,
    /// As `kind`.
    pub code: String,
    /// As `value`.
    pub detail: String,
    /// Which member it is about.
    pub who: Option<String>,
    /// Since when, seconds since 1970.
    pub since: Option<u64>,
    /// When it ends by itself.
    pub until: Option<u64>,
}
