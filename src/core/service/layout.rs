//! The files and links of a service under each manager.

use super::template::{fill, sh, systemd, systemd_exec, windows, xml};
use super::unit::{seal, settings, stamp};
use super::{Manager, Spec};

/// A file of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Mode.
    pub mode: u32,
    /// Content, stamp included.
    pub text: String,
}

/// What a service consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first is the one that `print` shows.
    pub files: Vec<File>,
    /// The link that enables it, and where it leads; busybox has lines in [`INITTAB`] instead.
    pub link: Option<(String, String)>,
    /// Folders of its own, removed with all that is in them.
    pub folders: Vec<String>,
}

/// The file that busybox init reads.
pub const INITTAB: &str = "/etc/inittab";
/// The folder whose links runsvdir runs, where none is found.
pub const RUNIT: &str = "/etc/service";

const SCRIPT: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// Files and links under this manager. `runit` is the folder that runsvdir runs.
pub fn layout(manager: Manager, spec: &Spec, runit: &str) -> Layout {
    let name = spec.product.name;
    let file = |path: String, mode: u32, template: &str| File { path, mode, text: render(manager, spec, template) };
    match manager {
        Manager::Systemd => {
            let path = format!("/etc/systemd/system/{name}.service");
            Layout {
                link: Some((format!("/etc/systemd/system/multi-user.target.wants/{name}.service"), path.clone())),
                files: vec![file(path, PLAIN, include_str!("templates/systemd.service"))],
                ..Layout::default()
            }
        }
        Manager::OpenRc => {
            let path = format!("/etc/init.d/{name}");
            Layout {
                link: Some((format!("/etc/runlevels/default/{name}"), path.clone())),
                files: vec![
                    file(path, SCRIPT, include_str!("templates/openrc")),
                    file(run_script(name), SCRIPT, include_str!("templates/run")),
                ],
                ..Layout::default()
            }
        }
        Manager::Runit => {
            let folder = format!("/etc/sv/{name}");
            let runit = if runit.is_empty() { RUNIT } else { runit };
            Layout {
                files: vec![
                    file(format!("{folder}/run"), SCRIPT, include_str!("templates/run")),
                    file(format!("{folder}/log/run"), SCRIPT, include_str!("templates/runit-log")),
                ],
                link: Some((format!("{runit}/{name}"), folder.clone())),
                folders: vec![folder],
            }
        }
        Manager::BusyBox => {
            Layout { files: vec![file(format!("/etc/vmetric/{name}.run"), SCRIPT, include_str!("templates/run"))], ..Layout::default() }
        }
        Manager::Launchd => Layout {
            files: vec![file(format!("/Library/LaunchDaemons/{name}.plist"), PLAIN, include_str!("templates/launchd.plist"))],
            ..Layout::default()
        },
        Manager::Windows => Layout { files: vec![file(String::new(), PLAIN, include_str!("templates/windows.cmd"))], ..Layout::default() },
    }
}

/// What a manager starts that knows neither users nor logs.
fn run_script(name: &str) -> String {
    format!("/etc/vmetric/{name}.run")
}

/// Every value that a template may name.
fn render(manager: Manager, spec: &Spec, template: &str) -> String {
    let product = spec.product;
    let words = |quote: fn(&str) -> String| spec.words().into_iter().map(quote).collect::<Vec<_>>();
    // Under /var/lib, systemd makes the folder and keeps its owner right; another one is made by `install`.
    let own = spec.state.strip_prefix("/var/lib/").filter(|name| !name.contains(['/', ' ', '%', '$', '"', '\'', '\\', ':']));
    let values = [
        ("stamp", stamp()),
        ("settings", settings(spec)),
        ("name", product.name.to_string()),
        ("about", product.about.to_string()),
        ("user", spec.user.clone()),
        ("exec", words(systemd_exec).join(" ")),
        ("sh_exec", words(sh).join(" ")),
        ("sh_script", sh(&run_script(product.name))),
        ("sh_state", sh(&spec.state)),
        ("cmd_exec", windows(&words(windows).join(" "))),
        ("xml_words", words(xml).join("\n")),
        ("xml_user", xml(&spec.user)),
        ("state_directory", own.unwrap_or_default().to_string()),
        ("state_path", if own.is_none() { systemd(&spec.state) } else { String::new() }),
        ("mounts", format!("{} {}", systemd(&spec.program), systemd(&spec.state))),
        ("watchdog_s", product.watchdog_s.to_string()),
        ("start_s", product.start_s.to_string()),
        ("stop_s", product.stop_s.to_string()),
        ("open_files", product.open_files.to_string()),
        ("memory", product.memory.to_string()),
        ("runit", if manager == Manager::Runit { "exec 2>&1".into() } else { String::new() }),
        ("syslog", if manager == Manager::Runit { String::new() } else { include_str!("templates/syslog").into() }),
    ];
    // The part for syslog names the service, too.
    seal(&fill(&fill(template, &values[values.len() - 2..]), &values[..values.len() - 2]))
}
