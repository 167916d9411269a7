//! What is refused, each before anything is changed.

use super::Spec;
use crate::core::reason::Reason;

/// What was seen of the program and the state folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This process may install services.
    pub root: bool,
    /// The program lies in a slot: it is no factory image.
    pub in_slot: bool,
    /// The program's file: there is none, or it is no plain executable file.
    pub no_program: bool,
    /// The program or a folder above it that others than root may change.
    pub open_to_others: Option<String>,
    /// The program's file system is mounted noexec.
    pub program_noexec: bool,
    /// The state folder's file system, of the folder itself or the first one above it that is there, loses all at power-off.
    pub state_tmpfs: bool,
    /// ... is mounted noexec.
    pub state_noexec: bool,
    /// ... is mounted read-only.
    pub state_read_only: bool,
    /// The state folder's file system has no room for two slots of the program.
    pub no_room: Option<Reason>,
    /// The state folder belongs to this user, who is neither root nor the service's.
    pub state_owner: Option<String>,
}

/// Folders that are emptied, or that a hardened service does not see.
const PASSING: [&str; 8] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run", "/home", "/root", "/Users"];
/// Longest path, bytes: more than any file system of a device needs, and every template holds it.
const PATH_MAX: usize = 512;
/// Longest list of run options, bytes.
const OPTIONS_MAX: usize = 4096;

/// Words that go into files of other languages.
///
/// # Errors
/// `service_word`, `program_path`, `state_path`, `user_name`.
pub fn words(spec: &Spec) -> Result<(), Reason> {
    super::users::check_name(&spec.user)?;
    paths(spec)
}

/// The same without the user: Windows has other names for accounts.
///
/// # Errors
/// `service_word`, `program_path`, `state_path`.
pub fn paths(spec: &Spec) -> Result<(), Reason> {
    for (code, what, path) in [("program_path", "--program", &spec.program), ("state_path", "--state", &spec.state)] {
        let windows = path.as_bytes().get(1..3).is_some_and(|b| b == b":\\" || b == b":/");
        let up = path.split(['/', '\\']).any(|part| part == "..");
        if !(path.starts_with('/') || windows) || up || path.len() > PATH_MAX || path == "/" {
            return Err(Reason::new(code, format!("{what} {path}: expected an absolute path without .., at most {PATH_MAX} bytes")));
        }
    }
    let all = spec.words().into_iter();
    if let Some(word) = all.clone().find(|word| word.contains(char::is_control)) {
        return Err(Reason::new("service_word", format!("{word:?} has a control character, which no service file can hold")));
    }
    match all.map(str::len).sum::<usize>() > OPTIONS_MAX {
        true => Err(Reason::new("service_word", format!("the run options are longer than {OPTIONS_MAX} bytes"))),
        false => Ok(()),
    }
}

/// Whether a service may be installed. `force`: from a folder that is emptied, too.
///
/// # Errors
/// The first thing that is wrong, and what to do.
pub fn install(spec: &Spec, facts: &Facts, force: bool) -> Result<(), Reason> {
    let (name, program, state) = (spec.product.name, &spec.program, &spec.state);
    let refused = |code, what: String| Err(Reason::new(code, what));
    words(spec)?;
    if !facts.root {
        return not_root(name);
    }
    if facts.in_slot {
        let remedy = format!("install from the factory image, such as /opt/virtualmetric/{name}");
        return refused("program_slot", format!("{program} is a slot, which the next update replaces; {remedy}"));
    }
    if facts.no_program {
        return refused("program_path", format!("{program}: there is no executable file; put {name} there first"));
    }
    let passing = PASSING.iter().find(|folder| program.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/')));
    if let Some(folder) = passing.filter(|_| !force) {
        let remedy = "move it with its root.json to /opt/virtualmetric or the like, or insist with --force";
        return refused("program_place", format!("{program}: a service does not see {folder}, or it is emptied at a boot; {remedy}"));
    }
    if let Some(path) = facts.open_to_others.as_ref().filter(|_| !force) {
        let remedy = format!("chown root {path} and chmod go-w {path}, or insist with --force");
        return refused("program_open", format!("{path} can be changed by others than root, and so could what root starts; {remedy}"));
    }
    if facts.program_noexec {
        return refused("program_noexec", format!("{program}: its file system is mounted noexec; remount it with exec, or move it"));
    }
    if facts.state_tmpfs {
        let what = "lies in memory (tmpfs): identity and updates would be gone after each boot";
        return refused("state_tmpfs", format!("{state}: {what}; name a folder on a disk with --state"));
    }
    if facts.state_read_only {
        return refused("state_read_only", format!("{state}: its file system is read-only; name a writable folder with --state"));
    }
    if facts.state_noexec {
        let what = "is mounted noexec, and updates are started from the slots in it";
        return refused("state_noexec", format!("{state}: its file system {what}; remount it with exec, or name another with --state"));
    }
    if let Some(reason) = &facts.no_room {
        return Err(reason.clone());
    }
    if let Some(owner) = &facts.state_owner {
        let remedy = format!("chown -R {} {state}, or --user {owner}", spec.user);
        return refused("state_owner", format!("{state} belongs to {owner}, not to the service's user {}; {remedy}", spec.user));
    }
    Ok(())
}

/// Only root may.
///
/// # Errors
/// `not_root`, always.
pub fn not_root<T>(name: &str) -> Result<T, Reason> {
    Err(Reason::new("not_root", format!("services are root's: sudo {name} -service ...")))
}

#[cfg(test)]
mod tests {
    use super::super::AGENT;
    use super::*;

    fn spec() -> Spec {
        let (program, state) = ("/opt/virtualmetric/vmetric-agent".into(), "/var/lib/vmetric-agent".into());
        Spec { product: &AGENT, program, state, user: "vmetric-agent".into(), options: vec![] }
    }

    fn good() -> Facts {
        Facts { root: true, ..Facts::default() }
    }

    #[test]
    fn each_refusal_has_its_code_and_a_remedy() {
        assert_eq!(install(&spec(), &good(), false), Ok(()));
        let path = || Some("/opt".to_string());
        for (facts, code, remedy) in [
            (Facts { root: false, ..good() }, "not_root", "sudo"),
            (Facts { in_slot: true, ..good() }, "program_slot", "factory image"),
            (Facts { no_program: true, ..good() }, "program_path", "put vmetric-agent there"),
            (Facts { open_to_others: path(), ..good() }, "program_open", "chmod go-w /opt"),
            (Facts { program_noexec: true, ..good() }, "program_noexec", "remount"),
            (Facts { state_tmpfs: true, ..good() }, "state_tmpfs", "--state"),
            (Facts { state_noexec: true, ..good() }, "state_noexec", "--state"),
            (Facts { state_read_only: true, ..good() }, "state_read_only", "--state"),
            (
                Facts { no_room: Some(Reason::new("no_space_for_slots", "1 byte is free; make room")), ..good() },
                "no_space_for_slots",
                "make room",
            ),
            (Facts { state_owner: Some("mail".into()), ..good() }, "state_owner", "chown -R vmetric-agent"),
        ] {
            let reason = install(&spec(), &facts, false).unwrap_err();
            assert!(reason.code == code && reason.detail.contains(remedy), "{reason}");
        }
    }

    #[test]
    fn a_folder_that_is_emptied_needs_force() {
        for folder in PASSING {
            let spec = Spec { program: format!("{folder}/x/vmetric-agent"), ..spec() };
            let reason = install(&spec, &good(), false).unwrap_err();
            assert!(reason.code == "program_place" && reason.detail.contains("--force"), "{reason}");
            assert_eq!(install(&spec, &good(), true), Ok(()));
        }
        assert_eq!(install(&Spec { program: "/runner/vmetric-agent".into(), ..spec() }, &good(), false), Ok(()));
    }

    #[test]
    fn words_that_would_break_a_file_are_refused() {
        for (spec, code) in [
            (Spec { program: "vmetric-agent".into(), ..spec() }, "program_path"),
            (Spec { program: "/opt/../x".into(), ..spec() }, "program_path"),
            (Spec { state: "/".into(), ..spec() }, "state_path"),
            (Spec { state: format!("/{}", "x".repeat(PATH_MAX)), ..spec() }, "state_path"),
            (Spec { state: "/a\nUser=root".into(), ..spec() }, "service_word"),
            (Spec { options: vec!["a\0".into()], ..spec() }, "service_word"),
            (Spec { options: vec!["x".repeat(OPTIONS_MAX)], ..spec() }, "service_word"),
            (Spec { user: "a b".into(), ..spec() }, "user_name"),
        ] {
            assert_eq!(words(&spec).unwrap_err().code, code);
        }
        assert_eq!(words(&Spec { program: r"C:\Program Files\vmetric-agent.exe".into(), state: "C:/s".into(), ..spec() }), Ok(()));
    }
}
