//! One integration binary: the module list only.

mod power_cut;
