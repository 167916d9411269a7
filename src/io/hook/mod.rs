//! The operator's own program: who may have written it, and its run.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{PATH, file, run, usable};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{file, run, usable};
