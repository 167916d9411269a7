//! The tables of the store; what each holds is in the table of [`super`].

use redb::TableDefinition;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Issuer.
    Meta,
    /// Registry.
    Agents,
    /// Enrollment tokens.
    Tokens,
    /// One row per roll-out and agent.
    Orders,
    /// Roll-outs.
    Rollouts,
    /// Activity.
    Activity,
    /// Files that are not ordered.
    Quarantine,
    /// Devices that wait for a person.
    Approvals,
    /// Tokens of the API.
    ApiTokens,
    /// A Director's way to Fleet.
    Uplink,
    /// Fleet's place in each Director's stream.
    Intake,
    /// The Directors' agents.
    Inventory,
    /// The Directors' activity.
    Relayed,
    /// Update settings.
    Policies,
    /// Changes of update settings.
    PolicyChanges,
    /// Clusters of Directors.
    Clusters,
    /// Their leases.
    Leases,
    /// Enrollment templates.
    Templates,
    /// Where notices go.
    Webhooks,
    /// Notices that wait.
    Notices,
    /// Authorizations of updates.
    Grants,
    /// Confirmations of Fleet's people for agents.
    Confirmations,
    /// What became of them, by agent.
    Confirmed,
    /// Bytes that were sent today.
    Spent,
    /// Who may log in.
    Users,
    /// Who has.
    Sessions,
    /// Fleet: how the fleet was.
    History,
    /// What people did.
    Audit,
}

impl Table {
    pub(super) const ALL: [Table; 28] = [
        Table::Meta,
        Table::Agents,
        Table::Tokens,
        Table::Orders,
        Table::Rollouts,
        Table::Activity,
        Table::Quarantine,
        Table::Approvals,
        Table::ApiTokens,
        Table::Uplink,
        Table::Intake,
        Table::Inventory,
        Table::Relayed,
        Table::Policies,
        Table::PolicyChanges,
        Table::Clusters,
        Table::Leases,
        Table::Templates,
        Table::Webhooks,
        Table::Notices,
        Table::Grants,
        Table::Confirmations,
        Table::Confirmed,
        Table::Spent,
        Table::Users,
        Table::Sessions,
        Table::History,
        Table::Audit,
    ];

    /// Bytes, not `str`: redb panics on a damaged `str`, while bytes are ours to check.
    pub(super) fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }

    /// Its name in the file, and in a store that several servers share.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Agents => "agents",
            Table::Tokens => "tokens",
            Table::Orders => "orders",
            Table::Rollouts => "rollouts",
            Table::Activity => "activity",
            Table::Quarantine => "quarantine",
            Table::Approvals => "approvals",
            Table::ApiTokens => "api_tokens",
            Table::Uplink => "uplink",
            Table::Intake => "intake",
            Table::Inventory => "inventory",
            Table::Relayed => "relayed",
            Table::Policies => "policies",
            Table::PolicyChanges => "policy_changes",
            Table::Clusters => "clusters",
            Table::Leases => "cluster_leases",
            Table::Templates => "templates",
            Table::Webhooks => "webhooks",
            Table::Notices => "notices",
            Table::Grants => "grants",
            Table::Confirmations => "confirmations",
            Table::Confirmed => "confirmed",
            Table::Spent => "spent",
            Table::Users => "users",
            Table::Sessions => "sessions",
            Table::History => "history",
            Table::Audit => "audit",
        }
    }
}
