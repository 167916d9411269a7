//! The pages. Each module has its routes and templates beside its functions.

pub mod account;
pub mod activity;
pub mod acts;
pub mod agents;
pub mod audit;
pub mod cluster_acts;
pub mod clusters;
pub mod confirm;
pub mod create;
pub mod devices;
pub mod director;
pub mod directors;
pub mod entry;
pub mod events;
pub mod list;
pub mod notifications;
pub mod overview;
pub mod policy;
pub mod releases;
pub mod rollouts;
pub mod shell;
pub mod template_edit;
pub mod templates;
pub mod tokens;
pub mod updates;
pub mod users;

/// Templates by name.
pub type Templates = &'static [(&'static str, &'static str)];

/// Every page's.
pub static TEMPLATES: &[Templates] = &[
    entry::TEMPLATES,
    overview::TEMPLATES,
    directors::TEMPLATES,
    director::TEMPLATES,
    agents::TEMPLATES,
    rollouts::TEMPLATES,
    releases::TEMPLATES,
    activity::TEMPLATES,
    // What changes policies and lets in.
    policy::TEMPLATES,
    create::TEMPLATES,
    devices::TEMPLATES,
    templates::TEMPLATES,
    template_edit::TEMPLATES,
    clusters::TEMPLATES,
    cluster_acts::TEMPLATES,
    updates::TEMPLATES,
    confirm::TEMPLATES,
    notifications::TEMPLATES,
    tokens::TEMPLATES,
    users::TEMPLATES,
    audit::TEMPLATES,
    account::TEMPLATES,
];
