//! One integration binary: the module list only.

#[cfg(unix)]
mod agent;
mod canonical;
mod core_props;
#[cfg(all(unix, feature = "demo"))]
mod demo;
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
mod frozen;
mod http_client;
mod launcher;
mod power_cut;
#[cfg(unix)]
mod release;
mod release_bench;
#[cfg(unix)]
mod release_keys;
mod release_python_tuf;
mod rollout;
mod serve;
mod tidy;
mod trust;
mod trust_cycle;
mod trust_delegation;
mod trust_ed25519;
mod trust_file;
mod trust_interop;
mod trust_repo;
mod trust_shapes;
mod trust_store;
