//! The steps of an update, as the specification calls them.

/// The steps of a Director's update, by the specification's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Order, policy, trusted metadata.
    VersionCheck,
    /// Binary and package into the inactive slot.
    Download,
    /// Hash, build signature and release signature of both.
    Signature,
    /// The binary that runs, and the configuration.
    Backup,
    /// Drain: no agent on trial, parked polls answered.
    Stop,
    /// The staged binary tested, the marks flipped.
    Deployment,
    /// The package goes live with that flip.
    Resources,
    /// The new version serves and has checked itself.
    Start,
}

impl Stage {
    /// All, in their order.
    pub const ALL: [Stage; 8] = [
        Stage::VersionCheck,
        Stage::Download,
        Stage::Signature,
        Stage::Backup,
        Stage::Stop,
        Stage::Deployment,
        Stage::Resources,
        Stage::Start,
    ];

    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::VersionCheck => "Version Check",
            Stage::Download => "Download",
            Stage::Signature => "Signature Verification",
            Stage::Backup => "Backup",
            Stage::Stop => "Service Stop",
            Stage::Deployment => "Deployment",
            Stage::Resources => "Resource Update",
            Stage::Start => "Service Start",
        }
    }

    /// The same as a stable code.
    pub fn code(self) -> &'static str {
        match self {
            Stage::VersionCheck => "version_check",
            Stage::Download => "download",
            Stage::Signature => "signature_verification",
            Stage::Backup => "backup",
            Stage::Stop => "service_stop",
            Stage::Deployment => "deployment",
            Stage::Resources => "resource_update",
            Stage::Start => "service_start",
        }
    }
}
