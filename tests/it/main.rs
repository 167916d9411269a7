//! One integration binary: the module list only.

mod http_client;
mod power_cut;
#[cfg(unix)]
mod release;
mod release_bench;
#[cfg(unix)]
mod release_keys;
mod release_python_tuf;
mod serve;
