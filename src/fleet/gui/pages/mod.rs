//! The pages. Each module has its routes and templates beside its functions.

pub mod directors;
pub mod entry;
pub mod list;
pub mod overview;
pub mod shell;

/// Templates by name.
pub type Templates = &'static [(&'static str, &'static str)];

/// Every page's.
pub static TEMPLATES: &[Templates] = &[entry::TEMPLATES, overview::TEMPLATES, directors::TEMPLATES];
