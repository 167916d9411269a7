//! The service that runs a program from boot to shutdown: which service manager, with which files, and what is refused.
//!
//! Pure: facts in, files and reasons out. [`crate::io::service`] looks, writes and calls the managers.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | `-service ACT ...` |
//! | [`detect`] | which service manager runs this system, or a system in a folder |
//! | [`check`] | what is refused before anything is changed |
//! | [`layout`] | the files and links of each manager |
//! | [`mod@unit`] | the stamp in each file: of which template, edited since or not |
//! | [`template`] | the filler and the quoting of each language |
//! | [`inittab`] | the block of lines that busybox init needs |
//! | [`users`] | a system user in the files of an image |

pub mod args;
pub mod check;
pub mod detect;
pub mod inittab;
pub mod layout;
pub mod template;
pub mod unit;
pub mod users;

/// A program that is run as a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    /// Name of program, service and user.
    pub name: &'static str,
    /// What it is, one line.
    pub about: &'static str,
    /// State folder, unless another one is asked for.
    pub state: &'static str,
    /// Silence of the main loop after which systemd kills it, seconds.
    pub watchdog_s: u32,
    /// Longest time from a start to its readiness, seconds; the program extends it while it has something to do.
    pub start_s: u32,
    /// Longest time that a stop may take, seconds.
    pub stop_s: u32,
    /// Open files; empty = the system's.
    pub open_files: &'static str,
    /// Most memory, as systemd writes it; empty = no limit.
    pub memory: &'static str,
    /// It starts programs from slots in its state folder.
    pub slots: bool,
}

/// The agent. Its liveness alarm (180 s) comes first, under every service manager alike; systemd's watchdog is above it, for
/// what the alarm cannot reach: a stopped process, or a system call that does not return. It stops at once; 30 s are for the
/// sync of one record on a slow disk. 256 MB is 80 times what it needs: a leaking release is killed, which counts as its
/// crash, before the device suffers.
pub const AGENT: Product = Product {
    name: "vmetric-agent",
    about: "vmetric agent: updates this device",
    state: if cfg!(windows) { r"C:\ProgramData\vmetric-agent" } else { "/var/lib/vmetric-agent" },
    watchdog_s: 240,
    start_s: 300,
    stop_s: 30,
    open_files: "",
    memory: "256M",
    slots: true,
};

/// The Director. Its store is verified at the start, and one commit may wait for a slow disk: three minutes. A stop waits up
/// to 15 minutes for agents on trial. 65,536 open files: 50,000 connections and what else is open.
pub const DIRECTOR: Product = Product {
    name: "vmetric-director",
    about: "vmetric Director: decides for the agents of this site",
    state: "/var/lib/vmetric-director",
    watchdog_s: 180,
    start_s: 300,
    stop_s: 930,
    open_files: "65536",
    memory: "",
    slots: true,
};

/// Fleet: a Director's server for Directors, so with its limits. It has no slots: nobody is above it to order and acknowledge its
/// updates, so another version comes with its package, by an operator's hand.
pub const FLEET: Product = Product {
    name: "vmetric-fleet",
    about: "vmetric Fleet: decides for the Directors of an organization",
    state: "/var/lib/vmetric-fleet",
    slots: false,
    ..DIRECTOR
};

/// What to do with the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// Write its files and enable it.
    Install,
    /// Stop it and remove its files.
    Uninstall,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
    /// Say how it is.
    #[default]
    Status,
    /// Print its main file.
    Print,
}

/// A service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// systemd.
    Systemd,
    /// OpenRC with supervise-daemon.
    OpenRc,
    /// runit: runsvdir and runsv.
    Runit,
    /// init of busybox, by `/etc/inittab`.
    BusyBox,
    /// launchd of macOS.
    Launchd,
    /// The service control manager of Windows.
    Windows,
}

impl Manager {
    /// All of them.
    pub const ALL: [Manager; 6] = [Manager::Systemd, Manager::OpenRc, Manager::Runit, Manager::BusyBox, Manager::Launchd, Manager::Windows];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Manager::Systemd => "systemd",
            Manager::OpenRc => "openrc",
            Manager::Runit => "runit",
            Manager::BusyBox => "busybox",
            Manager::Launchd => "launchd",
            Manager::Windows => "windows",
        }
    }

    /// The manager of that name.
    pub fn from_name(name: &str) -> Option<Manager> {
        Manager::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Everything that the files of a service are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which program.
    pub product: &'static Product,
    /// Its absolute path: the factory image.
    pub program: String,
    /// Its state folder, absolute.
    pub state: String,
    /// The user that it runs as.
    pub user: String,
    /// Further words after `run --state DIR`.
    pub options: Vec<String>,
}

impl Spec {
    /// The command line, program first.
    pub fn words(&self) -> Vec<&str> {
        let fixed = [self.program.as_str(), "run", "--state", self.state.as_str()];
        fixed.into_iter().chain(self.options.iter().map(String::as_str)).collect()
    }
}
