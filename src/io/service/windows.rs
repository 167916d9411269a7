//! The service control manager of Windows: its registration, which no update touches, and the commands.
//!
//! The service is the factory image, and stays it: the launcher is the service's process, the version that runs is its child.
//! Its account is `NT SERVICE\<name>`, a virtual one that Windows makes with the service: it has no password, nobody can log
//! on with it, no other service has it, and it may write nothing but the state folder. `LocalService` is shared by half the
//! system's own services, which could read the credential; `LocalSystem` could do everything; both need a reason, `--user`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use miniserde::{Serialize, json};
use windows_sys::Win32::System::Services as sys;

use super::scm::{self, Registered, Service, Wanted};
use super::{Command, NOT_INSTALLED, RUNS, RUNS_NOT};
use crate::core::reason::Reason;
use crate::core::service::unit::Settings;
use crate::core::service::{Act, Manager, Spec, check, template};
use crate::io::fs::{make_folder, remove_all};
use crate::io::{clock, process, security};

/// What a start or stop may take beyond what the program itself may.
const SLACK: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
/// The one other account that may be asked for.
const LOCAL_SYSTEM: &str = "LocalSystem";

/// For programs; the fields of the other service managers' status that are known here.
#[derive(Serialize)]
struct StatusReport {
    name: String,
    manager: String,
    installed: bool,
    enabled: bool,
    runs: bool,
    pid: u32,
    program: String,
    user: String,
    state: String,
}

impl Command<'_> {
    pub(super) fn obey_windows(&mut self) -> Result<i32, Reason> {
        let name = self.product.name;
        if self.asked.root.is_some() || self.asked.manager.is_some_and(|manager| manager != Manager::Windows) {
            return Err(Reason::new("no_service_manager", "on Windows there is one service manager, that of the running system"));
        }
        let access =
            if self.asked.act == Act::Status { sys::SERVICE_QUERY_STATUS | sys::SERVICE_QUERY_CONFIG } else { sys::SERVICE_ALL_ACCESS };
        let service = scm::open(name, access)?;
        let found = service.as_ref().map(Service::registered).transpose()?;
        let spec = self.spec(Manager::Windows, &found.as_ref().map(settings).unwrap_or_default())?;
        match (self.asked.act, service) {
            (Act::Install, service) => self.register(&spec, service.zip(found)),
            (Act::Uninstall, service) => self.remove(&spec, service),
            (Act::Status, service) => self.tell(&spec, service.as_ref(), found),
            (_, None) => Err(Reason::new("not_installed", format!("{name} is not installed as a service: {name} -service install"))),
            (act, Some(service)) => {
                if matches!(act, Act::Stop | Act::Restart) {
                    self.reach(&service, sys::SERVICE_STOPPED, self.product.stop_s)?;
                }
                if matches!(act, Act::Start | Act::Restart) {
                    self.reach(&service, sys::SERVICE_RUNNING, self.product.start_s)?;
                }
                Ok(0)
            }
        }
    }

    /// Starts or stops it and waits for that.
    fn reach(&mut self, service: &Service, wanted: u32, limit_s: u32) -> Result<(), Reason> {
        let name = self.product.name;
        let end = clock::awake() + Duration::from_secs(limit_s.into()) + SLACK;
        let mut asked = false;
        loop {
            let now = service.now()?;
            if now.state == wanted {
                let said = if wanted == sys::SERVICE_RUNNING { format!("runs: process {}", now.pid) } else { "is stopped".into() };
                (self.say)(&format!("{name} {said}"));
                return Ok(());
            }
            let ended = asked && wanted == sys::SERVICE_RUNNING && now.state == sys::SERVICE_STOPPED;
            if ended || clock::awake() >= end {
                let log = "its log lies in the state folder: vmetric-agent.log";
                return Err(Reason::new("service_state", format!("{name} does not get there (state {}); {log}", now.state)));
            }
            let settled = matches!(now.state, sys::SERVICE_RUNNING | sys::SERVICE_STOPPED);
            if !asked && settled {
                if wanted == sys::SERVICE_RUNNING {
                    service.start()?
                } else {
                    service.stop()?
                }
                asked = true;
            }
            process::sleep(LOOK);
        }
    }

    fn register(&mut self, spec: &Spec, there: Option<(Service, Registered)>) -> Result<i32, Reason> {
        let name = self.product.name;
        let wanted = wanted(spec)?;
        check_program(spec, self.asked.force)?;
        let folder = PathBuf::from(&spec.state);
        let failed = |e| Reason::new("state_not_writable", format!("{}: {e}", folder.display()));
        make_folder(&folder).and_then(|()| security::secure_folder(&folder)).map_err(failed)?;
        let (service, said) = match there {
            Some((service, found)) if found == wanted => (service, "is installed as a service already: nothing changed"),
            Some((service, _)) => {
                service.change(&wanted)?;
                (service, "is installed as a service, with these settings from its next start on")
            }
            None => (scm::create(&Wanted { name, about: self.product.about, registered: &wanted })?, "is installed as a service"),
        };
        service.describe(self.product.about);
        (self.say)(&format!("{name} {said}; {} in {}", wanted.account, spec.state));
        match self.asked.now {
            true => self.reach(&service, sys::SERVICE_RUNNING, self.product.start_s)?,
            false => (self.say)(&format!("it starts at the next boot, or now: {name} -service start")),
        }
        Ok(0)
    }

    fn remove(&mut self, spec: &Spec, service: Option<Service>) -> Result<i32, Reason> {
        let name = self.product.name;
        let folder = Path::new(&spec.state);
        if self.asked.purge && !self.asked.yes && folder.exists() {
            let what = "--purge removes it with the device's identity: say so with --yes";
            return Err(Reason::new("purge_unanswered", format!("{}: {what}; nothing was changed", folder.display())));
        }
        match service {
            Some(service) => {
                self.reach(&service, sys::SERVICE_STOPPED, self.product.stop_s)?;
                service.delete()?;
                (self.say)(&format!("{name} is no service any more"));
            }
            None => (self.say)(&format!("{name} was not installed as a service: nothing changed")),
        }
        if self.asked.purge && folder.exists() {
            let ours = ["run.lock", "marks.0", "slots"].iter().any(|sign| folder.join(sign).exists());
            if !ours {
                return Err(Reason::new("purge_refused", format!("{}: is no state folder of ours; remove it yourself", folder.display())));
            }
            remove_all(folder).map_err(|e| Reason::new("state_not_writable", format!("{}: {e}", folder.display())))?;
            (self.say)(&format!("removed with all that was in it: {}", folder.display()));
        } else if folder.exists() {
            (self.say)(&format!("kept: {} (identity, slots); --purge --yes removes it", folder.display()));
        }
        Ok(0)
    }

    fn tell(&mut self, spec: &Spec, service: Option<&Service>, found: Option<Registered>) -> Result<i32, Reason> {
        let now = service.map(Service::now).transpose()?;
        let runs = now.as_ref().is_some_and(|now| now.state == sys::SERVICE_RUNNING);
        let report = StatusReport {
            name: self.product.name.into(),
            manager: Manager::Windows.name().into(),
            installed: found.is_some(),
            enabled: found.as_ref().is_some_and(|found| found.auto),
            runs,
            pid: now.map_or(0, |now| now.pid),
            program: spec.program.clone(),
            user: found.map(|found| found.account).unwrap_or_default(),
            state: spec.state.clone(),
        };
        let word = |yes, a: &str, b: &str| if yes { a.to_string() } else { b.to_string() };
        let text = [
            ("service", format!("{} (windows)", report.name)),
            ("installed", word(report.installed, &report.program, "no")),
            ("at boot", word(report.enabled, "started", "not started")),
            ("runs", if runs { format!("process {}", report.pid) } else { "no".into() }),
            ("user", report.user.clone()),
            ("state", report.state.clone()),
        ];
        match self.asked.json {
            true => (self.say)(&json::to_string(&report)),
            false => text.iter().for_each(|(name, value)| (self.say)(&format!("{name:<13}{value}"))),
        }
        Ok(match (report.runs, report.installed) {
            (true, _) => RUNS,
            (false, true) => RUNS_NOT,
            (false, false) => NOT_INSTALLED,
        })
    }
}

fn wanted(spec: &Spec) -> Result<Registered, Reason> {
    check::paths(spec)?;
    let own = format!("NT SERVICE\\{}", spec.product.name);
    let account = match spec.user.as_str() {
        user if user == spec.product.name || user == own => own,
        "root" | LOCAL_SYSTEM => LOCAL_SYSTEM.into(),
        other => {
            return Err(Reason::new(
                "user_name",
                format!("--user {other}: expected {} (the default) or {LOCAL_SYSTEM}", spec.product.name),
            ));
        }
    };
    let line = spec.words().into_iter().map(template::windows).collect::<Vec<_>>().join(" ");
    Ok(Registered { line, account, auto: true })
}

/// What must not become a service, each before anything is changed.
fn check_program(spec: &Spec, force: bool) -> Result<(), Reason> {
    let (program, state) = (Path::new(&spec.program), Path::new(&spec.state));
    if !program.is_file() {
        return Err(Reason::new("program_path", format!("{}: there is no such file", program.display())));
    }
    if program.starts_with(state.join("slots")) {
        let remedy = "install from the factory image, such as C:\\Program Files\\vmetric-agent\\vmetric-agent.exe";
        return Err(Reason::new("program_slot", format!("{} is a slot, which the next update replaces; {remedy}", program.display())));
    }
    let open = [Some(program), program.parent()].into_iter().flatten().find(|path| !security::only_ours(path).unwrap_or(false));
    match open {
        Some(path) if !force => {
            let remedy = "put it under C:\\Program Files, or insist with --force";
            Err(Reason::new("program_open", format!("{} can be changed by others than administrators; {remedy}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What the registered command line was made of: `PROGRAM run --state DIR [OPTION...]`.
fn settings(found: &Registered) -> Settings {
    let mut words = template::windows_words(&found.line).into_iter();
    let program = words.next();
    Settings {
        program,
        state: words.by_ref().skip_while(|word| word != "--state").nth(1),
        user: (found.account == LOCAL_SYSTEM).then(|| LOCAL_SYSTEM.into()),
        options: words.collect(),
    }
}
