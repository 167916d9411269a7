//! Which command does what, on every Unix.

use std::io;
use std::path::{Path, PathBuf};

use miniserde::{Serialize, json};

use super::live::{Live, running};
use super::look::{at, failed, read, seen};
use super::{Command, NOT_INSTALLED, RUNS, RUNS_NOT};
use crate::core::reason::Reason;
use crate::core::service::detect::{Seen, choose};
use crate::core::service::inittab::{self, Line};
use crate::core::service::layout::{INITTAB, Layout, layout};
use crate::core::service::unit::{Settings, Standing, recorded, standing};
use crate::core::service::{Act, Manager, Spec, check};
use crate::io::{process, user};

/// Where packages put units of systemd.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// Everything that is known of the service before anything is done.
pub struct Site {
    /// The system: `/`, or the image.
    pub root: PathBuf,
    /// It runs.
    pub live: bool,
    /// Its service manager.
    pub manager: Manager,
    /// The service as wanted.
    pub spec: Spec,
    /// Its files.
    pub layout: Layout,
    /// How the main file stands to the one that is wanted.
    pub main: Standing,
    /// A package's file is in force instead of ours.
    pub packaged: Option<String>,
}

impl Site {
    /// The main file in force.
    pub fn file(&self) -> &str {
        self.packaged.as_deref().or_else(|| self.layout.files.first().map(|f| f.path.as_str())).unwrap_or_default()
    }

    /// It is started at boot.
    pub fn enabled(&self) -> Result<bool, Reason> {
        Ok(match (&self.layout.link, self.manager) {
            (Some((link, _)), _) => at(&self.root, link).symlink_metadata().is_ok(),
            (None, Manager::BusyBox) => {
                let text = read(&at(&self.root, INITTAB))?.unwrap_or_default();
                inittab::line(&text, self.file()) == Line::Runs
            }
            _ => self.main != Standing::Absent,
        })
    }

    /// The service under its manager.
    pub fn live(&self) -> Live {
        let (product, manager, file) = (self.spec.product, self.manager, self.file().to_string());
        Live { product, manager, state: at(&self.root, &self.spec.state), file }
    }
}

/// For programs.
#[derive(Serialize)]
struct StatusReport {
    name: String,
    manager: String,
    installed: bool,
    unit: String,
    file: String,
    enabled: bool,
    runs: bool,
    pid: u32,
    program: String,
    image: String,
    supervisor: String,
    user: String,
    state: String,
}

impl Command<'_> {
    pub(super) fn obey_unix(&mut self) -> Result<i32, Reason> {
        let site = self.site()?;
        if site.live && self.asked.act != Act::Status && !user::is_root() {
            return check::not_root(self.product.name);
        }
        match self.asked.act {
            Act::Install => self.install(&site),
            Act::Uninstall => self.uninstall(&site),
            Act::Status => self.status(&site),
            act => self.change(&site, act),
        }
    }

    fn site(&mut self) -> Result<Site, Reason> {
        let live = self.asked.root.is_none();
        let root = PathBuf::from(self.asked.root.as_deref().unwrap_or("/"));
        if !root.is_dir() {
            return Err(Reason::new("service_root", format!("--root {}: there is no such folder", root.display())));
        }
        let seen: Seen = seen(&root, live);
        let manager = choose(self.asked.manager, &seen)?;
        // The paths of the files do not depend on what is in them.
        let draft = Spec { product: self.product, program: String::new(), state: String::new(), user: String::new(), options: vec![] };
        let draft = layout(manager, &draft, &seen.runit);
        let own = draft.files.first().map(|f| f.path.clone()).unwrap_or_default();
        let own_text = read(&at(&root, &own))?;
        let mut packaged = None;
        if own_text.is_none() && manager == Manager::Systemd {
            let places = PACKAGED.iter().map(|folder| format!("{folder}/{}.service", self.product.name));
            packaged = places.into_iter().find(|path| at(&root, path).exists());
        }
        let text = match &packaged {
            Some(path) => read(&at(&root, path))?,
            None => own_text,
        };
        let found = text.as_deref().map(recorded).unwrap_or_default();
        let spec = self.spec(manager, &found)?;
        let mut layout = layout(manager, &spec, &seen.runit);
        if let (Some(path), Some(link)) = (&packaged, &mut layout.link) {
            link.1.clone_from(path);
        }
        let main = standing(text.as_deref(), layout.files.first().map_or("", |f| &f.text));
        Ok(Site { root, live, manager, spec, layout, main, packaged })
    }

    fn change(&mut self, site: &Site, act: Act) -> Result<i32, Reason> {
        let name = self.product.name;
        if site.main == Standing::Absent {
            let remedy = format!("{name} -service install");
            return Err(Reason::new("not_installed", format!("{name} is not installed as a service of {}: {remedy}", site.manager.name())));
        }
        let state = at(&site.root, &site.spec.state);
        let before = running(&state);
        match (act, before) {
            (Act::Start, Some(pid)) => (self.say)(&format!("{name} runs already: process {pid}")),
            (Act::Stop, None) => {
                // Its manager may be about to start it again.
                site.live().act(act)?;
                (self.say)(&format!("{name} does not run"));
            }
            _ => {
                site.live().act(act)?;
                match running(&state) {
                    Some(pid) => (self.say)(&format!("{name} runs: process {pid}")),
                    None => (self.say)(&format!("{name} is stopped")),
                }
            }
        }
        Ok(0)
    }

    fn status(&mut self, site: &Site) -> Result<i32, Reason> {
        let state = at(&site.root, &site.spec.state);
        if matches!(state.join("run.lock").metadata(), Err(e) if e.kind() == io::ErrorKind::PermissionDenied) {
            return check::not_root(self.product.name);
        }
        let pid = if site.live { running(&state) } else { None };
        let program = pid.and_then(process::program_of);
        let installed = site.main != Standing::Absent;
        // A package's own settings are not for us to compare.
        let unit = match (&site.packaged, site.main) {
            (Some(_), Standing::Differs) => Standing::Current,
            (_, standing) => standing,
        };
        let report = StatusReport {
            name: self.product.name.into(),
            manager: site.manager.name().into(),
            installed,
            unit: unit.word().into(),
            file: site.file().into(),
            enabled: installed && site.enabled()?,
            runs: pid.is_some(),
            pid: pid.unwrap_or(0),
            image: program.as_deref().map(|program| image_of(program, &state)).unwrap_or_default(),
            program: program.map(|p| p.display().to_string()).unwrap_or_default(),
            supervisor: pid.and_then(supervisor).unwrap_or_default(),
            user: site.spec.user.clone(),
            state: site.spec.state.clone(),
        };
        let text = if self.asked.json { json::to_string(&report) } else { report.text(unit) };
        (self.say)(text.trim_end());
        Ok(match (report.runs, installed) {
            (true, _) => RUNS,
            (false, true) => RUNS_NOT,
            (false, false) => NOT_INSTALLED,
        })
    }
}

/// `slot a`, `slot b`, or the file that the service starts.
fn image_of(program: &Path, state: &Path) -> String {
    let slots = std::fs::canonicalize(state.join("slots")).ok();
    let within = slots.and_then(|slots| program.parent()?.strip_prefix(slots).ok()?.to_str().map(String::from));
    within.map_or("factory image".into(), |slot| format!("slot {slot}"))
}

/// The process that would start it again, by name and number.
fn supervisor(pid: u32) -> Option<String> {
    let stat = read(Path::new(&format!("/proc/{pid}/stat"))).ok()??;
    // The name in brackets may itself hold brackets and blanks.
    let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    let name = read(Path::new(&format!("/proc/{parent}/comm"))).ok()??;
    Some(format!("{} ({parent})", name.trim()))
}

impl StatusReport {
    fn text(&self, unit: Standing) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<13}{value}\n"));
        let installed = match unit {
            Standing::Absent => "no".to_string(),
            Standing::Older => format!("{}, older than this program's template; -service install renews it", self.file),
            Standing::Newer => format!("{}, of a newer version's template", self.file),
            Standing::Edited => format!("{}, edited by hand since it was installed", self.file),
            Standing::Foreign => format!("{}, not written by this program", self.file),
            Standing::Differs => format!("{}, with other settings than asked for here", self.file),
            Standing::Current => self.file.clone(),
        };
        line("service", &format!("{} ({})", self.name, self.manager));
        line("installed", &installed);
        line("at boot", if self.enabled { "started" } else { "not started" });
        match self.runs {
            true => line("runs", &format!("process {}, {} {}", self.pid, self.image, self.program)),
            false => line("runs", "no"),
        }
        if !self.supervisor.is_empty() {
            line("supervisor", &self.supervisor);
        }
        line("user", &self.user);
        line("state", &self.state);
        out
    }
}

/// Reads what stands where a file is wanted.
pub fn standing_of(root: &Path, path: &str, wanted: &str) -> Result<Standing, Reason> {
    Ok(standing(read(&at(root, path))?.as_deref(), wanted))
}

/// Makes the folders above a file.
pub fn make_parents(path: &Path) -> Result<(), Reason> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| failed(path, &e))
}

/// The settings that are asked for over a package's unit.
pub fn differs_from(found: &Settings, spec: &Spec) -> bool {
    found.state.as_ref().is_some_and(|s| *s != spec.state)
        || found.user.as_ref().is_some_and(|u| *u != spec.user)
        || found.options != spec.options
}
