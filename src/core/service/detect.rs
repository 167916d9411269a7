//! Which service manager: a function of what is there.

use super::Manager;
use crate::core::reason::Reason;

/// What was seen of a system, running or in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `linux`, `macos`, `windows`, ...
    pub os: &'static str,
    /// A running system, not a folder with one.
    pub live: bool,
    /// Last part of the path of the program that is process 1 (live), or that `/sbin/init` leads to (folder).
    pub init: String,
    /// `/run/systemd/system` is there, as it is exactly when systemd is process 1.
    pub systemd: bool,
    /// `/run/openrc` is there (live), or `/sbin/openrc-run` (folder).
    pub openrc: bool,
    /// The folder whose links runsvdir runs: `/var/service` or `/etc/service`; empty: there is none.
    pub runit: String,
    /// runsvdir runs (live), or `/etc/runit` is there (folder).
    pub runsvdir: bool,
    /// `/etc/inittab` is there.
    pub inittab: bool,
}

/// The service manager of this system.
///
/// On Alpine, busybox is process 1 and starts OpenRC; elsewhere it starts runsvdir. So busybox is what is left. runit after
/// OpenRC, unless it is process 1: it is often only an addition.
///
/// # Errors
/// `no_service_manager`: none that is known.
pub fn detect(seen: &Seen) -> Result<Manager, Reason> {
    match seen.os {
        "macos" => return Ok(Manager::Launchd),
        "windows" => return Ok(Manager::Windows),
        _ => {}
    }
    let runit = !seen.runit.is_empty() && seen.runsvdir;
    if seen.systemd || (!seen.live && seen.init == "systemd") {
        return Ok(Manager::Systemd);
    }
    if runit && seen.init.starts_with("runit") {
        return Ok(Manager::Runit);
    }
    if seen.openrc {
        return Ok(Manager::OpenRc);
    }
    if runit {
        return Ok(Manager::Runit);
    }
    if seen.init == "busybox" && seen.inittab {
        return Ok(Manager::BusyBox);
    }
    let init = if seen.init.is_empty() { "an unknown program" } else { &seen.init };
    Err(Reason::new(
        "no_service_manager",
        format!(
            "no service manager that is known here (process 1 is {init}): start `run --supervise` from your own start script, \
             or name one with --manager"
        ),
    ))
}

/// The manager to work with: the one that was asked for, if this system has it.
///
/// # Errors
/// `no_service_manager`, `other_manager`: another one runs this system; nothing would start what was installed.
pub fn choose(asked: Option<Manager>, seen: &Seen) -> Result<Manager, Reason> {
    let found = detect(seen);
    let Some(asked) = asked else { return found };
    let possible = match asked {
        // Beside any other one.
        Manager::Runit => !seen.runit.is_empty() && seen.runsvdir,
        _ => found.as_ref().is_ok_and(|found| *found == asked),
    };
    if possible || !seen.live {
        return Ok(asked);
    }
    let runs = found.map_or("none that is known".to_string(), |m| m.name().to_string());
    Err(Reason::new(
        "other_manager",
        format!(
            "--manager {}: the service manager of this system is {runs}; leave --manager out, or prepare an image with --root DIR",
            asked.name()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(init: &str) -> Seen {
        Seen { os: "linux", live: true, init: init.into(), ..Seen::default() }
    }

    #[test]
    fn each_system_has_its_manager() {
        let with_runit = |seen: Seen| Seen { runit: "/etc/service".into(), runsvdir: true, ..seen };
        for (what, seen, manager) in [
            ("Debian", Seen { systemd: true, ..live("systemd") }, "systemd"),
            ("Debian with runit beside", with_runit(Seen { systemd: true, ..live("systemd") }), "systemd"),
            ("Alpine", Seen { openrc: true, inittab: true, ..live("busybox") }, "openrc"),
            ("Gentoo", Seen { openrc: true, inittab: true, ..live("init") }, "openrc"),
            ("Void", with_runit(live("runit")), "runit"),
            ("buildroot", Seen { inittab: true, ..live("busybox") }, "busybox"),
            ("buildroot with runit", with_runit(Seen { inittab: true, ..live("busybox") }), "runit"),
            ("a container with runsvdir", with_runit(live("tini")), "runit"),
            ("macOS", Seen { os: "macos", ..live("launchd") }, "launchd"),
            ("Windows", Seen { os: "windows", ..live("") }, "windows"),
        ] {
            assert_eq!(detect(&seen).unwrap().name(), manager, "{what}");
        }
        for nothing in [live("bash"), live("init"), live("busybox"), Seen { runit: "/etc/service".into(), ..live("") }] {
            let reason = detect(&nothing).unwrap_err();
            assert!(reason.code == "no_service_manager" && reason.detail.contains("--supervise"), "{reason}");
        }
    }

    #[test]
    fn a_manager_that_does_not_run_here_is_refused_except_in_an_image() {
        let seen = Seen { systemd: true, ..live("systemd") };
        let reason = choose(Some(Manager::OpenRc), &seen).unwrap_err();
        assert!(reason.code == "other_manager" && reason.detail.contains("systemd"), "{reason}");
        assert_eq!(choose(Some(Manager::Systemd), &seen), Ok(Manager::Systemd));
        let beside = Seen { runit: "/etc/service".into(), runsvdir: true, ..seen.clone() };
        assert_eq!(choose(Some(Manager::Runit), &beside), Ok(Manager::Runit));
        let image = Seen { live: false, ..seen };
        assert_eq!(choose(Some(Manager::OpenRc), &image), Ok(Manager::OpenRc));
    }
}
