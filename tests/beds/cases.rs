//! The list of cases, and how they are played.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use vmetric::io::clock;

use crate::bed::Init;
use crate::device::Device;
use crate::stage::Stage;
use crate::{
    Args, Ended, cases_by_hand as by_hand, cases_cut as cut, cases_deb as deb, cases_director as site, cases_inits as inits,
    cases_unit as unit, cases_update as update, pause,
};

/// One case. `play` says what it saw.
pub struct Case {
    /// Its name, and its bed's.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    init: Init,
    play: fn(&Cast) -> Result<String, String>,
}

impl Case {
    /// The group of `tests/run`.
    pub fn group(&self) -> &'static str {
        if self.init == Init::Systemd { "systemd" } else { "inits" }
    }
}

const fn systemd(name: &'static str, what: &'static str, play: fn(&Cast) -> Result<String, String>) -> Case {
    Case { name, what, init: Init::Systemd, play }
}

const fn other(name: &'static str, init: Init, play: fn(&Cast) -> Result<String, String>) -> Case {
    Case { name, what: "install, respawn, update, a crash rolled back, reboot, stop, uninstall", init, play }
}

const fn director(name: &'static str, init: Init) -> Case {
    Case { name, what: "a Director as a service: install, respawn, order, stop, start, uninstall", init, play: inits::director }
}

/// All of them; the long ones first, so that nothing is left to wait for at the end.
pub const CASES: [Case; 27] = [
    systemd("director-deb", "Fleet's and the Director's package: a life from installation to purge", site::packaged),
    systemd("deb", "the package: installed, upgraded during a trial, ordered anew, removed, back, purged", deb::systemd),
    Case {
        name: "deb-openrc",
        what: "the package where no systemd runs: the service of -service install follows it",
        init: Init::OpenRc,
        play: deb::openrc,
    },
    systemd("hang", "a version that hangs is killed by its alarm and rolled back", update::hangs),
    systemd("power-cut", "power cuts with a lost page cache, in a download and on trial", cut::power),
    systemd("watchdog", "a main process that was stopped is killed by systemd and comes back", unit::watchdog),
    systemd("crash", "a version that crashes is rolled back by restarts alone", update::crashes),
    systemd("crash-later", "a confirmed version that crashes in a loop is left for the other one", update::crashes_later),
    systemd("director", "the Director is stopped and restarted with an agent on trial", update::director),
    systemd("restarts", "however often it dies, it is started again", unit::restarts),
    other("openrc", Init::OpenRc, inits::all),
    other("runit", Init::Runit, inits::all),
    other("busybox", Init::Busybox, inits::all),
    director("director-openrc", Init::OpenRc),
    director("director-runit", Init::Runit),
    director("director-busybox", Init::Busybox),
    systemd("reboot-on-trial", "a reboot in the middle of a trial gives the start back", cut::reboot_on_trial),
    systemd("stop-download", "stopped in the middle of a download, which goes on afterwards", update::stopped_in_download),
    systemd("hardening", "what the unit forbids is forbidden: tried from a hook", unit::hardening),
    systemd("not-ready", "a start of an agent that does not work is not a success", unit::not_ready),
    systemd("stop-on-trial", "stopped on trial three times: nothing is held against it", cut::stopped_on_trial),
    systemd("read-only-image", "an update with the image on a read-only file system", update::read_only_image),
    systemd("by-hand", "the documented manual steps, literally: the agent", by_hand::agent),
    systemd("director-by-hand", "the documented manual steps, literally: the Director with its resources", by_hand::director),
    systemd("update", "a good version is pushed; the unit stays active, the process stays the same", update::good),
    systemd("install", "installed, started, installed again, stopped, uninstalled", unit::install),
    systemd("analyze", "systemd-analyze verify and security of both units", unit::analyze),
];

/// One case's view of the stage.
pub struct Cast<'a> {
    /// What is shared.
    pub stage: &'a Stage,
    /// Name of the case.
    pub name: &'static str,
    /// Who is PID 1.
    pub init: Init,
    hold: bool,
}

impl<'a> Cast<'a> {
    /// Plays with a device that runs, enrolled and idle.
    pub fn with_device(&self, play: impl FnOnce(&mut Device<'a>) -> Result<String, String>) -> Result<String, String> {
        let mut device = Device::new(self.stage, self.name, self.init)?;
        let end = play(&mut device);
        self.look(&device, end)
    }

    /// A failure with what the device says; its bed stays up, when that was asked for.
    pub fn look(&self, device: &Device, end: Result<String, String>) -> Result<String, String> {
        let end = end.map_err(|why| format!("{why}\n{}", device.log()));
        if let Err(why) = &end
            && self.hold
        {
            println!("HELD {}: {why}\nlook inside: tests/beds/run --enter {}; end with Ctrl-C", self.name, self.name);
            loop {
                pause(1000);
            }
        }
        end
    }
}

/// Plays all of these, several at a time; how many failed.
pub fn play(stage: &Stage, cases: &[&Case], args: &Args) -> Result<usize, Ended> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let began = clock::monotonic();
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !one(stage, case, args.hold) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(case.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = clock::monotonic().saturating_sub(began).as_secs();
    println!("beds: {} cases, {} failed, {seconds} s", cases.len(), failed.len());
    if !failed.is_empty() {
        println!("repeat: tests/beds/run {}", failed.join(" "));
    }
    Ok(failed.len())
}

fn one(stage: &Stage, case: &Case, hold: bool) -> bool {
    let began = clock::monotonic();
    let end = (case.play)(&Cast { stage, name: case.name, init: case.init, hold });
    let seconds = clock::monotonic().saturating_sub(began).as_secs_f64();
    match &end {
        Ok(saw) => println!("PASS {:<16} {seconds:>5.1} s  {saw}", case.name),
        Err(why) => println!("FAIL {:<16} {seconds:>5.1} s  {}: {why}", case.name, case.what),
    }
    end.is_ok()
}
