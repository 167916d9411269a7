//! What a binary says of itself: `--self-test` before the switch, the self-check after it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::build;
use super::fault::{Fault, built_in};
use super::world::Tested;
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::update::SelfCheck;
use crate::io::process::{ChildEnd, run_limited};
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

/// The running program's own file, even if its name has been taken by another since.
pub fn own_file() -> io::Result<std::path::PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
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

/// Runs a staged file's self-test, bounded.
pub fn run_self_test(program: &Path, limit_s: u64) -> Tested {
    let bad = |what: String| Tested::Bad(Reason::new("self_test_failed", what));
    match run_limited(program, &["--self-test"], Duration::from_secs(limit_s)) {
        ChildEnd::Exited(0, _) => Tested::Passed,
        ChildEnd::Exited(code, said) => bad(format!("the staged file's self-test ended with {code}: {}", last_line(&said))),
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

/// The device lacks something for the moment; the file is not at fault.
fn is_lack(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::ExecutableFileBusy)
        || matches!(e.raw_os_error(), Some(libc::ENFILE | libc::EMFILE | libc::EIO))
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or("no output").chars().take(160).collect()
}

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
        Err(reason) => SelfCheck::Failed(reason),
    }
}
