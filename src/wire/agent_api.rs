//! The protocol between agent and managing Director, version 1 (frozen: additive only, see FROZEN.md).
//!
//! All over HTTPS, opened by the agent, JSON bodies, `Authorization: Bearer <credential>~<proof>` after enrollment; the proof
//! ([`crate::core::proof`]) is there when the device enrolled with a key.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/enroll` | [`EnrollWire`] | 200 [`EnrolledWire`]; 401, 403, 409 [`ErrorWire`] |
//! | `POST /agent/v1/report` | [`ReportWire`] | 200 [`AnswerWire`], at once |
//! | `POST /agent/v1/poll` | [`ReportWire`] | 200 [`AnswerWire`], parked up to `park_s` until there is something to say |
//! | `GET /release/metadata/<file>` | | a file of the mirrored release tree |
//! | `GET /release/targets/<path>` | | an artifact, with `Range` and `ETag`; 429 with `Retry-After` when throttled |
//!
//! A poll is answered at once when the order for this agent differs from the (`issuer`, `generation`) it reports, when a
//! result waits to be taken, or when a trial asks for its acknowledgement. Every message may arrive twice.

use miniserde::{Deserialize, Serialize};

/// Protocol version in every report.
pub const PROTOCOL: u32 = 1;
/// Longest JSON body in either direction, bytes. A report is about 1.5 KB; a hostile peer gets no more.
pub const BODY_MAX: usize = 16 * 1024;
/// Longest park a poll may ask for, seconds: under the 60 s after which common proxies cut idle connections.
pub const PARK_MAX_S: u64 = 58;

/// Most rejected files in a report: an operator looks at the newest; the report stays far below [`BODY_MAX`].
pub const REJECTS_MAX: usize = 8;

/// First words of a device. The token is spent by it.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct EnrollWire {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// One-time or counted token from `vmetric-director token create`.
    pub token: String,
    /// Host name, for people; not trusted, not unique.
    pub hostname: String,
    /// `linux`, `windows`, `darwin`.
    pub os: String,
    /// `amd64`, `arm64`, `armv7`.
    pub architecture: String,
    /// Version of the running file.
    pub version: String,
    /// The device's public key, Ed25519, hex. The same key again is the same device: a lost answer costs nothing.
    pub device_key: Option<String>,
    /// Its signature over the token ([`crate::core::proof`]): whoever enrolls has the private half.
    pub proof: Option<String>,
    /// Serial number, for tokens that are bound to some.
    pub serial: Option<String>,
    /// Which program enrolls, `vmetric-agent` or `vmetric-director`; absent: one from before this field.
    pub product: Option<String>,
}

/// Code of the refusal to a device that an operator has to approve first (403 with `Retry-After`): it asks again, with the
/// same key and token, and holds no credential until then.
pub const APPROVAL_PENDING: &str = "approval_pending";

/// Longest serial number, bytes.
pub const SERIAL_MAX: usize = 64;

/// What an enrolled device keeps.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct EnrolledWire {
    /// Identity in the site's registry, `a-z0-9-`, at most 64 bytes.
    pub agent_id: String,
    /// Bearer credential, signed by the site CA's key; secret.
    pub credential: String,
    /// The issuer of orders (the store's random id, shared by a cluster).
    pub issuer: String,
    /// Director's time, seconds since 1970.
    pub time: u64,
}

/// Every answer that is not 200 has this body.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ErrorWire {
    /// Stable code, `snake_case`: `token_expired`, `credential_unknown`, `throttled`, ...
    pub code: String,
    /// What is wrong and what to do, one sentence.
    pub detail: String,
}

/// What an agent says of itself. `version`, `scheduled_version`, `architecture`, `os` are the specification's health fields.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ReportWire {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// From enrollment; must match the credential.
    pub agent_id: String,
    /// Version of the running file.
    pub version: String,
    /// Target version, from trigger to completion; absent otherwise.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: String,
    /// `linux`, ...
    pub os: String,
    /// Host name, for people.
    pub hostname: String,

    /// What runs: `a`, `b`, `factory`.
    pub running: String,
    /// SHA-256 of the running file, lower-case hex, taken by the process itself from its own file.
    pub running_sha256: String,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: String,
    /// Version in the slot that is not running, if it holds one that could be started.
    pub fallback_version: Option<String>,

    /// Issuer of the last order accepted; empty = none yet.
    pub issuer: String,
    /// Generation of the last order accepted.
    pub generation: u64,
    /// `idle`, `waiting`, `downloading`, `staged`, `switching`, `trial`, `reported`.
    pub step: String,
    /// Why it waits or what it does; stable code.
    pub code: String,
    /// The same for people.
    pub detail: String,
    /// When the reason to wait ends, seconds since 1970 by this device's clock; absent = when the cause goes away.
    pub until: Option<u64>,
    /// Bytes of the ordered file on disk.
    pub bytes_done: u64,
    /// Length of the ordered file.
    pub bytes_total: u64,

    /// A process on trial asks the authority for its acknowledgement with this nonce (hex, 16 bytes).
    pub trial_nonce: Option<String>,
    /// SHA-256 of the file on trial.
    pub trial_sha256: Option<String>,
    /// The same nonce from the first report on, also while the self-check cannot tell yet: what a refusal echoes.
    pub trial_process: Option<String>,

    /// A result that waits to be taken; repeated until [`AnswerWire::result_taken`] names its id.
    pub result: Option<ResultWire>,

    /// Trusted metadata versions.
    pub root_version: u64,
    /// Trusted timestamp version.
    pub timestamp_version: u64,
    /// Trusted snapshot version.
    pub snapshot_version: u64,
    /// Trusted targets version.
    pub targets_version: u64,
    /// `ok`, `unsure` (before the floor), `ahead` (over a day ahead of the Director).
    pub clock: String,
    /// This device's clock, seconds since 1970.
    pub time: u64,
    /// How long a poll may be parked, seconds, at most [`PARK_MAX_S`].
    pub park_s: u64,
    /// How many hashes this agent rejects.
    pub rejected: u64,
    /// Pins under which a connection of this agent has succeeded, or that a person gave.
    pub pins: Option<Vec<String>>,
    /// The newest of them, at most [`REJECTS_MAX`]; absent = none, or an agent that does not say.
    pub rejects: Option<Vec<RejectWire>>,
    /// This boot of the device. With [`ReportWire::sent_us`] it tells a late or doubled report from the newest one.
    pub boot_id: Option<String>,
    /// Which members of the Director's cluster it knows ([`crate::core::failover::sum`]); absent = none.
    pub members: Option<String>,
    /// Microseconds of the device's monotonic clock when this was written; rises within a boot.
    pub sent_us: Option<u64>,
}

/// A file that an agent does not try, as it tells its Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct RejectWire {
    /// SHA-256, hex.
    pub sha256: String,
    /// Version, for people.
    pub version: String,
    /// `bad` or `could_not_tell`.
    pub verdict: String,
    /// Why; stable code.
    pub code: String,
    /// Times it lost.
    pub count: u32,
    /// When it may be tried again, seconds since 1970 by this device's clock; absent = not before somebody says so.
    pub retry_at: Option<u64>,
}

/// The end of an order, kept on the device until it is taken.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ResultWire {
    /// Random, hex; the same id is the same result.
    pub id: String,
    /// Order's issuer.
    pub issuer: String,
    /// Order's generation.
    pub generation: u64,
    /// `updated`, `rolled_back`, `refused`, `cancelled`, `already`.
    pub outcome: String,
    /// For `rolled_back`: `bad` or `could_not_tell`.
    pub verdict: String,
    /// Why; stable code.
    pub code: String,
    /// Why; one sentence.
    pub detail: String,
    /// Version the order named.
    pub version: String,
    /// SHA-256 the order named.
    pub sha256: String,
    /// Version that runs now.
    pub running_version: String,
    /// SHA-256 of the running file, by the process itself.
    pub running_sha256: String,
    /// When it ended, seconds since 1970 by the device's clock.
    pub at: u64,
    /// Bytes fetched for it over the network.
    pub bytes: u64,
    /// Seconds from acceptance to the end.
    pub seconds: u64,
    /// Milliseconds between the old process's end and the new one's first acknowledged report; 0 = no switch took place.
    pub gap_ms: u64,
    /// When a rejected file may be tried again by the same order, seconds since 1970; absent = not before somebody says so.
    pub retry_at: Option<u64>,
}

/// The Director's answer to a report or a poll.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AnswerWire {
    /// Issuer of orders.
    pub issuer: String,
    /// Director's time, seconds since 1970.
    pub time: u64,
    /// The current order for this agent, whenever it differs from what the report names; absent = none or unchanged.
    pub order: Option<OrderWire>,
    /// Echo of [`ReportWire::trial_nonce`]: the authority that ordered this update acknowledges the trial.
    pub acknowledged: Option<String>,
    /// The same echo as a no: a person does not want this trial to win. It goes back at once; an agent that does not know
    /// the field goes back at its contact deadline, as nobody acknowledges it.
    pub trial_refused: Option<String>,
    /// This Director is about to stop: no switch that would need it, until an answer without this word.
    pub stopping: Option<bool>,
    /// Id of the result that is now durable at the Director.
    pub result_taken: Option<String>,
    /// Hint: the mirrored timestamp's version.
    pub timestamp_version: u64,
    /// The site goes over to another CA ([`crate::core::pins`]).
    pub pins: Option<PinsWire>,
    /// A new credential for the same identity, by the site's present CA; it replaces the old one.
    pub credential: Option<String>,
    /// Whoever loses this Director comes back after a random time of up to so many seconds more, at most
    /// [`crate::core::backoff::SPREAD_MAX_S`]; absent = at once. A device on trial does not wait for it.
    pub spread_s: Option<u64>,
    /// All members of this Director's cluster, when the agent knows others; empty = it stands alone again.
    pub members: Option<Vec<String>>,
    /// This member is being taken out of its cluster's service: who knows another one speaks to that from now on.
    pub draining: Option<bool>,
    /// Fleet to a Director: its settings are of this revision (`GET /fleet/v1/settings`); absent = nothing new was said.
    #[cfg(feature = "director")]
    pub settings_revision: Option<u64>,
    /// Fleet to a Director: it is a member of this cluster, and stops for no update without its lease
    /// ([`crate::wire::fleet_lock`]); absent = it is in none.
    #[cfg(feature = "director")]
    pub lease_group: Option<String>,
}

/// What the Director says of its CAs, as `sha256:<hex>`.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PinsWire {
    /// Those it stands by.
    pub trust: Vec<String>,
    /// Those whose keys are gone.
    pub retired: Vec<String>,
}

/// What to do. Names only what the release plane signed; times are relative, so that no clock needs to agree.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct OrderWire {
    /// Who orders.
    pub issuer: String,
    /// Rises with every order of this issuer to this agent.
    pub generation: u64,
    /// `update`, or `cancel` (drop what has not been switched yet; a trial goes on to its verdict, unless
    /// [`AnswerWire::trial_refused`] ends it).
    pub kind: String,
    /// Path in the release tree.
    pub target: String,
    /// Version, for people; must equal the path's.
    pub version: String,
    /// SHA-256 of the artifact, hex; must equal the signed one.
    pub sha256: String,
    /// Bytes; must equal the signed length.
    pub length: u64,
    /// Director's time at issue, seconds since 1970.
    pub issued_at: u64,
    /// Do not switch before this many seconds after receipt.
    pub switch_in_s: u64,
    /// Contact deadline of the trial, seconds; clamped to 30 s .. 24 h.
    pub contact_deadline_s: u64,
    /// May switch without contact; the trial then lives up to `trial_max_s`.
    pub unattended: bool,
    /// Longest unattended trial, seconds; clamped to 7 d.
    pub trial_max_s: u64,
    /// The other slot may be overwritten although the running one is still in probation.
    pub end_probation: bool,
    /// Try again although this hash is in the agent's rejected list.
    pub retry: bool,
    /// With `cancel`: keep what is fetched and staged, for it will be ordered again (its window closed). An agent that does not
    /// know it drops that, and fetches it again.
    pub keep_staged: Option<bool>,
}
