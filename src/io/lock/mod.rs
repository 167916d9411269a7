//! The two locks: `lock` around a change of the marks, `run.lock` for the life of the running agent.

use std::io;

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
