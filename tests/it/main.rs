//! One integration binary: the module list only.
#[cfg(unix)]
mod release;
mod release_bench;
#[cfg(unix)]
mod release_keys;
mod release_python_tuf;
