//! One integration binary: the module list only.

mod http_client;
mod power_cut;
mod serve;
