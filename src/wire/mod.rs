//! Bytes <-> core types. A wire type ends in `Wire` and becomes a core type by `TryFrom` or a named function only.
//!
//! miniserde has braced structs and unit enums, so wire types are flat, and its errors name nothing: the caller adds
//! which file or which peer. Readers ignore unknown fields (old and new versions live together, see FROZEN.md).

pub mod agent_api;
#[cfg(feature = "director")]
pub mod audit;
pub mod config;
pub mod enroll_file;
#[cfg(feature = "director")]
pub mod fleet_api;
#[cfg(feature = "director")]
pub mod fleet_lock;
#[cfg(feature = "director")]
pub mod join;
pub mod marks;
pub mod records;
#[cfg(feature = "director")]
pub mod settings;
#[cfg(feature = "director")]
pub mod site_policy;
pub mod slot;
