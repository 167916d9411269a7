//! What updates itself through slots, launcher and engine. The code is the same; here is what differs.

/// A program with slots of its own, and where its state folder keeps what belongs to its updates.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name in target paths, and its program's file (on Windows with `.exe`).
    pub name: &'static str,
    /// Its identity at whoever orders its updates.
    pub config: &'static str,
    /// That file's copy.
    pub config_copy: &'static str,
    /// The folder of the metadata that it trusts for its own updates.
    pub trust: &'static str,
    /// A slot may hold a package beside the program.
    pub has_resources: bool,
    /// Who orders its updates, for people.
    pub authority: &'static str,
}

/// The agent: its Director orders; one binary, nothing else.
pub const AGENT: Product = Product {
    name: "vmetric-agent",
    config: "config/agent.json",
    config_copy: "config/agent.json.copy",
    trust: "trust",
    has_resources: false,
    authority: "the managing Director",
};

impl Default for &'static Product {
    fn default() -> Self {
        &AGENT
    }
}

/// The Director: Fleet orders. Its mirror has a trust store of its own in `trust/`: what a Director gives to its agents may
/// come from another repository than it comes from itself, and two threads never write one folder.
#[cfg(feature = "director")]
pub const DIRECTOR: Product = Product {
    name: "vmetric-director",
    config: "config/fleet.json",
    config_copy: "config/fleet.json.copy",
    trust: "own/trust",
    has_resources: true,
    authority: "Fleet",
};
