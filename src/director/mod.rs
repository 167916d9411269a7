//! A site: the CA, the registry, the mirror of releases, orders.

pub mod pki;
