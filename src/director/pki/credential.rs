//! Agent credentials: signed by the site CA's key, so that any member of a cluster verifies them without asking anybody.

/// What a credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Identity in the site's registry, `a-z0-9-`, at most 64 bytes.
    pub agent_id: String,
    /// When it was issued, seconds since 1970.
    pub issued_at: u64,
}
