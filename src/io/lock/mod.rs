//! The two locks: `lock` around a change of the marks, `run.lock` for the life of the running agent.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::io::process;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::Lock;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::Lock;

/// Somebody else holds it.
#[derive(Debug)]
pub enum Taken {
    /// The holder's process id, as far as the file tells.
    By(Option<u32>),
    /// The lock file cannot be used.
    Error(io::Error),
}

/// Tries to take a lock before somebody is said to have it. A look ([`Lock::peek`]: `status`, `-version`) holds it for
/// microseconds, and must not end a program that starts in just that moment.
const TRIES_MAX: u32 = 25;
/// Between two of them: together a quarter of a second, which a second agent waits before it is told about the first.
const TRY_AGAIN: Duration = Duration::from_millis(10);

impl Lock {
    /// Takes the lock and writes this process's id into the file, or says who has it.
    pub fn take(path: &Path) -> Result<Lock, Taken> {
        Lock::take_with(path, || {
            process::sleep(TRY_AGAIN);
        })
    }

    fn take_with(path: &Path, mut pause: impl FnMut()) -> Result<Lock, Taken> {
        for _ in 1..TRIES_MAX {
            match Lock::try_take(path) {
                Err(Taken::By(_)) => pause(),
                other => return other,
            }
        }
        Lock::try_take(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_does_not_keep_a_program_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        drop(Lock::take(&path).unwrap());
        let look = std::fs::File::open(&path).unwrap();
        look.lock_shared().unwrap();
        let mut pauses = 0;
        let taken = Lock::take_with(&path, || {
            pauses += 1;
            if pauses == TRIES_MAX - 1 {
                look.unlock().unwrap();
            }
        });
        assert!(taken.is_ok(), "{taken:?} after {pauses} pauses");
        assert_eq!(pauses, TRIES_MAX - 1);
    }
}
