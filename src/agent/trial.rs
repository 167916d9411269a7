//! What a binary says of itself: `--self-test` before the switch, the self-check after it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::build;
use super::fault::{Fault, built_in};
use super::host::ROOT_UNREADABLE;
use super::world::Tested;
use crate::core::hex::{self, Sha256};
use crate::core::program_file::{self, Linkage, inspect_own};
use crate::core::reason::Reason;
use crate::core::release::Platform;
use crate::core::update::SelfCheck;
use crate::io::fs::read_head;
use crate::io::process::{ChildEnd, from_outside, is_lack, own_file, run_limited};
use crate::io::state::State;

/// Hash of a file, read in pieces.
pub fn hash_file(path: &Path) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => context.update(&piece[..n]),
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Ok(out)
}

/// `--self-test`: everything this file needs is there. Runs under the service's identity before anything stops.
/// It touches nothing.
pub fn self_test() -> Result<String, Reason> {
    if built_in() == Fault::SelfTest {
        return Err(Reason::new("self_test_failed", "this build fails its self-test"));
    }
    let failed = |what: &str| Reason::new("self_test_failed", what.to_string());
    // Opened, not hashed: the download has just checked these bytes, and the launcher checks them again before the start.
    own_file().and_then(File::open).map_err(|e| failed(&format!("cannot read its own file: {e}")))?;
    let abc = hex::encode(&hex::sha256(b"abc"));
    if !abc.starts_with("ba7816bf8f01cfea") {
        return Err(failed("SHA-256 is wrong on this processor"));
    }
    build::VERSION.parse::<crate::core::version::Version>().map_err(|e| failed(&e.to_string()))?;
    Ok(format!("ok {}", build::VERSION))
}

/// Whether this device can start a staged file, as far as the file itself says. What cannot be read is the self-test's to tell.
pub fn fits_here(program: &Path) -> Result<(), Reason> {
    let Ok((head, length)) = read_head(program, program_file::HEAD) else { return Ok(()) };
    let check = || {
        let found = inspect_own(&head, length)?;
        found.fits(&Platform::here())?;
        match &found.linkage {
            Linkage::Loader(loader) if !Path::new(loader).exists() => {
                let libc = found.libc();
                let detail = format!("needs {loader} ({libc}), which this device does not have; publish a static build");
                Err(Reason::new("missing_loader", detail))
            }
            _ => Ok(()),
        }
    };
    check().map_err(|reason: Reason| reason.of(program.display()))
}

/// Runs a staged file's self-test, bounded.
///
/// *Bad* is what the file did: a code, SIGSEGV, SIGILL, SIGABRT, a file that is no program here. *Could not tell* is what
/// was done to it: SIGKILL (the system was out of memory) and SIGTERM come from somebody else, because this process kills
/// its child only when the time is over, and a lack of anything at its start. No end in time is *bad*: the test takes
/// milliseconds, and a device on which it takes [`crate::core::times::Times::self_test_s`] could not keep its trial's time
/// either.
pub fn run_self_test(program: &Path, limit_s: u64) -> Tested {
    let bad = |what: String| Tested::Bad(Reason::new("self_test_failed", what));
    match run_limited(program, &["--self-test"], Duration::from_secs(limit_s)) {
        ChildEnd::Exited(0, _) => Tested::Passed,
        ChildEnd::Exited(code, said) => bad(format!("the staged file's self-test ended with {code}: {}", last_line(&said))),
        ChildEnd::Signal(signal, _) if from_outside(signal) => Tested::CouldNotTell(Reason::new(
            "self_test_killed",
            format!(
                "the staged file's self-test was killed from outside by signal {signal}, for want of memory or by a person; look at the kernel's log"
            ),
        )),
        ChildEnd::Signal(signal, said) => bad(format!("the staged file's self-test was killed by signal {signal}: {}", last_line(&said))),
        ChildEnd::TimedOut => bad(format!("the staged file's self-test did not end within {limit_s} s")),
        ChildEnd::NotStarted(e) if is_lack(&e) => {
            Tested::CouldNotTell(Reason::new("self_test_not_run", format!("the staged file could not be started now: {e}")))
        }
        ChildEnd::NotStarted(e) => bad(format!(
            "{} cannot be executed: {e}; wrong architecture, a missing C library, or a file system mounted noexec",
            program.display()
        )),
    }
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or("no output").chars().take(160).collect()
}

/// What could not be read now, for a cause outside the file.
const UNREADABLE: [&str; 2] = [ROOT_UNREADABLE, "state_error"];

/// The self-check of a running program: its own file is the one that the marks speak of, its configuration and trust
/// store can be read. That its state can be written shows when the marks note how far it came: without that there is no
/// confirmation. The authority is asked separately.
pub fn self_check(state: &State, own: &Sha256, expected: Option<&Sha256>, trust: &Result<(), Reason>) -> SelfCheck {
    let check = || -> Result<(), Reason> {
        if built_in() == Fault::SelfCheck {
            return Err(Reason::new("self_check_failed", "this build fails its self-check"));
        }
        if expected.is_some_and(|hash| hash != own) {
            return Err(Reason::new("self_check_hash", "the running file is not the one that the marks speak of"));
        }
        state.config()?;
        trust.clone()
    };
    match check() {
        Ok(()) => SelfCheck::Passed,
        // A disk that did not answer once says nothing of the file: done again while the trial's time lasts.
        Err(reason) if UNREADABLE.contains(&reason.code.as_ref()) => SelfCheck::CouldNotTell(reason),
        Err(reason) => SelfCheck::Failed(reason),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write scripts that are not durable")]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tested(program: &[u8]) -> (&'static str, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        write(&path, program).unwrap();
        set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        loop {
            match run_self_test(&path, 20) {
                Tested::Passed => return ("passed", String::new()),
                Tested::Bad(reason) => return ("bad", reason.code.to_string()),
                // A test beside this one may have forked while the script was open for writing.
                Tested::CouldNotTell(reason) if reason.detail.contains("busy") => {}
                Tested::CouldNotTell(reason) => return ("could_not_tell", reason.code.to_string()),
            }
        }
    }

    #[test]
    fn what_was_done_to_a_self_test_is_not_what_it_did() {
        let ended = |how: &str| tested(format!("#!/bin/sh\n{how}\n").as_bytes());
        assert_eq!(ended("exit 0").0, "passed");
        for signal in ["KILL", "TERM"] {
            assert_eq!(ended(&format!("kill -{signal} $$")), ("could_not_tell", "self_test_killed".into()));
        }
        for how in ["kill -SEGV $$", "kill -ILL $$", "kill -ABRT $$", "kill -BUS $$", "exit 1", "exit 75", "exit 137"] {
            assert_eq!(ended(how), ("bad", "self_test_failed".into()), "{how}");
        }
        assert_eq!(tested(b"#!/no/such/interpreter\n").0, "bad");
        assert_eq!(tested(b"\x7fELF\x02\x01\x01 of another processor").0, "bad");
        for errno in [libc::EIO, libc::ENOMEM, libc::EAGAIN, libc::EMFILE, libc::ENFILE, libc::ETXTBSY] {
            assert!(is_lack(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ENOEXEC, libc::ENOENT, libc::EACCES, libc::ELIBBAD, libc::EINVAL, libc::EISDIR] {
            assert!(!is_lack(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }

    #[test]
    fn a_file_that_cannot_start_here_is_named_before_it_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let own = std::fs::read(own_file().unwrap()).unwrap();
        let said = |bytes: &[u8]| {
            write(&path, bytes).unwrap();
            fits_here(&path).map_err(|reason| {
                assert!(reason.detail.contains(path.to_str().unwrap()), "{reason}");
                reason.code.to_string()
            })
        };
        assert_eq!(said(&own), Ok(()));
        assert_eq!(said(&own[..own.len() / 2]), Err("truncated_program".into()));
        assert_eq!(said(b"#!/bin/sh\n"), Err("not_a_program".into()));
        #[cfg(target_os = "linux")]
        {
            let mut other = own.clone();
            // The processor's number; nothing of ours runs on a VAX.
            other[18] = 75;
            assert_eq!(said(&other), Err("wrong_architecture".into()));
            let mut other = own.clone();
            if let Some(at) = own[..4096].windows(9).position(|w| w == b"ld-linux-") {
                other[at..at + 9].copy_from_slice(b"ld-nobody");
                assert_eq!(said(&other), Err("missing_loader".into()));
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fits_here(&path), Ok(()), "what cannot be read is not judged here");
    }

    #[test]
    fn what_cannot_be_read_now_is_no_fault_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let checked = |trust: Result<(), Reason>| self_check(&state, &[1; 32], Some(&[1; 32]), &trust);
        assert_eq!(checked(Ok(())), SelfCheck::Passed);
        assert!(matches!(checked(Err(Reason::new(ROOT_UNREADABLE, "x"))), SelfCheck::CouldNotTell(_)));
        assert!(matches!(checked(Err(Reason::new("no_root", "x"))), SelfCheck::Failed(_)));
        assert!(matches!(self_check(&state, &[1; 32], Some(&[2; 32]), &Ok(())), SelfCheck::Failed(_)));
    }
}
