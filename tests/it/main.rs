//! One integration binary: the module list only.

#[cfg(unix)]
mod director;
#[cfg(unix)]
mod director_bench;
#[cfg(unix)]
mod director_mirror;
#[cfg(unix)]
mod director_orders;
#[cfg(unix)]
mod director_service;
mod http_client;
mod power_cut;
#[cfg(unix)]
mod release;
mod release_bench;
#[cfg(unix)]
mod release_keys;
mod release_python_tuf;
mod rollout;
mod serve;
