//! One integration binary: the module list only.
