//! The operator's own check of a version on trial: `<state>/config/check`, if there is one.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | good |
//! | 75 (`EX_TEMPFAIL`) | cannot tell yet: run again until the trial's time is over, then *could not tell* |
//! | SIGKILL, SIGTERM from elsewhere (memory ran out, a person) | no verdict: run again, [`CHECK_KILLS_MAX`] times, then *could not tell* |
//! | anything else, another signal, no end within the limit | the version is bad: it goes back and is not tried again by itself |
//!
//! [`CHECK_KILLS_MAX`]: crate::core::update::CHECK_KILLS_MAX
//!
//! The last line that it writes goes into the report. It gets `VMETRIC_VERSION` (the version on trial) and
//! `VMETRIC_STATE`, `PATH`, and nothing else. A file that others could have written is not run with our rights
//! (`check_unusable`): no update is begun with it, and a trial waits for its repair.

use std::path::PathBuf;
use std::time::Duration;

use super::link::tick;
use crate::core::reason::Reason;
use crate::core::update::SelfCheck;
use crate::core::version::Version;
use crate::io::hook;
use crate::io::process::{ChildEnd, from_outside};
use crate::io::state::State;

/// Code of a check that was killed; counted by whoever runs it.
pub const KILLED: &str = "check_killed";
/// `EX_TEMPFAIL` of sysexits.h.
const CANNOT_TELL: i32 = 75;
/// Longest line of the check in a report, characters.
const LINE_MAX: usize = 200;

fn path(state: &State) -> PathBuf {
    hook::file(&state.path("config/check"))
}

/// Whether there is a check to run.
///
/// # Errors
/// `check_unusable`: there is one that must not be run.
pub fn usable(state: &State) -> Result<bool, Reason> {
    hook::usable(&path(state)).map_err(|what| Reason::new("check_unusable", what))
}

/// Runs the check, if there is one.
pub fn run(state: &State, version: &Version, limit_s: u64) -> SelfCheck {
    match usable(state) {
        Ok(true) => {}
        Ok(false) => return SelfCheck::Passed,
        Err(reason) => return SelfCheck::CouldNotTell(reason),
    }
    let env = [("VMETRIC_VERSION", version.to_string()), ("VMETRIC_STATE", state.path("").display().to_string())];
    judge(hook::run(&path(state), &env, Duration::from_secs(limit_s), tick), limit_s)
}

/// What the end of a check means.
fn judge(end: ChildEnd, limit_s: u64) -> SelfCheck {
    let bad = |what: String| SelfCheck::Failed(Reason::new("check_failed", what));
    match end {
        ChildEnd::Exited(0, _) => SelfCheck::Passed,
        ChildEnd::Exited(CANNOT_TELL, said) => {
            SelfCheck::CouldNotTell(Reason::new("check_unsure", format!("the operator's check cannot tell: {}", last_line(&said))))
        }
        ChildEnd::Exited(code, said) => bad(format!("the operator's check said no ({code}): {}", last_line(&said))),
        // This process kills its child only when the time is over.
        ChildEnd::Signal(signal, _) if from_outside(signal) => {
            let detail = format!("the operator's check was killed from outside by signal {signal}, for want of memory or by a person");
            SelfCheck::CouldNotTell(Reason::new(KILLED, detail))
        }
        ChildEnd::Signal(signal, said) => bad(format!("the operator's check was killed by signal {signal}: {}", last_line(&said))),
        ChildEnd::TimedOut => bad(format!("the operator's check did not end within {limit_s} s")),
        ChildEnd::NotStarted(e) => {
            SelfCheck::CouldNotTell(Reason::new("check_not_run", format!("config/check could not be started: {e}; does it begin with #!")))
        }
    }
}

/// The last line with anything in it, harmless on a terminal and in a report.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no output");
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_MAX).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write scripts that are not durable")]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        (folder, state)
    }

    fn check(script: &str, mode: u32) -> SelfCheck {
        let (_folder, state) = state();
        write(path(&state), script).unwrap();
        set_permissions(path(&state), Permissions::from_mode(mode)).unwrap();
        loop {
            // A test beside this one may have forked while the script was open for writing.
            match run(&state, &"2.5.0".parse().unwrap(), 20) {
                SelfCheck::CouldNotTell(reason) if reason.detail.contains("busy") => {}
                checked => return checked,
            }
        }
    }

    fn told(check: SelfCheck) -> (bool, String, String) {
        match check {
            SelfCheck::Failed(r) => (true, r.code.to_string(), r.detail.clone()),
            SelfCheck::CouldNotTell(r) => (false, r.code.to_string(), r.detail.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exit_codes_and_last_lines() {
        let (_folder, none) = state();
        assert_eq!(run(&none, &"1.0.0".parse().unwrap(), 2), SelfCheck::Passed, "there is none");
        assert_eq!(check("#!/bin/sh\nexit 0\n", 0o755), SelfCheck::Passed);
        let (bad, code, detail) = told(check("#!/bin/sh\necho first\nprintf 'port \\033[2J closed\\n\\n' >&2\nexit 3\n", 0o755));
        assert!(bad && code == "check_failed" && detail.ends_with("(3): port  [2J closed"), "{detail:?}");
        let (bad, code, detail) = told(check("#!/bin/sh\necho not yet\nexit 75\n", 0o700));
        assert!(!bad && code == "check_unsure" && detail.ends_with("not yet"), "{detail}");
        for (signal, was_outside) in [("KILL", true), ("TERM", true), ("SEGV", false), ("ABRT", false)] {
            let (bad, code, detail) = told(check(&format!("#!/bin/sh\nkill -{signal} $$\n"), 0o755));
            assert!(bad != was_outside && (code == KILLED) == was_outside && detail.contains("by signal"), "{signal}: {detail}");
        }
        let (bad, code, detail) = told(check("#!/no/such/interpreter\n", 0o755));
        assert!(!bad && code == "check_not_run" && detail.contains("#!"), "{detail}");
        let long = told(check("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\nexit 1\n", 0o755)).2;
        assert!(long.chars().count() < LINE_MAX + 60, "{}", long.len());
    }

    #[test]
    fn it_is_bounded_and_leaves_nothing_behind() {
        let (folder, state) = state();
        let left = folder.path().join("left");
        // The child in the background would write after the check was given up.
        let script = format!("#!/bin/sh\n(sleep 4; echo > {}) &\nexec sleep 60\n", left.display());
        write(path(&state), script).unwrap();
        set_permissions(path(&state), Permissions::from_mode(0o755)).unwrap();
        let (bad, code, detail) = told(run(&state, &"1.0.0".parse().unwrap(), 1));
        assert!(bad && code == "check_failed" && detail.contains("within 1 s"), "{detail}");
        let group = std::process::Command::new("pgrep").args(["-f", left.to_str().unwrap()]).output().map(|o| o.stdout).unwrap_or_default();
        assert!(group.is_empty(), "{}", String::from_utf8_lossy(&group));
    }

    #[test]
    fn its_environment_is_ours_alone() {
        let (bad, _, detail) =
            told(check("#!/bin/sh\nenv | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort | tr '\\n' ' '\npwd\nexit 1\n", 0o755));
        assert!(bad && detail.contains("PATH=/usr/local/sbin:"), "{detail}");
        let names: Vec<&str> = detail.split(' ').filter_map(|w| w.split_once('=')).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "VMETRIC_STATE", "VMETRIC_VERSION"], "{detail}");
        assert!(detail.contains("VMETRIC_VERSION=2.5.0") && detail.ends_with("/"), "{detail}");
    }

    #[test]
    fn what_others_could_have_written_is_not_run() {
        for (mode, word) in [(0o644, "not executable"), (0o757, "changed by others"), (0o775, "changed by others")] {
            let (bad, code, detail) = told(check("#!/bin/sh\nexit 0\n", mode));
            assert!(!bad && code == "check_unusable" && detail.contains(word), "{mode:o}: {detail}");
        }
        let (_folder, state) = state();
        std::os::unix::fs::symlink("/bin/true", path(&state)).unwrap();
        assert_eq!(usable(&state).unwrap_err().code, "check_unusable");
        std::fs::remove_file(path(&state)).unwrap();
        write(path(&state), "#!/bin/sh\n").unwrap();
        set_permissions(path(&state), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(usable(&state), Ok(true));
        set_permissions(state.path("config"), Permissions::from_mode(0o777)).unwrap();
        assert!(usable(&state).unwrap_err().detail.contains("folder"));
    }
}
